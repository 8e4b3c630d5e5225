"""What a detector finds in images, its file in a run's folder, and its mean average precision.

The file keeps the true objects too, so that scores can be taken again without network and data.
"""

import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cnn_papers import files
from cnn_papers.data.split import Objects
from cnn_papers.errors import UserError, listed
from cnn_papers.evaluation import average_precision
from cnn_papers.evaluation.average_precision import Curve, mean_average_precisions
from cnn_papers.evaluation.results import Result

FILE = "detections.npz"  # a run keeps its own under this name
HEADLINE, MEASURES = average_precision.HEADLINE, average_precision.MEASURES
_TRUE = ("boxes", "classes", "difficult")  # the arrays of `Objects`
_NO_ROWS = {
    "boxes": np.zeros((0, 4), np.float32),
    "classes": np.zeros(0, np.int32),
    "scores": np.zeros(0, np.float32),
    "difficult": np.zeros(0, np.bool_),
}


class Detections(NamedTuple):
    """What is found in one image, the best first; or the guesses of a localizer.

    Attributes:
      boxes: float32 [k, 4], in pixels of the upright original image, see `boxes`.
      classes: int32 [k], labels.
      scores: float32 [k], falling.
    """

    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray


class Outcome(NamedTuple):
    """The result of a pass of a detector or localizer over the images of a test.

    Attributes:
      detections: of every image, in the split's order.
      objects: the true ones, of every image.
      programs: number of programs that were used.
      seconds: of the pass, without `compiling`.
      compiling: seconds that it took to compile the programs.
      enlarged: number of images that are smaller than the protocol's largest scale.
    """

    detections: Sequence[Detections]
    objects: Sequence[Objects]
    programs: int
    seconds: float
    compiling: float
    enlarged: int = 0


class Kept(NamedTuple):
    """The detections of one protocol, as a run keeps them.

    Attributes:
      protocol: its text in `config.eval.protocol`.
      split: the name of the tested split.
      step: of the network.
      class_names: in the order of the labels.
      detections, objects: of every image, in the split's order.
    """

    protocol: str
    split: str
    step: int
    class_names: tuple[str, ...]
    detections: Sequence[Detections]
    objects: Sequence[Objects]


# --- scores ---------------------------------------------------------------------------------------


def curves(
    detections: Sequence[Detections], objects: Sequence[Objects], classes: int
) -> list[Curve | None]:
    """Returns the precision and recall of every class; None where it has no object to be found.

    Args:
      detections, objects: of every image.
      classes: number of classes; detections of others, such as a background, do not count.
    """
    found, found_images = _all_images(detections, Detections._fields)
    true, true_images = _all_images(objects, _TRUE)

    def of_class(label: int) -> Curve | None:
        in_found, in_true = found["classes"] == label, true["classes"] == label
        truth = average_precision.Truth(
            true_images[in_true], true["boxes"][in_true], true["difficult"][in_true]
        )
        if not truth.positives:
            return None
        detected = average_precision.Found(
            found_images[in_found], found["boxes"][in_found], found["scores"][in_found]
        )
        return average_precision.of_detections(detected, truth)

    return [of_class(label) for label in range(classes)]


def precisions(detections: Sequence[Detections], objects: Sequence[Objects]) -> dict[str, float]:
    """Returns the values of MEASURES in percent, by name; of every image's detections, objects."""
    classes = 1 + max((label for image in objects for label in image.classes.tolist()), default=0)
    return mean_average_precisions(curves(detections, objects, classes))


def result_of(
    who: str, protocol: str, outcomes: Sequence[Outcome], class_names: Sequence[str]
) -> Result:
    """Returns the mAP of a detector, and the average precision of each class by 11 points.

    Args:
      who, protocol: as in Result.
      outcomes: one, since detections of several networks have no mean.
      class_names: in the order of the labels.

    Raises:
      UserError: there is no object to be found in any image.
    """
    (outcome,) = outcomes
    found = curves(outcome.detections, outcome.objects, len(class_names))
    if not any(found):
        raise UserError(
            f"{protocol}: no image of the test has an object that is not difficult, so there is "
            "no average precision; test another split with --config.data.eval_split"
        )
    return Result(
        who=who,
        protocol=protocol,
        values=mean_average_precisions(found),
        by_class=average_precision.by_class(found, "object", class_names),
        images=len(outcome.objects),
        programs=outcome.programs,
        seconds=outcome.seconds,
        compiling=outcome.compiling,
        notes=_notes(outcome.objects, found, class_names),
    )


def _notes(
    objects: Sequence[Objects], found: Sequence[Curve | None], class_names: Sequence[str]
) -> tuple[str, ...]:
    """Returns the lines that say how difficult objects are counted; none without any."""
    difficult = sum(int(image.difficult.sum()) for image in objects)
    if not difficult:
        return ()
    several = "object is" if difficult == 1 else "objects are"
    note = f"{difficult:,} {several} difficult and count neither as found nor as missed"
    present = {int(label) for image in objects for label in image.classes}
    names = [class_names[label] for label in sorted(present) if found[label] is None]
    return (note, f"all objects of {listed(names)} are difficult") if names else (note,)


