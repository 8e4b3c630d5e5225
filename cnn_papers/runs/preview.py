"""What a recipe's network gets to see: the figures of its training images, and its first images as
a picture.
"""

import pathlib
from typing import Any

import cv2
import jax
import numpy as np

from cnn_papers.data import contact_sheet, statistics
from cnn_papers.data.augment import compose
from cnn_papers.data.sources import open_split
from cnn_papers.errors import UserError
from cnn_papers.files import whole
from cnn_papers.parallel import mesh as meshes
from cnn_papers.runs import inputs

IMAGES = 40  # in the picture, where a batch has as many


def compute_statistics(config: Any) -> None:
    """Computes the figures that `config` (a ConfigDict) asks for, keeps them for its runs, and
    prints them.
    """
    split = open_split(config.data.name, config.data.train_split, config.data.data_dir)
    ops = inputs.parse_data(config.data)
    figures = inputs.open_statistics(split, config, ops, meshes.make_mesh(1))
    if figures is None:
        print(
            "no operation of config.data.train_device or config.data.eval_device needs statistics"
        )
        return
    files = [folder / f"{figures.fingerprint}.npz" for folder in statistics.places(split)]
    lines = {
        "mean": figures.mean,
        "deviation": figures.std,
        "colour eigenvalues": figures.eigenvalues,
    }
    if figures.whitening is not None:
        lines["whitening eigenvalues"] = figures.whitening.eigenvalues[[0, -1]]
    for name, values in lines.items():
        print(f"{name:>22}  {' '.join(f'{value:.4g}' for value in values)}")
    print(
        f"{'kept in':>22}  {next((str(file) for file in files if file.is_file()), 'no folder: none can be written to')}"
    )


def draw_first_step(config: Any, path: pathlib.Path) -> None:
    """Writes a PNG of the images that the first step of a run of `config` (a ConfigDict) trains on,
    with their classes.

    They are augmented and normalised as in the run, and mapped to colours by
    `contact_sheet.displayable`.
    """
    if path.suffix != ".png":
        raise UserError(f"--out={path}: the picture is a PNG")
    data, mesh = config.data, meshes.make_mesh(1)
    split = open_split(data.name, data.train_split, data.data_dir)
    ops = inputs.parse_data(data)
    figures = inputs.open_statistics(split, config, ops, mesh)
    pipeline = inputs.open_pipeline(
        split, config, ops.train_host, mesh, max_skips=data.max_skips, resident="never"
    )
    augment = compose(ops.train_device, figures, train=True)
    normalise = compose(ops.eval_device, figures, train=False)
    batch = next(pipeline.train_batches(config.batch_size, seed=config.seed, steps=range(1)))
    key, _ = jax.random.split(
        jax.random.fold_in(jax.random.key(config.seed), 0)
    )  # as the train step derives it
    seen = np.asarray(jax.jit(augment)(batch["image"], key))[:IMAGES]
    pixels = np.asarray(batch["image"])[:IMAGES]
    colours = contact_sheet.displayable(seen, np.asarray(jax.jit(normalise)(pixels, key)), pixels)
    sheet = contact_sheet.draw(
        colours, [split.class_names[label] for label in np.asarray(batch["label"])[:IMAGES]]
    )
    with whole(path) as file:
        file.write_bytes(cv2.imencode(".png", sheet[..., ::-1])[1].tobytes())
    print(
        f"{len(seen)} images of {split.name} at {'×'.join(map(str, seen.shape[1:]))} are in {path}"
    )
