"""Fits the layers of a Fisher vector that are fitted, not trained, before a run's first step."""

import inspect
import math
import pathlib
import re
import time
import warnings
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from threadpoolctl import threadpool_limits

from cnn_papers.data.pipeline import Pipeline, parse_host
from cnn_papers.errors import UserError
from cnn_papers.models import ifv
from cnn_papers.parallel import processes

IMAGES = 1000  # that a sample is drawn from, if there are so many
ITERATIONS = 100  # of expectation maximisation, at most


def layers_to_fit(model: Any) -> tuple[str, ...]:
    """Returns the layers of `model` whose arrays are fitted; none of most networks."""
    kinds = model.kinds if isinstance(model, ifv.FisherVector) else ()
    return tuple(layer for kind in kinds for layer in (kind.pca, kind.gmm))


def check_frozen(model: Any, pattern: str) -> None:
    """Raises UserError unless `pattern`, `config.optim.frozen`, matches the layers to fit."""
    trained = [layer for layer in layers_to_fit(model) if not re.fullmatch(pattern, layer)]
    if trained:
        raise UserError(
            f"config.optim.frozen='{pattern}': {', '.join(sorted(trained))} would be trained, and "
            f"is only fitted: write '{'|'.join(layers_to_fit(model))}'"
        )


def check_descriptors(place: pathlib.Path, fitted_on: Any, config: Any) -> None:
    """Raises UserError if layers that the run `place` has fitted are of others than `config`'s.

    Descriptors may be closer, and images larger; bins, scales and colours must be the same.
    `fitted_on` is the config of that run.
    """
    theirs, ours = _kind_of_descriptors(fitted_on), _kind_of_descriptors(config)
    differences = [
        f"{name}={theirs.get(name)} there, {ours.get(name)} now"
        for name in dict.fromkeys([*theirs, *ours])
        if theirs.get(name) != ours.get(name)
    ]
    if differences:
        raise UserError(
            f"config.init_from: {place} has components and words of other descriptors "
            f"({'; '.join(differences)}): take the same, or start without it to fit them"
        )


def _kind_of_descriptors(config: Any) -> dict[str, Any]:
    """Returns by name what makes the descriptors that a run fits its layers to."""
    op = parse_host(config.data.train_host, key="data.train_host").ops[-1]
    bound = inspect.signature(op.function).bind(None, *op.args, **op.kwargs)
    bound.apply_defaults()
    arguments = {
        name: value
        for name, value in bound.arguments.items()
        if name not in ("image", "step", "longest")
    }
    return {"operation": op.name, **arguments}


def fit(model: Any, train: Pipeline, seed: int) -> dict[str, np.ndarray]:
    """Fits layers like `pca` and `gmm` to descriptors of training images; arrays by path.

    Process 0 fits and sends the arrays to the others. The same seed draws the same sample and ends
    in the same bits, whatever the number of cores: the fit is of one thread, which a hundred
    thousand descriptors keep busy better than several.

    Raises:
      UserError: a sample smaller than the number of words, or of a lower rank than the dimensions
        asked for; a word that no descriptor belongs to.
    """
    paths = [
        f"params/{path}"
        for kind in model.kinds
        for path in (
            *(f"{kind.pca}/mean", f"{kind.pca}/kernel"),
            *(f"{kind.gmm}/log_weight", f"{kind.gmm}/mean", f"{kind.gmm}/var"),
        )
    ]
    arrays: list[np.ndarray] = []  # stays empty on other processes than the first

    def make() -> None:
        sample = draw(model.sample, train.shuffled_images(seed), len(train), seed)
        for kind in model.kinds:
            arrays.extend(fit_to(model, sample, seed, kind))

    processes.broadcast(make)
    return dict(zip(paths, processes.arrays_from_first(arrays), strict=True))