def check(detections: Detections, size: tuple[int, int], name: str) -> None:
    """Refuses what no detector should give: values that are not finite, boxes outside the image.

    Args:
      detections: of one image.
      size: (height, width) of the image.
      name: of the image and its split, for the message.

    Raises:
      UserError: a box or score is not finite, or a box and the image do not intersect.
    """
    boxes, scores = detections.boxes, detections.scores
    finite = np.isfinite(boxes).all(1) & np.isfinite(scores)
    inside = (np.minimum(boxes[:, 2:], size) > np.maximum(boxes[:, :2], 0)).all(1)
    wrong = np.flatnonzero(~finite | ~inside)
    if not len(wrong):
        return
    first = wrong[0]
    edges = ", ".join(f"{edge:.1f}" for edge in boxes[first])
    problem = f"a box [{edges}] that does not intersect its {size[0]}×{size[1]} pixels"
    if not finite[first]:
        problem = f"a box [{edges}] with score {scores[first]:.3g}, which is not finite"
    raise UserError(
        f"{name}: the network finds {problem}; it has diverged or was trained too little"
    )


# --- the file -------------------------------------------------------------------------------------


def save(path: pathlib.Path, kept: Kept) -> None:
    """Writes detections to the file `path`, beside those of other protocols and splits in it.

    They replace earlier ones of the same protocol and split. The file is written in one step; one
    that is damaged is replaced, with a warning.

    Raises:
      OSError: nothing can be written there.
    """
    try:
        earlier = load(path) if path.exists() else []
    except UserError as error:
        logging.getLogger(__name__).warning("%s; it is written anew", error)
        earlier = []
    others = [one for one in earlier if (one.protocol, one.split) != (kept.protocol, kept.split)]
    arrays: dict[str, Any] = {}
    for i, one in enumerate([*others, kept]):
        arrays |= {f"{i}/{name}": array for name, array in _to_arrays(one).items()}
    with files.replacing(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)


def load(path: pathlib.Path) -> list[Kept]:
    """Reads the detections of all protocols and splits that `save` wrote, the newest last.

    Raises:
      UserError: the file is damaged or missing.
    """
    try:
        entries: dict[int, dict[str, np.ndarray]] = {}
        for key, array in files.read_npz(path).items():
            number, _, name = key.partition("/")
            entries.setdefault(int(number), {})[name] = array
        return [_from_arrays(entries[i]) for i in sorted(entries)]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"the detections in {path} cannot be read ({error}); "
            "delete the file and test the run again"
        ) from error


def _to_arrays(kept: Kept) -> dict[str, Any]:
    """Returns the arrays of a Kept: those of all images one after the other, and their numbers."""
    found, found_images = _all_images(kept.detections, Detections._fields)
    true, true_images = _all_images(kept.objects, _TRUE)
    images = len(kept.objects)
    return {
        "protocol": kept.protocol,
        "split": kept.split,
        "step": kept.step,
        "class_names": np.array(kept.class_names),
        "sizes": np.array([image.size for image in kept.objects], np.int32).reshape(images, 2),
        "found/count": np.bincount(found_images, minlength=images),
        **{f"found/{name}": array for name, array in found.items()},
        "true/count": np.bincount(true_images, minlength=images),
        **{f"true/{name}": array for name, array in true.items()},
    }


def _from_arrays(arrays: Mapping[str, np.ndarray]) -> Kept:
    """Returns what `_to_arrays` took apart."""

    def images(kind: str, names: Sequence[str]) -> list[tuple[np.ndarray, ...]]:
        ends = np.cumsum(arrays[f"{kind}/count"])
        columns = [np.split(arrays[f"{kind}/{name}"], ends[:-1]) for name in names]
        return list(zip(*columns, strict=True))

    detections = [Detections(*image) for image in images("found", Detections._fields)]
    objects = [
        Objects(*image, size=(int(height), int(width)))
        for image, (height, width) in zip(images("true", _TRUE), arrays["sizes"], strict=True)
    ]
    return Kept(
        str(arrays["protocol"]),
        str(arrays["split"]),
        int(arrays["step"]),
        tuple(arrays["class_names"].tolist()),
        detections,
        objects,
    )


def _all_images(
    images: Sequence[Any], names: Sequence[str]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Returns the arrays `names` of all images, joined, and the number of the image of each row."""
    joined = {
        name: np.concatenate(
            [_NO_ROWS[name], *(getattr(image, name) for image in images)],
            dtype=_NO_ROWS[name].dtype,
        )
        for name in names
    }
    rows = [len(image.classes) for image in images]
    return joined, np.repeat(np.arange(len(images)), rows)
