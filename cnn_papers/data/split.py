"""A split of a data set: a random-access sequence of encoded examples."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from cnn_papers.errors import UserError


class DamagedExample(UserError):
    """An example cannot be read; the message says which. Training may leave some out."""


class Split(NamedTuple):
    """One split, opened for reading: `examples` may be read by many threads at once."""

    name: str  # such as 'cifar10[train[:45000]]' or 'folder:/x[train]'
    examples: Sequence[dict[str, Any]]  # {'image': JPEG or PNG bytes, 'label': int, 'id': str}
    class_names: tuple[str, ...]  # in the order of the labels
    location: str  # the folder that the bytes are read from
