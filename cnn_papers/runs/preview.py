"""Shows the data of a recipe: statistics, proposals, and its first training batch."""

import pathlib
from typing import Any

import cv2
import jax
import numpy as np

from cnn_papers.data import contact_sheet, proposals, statistics
from cnn_papers.data.augment import compose
from cnn_papers.data.sources import open_split
from cnn_papers.errors import UserError
from cnn_papers.files import atomic_write
from cnn_papers.parallel import mesh as meshes
from cnn_papers.runs import inputs

MAX_IMAGES = 40  # in the picture


def compute_statistics(config: Any) -> None:
    """Computes and prints the statistics that `config` needs, and keeps them for its runs."""
    split = open_split(config.data.name, config.data.train_split, config.data.data_dir)
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


def compute_proposals(config: Any) -> None:
    """Computes and prints the proposals that `config` needs, of both splits; its runs find them.

    Raises:
      UserError: `config` needs none, or as `inputs.open_splits`.
    """
    text = config.data.proposals
    if not text:
        raise UserError(
            "config.data.proposals is empty: this recipe needs none; name a proposer, such as "
            "--config.data.proposals='selective_search()'"
        )
    for split in inputs.open_splits(config):
        assert split.proposals is not None  # since `text` is not empty
        counts = [len(boxes) for boxes in split.proposals]
        line = (
            f"{split.name}: {len(counts):,} images, {sum(counts) / len(counts):,.0f} proposals an "
            f"image ({min(counts):,} to {max(counts):,})"
        )
        if split.objects is not None:
            recall = proposals.recall(split.proposals, split.objects)
            line += f"; {recall:.1%} of the objects meet one at an IoU of 0.5"
        print(line)


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
    split = open_split(data.name, data.train_split, data.data_dir)
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
