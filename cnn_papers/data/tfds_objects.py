"""Reads the boxes of TFDS data sets, without decoding images."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from cnn_papers.data import image_files
from cnn_papers.data.objects import NO_OBJECTS, check_bad_boxes, to_objects
from cnn_papers.data.progress import reported
from cnn_papers.data.split import DamagedExample, Objects
from cnn_papers.errors import UserError

_PART = 256  # records that are read at once


def has_boxes(features: Any) -> bool:
    """Tells whether a data set has `objects` with a box and a class, one of the images' own."""
    import tensorflow_datasets as tfds

    of_image = by_name(features)
    of_object = by_name(getattr(of_image.get("objects"), "feature", None))  # of a Sequence
    label = of_object.get("label")
    if not isinstance(label, tfds.features.ClassLabel):
        return False
    has_same_classes = getattr(of_image.get("label", label), "names", None) == label.names
    return has_same_classes and isinstance(of_object.get("bbox"), tfds.features.BBoxFeature)


def by_name(features: Any) -> dict[str, Any]:
    """Returns the features of a FeaturesDict by name; none of features of another kind."""
    import tensorflow_datasets as tfds

    is_dict = isinstance(features, tfds.features.FeaturesDict)
    return {name: features[name] for name in features} if is_dict else {}


def first_pixel(builder: Any) -> int:
    """Returns the number of the first row and column in the boxes of a data set.

    TFDS divides VOC's own numbers, which count from 1, by the size.
    """
    return 1 if builder.name == "voc" else 0


def read_objects(
    examples: Any, class_names: Sequence[str], first: int, max_bad_boxes: int
) -> list[Objects]:
    """Returns the objects of all examples; of an image only the header is read.

    An example that cannot be read has none: whoever reads its image leaves it out or refuses it.

    Args:
      examples: those of a split, as `tfds` opens them.
      class_names: of the objects.
      first: as `first_pixel` returns it.
      max_bad_boxes: how many boxes may be left out.

    Raises:
      UserError: there are more bad boxes, or no boxes at all.
    """

    def convert(index: int, features: Any) -> tuple[Objects, list[str]]:
        declared = image_files.declared_size(features["image"].bytes_list.value[0])
        if declared is None:
            raise ValueError("its image declares no size")
        size = declared.upright
        labels = list(features["objects/label"].int64_list.value)
        shares = np.array(features["objects/bbox"].float_list.value, np.float64).reshape(-1, 4)
        # The shares are float32: they are within a thousandth of a pixel of what was divided.
        edges = np.round(shares * (*size, *size), 3)
        difficult = [False] * len(labels)
        if "objects/is_difficult" in features:
            difficult = [bool(value) for value in features["objects/is_difficult"].int64_list.value]

        def describe(i: int) -> str:
            image = examples.identifier(index, features)
            return f"object {i + 1} ({class_names[labels[i]]}) of {image}"

        return to_objects(edges, labels, difficult, size, first=first, describe=describe)

    def read_part(start: int) -> list[tuple[Objects, list[str]]]:
        indices = range(start, min(start + _PART, len(examples)))
        try:
            return examples.read(indices, convert)
        except DamagedExample:
            return [read_one(i) for i in indices]

    def read_one(index: int) -> tuple[Objects, list[str]]:
        try:
            return examples.read([index], convert)[0]
        except DamagedExample:
            return NO_OBJECTS, []

    parts = map(read_part, range(0, len(examples), _PART))
    read = list(
        itertools.chain.from_iterable(
            reported(parts, len(examples), f"reading the boxes of {examples.name}", size=len)
        )
    )
    check_bad_boxes([what for _, bad in read for what in bad], examples.name, max_bad_boxes)
    objects = [of_image for of_image, _ in read]
    if not any(len(of_image.classes) for of_image in objects):
        raise UserError(f"no image of {examples.name} has a box: its annotations are not public")
    return objects
