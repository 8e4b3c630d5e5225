"""Reads the text files of ImageSets/Main, in a folder of VOC's layout.

They are image sets, with the name of an image a line, and files CLASS_SET, which have 1, 0 or -1
beside each image: whether it shows the class.
"""

import pathlib
from collections.abc import Sequence

from cnn_papers.data.voc_annotations import Annotation
from cnn_papers.errors import UserError

FOLDER = "ImageSets/Main"
USUAL = ("train", "val", "trainval", "test")  # names of sets


def read_lines(path: pathlib.Path) -> list[str]:
    """Returns the lines of an image set that are not empty."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"the image set {path} is no text in UTF-8: save it as such") from None
    except OSError as error:
        raise UserError(f"cannot read the image set {path}: {error.strerror}") from error
    return [line.strip() for line in lines if line.strip()]


def is_of_one_class(name: str, lines: Sequence[str]) -> bool:
    """Tells whether a set CLASS_SPLIT has a label of that class, -1, 0 or 1, beside each image."""
    is_named_so = name.endswith(tuple(f"_{split}" for split in USUAL))
    return is_named_so and all(line.split()[-1] in ("-1", "0", "1") for line in lines[:100])


def check_sets_of_classes(
    folder: pathlib.Path, name: str, annotations: dict[str, Annotation]
) -> None:
    """Raises UserError if a file CLASS_`name` contradicts the annotation of an image.

    Its label is 1 for an image with an object of the class, 0 where all of them are difficult, -1
    where there are none.
    """
    for path in sorted(folder.glob(f"*_{name}.txt")):
        lines = read_lines(path)
        if not is_of_one_class(path.stem, lines):
            continue
        of_class = path.stem.removesuffix(f"_{name}")
        for line in lines:
            image, label, *_ = [*line.rsplit(maxsplit=1), ""]
            if image not in annotations:
                continue
            found = [each for each in annotations[image].objects if each.name == of_class]
            expected, words = "-1", f"has no {of_class}"
            if found:
                expected, words = "0", f"has only difficult objects of the class {of_class}"
            if not all(each.is_difficult for each in found):
                words = f"has an object of the class {of_class} that is not difficult"
                expected = "1"
            if label != expected:
                raise UserError(
                    f"{path} has the label {label!r} for image {image}, whose annotation {words}: "
                    f"write {expected} there, correct the annotation, or remove the file"
                )
