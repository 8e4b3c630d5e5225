"""The weights of classes in the loss, in numbers: `config.loss.class_weights`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cnn_papers.data import labels
from cnn_papers.data.split import Split
from cnn_papers.errors import UserError, did_you_mean

BALANCED = "balanced"


def in_numbers(
    setting: Sequence[Any], split: Split, outputs: int, counts: np.ndarray | None = None
) -> tuple[float, ...]:
    """Returns a weight for each of the `outputs` of the head; () if `setting` is empty.

    A class that is not named, has no image in the split or no name weighs 1. "balanced" gives class
    c the weight n / (k · n_c), for n images of k classes, n_c of them of class c: every class then
    has the same sum of weights.

    Args:
      setting: pairs of a class name and a weight, or ("balanced",).
      split: the training images.
      outputs: at least the number of classes.
      counts: the number of examples of each class, where it is not that of the images' labels.

    Raises:
      UserError: another setting, or a name that is no class.
    """
    if not setting:
        return ()
    weights = np.ones(outputs)
    if tuple(setting) == (BALANCED,):
        counts = label_counts(split) if counts is None else counts
        present = np.flatnonzero(counts)
        weights[present] = counts.sum() / (len(present) * counts[present])
        return tuple(weights.tolist())
    for name, weight in _pairs(setting):
        if name not in split.class_names:
            hint = did_you_mean(name, split.class_names) or "there are: " + ", ".join(
                split.class_names[:20]
            )
            raise UserError(
                f"config.loss.class_weights: '{name}' is no class of {split.name}; {hint}"
            )
        weights[split.class_names.index(name)] = weight
    return tuple(weights.tolist())


def label_counts(split: Split) -> np.ndarray:
    """Returns the number of images of each class, int64 [classes].

    Examples that cannot be read are left out.
    """
    doing = f"counting the images of each class of {split.name}"
    of_images = np.asarray(labels.of_images(split, doing), np.int64)
    return np.bincount(of_images[of_images >= 0], minlength=len(split.class_names))


def _pairs(setting: Sequence[Any]) -> list[tuple[str, float]]:
    pairs = []
    for pair in setting:
        if not (
            isinstance(pair, tuple | list)
            and [type(part) for part in pair] in ([str, float], [str, int])
            and 0 < pair[1] < np.inf
        ):
            raise UserError(
                f"config.loss.class_weights={tuple(setting)!r} takes balanced, "
                "or ((class, weight), …) with positive weights, such as (('owl', 3.0),)"
            )
        pairs.append((pair[0], float(pair[1])))
    return pairs
