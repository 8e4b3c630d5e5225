"""Values of a test by class, and their mean, in which every class counts alike.

Of top-1 errors the mean is the balanced error: unlike the error of all images, it does not hide a
rare class. Of average precisions it is the mAP.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cnn_papers.errors import listed
from cnn_papers.facts import Measure

ALL, WORST = 20, 10  # up to ALL classes are shown, of more the WORST


class ClassValues(NamedTuple):
    """One value of a test for each class that it has anything of.

    Attributes:
      measure: of the values; its name is that of their mean's row.
      counted: the thing that the values are of, "image" or "object".
      names: of the classes that have any, in the order of the labels.
      counts: number of images or objects of each.
      values: of each, in the unit of the measure.
      absent: names of the classes that have none.
    """

    measure: Measure
    counted: str
    names: tuple[str, ...]
    counts: tuple[int, ...]
    values: tuple[float, ...]
    absent: tuple[str, ...]

    @property
    def mean(self) -> float:
        """The mean of the values."""
        return float(np.mean(self.values))


def of_classes(
    measure: Measure,
    counted: str,
    class_names: Sequence[str],
    counts: Sequence[int],
    values: Sequence[float],
) -> ClassValues:
    """Returns values of classes; those of classes with a count of zero are left out.

    Args:
      measure, counted: as in ClassValues.
      class_names, counts, values: of all classes, in the order of the labels.
    """
    rows = list(zip(class_names, counts, values, strict=True))
    return ClassValues(
        measure=measure,
        counted=counted,
        names=tuple(name for name, count, _ in rows if count),
        counts=tuple(count for _, count, _ in rows if count),
        values=tuple(value for _, count, value in rows if count),
        absent=tuple(name for name, count, _ in rows if not count),
    )


def errors_by_class(
    measure: Measure, wrong: np.ndarray, label: np.ndarray, class_names: Sequence[str]
) -> ClassValues:
    """Counts the errors of each class, in percent of its images.

    Args:
      measure: of the errors.
      wrong: 1 for every image whose class was not found, else 0; [n].
      label: int [n].
      class_names: in the order of the labels.
    """
    images: list[int] = np.bincount(label, minlength=len(class_names)).tolist()
    errors: list[float] = np.bincount(label, wrong, minlength=len(class_names)).tolist()
    percent = [100 * number / max(1, count) for number, count in zip(errors, images, strict=True)]
    return of_classes(measure, "image", class_names, images, percent)


def table(columns: Mapping[str, ClassValues]) -> list[str]:
    """Returns the lines of a table of one or more tests of the same images, by their headings.

    Of more than ALL classes it has the WORST of the first test.
    """
    first = next(iter(columns.values()))
    measure, count = first.measure, len(first.names)
    shown = list(range(count))
    title = f"{measure.words} by class"
    if count > ALL:
        shown = sorted(shown, key=lambda i: -measure.cost(first.values[i]))[:WORST]
        title = f"the {WORST} {'largest' if measure.lower_is_better else 'smallest'} of {count}"
    last = f"mean of {count} {'class' if count == 1 else 'classes'}"
    names = max(len(text) for text in (title, last, *(first.names[i] for i in shown)))
    widths = [max(13, len(heading) + 2) for heading in columns]

    def line(start: str, number: str, cells: Sequence[str]) -> str:
        padded = [f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True)]
        return f"{start:<{names}}{number:>9}{''.join(padded)}"

    lines = [line(title, f"{first.counted}s", list(columns))]
    for i in shown:
        values = [dict(zip(test.names, test.values, strict=True)) for test in columns.values()]
        name = first.names[i]
        cells = [measure.number(value[name]) if name in value else "-" for value in values]
        lines.append(line(first.names[i], f"{first.counts[i]:,}", cells))
    means = [measure.number(test.mean) for test in columns.values()]
    lines.append(line(last, f"{sum(first.counts):,}", means))
    if first.absent:
        names_absent = listed(first.absent, WORST)
        lines.append(f"left out of the mean, without an {first.counted} here: {names_absent}")
    return lines
