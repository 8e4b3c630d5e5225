"""The figures of a report that need a run's network itself: filters, class maps, distributions of
activations.

Where the checkpoint or the images are gone, the figure has no panels and its text says why.
"""

import base64
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import cv2
import jax
import numpy as np

from cnn_papers import zoo
from cnn_papers.claims.metrics import Finished
from cnn_papers.data.sources import open_split
from cnn_papers.errors import UserError
from cnn_papers.reporting.results import Figure, Line, Lines, Picture
from cnn_papers.runs import inputs, pictures
from cnn_papers.weights import predictor, trained
from cnn_papers.weights.trained import Trained

SHOWN, MEASURED = 8, 256  # images in a picture, images that a distribution is of
WIDE = 480  # pixels of a picture on the page, about
LEGIBLE = 5  # pixels of a filter's side from which it shows something
BINS, OUTERMOST = (
    48,
    (0.5, 99.5),
)  # of a distribution; what lies beyond these percentiles is in the outermost bins


def of_paper(paper: str, runs: Mapping[str, Finished], folder: pathlib.Path) -> list[Figure]:
    """The figures for which one of `runs` (by id, in `folder`) has the network: the first that has
    it.
    """
    models: dict[str, Any] = {
        each: zoo.build_model(run.config.model_name, **run.config.model)
        for each, run in runs.items()
    }
    columns = next(
        (each for each, model in models.items() if getattr(model, "columns", 1) > 1), None
    )
    mlpconv = next((each for each, model in models.items() if _is_mlpconv(model)), None)
    found = filters(f"{paper}: filters of the first layer", folder / columns) if columns else []
    found += _figure(f"{paper}: class maps", _class_maps, [folder / mlpconv]) if mlpconv else []
    if twins := _twins(models):
        found += _figure(f"{paper}: activations", _activations, [folder / each for each in twins])
    return found


def _is_mlpconv(model: Any) -> bool:
    """Whether a network is one of mlpconv layers whose maps are averaged, as NIN is."""
    return getattr(model, "head", "") == "gap" and not model.plain


def _twins(models: Mapping[str, Any]) -> list[str]:
    """A maxout network, and where there is one the same of rectifiers, but for how they start; none
    without maxout.
    """
    first = [each for each, model in models.items() if getattr(model, "hidden", "") == "maxout"]
    for one in first:
        for other, model in models.items():
            if (
                models[one].clone(hidden="relu", weight_init=getattr(model, "weight_init", ""))
                == model
            ):
                return [one, other]
    return first[:1]


def filters(title: str, run: pathlib.Path) -> list[Figure]:
    """The kernels of the first layer of a run, a picture for each column; no figure where they are
    too small.
    """
    return _figure(title, _filters, [run])


def _figure(title: str, draw: Any, runs: Iterable[pathlib.Path]) -> list[Figure]:
    try:
        text, panels = draw(*map(trained.from_run, runs))
    except UserError as error:
        return [Figure(title, f"Not drawn: {error}.", [])]
    return [Figure(title, text, panels)] if panels else []


def _filters(network: Trained) -> tuple[str, list[Picture]]:
    columns = getattr(network.model, "columns", 1)
    kernels = pictures.first_kernels(network.variables["params"], network.image_shape[-1], columns)
    text = f"Kernels of {_name(network)}, each stretched to its own range."
    panels = []
    for i, kernel in enumerate(kernels, 1):
        if min(kernel.shape[:2]) >= LEGIBLE:
            name = f"column {i}" if columns > 1 else "first layer"
            alt = f"{kernel.shape[3]} filters of {kernel.shape[0]} by {kernel.shape[1]} pixels: {name}"
            panels.append(_picture(name, pictures.filter_grid(kernel, zoom=1), alt))
    return text, panels


