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

An IMAGE is a JPEG, PNG, BMP or WebP file, or a folder: its images in the order of their names, and
if it has none of its own those of its sub-folders, which must be classes of the network; a line
says which files are left out. If the config's host operations leave an image in another size than
that of evaluation, it is scaled and cropped to that.

The true class of an image is known if its folder has the name of one. Then the output says which
images are wrong and lists them, those of the most probable wrong class first. The sheet of `--show`
begins with them, each with a red frame and its true class. `--wrong` leaves out all other images.
Where an image may show several classes, nothing is compared.

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
from cnn_papers.data import progress
from cnn_papers.errors import UserError, listed
from cnn_papers.runs import compile_cache
from cnn_papers.terminal import counted
from cnn_papers.weights import detector, features, prediction_sheet, predictions, trained
from cnn_papers.weights.class_maps import make_class_maps
from cnn_papers.weights.detector import Found
from cnn_papers.weights.named_images import NamedImage, find_images
from cnn_papers.weights.prediction_sheet import Tile
from cnn_papers.weights.predictions import Prediction
from cnn_papers.weights.predictor import (
    Predictor,
    has_scores,
    make_predictor,
    predict_images,
    read_file,
)
from cnn_papers.weights.trained import Trained

LAYER_ALONE = "--layer=NAME and --out=FILE.npz go together, and --split=NAME with them"
PICTURES = "predicted"  # the folder of pictures
Outcome = TypeVar("Outcome")


def main(argv: list[str]) -> int:
    """Prints the classes of every image, or writes features; returns the exit code."""
    values = flags.FLAGS
    _check_flags(has_images=bool(argv[1:]))
    arguments = [files.expand(argument) for argument in argv[1:]]
    compile_cache.enable()
    if values.workdir:
        network = trained.from_run(pathlib.Path(values.workdir), doors.config_overrides())
    else:
        network = trained.from_file(values.weights, doors.config_value())
    _check_task(network)
    images = find_images(arguments, network.class_names)
    if detector.finds_objects(network) and not values.layer:
        return _find(network, [image.path for image in images])
    if values.wrong and not any(image.true_class for image in images):
        raise UserError(
            "--wrong: none of the images is in a folder that is named after a class of the network"
            f" ({listed(network.output_names)})"
        )
    print(network.description, file=sys.stderr)
    if values.split:
        features.of_split(network, values.layer, values.split, pathlib.Path(values.out))
        return 0
    predictor = make_predictor(network, values.layer)
    class_maps = make_class_maps(network) if values.cam else None
    if values.layer:
        outputs = _readable(predict_images(predictor, [image.path for image in images]))
        rows = list(progress.reported(outputs, len(images), values.layer))
        features.of_images(values.layer, rows, pathlib.Path(values.out))
        return 0 if len(rows) == len(images) else 2
    predicted = _classify(network, predictor, images)
    if values.show and predicted:
        _draw(predicted, predictor, class_maps, pathlib.Path(values.show))
    return 0 if len(predicted) == len(images) else 2


def _check_flags(*, has_images: bool) -> None:
    """Raises UserError for flags that do not go together."""
    values = flags.FLAGS
    if bool(values.workdir) == bool(values.weights) or has_images == bool(values.split):
        raise UserError(
            "write python -m cnn_papers.predict --workdir=RUN IMAGE… with the folder of a run, or "
            "--config=CONFIG --weights=FILE IMAGE…; with --layer=NAME --out=FILE, "
            "--split=NAME may replace the images"
        )
    if (values.layer and not values.out) or (values.split and not values.layer):
        raise UserError(LAYER_ALONE)
    if values.cam and not values.show:
        raise UserError("--cam draws maps on the sheet of --show=FILE.png")
    for flag in ("show", "wrong"):
        if values[flag].value and values.layer:
            raise UserError(f"--{flag} is of predictions, and --layer makes none")
    if values.layer and not values.out.endswith(".npz"):
        raise UserError(f"--out={values.out}: the name of a file of features ends in .npz")


