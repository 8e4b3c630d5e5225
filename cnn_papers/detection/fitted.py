"""Fits what a detector needs, SVMs and box regression, or reads it from the folder of a run."""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

from cnn_papers.detection import fitting
from cnn_papers.detection.box_regression import Regressor
from cnn_papers.detection.fitting import Wanted
from cnn_papers.errors import UserError
from cnn_papers.evaluation.kept_fits import (
    digest_of_network,
    digest_of_training,
    find,
    load_or_fit,
)
from cnn_papers.evaluation.svm import Linear

Fitted = dict[Wanted, Linear | Regressor]


def for_test(protocol: Any, tested: Any) -> Fitted:
    """Returns what a protocol of `window_protocols` wants, fitted to the split trained on.

    What other protocols of the test want of the same features is fitted in the same passes.

    Args:
      tested: an `evaluate.Member`.

    Raises:
      UserError: the data is missing or without proposals, or a file of the run is damaged.
    """
    if not protocol.wanted:
        return {}
    network, look = tested.network, protocol.look
    alike = [other for other in tested.protocols.values() if other.look.text == look.text]
    split = tested.open_train()
    if split.proposals is None:
        raise UserError(
            "SVMs are fitted to windows that config.data.proposals names, and it is empty: set it "
            "to 'selective_search()' or to a file of boxes"
        )

    def fit(missing: Sequence[Wanted]) -> Fitted:
        stages = look.stages(network)
        features = functools.partial(look.features, stages)
        training = fitting.open_training(split, network.config.data.max_skips)
        return fitting.fit(missing, training, features, split.class_names)

    digests = digest_of_network(network, look.text), digest_of_training(split)
    others = [each for other in alike for each in other.wanted]
    return load_or_fit(tested.folder, protocol.wanted, others, *digests, fit)


def of_run(protocol: Any, network: Any, folder: pathlib.Path | None) -> Fitted:
    """Returns what a protocol of `window_protocols` wants, as a test of a run has fitted it.

    Args:
      network: a `weights.trained.Trained`.
      folder: of the run; None for weights from a file.

    Raises:
      UserError: no test of the run has fitted it.
    """
    if not protocol.wanted:
        return {}
    if folder is None:
        raise UserError("SVMs are kept in the folder of a run, which a weights file has not")
    return find(folder, protocol.wanted, digest_of_network(network, protocol.look.text))
