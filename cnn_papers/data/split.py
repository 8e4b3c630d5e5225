"""A split of a data set: a random-access sequence of encoded examples."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from cnn_papers.boxes import NONE
from cnn_papers.errors import UserError, did_you_mean, listed


class DamagedExample(UserError):
    """An example cannot be read; the message says which. Training may leave some out."""


class Objects(NamedTuple):
    """The objects of one image, in the order of its annotation.

    Attributes:
      boxes: float32 [k, 4], in pixels of the upright image, see `boxes`.
      classes: int32 [k], labels.
      difficult: bool [k]; VOC's mark of objects that a detector need not find.
      size: (height, width) of the upright image.
    """

    boxes: np.ndarray
    classes: np.ndarray
    difficult: np.ndarray
    size: tuple[int, int]

    @classmethod
    def of_row(cls, batch: Mapping[str, np.ndarray], row: int, size: tuple[int, int]) -> "Objects":
        """Returns the objects of one image of a batch, in pixels of the image as prepared.

        `batch` has `boxes`, `classes` and `difficult` as `pipeline.Pipeline.train_batches` says;
        `size` is the (height, width) of its images.
        """
        real = batch["classes"][row] != NONE
        boxes, classes, difficult = (
            batch[name][row][real] for name in ("boxes", "classes", "difficult")
        )
        return cls(boxes, classes, difficult, size)

    def easy(self) -> np.ndarray:
        """Returns the rows of the objects that are not difficult, int [k']."""
        return np.flatnonzero(~self.difficult)


class Split(NamedTuple):
    """One split, opened for reading: `examples` may be read by many threads at once.

    Attributes:
      name: such as 'cifar10[train[:45000]]' or 'folder:/x[train]'.
      examples: {'image': encoded bytes, 'label': int, 'id': str}; data with boxes may have images
        without a label of their own, and their examples then lack the key.
      class_names: in the order of the labels.
      location: the folder that the bytes are read from.
      labels: of all examples, if known without reading them.
      objects: of all examples, where the data set has boxes; known without reading images.
      proposals: boxes that may hold an object, float32 [p, 4] for each example, where a run needs
        them.
    """

    name: str
    examples: Sequence[dict[str, Any]]
    class_names: tuple[str, ...]
    location: str
    labels: Sequence[int] | None = None
    objects: Sequence[Objects] | None = None
    proposals: Sequence[np.ndarray] | None = None


def with_classes_of(
    split: Split, class_names: Sequence[str], *, network: str = "the network"
) -> Split:
    """Returns `split` with the labels that its classes have for a head of `class_names`.

    A class is known by its name, not by its number in the split. Of a head that has no names the
    labels stay as they are.

    Args:
      split: any split.
      class_names: one for each output of the head, or for the first of them; () if unknown.
      network: what the head is part of, for messages.

    Raises:
      UserError: the split has a class that the head does not know.
    """
    known, own = tuple(class_names), split.class_names
    if not known or own == known:
        return split
    outputs = {name: output for output, name in enumerate(known)}
    unknown = [name for name in own if name not in outputs]
    if unknown:
        known_text = f"it knows {listed(known)}"
        if len(unknown) == 1:
            known_text = f"{did_you_mean(unknown[0], known)} {known_text}".lstrip()
        raise UserError(
            f"{split.name} has classes that {network} does not know: {listed(unknown)}; "
            f"{known_text}"
        )
    new_labels = {label: outputs[name] for label, name in enumerate(own)}
    labels = None if split.labels is None else [new_labels[label] for label in split.labels]
    objects = split.objects and [
        image._replace(classes=np.array([new_labels[i] for i in image.classes], np.int32))
        for image in split.objects
    ]
    examples = _Relabelled(split.examples, new_labels)
    return split._replace(examples=examples, class_names=known, labels=labels, objects=objects)


def only(split: Split, indices: Sequence[int]) -> Split:
    """Returns `split` with the examples at `indices`, in this order."""

    def chosen(values: Sequence[Any] | None) -> list[Any] | None:
        return None if values is None else [values[i] for i in indices]

    return split._replace(
        examples=_Chosen(split.examples, indices),
        labels=chosen(split.labels),
        objects=chosen(split.objects),
        proposals=chosen(split.proposals),
    )


class _Chosen(Sequence):
    """The examples at some indices of others."""

    def __init__(self, examples: Sequence[dict[str, Any]], indices: Sequence[int]):
        self._examples, self._indices = examples, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._examples[i] for i in self._indices[index]]
        return self._examples[self._indices[index]]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Reads the examples at `indices`, at once where the data set can."""
        return _read_many(self._examples, [self._indices[i] for i in indices])


def _read_many(examples: Any, indices: Sequence[int]) -> list[dict[str, Any]]:
    read_many = getattr(examples, "__getitems__", None)
    return read_many(indices) if read_many else [examples[i] for i in indices]


class _Relabelled(Sequence):
    """Examples with other labels; a label that is out of range becomes -1, which no network has."""

    def __init__(self, examples: Sequence[dict[str, Any]], new_labels: dict[int, int]):
        self._examples, self._new_labels = examples, new_labels

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: Any) -> Any:
        chosen = self._examples[index]
        return [*map(self._changed, chosen)] if isinstance(index, slice) else self._changed(chosen)

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Reads the examples at `indices`, at once where the data set can."""
        return [self._changed(example) for example in _read_many(self._examples, indices)]

    def _changed(self, example: dict[str, Any]) -> dict[str, Any]:
        if "label" not in example:
            return example
        return {**example, "label": self._new_labels.get(example["label"], -1)}
