"""Splits in TFDS's notation, such as `train[:90%]`, of data that lies in folders."""

import re
from typing import NamedTuple

from cnn_papers.errors import UserError

_FORM = re.compile(r"([\w .-]+?)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")


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
            "write for example train, val, train[:90%] or train[:1000]"
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
