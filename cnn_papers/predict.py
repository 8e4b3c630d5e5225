"""The likeliest classes of your own images, or a layer's features: python -m cnn_papers.predict
--workdir=RUN IMAGE…

The network is that of a run (`--workdir=RUN`; neither its config file nor its data set needs to be
there), or one with published weights (`--config=configs/vgg.py:torchvision
--weights=vgg16.safetensors`).

An IMAGE is a JPEG or PNG file, or a folder: its .jpg, .jpeg and .png files in the order of their
names, without sub-folders. An image that the config's host operations leave in another size than it
was evaluated on is scaled and cropped to that.

With `--layer=fc7 --out=features.npz` the outputs of that layer are written instead, for the images
given or, with `--split=test`, for a split of the config's data set.

A file that is missing or cannot be decoded is named in one line on stderr; the others are predicted
all the same, and the exit code is then 2.
"""

import json
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from absl import flags

from cnn_papers import doors
from cnn_papers.data.folders import IMAGE_SUFFIXES
from cnn_papers.errors import UserError
from cnn_papers.runs import compile_cache
from cnn_papers.weights import features, trained
from cnn_papers.weights.predictor import Predictor, make_predictor, predict_images


def find_images(arguments: Sequence[str]) -> list[pathlib.Path]:
    """The files that the command line means; one that does not exist stays, for `predict` to tell."""
    found: list[pathlib.Path] = []
    for path in map(pathlib.Path, arguments):
        if not path.is_dir():
            found.append(path)
            continue
        images = sorted(
            file
            for file in path.iterdir()
            if file.suffix.lower() in IMAGE_SUFFIXES and file.name[0] != "."
        )
        found += images
        if not images:
            raise UserError(
                f"{path} holds no images ({', '.join(IMAGE_SUFFIXES)}); sub-folders are not searched"
            )
    return found


def _top(probabilities: np.ndarray, names: Sequence[str], top: int) -> list[dict[str, Any]]:
    """The `top` likeliest classes, likeliest first."""
    order = np.argsort(-probabilities, kind="stable")[:top]
    return [
        {"class": names[i], "label": int(i), "probability": float(probabilities[i])} for i in order
    ]


def main(argv: list[str]) -> int:
    """Prints the likeliest classes of every image, or writes features; 2 if an image could not be
    read.
    """
    wanted = flags.FLAGS
    if bool(wanted.workdir) == bool(wanted.weights) or bool(argv[1:]) == bool(wanted.split):
        raise UserError(
            "write python -m cnn_papers.predict --workdir=RUN IMAGE… with the folder of a run, or "
            "--config=CONFIG --weights=FILE IMAGE…; with --layer=NAME --out=FILE, --split=NAME may stand for the images"
        )
    if bool(wanted.layer) != bool(wanted.out) or (wanted.split and not wanted.layer):
        raise UserError("--layer=NAME and --out=FILE.npz go together, and --split=NAME with them")
    if wanted.out and not wanted.out.endswith(".npz"):
        raise UserError(f"--out={wanted.out}: the name of a file of features ends in .npz")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # about damaged files
    paths = find_images(argv[1:])
    compile_cache.use_compile_cache()
    if wanted.workdir:
        network = trained.from_run(pathlib.Path(wanted.workdir))
    else:
        network = trained.from_file(pathlib.Path(wanted.weights), doors.config_value())
    print(network.description, file=sys.stderr)
    if wanted.split:
        features.of_split(network, wanted.layer, wanted.split, pathlib.Path(wanted.out))
        return 0
    predictor = make_predictor(network, wanted.layer)
    found = _readable(predict_images(predictor, paths))
    if wanted.layer:
        rows = list(found)
        features.of_images(wanted.layer, rows, pathlib.Path(wanted.out))
        return 0 if len(rows) == len(paths) else 2
    return 0 if _show(found, predictor, wanted.top, wanted.json) == len(paths) else 2


def _readable(
    found: Iterator[tuple[pathlib.Path, np.ndarray | str]],
) -> Iterator[tuple[pathlib.Path, np.ndarray]]:
    """The images that could be read; says what is wrong with the others."""
    for path, result in found:
        if isinstance(result, str):
            print(f"error: {path} {result}", file=sys.stderr)
        else:
            yield path, result


def _show(
    found: Iterator[tuple[pathlib.Path, np.ndarray]], predictor: Predictor, top: int, as_json: bool
) -> int:
    """Prints the `top` classes of every image; returns the number of images."""
    count = 0
    for path, probabilities in found:
        count += 1
        classes = _top(probabilities, predictor.class_names, top)
        if as_json:
            print(
                json.dumps({"image": str(path), "classes": classes}, ensure_ascii=False), flush=True
            )
        else:
            lines = [f"{100 * each['probability']:7.2f}%  {each['class']}" for each in classes]
            print("\n".join([str(path), *lines]), flush=True)
    return count


def cli() -> None:
    """The command line."""
    doors.config_flag()
    flags.DEFINE_string("workdir", "", "folder of the run to predict with")
    flags.DEFINE_string(
        "weights", "", "instead: a file of published weights, for the network of --config"
    )
    flags.DEFINE_integer("top", 5, "how many classes to print for each image", lower_bound=1)
    flags.DEFINE_bool("json", False, "print one JSON object a line for each image")
    flags.DEFINE_string("layer", "", "write the outputs of this layer to --out instead")
    flags.DEFINE_string("out", "", "the .npz file to write features to")
    flags.DEFINE_string(
        "split", "", "take features of this split of the config's data set instead of images"
    )
    doors.run(main)


if __name__ == "__main__":
    cli()
