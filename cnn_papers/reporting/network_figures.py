"""Figures of a report that need a run's network: filters, class maps, activations.

If the checkpoint or the images are missing, a figure has no panels and its text says why.
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
from cnn_papers.data.pipeline import parse_host
from cnn_papers.errors import UserError
from cnn_papers.reporting.results import Figure, Line, Lines, Picture
from cnn_papers.runs import inputs, pictures
from cnn_papers.weights import predictor, trained
from cnn_papers.weights.trained import Trained

SHOWN, MEASURED = 8, 256  # images in a picture, images of a distribution
WIDE = 480  # pixels of a picture on the page, about
BINS = 48  # of a distribution
OUTERMOST = (0.5, 99.5)  # percentiles; values beyond them are in the outermost bins


def of_paper(paper: str, runs: Mapping[str, Finished], folder: pathlib.Path) -> list[Figure]:
    """Returns the figures of a paper, each of the first of `runs` that has its kind of network.

    `runs` are by id, in `folder`.
    """
    models: dict[str, Any] = {
        job_id: zoo.build_model(run.config.model_name, **run.config.model)
        for job_id, run in runs.items()
    }
    with_columns = [job_id for job_id, model in models.items() if getattr(model, "columns", 1) > 1]
    with_mlpconv = [job_id for job_id, model in models.items() if _is_mlpconv(model)]
    figures = []
    if with_columns:
        figures += filters(f"{paper}: filters of the first layer", folder / with_columns[0])
    if with_mlpconv:
        figures += _figure(f"{paper}: class maps", _class_maps, [folder / with_mlpconv[0]])
    if twins := _twins(models):
        paths = [folder / job_id for job_id in twins]
        figures += _figure(f"{paper}: activations", _activations, paths)
    return figures


def _is_mlpconv(model: Any) -> bool:
    """Returns whether a network averages the maps of mlpconv layers, as NIN does."""
    return getattr(model, "head", "") == "gap" and not model.plain


def _twins(models: Mapping[str, Any]) -> list[str]:
    """Returns a maxout network and, if there is one, its twin of rectifiers; none without maxout.

    Twins may differ in the initialisation of their weights.
    """
    maxout = [name for name, model in models.items() if getattr(model, "hidden", "") == "maxout"]
    for name in maxout:
        for other, model in models.items():
            weight_init = getattr(model, "weight_init", "")
            if models[name].clone(hidden="relu", weight_init=weight_init) == model:
                return [name, other]
    return maxout[:1]


def filters(title: str, run: pathlib.Path) -> list[Figure]:
    """Returns the kernels of a run's first layer, a picture for each column.

    There is no figure if they are too small.
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
        if min(kernel.shape[:2]) >= pictures.LEGIBLE:
            name = f"column {i}" if columns > 1 else "first layer"
            height, width, _, count = kernel.shape
            alt = f"{count} filters of {height} by {width} pixels: {name}"
            panels.append(_picture(name, pictures.filter_grid(kernel, zoom=1), alt))
    return text, panels


def _class_maps(network: Trained) -> tuple[str, list[Picture]]:
    """Draws the maps that global average pooling averages, of each image's class (NIN Figure 4)."""
    images, labels = _images(network, SHOWN)
    shapes = _endpoint_shapes(network, images)
    classes = network.config.model.num_classes
    layer = max(name for name, shape in shapes.items() if shape[-1] == classes and shape[1] > 1)
    maps = _outputs(network, layer, images)
    own = np.stack([of_image[..., label] for of_image, label in zip(maps, labels, strict=True)])
    highest = np.maximum(maps.max((1, 2, 3)), 1e-12)[:, None, None]
    bright = (255 * own / highest).clip(0, 255).astype(np.uint8)
    size = images.shape[2:0:-1]
    grey = [cv2.resize(of_image, size, interpolation=cv2.INTER_NEAREST) for of_image in bright]
    below = _row(np.stack(grey)[..., None])
    line = np.full((1, below.shape[1], 3), 255, np.uint8)
    names = [network.output_names[label] for label in labels]
    text = (
        f"Of {_name(network)}: test images, and below each the map of its class, "
        "white where it responds most."
    )
    alt = (
        f"{len(images)} test images of the classes {', '.join(names)}, "
        "below each where the network sees its class"
    )
    picture = np.concatenate([_row(images), line, below])
    return text, [_picture("images and maps", picture, alt)]


