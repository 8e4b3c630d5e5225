"""The likeliest classes of your own images, from a trained run: python -m cnn_papers.predict --workdir=RUN IMAGE…

An IMAGE is a JPEG or PNG file, or a folder: its .jpg, .jpeg and .png files in the order of their names, without
sub-folders. Neither the run's config file nor its data set needs to be there. An image that the run's host operations
leave in another size than it was evaluated on is scaled and cropped to that.

A file that is missing or cannot be decoded is named in one line on stderr; the others are predicted all the same, and
the exit code is then 2.
"""

import functools
import json
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np
from absl import flags

from cnn_papers import doors, zoo
from cnn_papers.data import augment, host_ops, statistics
from cnn_papers.data.sources import IMAGE_SUFFIXES
from cnn_papers.errors import UserError
from cnn_papers.opstrings import parse
from cnn_papers.training import mesh as meshes
from cnn_papers.training.checkpoint import read_model
from cnn_papers.training.optim import Optimizer
from cnn_papers.training.step import State, init_state, make_predict_step
from cnn_papers.training.workdir import read_run


class Predictor(NamedTuple):
    """A trained network, ready for images.

    Attributes:
      description: network, data set and checkpoint in words.
      class_names: one for every output.
      prepare: encoded bytes to uint8 [h, w, c]; ValueError for what is no image.
      probabilities: uint8 [n, h, w, c], n a multiple of the devices, to float32 [n, classes].
      batch_size: how many images the run evaluated at once.
    """

    description: str
    class_names: tuple[str, ...]
    prepare: Callable[[bytes], np.ndarray]
    probabilities: Callable[[np.ndarray], np.ndarray]
    batch_size: int


def load(folder: pathlib.Path) -> Predictor:
    """The network of the run in `folder` at its best checkpoint, at its last where it has not been evaluated yet.

    Raises:
      UserError: no run, no checkpoint, a damaged one.
    """
    run = read_run(folder)
    if run is None:
        raise UserError(f"there is no run in {folder}: give the --workdir of a training")
    if not run.keys() >= {"class_names", "train_image", "eval_image"}:
        raise UserError(f"{folder}/run.json is of an older version: run the training command again, which rewrites it")
    config, data = run["config"], run["config"]["data"]
    model = zoo.build_model(config["model_name"], **config["model"])
    figures = statistics.load(folder / statistics.FILE) if augment.needs_statistics(data["eval_device"]) else None
    view = augment.compose(data["eval_device"], figures, key="data.eval_device", train=False)
    mesh = meshes.make_mesh()
    place = folder / ("best" if any((folder / "best").glob("[0-9]*")) else "checkpoints")
    step, variables = read_model(place, _abstract_state(model, config, run["train_image"], mesh))
    logits = make_predict_step(model, view)
    everywhere, over_data = meshes.replicated(mesh), meshes.over_data(mesh)

    @functools.partial(jax.jit, in_shardings=(everywhere, over_data), out_shardings=everywhere)
    def classify(variables: Any, image: jax.Array) -> jax.Array:
        return jax.nn.softmax(logits(variables, image))

    def probabilities(images: np.ndarray) -> np.ndarray:
        rows = np.asarray(classify(variables, images))
        if not np.isfinite(rows).all():
            raise UserError(f"the outputs of the network in {folder} are not finite: its run diverged, train it again")
        return rows

    names, network = tuple(run["class_names"]), f"{config['model_name']} '{config['model']['variant']}'"
    return Predictor(
        f"{network} trained on {data['name']}, step {step} in {place}",
        names + tuple(f"output {i}" for i in range(len(names), config["model"]["num_classes"])),
        _preparation(data["eval_host"], tuple(run["eval_image"])),
        probabilities,
        config["eval"]["batch_size"] or config["batch_size"],
    )


