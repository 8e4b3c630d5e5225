"""Parts of splits: in TFDS's notation, such as `train[:90%]`, and of each class by a random draw.

The first kind is of data that lies in folders; TFDS takes its own. The second, such as
`train[:30/class]`, is of any split whose images have one label.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from cnn_papers.errors import UserError

_FORM = re.compile(r"([\w .-]+?)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")
_OF_CLASSES = re.compile(r"(.+)\[(\d+)?:(\d+)?/class(?:, ?seed=(\d+))?\]")


class SplitSlice(NamedTuple):
    """A part of a split: its name, and both ends as they are written, None where they are open."""

    name: str
    start: str | None
    stop: str | None

    @property
    def suffix(self) -> str:
        """What follows the name: `[:90%]`, or nothing for a whole split."""
        if self.start is None and self.stop is None:
            return ""
        return f"[{self.start or ''}:{self.stop or ''}]"


def parse(split: str) -> SplitSlice:
    """Returns what `split` asks for; UserError if it is written in another way."""
    parsed = _FORM.fullmatch(split)
    if not parsed:
        raise UserError(
            f"cannot read the split {split!r}: "
            "write for example train, val, train[:90%], train[:1000] or train[:30/class]"
        )
    return SplitSlice(*parsed.groups())


def take(images: list[str], part: SplitSlice, place: str) -> list[str]:
    """Returns a part of a split's `images`, which are in `place`.

    Raises:
      UserError: the part is empty or reaches beyond the images.
    """
    split = f"{part.name}{part.suffix}"
    first = _bound(part.start, len(images), 0, split, place)
    end = _bound(part.stop, len(images), len(images), split, place)
    if not images[first:end]:
        raise UserError(f"split {split!r} of {place} is empty: there are {len(images):,} images")
    return images[first:end]


def _bound(text: str | None, count: int, default: int, split: str, place: str) -> int:
    """Returns one end of a slice, such as `90%`, `-10%` or `1000`, as an index in 0 … count."""
    if not text:
        return default
    value = int(text.rstrip("%"))
    if text.endswith("%"):
        value = round(value * count / 100) if abs(value) <= 100 else count + 1
    index = value + count if value < 0 else value
    if not 0 <= index <= count:
        raise UserError(f"split {split!r} reaches beyond the {count:,} images of {place}")
    return index


# --- parts of each class --------------------------------------------------------------------------


class ClassSlice(NamedTuple):
    """As many images of each class of a split, in an order that a seed draws.

    Attributes:
      split: all that stands before the brackets.
      start, stop: the first image of each class, and the one after the last; None for all.
      seed: of the draw.
    """

    split: str
    start: int
    stop: int | None
    seed: int

    @property
    def suffix(self) -> str:
        """What follows the split, in one way for all ways to write it."""
        stop = "" if self.stop is None else self.stop
        return f"[{self.start or ''}:{stop}/class, seed={self.seed}]"


def parse_of_classes(split: str, seed: int = 0) -> ClassSlice | None:
    """Returns the part of each class that `split` asks for; None if it asks for another.

    `seed` is of a draw that names none.
    """
    parsed = _OF_CLASSES.fullmatch(split)
    if parsed is None:
        return None
    name, start, stop, own_seed = parsed.groups()
    return ClassSlice(
        name, int(start or 0), int(stop) if stop else None, int(own_seed) if own_seed else seed
    )


def with_seed(split: str, seed: int) -> str:
    """Returns `split` with `seed` for a draw that names none; another split as it is."""
    part = parse_of_classes(split, seed)
    return split if part is None else part.split + part.suffix


def take_of_classes(
    labels: Sequence[int], class_names: Sequence[str], part: ClassSlice, place: str
) -> tuple[list[int], list[str]]:
    """Returns the images of a part, as indices in their order; and names of classes with fewer.

    The order of a class depends on the seed, its name and the number of its images only. Parts
    that start where others stop have no image in common. The first images of a class, a part from
    0 to a number, are so many or none: a later part stops where the class does.

    Args:
      labels: of all images of the split; -1 for one that has none.
      class_names: in the order of the labels.
      part: the one to take.
      place: name of the split, for messages.

    Raises:
      UserError: a class of fewer images than the first ones asked for, an empty part.
    """
    images_of: dict[int, list[int]] = {label: [] for label in range(len(class_names))}
    for i, label in enumerate(labels):
        if label >= 0:
            images_of[label].append(i)
    chosen: list[int] = []
    short: list[str] = []
    for label, images in images_of.items():
        name = class_names[label]
        if part.stop is not None and len(images) < part.stop:
            short.append(name)
        if short and not part.start:
            raise UserError(
                f"split {part.split + part.suffix!r}: the class {name} of {place} has "
                f"{len(images):,} images: take fewer of each class"
            )
        order = sorted(range(len(images)), key=lambda place: _drawn(part.seed, name, place))
        chosen += [images[k] for k in order[part.start : part.stop]]
    if not chosen:
        raise UserError(
            f"split {part.split + part.suffix!r} is empty: no class of {place} has so many images"
        )
    return sorted(chosen), short


def _drawn(seed: int, name: str, place: int) -> bytes:
    return hashlib.sha256(f"{seed} {name} {place}".encode()).digest()
