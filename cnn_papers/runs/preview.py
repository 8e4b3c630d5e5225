"""Shows the data of a recipe: statistics of its training images, and its first training batch."""

import pathlib
from typing import Any

import cv2
import jax
import numpy as np

from cnn_papers.data import contact_sheet, statistics
from cnn_papers.data.augment import compose
from cnn_papers.errors import UserError
from cnn_papers.files import atomic_write
from cnn_papers.parallel import mesh as meshes
from cnn_papers.runs import inputs

MAX_IMAGES = 40  # in the picture


def compute_statistics(config: Any) -> None:
    """Computes and prints the statistics that `config` needs, and keeps them for its runs."""
    split = inputs.open_one(config.data, config.data.train_split)
    ops = inputs.parse_data(config.data)
    computed = inputs.open_statistics(split, config, ops, meshes.make_mesh(1))
    if computed is None:
        print(
            "no operation of config.data.train_device or config.data.eval_device needs statistics"
        )
        return
    lines = {
        "mean": computed.mean,
        "deviation": computed.std,
        "colour eigenvalues": computed.eigenvalues,
    }
    if computed.whitening is not None:
        lines["whitening eigenvalues"] = computed.whitening.eigenvalues[[0, -1]]
    for name, values in lines.items():
        print(f"{name:>22}  {' '.join(f'{value:.4g}' for value in values)}")
    files = [folder / f"{computed.fingerprint}.npz" for folder in statistics.places(split)]
    kept = [str(file) for file in files if file.is_file()]
    print(f"{'kept in':>22}  {kept[0] if kept else 'no folder: none can be written to'}")


def draw_first_step(config: Any, path: pathlib.Path) -> None:
    """Writes a PNG of the images that a run of `config` trains on first, with their classes.

    They are augmented and normalised as in the run, and mapped to colours by
    `contact_sheet.displayable`.

    Raises:
      UserError: `path` does not end in .png or cannot be written; data are missing.
    """
    if path.suffix != ".png":
        raise UserError(f"--out={path}: the name of the picture must end in .png")
    data, mesh = config.data, meshes.make_mesh(1)
    split = inputs.open_one(data, data.train_split)
    ops = inputs.parse_data(data)
    pixel_statistics = inputs.open_statistics(split, config, ops, mesh)
    pipeline = inputs.open_pipeline(
        split, config, ops.train_host, mesh, max_skips=data.max_skips, resident="never"
    )
    augment = compose(ops.train_device, pixel_statistics, train=True)
    normalise = compose(ops.eval_device, pixel_statistics, train=False)
    batch = next(pipeline.train_batches(config.batch_size, seed=config.seed, steps=range(1)))

    # The key of augmentation, derived as in the train step.
    key, _ = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 0))
    augmented = np.asarray(jax.jit(augment)(batch["image"], key))[:MAX_IMAGES]
    pixels = np.asarray(batch["image"])[:MAX_IMAGES]
    normalised = np.asarray(jax.jit(normalise)(pixels, key))
    colours = contact_sheet.displayable(augmented, normalised, pixels)
    labels = np.asarray(batch["label"])[:MAX_IMAGES]
    sheet = contact_sheet.draw(colours, [split.class_names[label] for label in labels])
    with atomic_write(path) as file:
        file.write_bytes(cv2.imencode(".png", sheet[..., ::-1])[1].tobytes())
    size = "×".join(map(str, augmented.shape[1:]))
    print(f"{len(augmented)} images of {split.name} at {size} are in {path}")
