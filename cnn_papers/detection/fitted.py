"""Keeps what a test fits, SVMs and box regression, in the folder of a run: fitted-<digest>.npz."""

import hashlib
import logging
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from cnn_papers import files
from cnn_papers.data import statistics
from cnn_papers.data.split import Split
from cnn_papers.detection.box_regression import Regressor
from cnn_papers.detection.fitting import Regression, Svm, Wanted
from cnn_papers.detection.svm import Linear
from cnn_papers.errors import UserError

Fitted = dict[Wanted, Linear | Regressor]
TYPES = {Svm: Linear, Regression: Regressor}  # of what is wanted, and of what it becomes


def digest_of_network(variables: Any, settings: str) -> str:
    """Returns a digest of the weights and of `settings`, the text of all else that features need."""
    digest = hashlib.sha256(settings.encode())
    for path, leaf in jax.tree.leaves_with_path(variables):
        digest.update(jax.tree_util.keystr(path).encode())
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def digest_of_training(split: Split) -> str:
    """Returns a digest of the images of `split`, their objects and proposals."""
    digest = hashlib.sha256(statistics.fingerprint(split, "decode").encode())
    digest.update(repr(split.class_names).encode())
    for image in split.objects or ():
        digest.update(repr(image.size).encode())
        for array in (image.boxes, image.classes, image.difficult):
            digest.update(np.ascontiguousarray(array).tobytes())
    for proposals in split.proposals or ():
        digest.update(len(proposals).to_bytes(8, "little"))
        digest.update(np.ascontiguousarray(proposals).tobytes())
    return digest.hexdigest()[:16]
