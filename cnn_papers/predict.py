"""Predicts the classes of images: python -m cnn_papers.predict --workdir=RUN IMAGE…

- `--workdir=RUN`: the network of a run, which needs neither its config file nor its data set.
- `--config=configs/vgg.py:torchvision --weights=vgg16.safetensors`: published weights.
- `--layer=fc7 --out=features.npz`: writes the outputs of that layer instead, for the images or,
  with `--split=test`, for a split of the config's data set.

An IMAGE is a JPEG or PNG file, or a folder: its .jpg, .jpeg and .png files in the order of their
names, without sub-folders. If the config's host operations leave an image in another size than that
of evaluation, it is scaled and cropped to that.

For each file that is missing or cannot be decoded a line on stderr names it, and the exit code is
2; the other images are predicted.
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
    """Returns the image files that the arguments name, even if they do not exist.

    Raises:
      UserError: a folder contains no images.
    """
    paths: list[pathlib.Path] = []
    for path in map(pathlib.Path, arguments):
        if not path.is_dir():
            paths.append(path)
            continue
        images = sorted(
            file
            for file in path.iterdir()
            if file.suffix.lower() in IMAGE_SUFFIXES and file.name[0] != "."
        )
        paths += images
        if not images:
            suffixes = ", ".join(IMAGE_SUFFIXES)
            raise UserError(f"{path} holds no images ({suffixes}); sub-folders are not searched")
    return paths


def _top(probabilities: np.ndarray, names: Sequence[str], top: int) -> list[dict[str, Any]]:
    """Returns the `top` most probable classes, in descending order."""
    order = np.argsort(-probabilities, kind="stable")[:top]
    return [
        {"class": names[i], "label": int(i), "probability": float(probabilities[i])} for i in order
    ]


def main(argv: list[str]) -> int:
    """Prints the classes of every image, or writes features; returns the exit code."""
    values = flags.FLAGS
    if bool(values.workdir) == bool(values.weights) or bool(argv[1:]) == bool(values.split):
        raise UserError(
            "write python -m cnn_papers.predict --workdir=RUN IMAGE… with the folder of a run, or "
            "--config=CONFIG --weights=FILE IMAGE…; with --layer=NAME --out=FILE, "
            "--split=NAME may replace the images"
        )
    if bool(values.layer) != bool(values.out) or (values.split and not values.layer):
        raise UserError("--layer=NAME and --out=FILE.npz go together, and --split=NAME with them")
    if values.out and not values.out.endswith(".npz"):
        raise UserError(f"--out={values.out}: the name of a file of features ends in .npz")
    # OpenCV's own messages about damaged files would repeat ours.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    paths = find_images(argv[1:])
    compile_cache.enable()
    if values.workdir:
        network = trained.from_run(pathlib.Path(values.workdir), doors.config_overrides())
    else:
        network = trained.from_file(pathlib.Path(values.weights), doors.config_value())
    print(network.description, file=sys.stderr)
    if values.split:
        features.of_split(network, values.layer, values.split, pathlib.Path(values.out))
        return 0
    predictor = make_predictor(network, values.layer)
    outputs = _readable(predict_images(predictor, paths))
    if values.layer:
        rows = list(outputs)
        features.of_images(values.layer, rows, pathlib.Path(values.out))
        return 0 if len(rows) == len(paths) else 2
    return 0 if _show(outputs, predictor, values.top, values.json) == len(paths) else 2


def _readable(
    results: Iterator[tuple[pathlib.Path, np.ndarray | str]],
) -> Iterator[tuple[pathlib.Path, np.ndarray]]:
    """Yields the images that could be read; prints the errors of the others."""
    for path, result in results:
        if isinstance(result, str):
            print(f"error: {path} {result}", file=sys.stderr)
        else:
            yield path, result


def _show(
    outputs: Iterator[tuple[pathlib.Path, np.ndarray]],
    predictor: Predictor,
    top: int,
    as_json: bool,
) -> int:
    """Prints the `top` classes of every image; returns the number of images."""
    count = 0
    for path, probabilities in outputs:
        count += 1
        classes = _top(probabilities, predictor.class_names, top)
        if as_json:
            line = json.dumps({"image": str(path), "classes": classes}, ensure_ascii=False)
            print(line, flush=True)
        else:
            lines = [f"{100 * row['probability']:7.2f}%  {row['class']}" for row in classes]
            print("\n".join([str(path), *lines]), flush=True)
    return count


def cli() -> None:
    """Runs the command line."""
    doors.config_flag()
    flags.DEFINE_string("workdir", "", "folder of the run to predict with")
    flags.DEFINE_string(
        "weights", "", "instead: a file of published weights, for the network of --config"
    )
    flags.DEFINE_integer("top", 5, "number of classes to print for each image", lower_bound=1)
    flags.DEFINE_bool("json", False, "print one line of JSON for each image")
    flags.DEFINE_string("layer", "", "write the outputs of this layer to --out instead")
    flags.DEFINE_string("out", "", "the .npz file to write features to")
    flags.DEFINE_string(
        "split", "", "take features of this split of the config's data set instead of images"
    )
    doors.run(main)


if __name__ == "__main__":
    cli()