def _class_maps(network: Trained) -> tuple[str, list[Picture]]:
    """The maps that global average pooling averages, of each image's own class (NIN Figure 4)."""
    images, labels = _images(network, SHOWN)
    shapes = _ends(network, images)
    classes = network.config.model.num_classes
    layer = max(name for name, shape in shapes.items() if shape[-1] == classes and shape[1] > 1)
    maps = _outputs(network, layer, images)
    own = np.stack([each[..., label] for each, label in zip(maps, labels, strict=True)])
    bright = (
        (255 * own / np.maximum(maps.max((1, 2, 3)), 1e-12)[:, None, None])
        .clip(0, 255)
        .astype(np.uint8)
    )
    size = images.shape[2:0:-1]
    grey = np.stack([cv2.resize(each, size, interpolation=cv2.INTER_NEAREST) for each in bright])[
        ..., None
    ]
    names = [network.class_names[label] for label in labels]
    text = f"Of {_name(network)}: test images, and below each the map of its class, white where it responds most."
    line = np.full((1, 1, 3), 255, np.uint8).repeat(_row(grey).shape[1], 1)
    alt = f"{len(images)} test images of the classes {', '.join(names)}, below each where the network sees its class"
    return text, [
        _picture("images and maps", np.concatenate([_row(images), line, _row(grey)]), alt)
    ]


def _activations(*networks: Trained) -> tuple[str, list[Lines]]:
    """How the outputs of the last hidden layer are distributed, of networks that differ in
    `hidden`.
    """
    found = {}
    for network in networks:
        images, _ = _images(network, MEASURED)
        layer = max(name for name in _ends(network, images) if name.startswith("h"))
        values = _outputs(network, layer, images).ravel()
        found[f"{getattr(network.model, 'hidden', '')} ({layer})"] = values / max(
            values.std(), 1e-12
        )
    low, high = np.percentile(np.concatenate([*found.values()]), OUTERMOST)
    edges = np.linspace(low, high, BINS + 1)
    centres = ((edges[1:] + edges[:-1]) / 2).tolist()
    series = []
    for name, values in found.items():
        shares = 100 * np.histogram(values.clip(edges[0], edges[-1]), edges)[0] / values.size
        series.append(Line(name, centres, *[shares.tolist()] * 3))
    names = "; ".join(map(_name, networks))
    text = f"Outputs of the last hidden layer over {MEASURED} test images at most, of {names}."
    x, y = "activation, in standard deviations", "share of activations (%)"
    return text, [Lines("last hidden layer", x, y, series)]


def _images(network: Trained, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `count` test images, uint8 [n, h, w, c], and their labels."""
    data = network.config.data
    split = open_split(data.name, data.eval_split, data.data_dir)
    pipeline = inputs.open_pipeline(
        split, network.config, "eval_host", network.mesh, resident="never"
    )
    batch = next(pipeline.eval_batches(count))
    real = np.asarray(batch["mask"])
    return np.asarray(batch["image"])[real][:count], np.asarray(batch["label"])[real][:count]


def _outputs(network: Trained, layer: str, images: np.ndarray) -> np.ndarray:
    filled = np.concatenate([images, images[:1].repeat(-len(images) % network.mesh.size, 0)])
    rows = np.asarray(predictor.make_apply(network, layer)(network.variables, filled))[
        : len(images)
    ]
    predictor.check_finite(rows, network)
    return rows


def _ends(network: Trained, images: np.ndarray) -> dict[str, tuple[int, ...]]:
    """The shapes of the network's layers by name."""

    def look(variables: Any, image: Any) -> Any:
        return network.model.apply(variables, network.normalise(image, jax.random.key(0)))

    _, ends = jax.eval_shape(look, network.variables, images)
    return {name: end.shape for name, end in ends.items()}


def _name(network: Trained) -> str:
    """A network by its variant and whatever fields its run gave it."""
    model, data = network.config.model, network.config.data
    known = ("variant", "num_classes", "dtype")
    fields = ", ".join(
        f"{field}={value}"
        for field, value in model.items()
        if field not in known and value is not None
    )
    name = f"{network.config.model_name} '{model.variant}'" + (f" ({fields})" if fields else "")
    return f"{name} on {data.name} after {network.step:,} steps"


def _row(images: np.ndarray) -> np.ndarray:
    """Images uint8 [n, h, w, c], grey or RGB, side by side with a white line between them."""
    framed = np.pad(
        np.broadcast_to(images, (*images.shape[:3], 3)),
        [(0, 0), (0, 0), (0, 1), (0, 0)],
        constant_values=255,
    )
    return np.concatenate([*framed], 1)[:, :-1]


def _picture(title: str, image: np.ndarray, alt: str) -> Picture:
    """A panel of uint8 RGB [h, w, 3], kept small and shown as many times as large as is as wide as
    WIDE.
    """
    encoded = base64.b64encode(cv2.imencode(".png", image[..., ::-1])[1].tobytes()).decode()
    width = image.shape[1] * max(1, round(WIDE / image.shape[1]))
    return Picture(title, encoded, width, alt)