def draw(size: int, images: Iterator[np.ndarray], count: int, seed: int) -> np.ndarray:
    """Draws up to `size` descriptors at random, as many of each image; rows of zeros do not count.

    Args:
      size: of the sample.
      images: descriptors uint8 [k, columns, 1] of training images, in random order.
      count: number of the images.
      seed: of the draw.

    Raises:
      UserError: no image has any descriptor.
    """
    random = np.random.default_rng(seed)
    of_each = math.ceil(size / min(count, IMAGES))
    parts: list[np.ndarray] = []
    missing = size
    for image in images:
        rows = image[image[:, :-2].any((1, 2)), :, 0]
        chosen = random.permutation(len(rows))[: min(of_each, missing)]
        parts.append(rows[chosen])
        missing -= len(chosen)
        if not missing:
            break
    sample = np.concatenate(parts)
    if not len(sample):
        raise UserError(
            f"there is no descriptor in {len(parts):,} training images: all are of one colour"
        )
    print(f"fits components and words to {len(sample):,} descriptors of {len(parts):,} images")
    return sample


@threadpool_limits.wrap(limits=1)
def fit_to(
    model: ifv.FisherVector, sample: np.ndarray, seed: int, kind: ifv.Kind = ifv.SIFT
) -> list[np.ndarray]:
    """Fits the layers of `kind` to descriptors uint8 [n, columns]; see `fit`.

    Returns mean and kernel of its `pca`, and log_weight, mean and var of its `gmm`, all float32.
    """
    from sklearn.decomposition import PCA  # takes a second, and only a fit needs it
    from sklearn.mixture import GaussianMixture

    start = time.monotonic()
    descriptors = jnp.asarray(sample[:, kind.columns], jnp.float32)
    values, is_present = map(np.asarray, model.scaled(descriptors, kind))
    values, places = values[is_present], sample[is_present, -2:]
    if len(values) < model.total_words:
        raise UserError(
            f"config.model: the sample has {len(values):,} descriptors, fewer than the "
            f"{model.total_words:,} words: take fewer words, a larger config.model.sample, "
            "or more images"
        )
    pca = PCA(min(values.shape), svd_solver="covariance_eigh").fit(values)
    variances = pca.explained_variance_
    rank = int((variances > kind.values * np.finfo(np.float32).eps * variances[0]).sum())
    if model.dims > rank:
        raise UserError(
            f"config.model.dims={model.dims} principal components are wanted, and the sample of "
            f"{len(values):,} descriptors has rank {rank}: take fewer, a larger "
            "config.model.sample, or more images"
        )
    kernel = np.asarray(pca.components_)[: model.dims].T
    x = (values - pca.mean_) @ kernel
    if model.dims_of(kind) > model.dims:
        x = np.concatenate([x, np.float32(1 / 255) * places - 0.5], 1)
    mixture = GaussianMixture(
        model.total_words,
        covariance_type="diag",
        init_params="k-means++",
        max_iter=ITERATIONS,
        random_state=seed,
    )
    with warnings.catch_warnings():  # that it has not converged is printed
        warnings.simplefilter("ignore")
        mixture.fit(np.asarray(x, np.float32))
    weights = np.asarray(mixture.weights_)
    check_alive(weights, len(values))
    end = "" if mixture.converged_ else ", where it was stopped"
    print(
        f"fitted {model.total_words:,} words of {model.dims_of(kind)} dimensions in "
        f"{mixture.n_iter_} iterations{end}: {time.monotonic() - start:.1f} s"
    )
    arrays = (pca.mean_, kernel, np.log(weights), mixture.means_, mixture.covariances_)
    return [np.asarray(array, np.float32) for array in arrays]


def check_alive(weights: np.ndarray, size: int) -> None:
    """Raises UserError if a word has less than one descriptor of the sample."""
    dead = np.flatnonzero(~(weights * size >= 1))
    if len(dead):
        raise UserError(
            f"config.model: {len(dead)} of {len(weights)} words have died, the first is word "
            f"{dead[0]} with {weights[dead[0]] * size:.2g} of {size:,} descriptors: take fewer "
            "words, a larger config.model.sample, or more images"
        )
