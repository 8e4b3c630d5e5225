"""Reads the labels of all images of a split."""

from collections.abc import Sequence

from cnn_papers.data import prefetch
from cnn_papers.data.progress import reported
from cnn_papers.data.split import DamagedExample, Split


def of_images(split: Split, doing: str) -> Sequence[int]:
    """Returns the label of every image, -1 for one that cannot be read.

    Those of a folder are not read, since their paths give their labels. `doing` says in words why
    labels are read, for the progress.
    """
    if split.labels is not None:
        return split.labels

    def read(i: int) -> int:
        try:
            return split.examples[i]["label"]
        except DamagedExample:
            return -1

    count = len(split.examples)
    return list(reported(prefetch.read(count, read), count, doing))