def _check_task(network: Trained) -> None:
    """Raises UserError for flags that the network cannot serve."""
    values = flags.FLAGS
    if values.show and len(network.image_shape) != 3:
        raise UserError(f"--show: {network.description} reads descriptors, which are no pictures")
    if values.layer:
        return
    if detector.finds_objects(network):
        if values.show:
            raise UserError(f"--show is of classes; boxes are drawn in the folder --out={PICTURES}")
        if values.wrong:
            raise UserError(f"--wrong is of classes, and {network.description} finds objects")
        return
    if values.wrong and has_scores(network):
        raise UserError(f"--wrong: {_several_classes(network)}, so that no best one is wrong")
    if values.out:
        raise UserError(LAYER_ALONE)
    if values.min_score > -math.inf:
        raise UserError(f"--min_score leaves out boxes, and {network.description} finds none")


def _readable(
    results: Iterator[tuple[pathlib.Path, Outcome | str]],
) -> Iterator[tuple[pathlib.Path, Outcome]]:
    """Yields the images that could be read; prints the errors of the others."""
    for path, result in results:
        if isinstance(result, str):
            print(f"error: {path} {result}", file=sys.stderr)
        else:
            yield path, result


def _classify(
    network: Trained, predictor: Predictor, images: Sequence[NamedImage]
) -> list[Prediction]:
    """Prints the classes of every image that can be read, and returns them."""
    values = flags.FLAGS
    compare = not predictor.has_scores
    if not compare and any(image.true_class for image in images):
        print(f"true classes are not compared: {_several_classes(network)}", file=sys.stderr)
    as_line = predictions.as_json if values.json else predictions.as_text
    image_of = {image.path: image for image in images}
    outputs = _readable(predict_images(predictor, [image.path for image in images]))
    if values.wrong:
        outputs = progress.reported(outputs, len(images), "predicting")
    predicted = []
    for path, of_image in outputs:
        image = image_of[path]
        prediction = predictions.of_image(image, of_image, predictor, values.top, compare=compare)
        predicted.append(prediction)
        if not values.wrong:
            print(as_line(prediction), flush=True)
    if any(prediction.true_class for prediction in predicted):
        _print_wrong(predicted)
    return predicted


def _several_classes(network: Trained) -> str:
    return f"an image of the task '{network.config.task}' may show several classes"


def _print_wrong(predicted: Sequence[Prediction]) -> None:
    """Prints how many images are wrong and, where they are not marked in JSON, which."""
    values = flags.FLAGS
    wrong = predictions.worst_first(predicted)
    count = predictions.count_text(predicted) + (", the most confident first" if wrong else "")
    print(count, file=sys.stderr if values.json else sys.stdout, flush=True)
    if values.json:
        lines = [predictions.as_json(prediction) for prediction in wrong if values.wrong]
    else:
        lines = predictions.list_lines(wrong)
    for line in lines:
        print(line, flush=True)


def _draw(
    predicted: Sequence[Prediction],
    predictor: Predictor,
    class_maps: Callable[[np.ndarray], np.ndarray] | None,
    target: pathlib.Path,
) -> None:
    """Draws images with their classes in the file `target`: wrong ones first, the worst first."""
    wrong = predictions.worst_first(predicted)
    others = [prediction for prediction in predicted if not prediction.is_wrong]
    shown = wrong if flags.FLAGS.wrong else [*wrong, *others]
    if not shown:
        print(f"{target} is not written: no image is wrong", file=sys.stderr)
        return
    tiles = []
    for prediction in shown[: prediction_sheet.MOST]:
        image: Any = read_file(predictor.prepare, prediction.path)  # it could be read before
        texts = [prediction.mark, *map(predictions.class_text, prediction.classes)]
        lines = [text.strip() for text in texts if text]
        label = prediction.classes[0]["label"]
        tiles.append(Tile(prediction.path, image, label, lines, is_wrong=prediction.is_wrong))
    prediction_sheet.write(target, tiles, class_maps)
    of_all = "" if len(tiles) == len(shown) else f" of {len(shown):,}"
    order = ", the wrong ones first" if wrong and len(wrong) < len(shown) else ""
    print(f"{target} shows {counted(len(tiles), 'image')}{of_all}{order}", file=sys.stderr)


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
    flags.DEFINE_bool("wrong", False, "leave out images that are not known to be wrong")
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
