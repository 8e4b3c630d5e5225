"""Fits linear SVMs, one a class against the rest, with scikit-learn's LinearSVC (liblinear)."""

import logging
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from cnn_papers.data.progress import reported

SAID_FROM = 1e9  # bytes; a fit that takes more says so before it starts
# Of each value: 8 in LinearSVC's float64 copy, and 16 in liblinear's list of those that are not 0.
BYTES_A_VALUE = 24
MOST_ITERATIONS = 1000  # scikit-learn's own limit
# From so many values on, `_with_inner_products_of` takes less time than it saves a single class.
LARGE = 2**20
JITTER = 1e-5  # added to squared norms, in their mean, for the rounding of float32


class Linear(NamedTuple):
    """A linear function of features for each class.

    Attributes:
      weights: float32 [d, classes].
      bias: float32 [classes]; -inf for a class that could not be fitted.
    """

    weights: np.ndarray
    bias: np.ndarray

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Returns the scores float32 [n, classes] of features [n, d]; positive is for the class."""
        return features @ self.weights + self.bias


def fit_one_vs_rest(
    features: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    C: float,
    loss: str = "hinge",
    positive_weight: float = 1.0,
    intercept_scaling: float = 1.0,
    tolerance: float = 1e-4,
    what: str = "examples",
) -> Linear:
    """Returns one linear SVM for each class, which minimises ½‖w‖² + C · Σ loss.

    A fit is dual where there are fewer examples than dimensions, which is faster there, and always
    by "hinge", which liblinear has in no other way. Many features of few examples are replaced by
    fewer with the same inner products, on which alone a fit depends. A class that lacks positives
    or negatives is named in a log line and gets the bias -inf. A fit that takes much memory says
    how much first.

    Args:
      features: float32 [n, d].
      labels: int [n, classes]; 1 for an example of the class, -1 for another, 0 leaves it out.
      class_names: one a column of `labels`.
      loss: "hinge" or "squared_hinge".
      positive_weight: factor of C for the positives of a class.
      intercept_scaling: the constant beside the features whose weight is the bias; the larger it
        is, the less the bias is regularised.
      tolerance: of the violation at which liblinear stops; LinearSVC's is 1e-4.
      what: the examples are called so in messages.
    """
    reduced = _with_inner_products_of(features)
    fitted_to = features if reduced is None else reduced
    _say_memory(fitted_to, labels, what)
    classes = labels.shape[1]
    weights = np.zeros((fitted_to.shape[1], classes), np.float32)
    bias = np.full(classes, -np.inf, np.float32)
    log, unfinished = logging.getLogger(__name__), []
    for i in reported(range(classes), classes, "linear SVMs", unit="classes"):
        label = labels[:, i]
        if not ((label > 0).any() and (label < 0).any()):
            kind = "negative" if (label > 0).any() else "positive"
            log.warning("%s has no %s %s: it gets no SVM", class_names[i], kind, what)
            continue
        rows = slice(None) if label.all() else np.flatnonzero(label)
        weights[:, i], bias[i], finished = _fit(
            fitted_to[rows], label[rows], C, loss, positive_weight, intercept_scaling, tolerance
        )
        if not finished:
            unfinished.append(class_names[i])
    if unfinished:
        log.warning(
            "the SVMs of %s over %s stopped at %s iterations, before they converged",
            ", ".join(unfinished),
            what,
            f"{MOST_ITERATIONS:,}",
        )
    if reduced is not None:
        weights = features.T @ np.linalg.solve(reduced.T, weights).astype(np.float32)
    return Linear(weights, bias)


def _with_inner_products_of(features: np.ndarray) -> np.ndarray | None:
    """Returns float64 [n, n] whose rows have the inner products of the rows of `features` [n, d].

    It is L of their matrix of inner products, L·Lᵀ. A weight vector v for its rows is Fᵀ·L⁻ᵀ·v for
    those of `features` F. The result is None where it saves nothing.
    """
    count, dimensions = features.shape
    if 2 * count > dimensions or features.size < LARGE:
        return None
    products = (features @ features.T).astype(np.float64)
    products[np.diag_indices(count)] += JITTER * products.trace() / count
    try:
        return np.linalg.cholesky(products)
    except np.linalg.LinAlgError:  # of features whose rounding exceeds the jitter
        return None


def _fit(
    features: np.ndarray,
    label: np.ndarray,
    C: float,
    loss: str,
    positive_weight: float,
    intercept_scaling: float,
    tolerance: float,
) -> tuple[np.ndarray, float, bool]:
    """Returns weights [d], the bias, and whether the fit converged, of labels 1 and -1 [n]."""
    from sklearn.exceptions import ConvergenceWarning  # slow to import
    from sklearn.svm import LinearSVC

    classifier: Any = LinearSVC  # its inferred types are those of its defaults
    svm: Any = classifier(
        C=C,
        loss=loss,
        dual=loss == "hinge" or len(features) < features.shape[1],
        intercept_scaling=intercept_scaling,
        class_weight={1: positive_weight, -1: 1.0},
        tol=tolerance,
        max_iter=MOST_ITERATIONS,
        random_state=0,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        svm.fit(features, label)
    finished = not any(issubclass(warning.category, ConvergenceWarning) for warning in caught)
    return svm.coef_[0], float(svm.intercept_[0]), finished


def _say_memory(features: np.ndarray, labels: np.ndarray, what: str) -> None:
    most = int((labels != 0).sum(0).max(initial=0))
    size = BYTES_A_VALUE * most * features.shape[1]
    if size >= SAID_FROM:
        logging.getLogger(__name__).info(
            "an SVM over %s %s of %s values takes up to %.1f GB beside the %.1f GB of all",
            f"{most:,}",
            what,
            f"{features.shape[1]:,}",
            size / 1e9,
            features.nbytes / 1e9,
        )
