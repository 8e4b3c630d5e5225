"""Top-1 errors of a test by class, and their mean, in which every class counts alike.

The mean is the balanced error: unlike the top-1 error of all images, it does not hide a rare class.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cnn_papers.errors import listed

ALL, WORST = 20, 10  # up to ALL classes are shown, of more the WORST with the largest errors


class ClassErrors(NamedTuple):
    """Top-1 errors by class.

    Attributes:
      names: of the classes that have images, in the order of the labels.
      images: number of images of each.
      errors: top-1 error of each in percent.
      absent: names of the classes without an image.
    """

    names: tuple[str, ...]
    images: tuple[int, ...]
    errors: tuple[float, ...]
    absent: tuple[str, ...]

    @property
    def mean(self) -> float:
        """The mean of the errors, in percent."""
        return float(np.mean(self.errors))


def by_class(wrong: np.ndarray, label: np.ndarray, class_names: Sequence[str]) -> ClassErrors:
    """Counts the errors of each class.

    Args:
      wrong: 1 for every image whose class was not found, else 0; [n].
      label: int [n].
      class_names: in the order of the labels.
    """
    images: list[int] = np.bincount(label, minlength=len(class_names)).tolist()
    errors: list[float] = np.bincount(label, wrong, minlength=len(class_names)).tolist()
    counts = list(zip(class_names, images, errors, strict=True))
    return ClassErrors(
        names=tuple(name for name, count, _ in counts if count),
        images=tuple(count for _, count, _ in counts if count),
        errors=tuple(100 * number / count for _, count, number in counts if count),
        absent=tuple(name for name, count, _ in counts if not count),
    )


def table(columns: Mapping[str, ClassErrors]) -> list[str]:
    """Returns the lines of a table of one or more tests of the same images, by their headings.

    Of more than ALL classes it has the WORST of the first test.
    """
    first = next(iter(columns.values()))
    count = len(first.names)
    shown = list(range(count))
    title = "top-1 error by class"
    if count > ALL:
        shown = sorted(shown, key=lambda i: -first.errors[i])[:WORST]
        title = f"the {WORST} largest of {count}"
    last = f"mean of {count} {'class' if count == 1 else 'classes'}"
    names = max(len(text) for text in (title, last, *(first.names[i] for i in shown)))
    widths = [max(13, len(heading) + 2) for heading in columns]

    def line(start: str, images: str, cells: Sequence[str]) -> str:
        padded = [f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)]
        return f"{start:<{names}}{images:>9}{''.join(padded)}"

    lines = [line(title, "images", list(columns))]
    for i in shown:
        cells = [f"{test.errors[i]:.2f}%" for test in columns.values()]
        lines.append(line(first.names[i], f"{first.images[i]:,}", cells))
    means = [f"{test.mean:.2f}%" for test in columns.values()]
    lines.append(line(last, f"{sum(first.images):,}", means))
    if first.absent:
        names_absent = listed(first.absent, WORST)
        lines.append(f"left out of the mean, without an image here: {names_absent}")
    return lines
