"""Computes class probabilities of images, or the outputs of a layer, with a trained network.

Where an image may show several classes, scores take the place of probabilities.
"""

import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from cnn_papers import tasks
from cnn_papers.data import host_ops
from cnn_papers.data.image_files import TooManyPixels
from cnn_papers.data.pipeline import parse_host
from cnn_papers.errors import UserError
from cnn_papers.evaluation import scores
from cnn_papers.parallel import mesh as meshes
from cnn_papers.runs import inputs
from cnn_papers.weights.trained import Trained

Prepared = TypeVar("Prepared")


def has_scores(network: Trained) -> bool:
    """Tells whether an image may show several classes, so that outputs are no probabilities."""
    return tasks.task_module(network.config.task).NEEDS == "labels"


def of_classes(network: Trained, logits: jax.Array) -> jax.Array:
    """Returns the probabilities of classes, or their scores, from logits [n, classes]."""
    return logits if has_scores(network) else jax.nn.softmax(logits)


def make_apply(network: Trained, layer: str) -> Callable[[Any, Any], jax.Array]:
    """Returns a jitted function of (variables, uint8 images [n, h, w, c]).

    It returns float32 probabilities or scores [n, classes] or, with `layer`, the outputs of that
    layer.

    Raises:
      UserError: the network has no such layer.
    """
    model: Any = network.model
    normalise = network.normalise
    replicated, by_image = meshes.replicated(network.mesh), meshes.data_sharding(network.mesh)

    def apply(variables: Any, image: jax.Array) -> jax.Array:
        logits, endpoints = model.apply(variables, normalise(image, jax.random.key(0)))
        return scores.of_layer(endpoints, layer) if layer else of_classes(network, logits)

    image = jax.ShapeDtypeStruct((1, *network.image_shape), np.uint8)
    jax.eval_shape(apply, network.variables, image)  # raises for a missing layer
    return jax.jit(apply, in_shardings=(replicated, by_image), out_shardings=by_image)


def check_finite(rows: np.ndarray, network: Trained) -> None:
    """Raises UserError if outputs of `network` are not finite."""
    if not np.isfinite(rows).all():
        raise UserError(f"outputs of {network.description} are not finite: its training diverged")


class Predictor(NamedTuple):
    """A trained network with its preparation of images.

    Attributes:
      description: network, data set and checkpoint in words.
      class_names: one for each output.
      prepare: encoded bytes -> uint8 [h, w, c]; raises ValueError for bytes that are no image.
      outputs: uint8 [n, h, w, c] -> float32 probabilities or scores [n, classes], or the outputs of
        a layer [n, …]; n is a multiple of the number of devices.
      batch_size: the number of images that the run evaluated at once.
      has_scores: whether outputs are scores, not probabilities.
    """

    description: str
    class_names: tuple[str, ...]
    prepare: Callable[[bytes], np.ndarray]
    outputs: Callable[[np.ndarray], np.ndarray]
    batch_size: int
    has_scores: bool


def make_predictor(network: Trained, layer: str = "") -> Predictor:
    """Returns a predictor of probabilities, or of the outputs of `layer`.

    Raises:
      UserError: the network has no such layer.
    """
    apply = make_apply(network, layer)

    def outputs(images: np.ndarray) -> np.ndarray:
        rows = np.asarray(apply(network.variables, images))
        check_finite(rows, network)
        return rows

    return Predictor(
        network.description,
        network.output_names,
        _preparation(network.config.data.eval_host, network.image_shape),
        outputs,
        inputs.eval_batch_size(network.config),
        has_scores(network),
    )


def _preparation(ops: str, shape: tuple[int, ...]) -> Callable[[bytes], np.ndarray]:
    # An image to predict is one object, where training cut them out.
    parsed = [op for op in parse_host(ops, key="data.eval_host").ops if not op.needs("objects")]

    def prepare(encoded: bytes) -> np.ndarray:
        image: Any = encoded
        for op in parsed:
            try:
                image = op(image, rng=np.random.default_rng(0), epoch=0)
            except ValueError as error:
                if op.name == "decode" or isinstance(error, TooManyPixels):
                    raise  # their texts say what is wrong with the file
                raise ValueError(f"cannot be prepared by {op.name}: {error}") from error
        if image.shape != shape and parsed[-1].name in host_ops.DESCRIPTORS:
            raise ValueError(
                f"has {image.shape[0]:,} descriptors, not {shape[0]:,}: bring images to one size "
                f"before {parsed[-1].name}, or give it longest=…"
            )
        if image.shape != shape and shape[0] == shape[1]:
            image = host_ops.center_crop(host_ops.resize_short(image, shape[0]), shape[0])
        return host_ops.resize(image, shape[0], shape[1])

    return prepare


def outputs_of(predictor: Predictor, images: np.ndarray) -> np.ndarray:
    """Returns the outputs of prepared images, uint8 [n, h, w, c], of any number n > 0."""
    batch_size = _batch_size(predictor, len(images))
    parts = [images[start : start + batch_size] for start in range(0, len(images), batch_size)]
    rows = [_padded_outputs(predictor, part, batch_size)[: len(part)] for part in parts]
    return np.concatenate(rows)


def _batch_size(predictor: Predictor, count: int) -> int:
    """Returns the size of all batches of `count` images, so that one program serves them.

    It is a multiple of the number of devices.
    """
    devices = jax.device_count()
    return -(-min(predictor.batch_size, count) // devices) * devices


def _padded_outputs(
    predictor: Predictor, images: Sequence[np.ndarray] | np.ndarray, batch_size: int
) -> np.ndarray:
    """Returns the outputs of images, the last of which is repeated to fill a batch."""
    filling = [images[-1]] * (batch_size - len(images))
    return predictor.outputs(np.stack([*images, *filling]))


def predict_images(
    predictor: Predictor, paths: Sequence[pathlib.Path]
) -> Iterator[tuple[pathlib.Path, np.ndarray | str]]:
    """Yields each image file in order with its outputs, or with a description of its error."""
    batch_size = _batch_size(predictor, len(paths))
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), batch_size):
            chunk = paths[start : start + batch_size]
            loaded = list(pool.map(functools.partial(read_file, predictor.prepare), chunk))
            images = [image for image in loaded if isinstance(image, np.ndarray)]
            rows = iter(_padded_outputs(predictor, images, batch_size) if images else ())
            for path, image in zip(chunk, loaded, strict=True):
                yield path, image if isinstance(image, str) else next(rows)


def read_file(prepare: Callable[[bytes], Prepared], path: pathlib.Path) -> Prepared | str:
    """Returns the prepared image of a file, or a description of the error."""
    try:
        return prepare(path.read_bytes())
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except ValueError as error:
        return str(error)
