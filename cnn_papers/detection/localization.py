"""The values of a localizer: ILSVRC's error with 5 guesses and with one."""

from collections.abc import Sequence

import numpy as np

from cnn_papers.data.split import Objects
from cnn_papers.detection.detections import Detections, Outcome
from cnn_papers.errors import UserError
from cnn_papers.evaluation import class_values
from cnn_papers.evaluation.localization_error import GUESSES, found_objects
from cnn_papers.evaluation.results import Result
from cnn_papers.facts import Measure

HEADLINE = Measure("localization_error", "localization error", "%")  # with 5 guesses
ONE_GUESS = Measure("localization_error_1", "with one guess", "%")
MEASURES = (HEADLINE, ONE_GUESS)
BY_CLASS = HEADLINE._replace(name="mean_class_error")


def errors(guesses: Sequence[Detections], objects: Sequence[Objects]) -> dict[str, float]:
    """Returns the values of MEASURES in percent, by name: errors over images with an object.

    They are 100 where no image has any.

    Args:
      guesses: of every image, the best first.
      objects: the true ones, of every image.
    """
    with_objects = [pair for pair in zip(guesses, objects, strict=True) if len(pair[1].classes)]

    def error(number: int) -> float:
        wrong = [
            not found_objects(guess.boxes, guess.classes, image, number).any()
            for guess, image in with_objects
        ]
        return 100 * float(np.mean(wrong)) if wrong else 100.0

    return {HEADLINE.name: error(GUESSES), ONE_GUESS.name: error(1)}


def result_of(
    who: str, protocol: str, outcomes: Sequence[Outcome], class_names: Sequence[str]
) -> Result:
    """Returns the errors of a localizer, and of each class those with 5 guesses.

    The error of a class is of the images with an object of it: of those in which no guess finds
    one.

    Args:
      who, protocol: as in Result.
      outcomes: one, since the guesses of several networks have no mean.
      class_names: in the order of the labels.

    Raises:
      UserError: no image has an object.
    """
    (outcome,) = outcomes
    without = sum(len(image.classes) == 0 for image in outcome.objects)
    if without == len(outcome.objects):
        raise UserError(
            f"{protocol}: no image of the test has an object, so there is no localization error; "
            "test another split with --config.data.eval_split"
        )
    images, wrong = np.zeros((2, len(class_names)), int)
    for guess, image in zip(outcome.detections, outcome.objects, strict=True):
        found = found_objects(guess.boxes, guess.classes, image)
        present = np.unique(image.classes)
        images[present] += 1
        wrong[np.setdiff1d(present, image.classes[found])] += 1
    several = "image has no object and is" if without == 1 else "images have no object and are"
    return Result(
        who=who,
        protocol=protocol,
        values=errors(outcome.detections, outcome.objects),
        by_class=class_values.of_classes(
            BY_CLASS,
            "image",
            class_names,
            images.tolist(),
            (100 * wrong / np.maximum(images, 1)).tolist(),
        ),
        images=len(outcome.objects),
        programs=outcome.programs,
        seconds=outcome.seconds,
        compiling=outcome.compiling,
        notes=(f"{without:,} {several} left out",) if without else (),
    )
