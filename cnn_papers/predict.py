"""Predicts classes, or finds objects: python -m cnn_papers.predict --workdir=RUN IMAGE…

- `--workdir=RUN`: the network of a run, which needs neither its config file nor its data set.
- `--config=configs/vgg.py:torchvision --weights=vgg16.safetensors`: published weights.
- `--layer=fc7 --out=features.npz`: writes the outputs of that layer instead, for the images or,
  with `--split=test`, for a split of the config's data set.
- `--show=sheet.png`: draws the first 64 images with their classes; with `--cam`, each beside itself
  under the class activation map of its best class.

Where an image may show several classes, each has a score. One above 0 speaks for the class, unless
the network was trained by `config.loss.ranking`: then only the order of images by it counts.
A network of a task that finds objects does so by the first protocol of `eval.protocol`. Boxes are
printed as `[y1, x1, y2, x2]` in pixels, far edges exclusive, and drawn on copies of the images:
`photo.boxes.jpg` of `photo.jpg` in the folder `--out`, which is `predicted` unless given. The best
`--top` of a score of at least `--min_score` are shown.

An IMAGE is a JPEG, PNG, BMP or WebP file, or a folder: its images in the order of their names,
without sub-folders; a line says which files are left out. If the config's host operations leave an
image in another size than that of evaluation, it is scaled and cropped to that.

For each file that is missing, cannot be decoded or is too thin to be scaled, a line on stderr names
it, and the exit code is 2; the other images are predicted.
"""

import json
import math
import pathlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from absl import flags

from cnn_papers import doors, files
from cnn_papers.data import folders
from cnn_papers.errors import UserError
from cnn_papers.runs import compile_cache
from cnn_papers.terminal import counted
from cnn_papers.weights import detector, features, prediction_sheet, trained
from cnn_papers.weights.class_maps import make_class_maps
from cnn_papers.weights.detector import Found
from cnn_papers.weights.prediction_sheet import Prediction
from cnn_papers.weights.predictor import Predictor, make_predictor, predict_images, read_file
from cnn_papers.weights.trained import Trained

LAYER_ALONE = "--layer=NAME and --out=FILE.npz go together, and --split=NAME with them"
PICTURES = "predicted"  # the folder of pictures
Outcome = TypeVar("Outcome")


def find_images(arguments: Sequence[str]) -> list[pathlib.Path]:
    """Returns the image files that the arguments name, even if they do not exist.

    Raises:
      UserError: a folder contains no images, or cannot be read.
    """
    paths: list[pathlib.Path] = []
    for path in map(pathlib.Path, arguments):
        if not path.is_dir():
            paths.append(path)
            continue
        images: list[pathlib.Path] = []
        others: list[str] = []
        for file in folders.entries(path):
            if file.is_dir() or file.name[0] == ".":
                continue
            if folders.is_image(str(file)):
                images.append(file)
            else:
                others.append(file.name)
        folders.say_left_out(path, others)
        if not images:
            raise UserError(
                f"{path} holds no images (JPEG, PNG, BMP or WebP); sub-folders are not searched"
            )
        paths += images
    return paths


def _top(outputs: np.ndarray, predictor: Predictor, top: int) -> list[dict[str, Any]]:
    """Returns the `top` classes of the highest probability or score, in descending order."""
    order = np.argsort(-outputs, kind="stable")[:top]
    names = predictor.class_names
    key = "score" if predictor.has_scores else "probability"
    return [{"class": names[i], "label": int(i), key: float(outputs[i])} for i in order]


def main(argv: list[str]) -> int:
    """Prints the classes of every image, or writes features; returns the exit code."""
    values = flags.FLAGS
    if bool(values.workdir) == bool(values.weights) or bool(argv[1:]) == bool(values.split):
        raise UserError(
            "write python -m cnn_papers.predict --workdir=RUN IMAGE… with the folder of a run, or "
            "--config=CONFIG --weights=FILE IMAGE…; with --layer=NAME --out=FILE, "
            "--split=NAME may replace the images"
        )
    if (values.layer and not values.out) or (values.split and not values.layer):
        raise UserError(LAYER_ALONE)
    if values.cam and not values.show:
        raise UserError("--cam draws maps on the sheet of --show=FILE.png")
    if values.show and values.layer:
        raise UserError("--show draws predictions, and --layer makes none")
    if values.layer and not values.out.endswith(".npz"):
        raise UserError(f"--out={values.out}: the name of a file of features ends in .npz")
    paths = find_images([files.expand(argument) for argument in argv[1:]])
    compile_cache.enable()
    if values.workdir:
        network = trained.from_run(pathlib.Path(values.workdir), doors.config_overrides())
    else:
        network = trained.from_file(values.weights, doors.config_value())
    if values.show and len(network.image_shape) != 3:
        raise UserError(f"--show: {network.description} reads descriptors, which are no pictures")
    if detector.finds_objects(network) and not values.layer:
        if values.show:
            raise UserError(f"--show is of classes; boxes are drawn in the folder --out={PICTURES}")
        return _find(network, paths)
    if values.out and not values.layer:
        raise UserError(LAYER_ALONE)
    if values.min_score > -math.inf:
        raise UserError(f"--min_score leaves out boxes, and {network.description} finds none")
    print(network.description, file=sys.stderr)
    if values.split:
        features.of_split(network, values.layer, values.split, pathlib.Path(values.out))
        return 0
    predictor = make_predictor(network, values.layer)
    class_maps = make_class_maps(network) if values.cam else None
    outputs = _readable(predict_images(predictor, paths))
    if values.layer:
        rows = list(outputs)
        features.of_images(values.layer, rows, pathlib.Path(values.out))
        return 0 if len(rows) == len(paths) else 2
    predicted = _print(outputs, predictor, values.top, values.json)
    if values.show and predicted:
        _draw(predicted, predictor, class_maps, pathlib.Path(values.show))
    return 0 if len(predicted) == len(paths) else 2