def _abstract_state(model: Any, config: dict[str, Any], image_shape: Sequence[int], mesh: Any) -> State:
    """The shapes of what a run of `config` trains, without its optimiser, replicated over `mesh`."""
    no_optimizer = Optimizer(lambda params: None, None, None, None)
    ema = config["optim"]["ema_decay"] > 0
    init = functools.partial(init_state, model, no_optimizer, tuple(image_shape), jax.random.key(0), ema=ema)
    placed = functools.partial(jax.ShapeDtypeStruct, sharding=meshes.replicated(mesh))
    return jax.tree.map(lambda leaf: placed(leaf.shape, leaf.dtype), jax.eval_shape(init))


def _preparation(ops: str, shape: tuple[int, ...]) -> Callable[[bytes], np.ndarray]:
    parsed = parse(ops, host_ops, leading=1, key="data.eval_host")

    def prepare(encoded: bytes) -> np.ndarray:
        image: Any = encoded
        for op in parsed:
            image = op(image, rng=np.random.default_rng(0))
        if image.shape != shape and shape[0] == shape[1]:
            image = host_ops.center_crop(host_ops.resize_short(image, shape[0]), shape[0])
        return host_ops.resize(image, shape[0], shape[1])

    return prepare


def predict(predictor: Predictor, paths: Sequence[pathlib.Path]) -> Iterator[tuple[pathlib.Path, np.ndarray | str]]:
    """Every image file in order with its probabilities [classes], or with what is wrong with it."""
    devices = jax.device_count()
    batch_size = -(-min(predictor.batch_size, len(paths)) // devices) * devices  # one program serves all batches
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), batch_size):
            chunk = paths[start : start + batch_size]
            loaded = list(pool.map(functools.partial(_read, predictor.prepare), chunk))
            images = [image for image in loaded if isinstance(image, np.ndarray)]
            padded = images + images[-1:] * (batch_size - len(images))
            rows = iter(predictor.probabilities(np.stack(padded)) if images else ())
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


def find_images(arguments: Sequence[str]) -> list[pathlib.Path]:
    """The files that the command line means; one that does not exist stays, for `predict` to tell."""
    found: list[pathlib.Path] = []
    for path in map(pathlib.Path, arguments):
        if not path.is_dir():
            found.append(path)
            continue
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.name[0] != ".")
        found += files
        if not files:
            raise UserError(f"{path} holds no images ({', '.join(IMAGE_SUFFIXES)}); sub-folders are not searched")
    return found


def _top(probabilities: np.ndarray, names: Sequence[str], top: int) -> list[dict[str, Any]]:
    """The `top` likeliest classes, likeliest first."""
    order = np.argsort(-probabilities, kind="stable")[:top]
    return [{"class": names[i], "label": int(i), "probability": float(probabilities[i])} for i in order]


def main(argv: list[str]) -> int:
    """Prints the likeliest classes of every image; 2 if one could not be read."""
    if not flags.FLAGS.workdir or len(argv) < 2:
        raise UserError("write python -m cnn_papers.predict --workdir=RUN IMAGE… with the folder of a run")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # about damaged files
    paths = find_images(argv[1:])
    doors.use_compile_cache()
    predictor = load(pathlib.Path(flags.FLAGS.workdir))
    code = 0
    print(predictor.description, file=sys.stderr)
    for path, found in predict(predictor, paths):
        if isinstance(found, str):
            print(f"error: {path} {found}", file=sys.stderr)
            code = 2
            continue
        classes = _top(found, predictor.class_names, flags.FLAGS.top)
        if flags.FLAGS.json:
            print(json.dumps({"image": str(path), "classes": classes}, ensure_ascii=False), flush=True)
        else:
            lines = [f"{100 * each['probability']:7.2f}%  {each['class']}" for each in classes]
            print("\n".join([str(path), *lines]), flush=True)
    return code


def cli() -> None:
    """The command line."""
    flags.DEFINE_string("workdir", "", "folder of the run to predict with")
    flags.DEFINE_integer("top", 5, "how many classes to print for each image", lower_bound=1)
    flags.DEFINE_bool("json", False, "print one JSON object a line for each image")
    doors.run(main)


if __name__ == "__main__":
    cli()
