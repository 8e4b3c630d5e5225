"""A trained network made ready for images: class probabilities, or the outputs of a layer."""

import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnn_papers.data import host_ops
from cnn_papers.errors import UserError
from cnn_papers.opstrings import parse
from cnn_papers.parallel import mesh as meshes
from cnn_papers.weights.trained import Trained


def make_apply(network: Trained, layer: str) -> Callable[[Any, Any], jax.Array]:
    """The jitted (variables, uint8 images) -> probabilities, or the outputs of `layer`, in float32."""
    model: Any = network.model
    normalise = network.normalise
    everywhere, over_data = meshes.replicated(network.mesh), meshes.data_sharding(network.mesh)

    def apply(variables: Any, image: jax.Array) -> jax.Array:
        logits, ends = model.apply(variables, normalise(image, jax.random.key(0)))
        if not layer:
            return jax.nn.softmax(logits)
        if layer not in ends:
            raise UserError(f"the network has no layer '{layer}'; there are: {', '.join(ends)}")
        return ends[layer].astype(jnp.float32)

    image = jax.ShapeDtypeStruct((1, *network.image_shape), np.uint8)
    jax.eval_shape(apply, network.variables, image)  # says at once that there is no such layer
    return jax.jit(apply, in_shardings=(everywhere, over_data), out_shardings=over_data)


def check_finite(rows: np.ndarray, network: Trained) -> None:
    """Raises a UserError for outputs of `network` that are not finite."""
    if not np.isfinite(rows).all():
        raise UserError(f"outputs of {network.description} are not finite: its training diverged")


class Predictor(NamedTuple):
    """A trained network, ready for images.

    Attributes:
      description: network, data set and checkpoint in words.
      class_names: one for every output.
      prepare: encoded bytes to uint8 [h, w, c]; ValueError for what is no image.
      outputs: uint8 [n, h, w, c], n a multiple of the devices, to float32 [n, classes], the
        probabilities, or to float32 [n, …], the outputs of the layer asked for.
      batch_size: how many images the run evaluated at once.
    """

    description: str
    class_names: tuple[str, ...]
    prepare: Callable[[bytes], np.ndarray]
    outputs: Callable[[np.ndarray], np.ndarray]
    batch_size: int


def make_predictor(network: Trained, layer: str = "") -> Predictor:
    """Makes `network` ready to give probabilities, or the outputs of `layer`; UserError for a layer
    it lacks.
    """
    apply = make_apply(network, layer)

    def outputs(images: np.ndarray) -> np.ndarray:
        rows = np.asarray(apply(network.variables, images))
        check_finite(rows, network)
        return rows

    return Predictor(
        network.description,
        network.class_names,
        _preparation(network.config.data.eval_host, network.image_shape),
        outputs,
        network.config.eval.batch_size or network.config.batch_size,
    )


def _preparation(ops: str, shape: tuple[int, ...]) -> Callable[[bytes], np.ndarray]:
    parsed = parse(ops, host_ops, leading=1, key="data.eval_host")

    def prepare(encoded: bytes) -> np.ndarray:
        image: Any = encoded
        for op in parsed:
            image = op(image, rng=np.random.default_rng(0), epoch=0)
        if image.shape != shape and shape[0] == shape[1]:
            image = host_ops.center_crop(host_ops.resize_short(image, shape[0]), shape[0])
        return host_ops.resize(image, shape[0], shape[1])

    return prepare


def predict_images(
    predictor: Predictor, paths: Sequence[pathlib.Path]
) -> Iterator[tuple[pathlib.Path, np.ndarray | str]]:
    """Every image file in order with its outputs, or with what is wrong with it."""
    devices = jax.device_count()
    batch_size = (
        -(-min(predictor.batch_size, len(paths)) // devices) * devices
    )  # one program serves all batches
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), batch_size):
            chunk = paths[start : start + batch_size]
            loaded = list(pool.map(functools.partial(_read, predictor.prepare), chunk))
            images = [image for image in loaded if isinstance(image, np.ndarray)]
            padded = images + images[-1:] * (batch_size - len(images))
            rows = iter(predictor.outputs(np.stack(padded)) if images else ())
            for path, image in zip(chunk, loaded, strict=True):
                yield path, image if isinstance(image, str) else next(rows)


def _read(prepare: Callable[[bytes], np.ndarray], path: pathlib.Path) -> np.ndarray | str:
    """The prepared image, or what is wrong with the file."""
    try:
        return prepare(path.read_bytes())
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except ValueError as error:
        return str(error)
