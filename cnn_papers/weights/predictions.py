"""Predicted classes of images beside their true ones, as text and as JSON."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cnn_papers.terminal import counted
from cnn_papers.weights.named_images import NamedImage
from cnn_papers.weights.predictor import Predictor

Row = dict[str, Any]  # a class: `class`, its name; `label`; `probability` or `score`


class Prediction(NamedTuple):
    """An image with its predicted classes.

    Attributes:
      path: its file.
      classes: the most probable, the best first.
      true_class: the row of the true class; None if that is unknown.
    """

    path: pathlib.Path
    classes: list[Row]
    true_class: Row | None

    @property
    def is_wrong(self) -> bool:
        """True if the best class is known to be another than the true one."""
        return bool(self.true_class) and self.true_class["class"] != self.classes[0]["class"]

    @property
    def mark(self) -> str:
        """The comparison in words; "" if the true class is unknown."""
        if not self.true_class:
            return ""
        return f"wrong: true {self.true_class['class']}" if self.is_wrong else "right"


def of_image(
    image: NamedImage, outputs: np.ndarray, predictor: Predictor, top: int, *, compare: bool
) -> Prediction:
    """Returns the `top` classes of an image; with `compare` beside its true class, if known.

    `outputs` [classes] are probabilities or scores.
    """
    names = predictor.class_names
    key = "score" if predictor.has_scores else "probability"

    def row(label: int) -> Row:
        return {"class": names[label], "label": int(label), key: float(outputs[label])}

    classes = [row(label) for label in np.argsort(-outputs, kind="stable")[:top]]
    is_known = compare and bool(image.true_class)
    return Prediction(image.path, classes, row(names.index(image.true_class)) if is_known else None)


def worst_first(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Returns those that are wrong, in descending order of the wrong class's probability."""
    wrong = [prediction for prediction in predictions if prediction.is_wrong]
    return sorted(wrong, key=lambda prediction: -prediction.classes[0]["probability"])


def class_text(row: Row) -> str:
    """Returns a class with its probability or score."""
    if "score" in row:
        return f"{row['score']:8.3f}  {row['class']}"
    return f"{100 * row['probability']:7.2f}%  {row['class']}"


def as_text(prediction: Prediction) -> str:
    """Returns an image with its classes, one a line."""
    mark = f"  {prediction.mark}" if prediction.mark else ""
    return "\n".join([f"{prediction.path}{mark}", *map(class_text, prediction.classes)])


def as_json(prediction: Prediction) -> str:
    """Returns the line of JSON of an image; it has `true` and `wrong` if its class is known."""
    row: Row = {"image": str(prediction.path), "classes": prediction.classes}
    if prediction.true_class:
        row |= {"true": prediction.true_class, "wrong": prediction.is_wrong}
    return json.dumps(row)


def count_text(predictions: Sequence[Prediction]) -> str:
    """Returns how many of the images whose class is known are wrong."""
    known = [prediction for prediction in predictions if prediction.true_class]
    wrong = sum(prediction.is_wrong for prediction in known)
    images = counted(len(known), "image")
    which = "" if len(known) == len(predictions) else " in class folders"
    return f"{wrong:,} of {images}{which} wrong: top-1 error {100 * wrong / len(known):.2f}%"


def list_lines(wrong: Sequence[Prediction]) -> list[str]:
    """Returns a line for each prediction that is wrong."""
    rows = []
    for prediction in wrong:
        true = prediction.true_class or {}
        chance = f"{100 * true['probability']:.2f}%"
        best = class_text(prediction.classes[0])
        rows.append((best, f"(true: {true['class']}, {chance})", str(prediction.path)))
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    return [f"{best:<{widths[0]}}  {true:<{widths[1]}}  {path}" for best, true, path in rows]