def _readable(
    results: Iterator[tuple[pathlib.Path, Outcome | str]],
) -> Iterator[tuple[pathlib.Path, Outcome]]:
    """Yields the images that could be read; prints the errors of the others."""
    for path, result in results:
        if isinstance(result, str):
            print(f"error: {path} {result}", file=sys.stderr)
        else:
            yield path, result


def _print(
    outputs: Iterator[tuple[pathlib.Path, np.ndarray]],
    predictor: Predictor,
    top: int,
    as_json: bool,
) -> list[tuple[pathlib.Path, list[dict[str, Any]]]]:
    """Prints the `top` classes of every image, and returns them."""
    predicted = []
    for path, of_image in outputs:
        classes = _top(of_image, predictor, top)
        predicted.append((path, classes))
        if as_json:
            print(json.dumps({"image": str(path), "classes": classes}), flush=True)
        else:
            print("\n".join([str(path), *map(_class_text, classes)]), flush=True)
    return predicted


def _class_text(row: dict[str, Any]) -> str:
    if "score" in row:
        return f"{row['score']:8.3f}  {row['class']}"
    return f"{100 * row['probability']:7.2f}%  {row['class']}"


def _draw(
    predicted: Sequence[tuple[pathlib.Path, list[dict[str, Any]]]],
    predictor: Predictor,
    class_maps: Callable[[np.ndarray], np.ndarray] | None,
    target: pathlib.Path,
) -> None:
    """Draws the first images with their classes in the file `target`."""
    predictions = []
    for path, classes in predicted[: prediction_sheet.MOST]:
        image: Any = read_file(predictor.prepare, path)  # it could be read before
        lines = [_class_text(row).strip() for row in classes]
        predictions.append(Prediction(path, image, classes[0]["label"], lines))
    prediction_sheet.write(target, predictions, class_maps)
    of_all = "" if len(predictions) == len(predicted) else f" of {len(predicted)}"
    print(f"{target} shows {counted(len(predictions), 'image')}{of_all}", file=sys.stderr)


def _find(network: Trained, paths: Sequence[pathlib.Path]) -> int:
    """Prints and draws the objects on every image; returns the exit code."""
    values = flags.FLAGS
    folder = values.workdir and pathlib.Path(values.workdir)
    finder = detector.make_detector(network, folder or None)
    pictures = detector.picture_paths(paths, pathlib.Path(values.out or PICTURES))
    print(f"{network.description}, by {finder.protocol}", file=sys.stderr)
    print("boxes are [y1, x1, y2, x2] in pixels, the far edges exclusive", file=sys.stderr)
    count = 0
    for path, found in _readable(detector.find_objects(finder, paths)):
        count += 1
        found = found._replace(
            detections=detector.best_of(found.detections, values.top, values.min_score)
        )
        detector.write_picture(pictures[path], found, finder.class_names)
        print(_boxes_text(path, found, pictures[path], finder.class_names), flush=True)
    return 0 if count == len(paths) else 2


def _boxes_text(
    path: pathlib.Path, found: Found, picture: pathlib.Path, names: Sequence[str]
) -> str:
    """Returns the objects on an image: a line of JSON with `--json`, else a table."""
    rows = [
        {
            "class": names[label],
            "label": int(label),
            "score": float(score),
            "box": [round(float(edge), 1) for edge in box],
        }
        for box, label, score in zip(*found.detections, strict=True)
    ]
    if flags.FLAGS.json:
        height, width = found.image.shape[:2]
        size = {"height": height, "width": width}
        return json.dumps({"image": str(path), **size, "boxes": rows, "picture": str(picture)})
    count = f"{len(rows)} box" + ("" if len(rows) == 1 else "es")
    widest = max((len(row["class"]) for row in rows), default=0)
    lines = [f"{row['score']:8.3f}  {row['class']:<{widest}}  {row['box']}" for row in rows]
    return "\n".join([f"{path}: {count}, drawn in {picture}", *lines])


def define_flags() -> None:
    """Defines the flags of this command."""
    doors.config_flag()
    doors.path_flag("workdir", "folder of the run to predict with")
    doors.path_flag(
        "weights",
        "instead: published weights, a file or a name on the hub, for the network of --config",
    )
    flags.DEFINE_integer(
        "top", 5, "number of classes, or of boxes, to print for each image", lower_bound=1
    )
    flags.DEFINE_float("min_score", -math.inf, "leave out boxes of a lower score")
    flags.DEFINE_bool("json", False, "print one line of JSON for each image")
    doors.path_flag("show", "draw images with their classes in this file", suffix=".png")
    flags.DEFINE_bool("cam", False, "with --show: draw class activation maps too")
    flags.DEFINE_string("layer", "", "write the outputs of this layer to --out instead")
    doors.path_flag(
        "out", f"the .npz file to write features to; or the folder of pictures, else {PICTURES}"
    )
    flags.DEFINE_string(
        "split", "", "take features of this split of the config's data set instead of images"
    )


def cli() -> None:
    """Runs the command line."""
    doors.run(main, define_flags)


if __name__ == "__main__":
    cli()