def _activations(*networks: Trained) -> tuple[str, list[Lines]]:
    """Draws the distribution of the last hidden layer's outputs, of networks by `hidden`."""
    outputs = {}
    for network in networks:
        images, _ = _images(network, MEASURED)
        layer = max(name for name in _endpoint_shapes(network, images) if name.startswith("h"))
        values = _outputs(network, layer, images).ravel()
        hidden = getattr(network.model, "hidden", "")
        outputs[f"{hidden} ({layer})"] = values / max(values.std(), 1e-12)
    low, high = np.percentile(np.concatenate([*outputs.values()]), OUTERMOST)
    edges = np.linspace(low, high, BINS + 1)
    centres = ((edges[1:] + edges[:-1]) / 2).tolist()
    series = []
    for name, values in outputs.items():
        shares = 100 * np.histogram(values.clip(edges[0], edges[-1]), edges)[0] / values.size
        series.append(Line(name, centres, *[shares.tolist()] * 3))
    names = "; ".join(map(_name, networks))
    text = f"Outputs of the last hidden layer over {MEASURED} test images at most, of {names}."
    x, y = "activation, in standard deviations", "share of activations (%)"
    return text, [Lines("last hidden layer", x, y, series)]


def _images(network: Trained, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first `count` test images, uint8 [n, h, w, c], and their labels."""
    data = network.config.data
    eval_host = parse_host(data.eval_host, key="data.eval_host")
    pipeline = inputs.open_pipeline(
        trained.open_labelled(network, data.eval_split),
        network.config,
        eval_host,
        network.mesh,
        resident="never",
    )
    batch = next(pipeline.eval_batches(count))
    real = np.asarray(batch["mask"])
    return np.asarray(batch["image"])[real][:count], np.asarray(batch["label"])[real][:count]


def _outputs(network: Trained, layer: str, images: np.ndarray) -> np.ndarray:
    """Returns the outputs of a layer for each image; UserError if some are not finite."""
    apply = predictor.make_apply(network, layer)
    filled = np.concatenate([images, images[:1].repeat(-len(images) % network.mesh.size, 0)])
    rows = np.asarray(apply(network.variables, filled))[: len(images)]
    predictor.check_finite(rows, network)
    return rows


def _endpoint_shapes(network: Trained, images: np.ndarray) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the network's endpoints by name."""

    def apply(variables: Any, image: Any) -> Any:
        return network.model.apply(variables, network.normalise(image, jax.random.key(0)))

    _, endpoints = jax.eval_shape(apply, network.variables, images)
    return {name: endpoint.shape for name, endpoint in endpoints.items()}


def _name(network: Trained) -> str:
    """Returns a network's variant, the fields that its run set, its data and its steps."""
    config = network.config
    name = zoo.full_name(config.model_name, **config.model)
    return f"{name} on {config.data.name} after {network.step:,} steps"


def _row(images: np.ndarray) -> np.ndarray:
    """Returns images uint8 [n, h, w, c], grey or RGB, side by side between white lines."""
    framed = np.pad(
        np.broadcast_to(images, (*images.shape[:3], 3)),
        [(0, 0), (0, 0), (0, 1), (0, 0)],
        constant_values=255,
    )
    return np.concatenate([*framed], 1)[:, :-1]


def _picture(title: str, image: np.ndarray, alt: str) -> Picture:
    """Returns a panel of an image, uint8 RGB [h, w, 3].

    It keeps its size in the file, and is shown at the multiple of it that is nearest to WIDE.
    """
    png = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
    encoded = base64.b64encode(png).decode()
    width = image.shape[1] * max(1, round(WIDE / image.shape[1]))
    return Picture(title, encoded, width, alt)
