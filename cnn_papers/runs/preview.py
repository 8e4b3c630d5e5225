"""Shows the data of a recipe: statistics, proposals, and its first training batch."""

import functools
import pathlib
from collections.abc import Sequence
from typing import Any

import cv2
import jax
import numpy as np

from cnn_papers.boxes import NONE
from cnn_papers.data import contact_sheet, drawing, proposals, statistics
from cnn_papers.data.augment import augment_batch, compose
from cnn_papers.errors import UserError
from cnn_papers.files import atomic_write
from cnn_papers.parallel import mesh as meshes
from cnn_papers.runs import inputs, splits
from cnn_papers.terminal import counted

MAX_IMAGES = 40  # in the picture


def compute_statistics(config: Any) -> None:
    """Computes and prints the statistics that `config` needs, and keeps them for its runs."""
    split, ops = splits.open_train(config), inputs.parse_data(config.data)
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
      UserError: `config` needs none, or as `splits.open_splits`.
    """
    text = config.data.proposals
    if not text:
        raise UserError(
            "config.data.proposals is empty: this recipe needs none; name a proposer, such as "
            "--config.data.proposals='selective_search()'"
        )
    for split in splits.open_splits(config):
        assert split.proposals is not None  # since `text` is not empty
        counts = [len(boxes) for boxes in split.proposals]
        line = (
            f"{split.name}: {counted(len(counts), 'image')}, "
            f"{sum(counts) / len(counts):,.0f} proposals an image "
            f"({min(counts):,} to {max(counts):,})"
        )
        if split.objects is not None:
            recall = proposals.recall(split.proposals, split.objects)
            line += f"; {recall:.1%} of the objects meet one at an IoU of 0.5"
        print(line)


def draw_first_step(config: Any, path: pathlib.Path) -> None:
    """Writes a PNG of the images that a run of `config` trains on first, with classes and boxes.

    They are augmented and normalised as in the run, and mapped to colours by
    `contact_sheet.displayable`.

    Raises:
      UserError: `path` does not end in .png or cannot be written; data are missing, or without what
        the task needs.
    """
    if path.suffix != ".png":
        raise UserError(f"--out={path}: the name of the picture must end in .png")
    data, mesh = config.data, meshes.make_mesh(1)
    split, ops = splits.open_train(config), inputs.parse_data(data)
    pixel_statistics = inputs.open_statistics(split, config, ops, mesh)
    pipeline = inputs.open_pipeline(
        split, config, ops.train_host, mesh, max_skips=data.max_skips, resident="never"
    )
    augment = compose(ops.train_device, pixel_statistics, train=True)
    normalise = compose(ops.eval_device, pixel_statistics, train=False)
    batch = next(pipeline.train_batches(config.batch_size, seed=config.seed, steps=range(1)))

    # The key of augmentation, derived as in the train step.
    key, _ = jax.random.split(jax.random.fold_in(jax.random.key(config.seed), 0))
    augment_whole = jax.jit(functools.partial(augment_batch, augment))
    shown = {name: np.asarray(x)[:MAX_IMAGES] for name, x in augment_whole(batch, key).items()}
    augmented = shown["image"]
    pixels = np.asarray(batch["image"])[:MAX_IMAGES]
    normalised = np.asarray(jax.jit(normalise)(pixels, key))
    colours = contact_sheet.displayable(augmented, normalised, pixels)
    if "boxes" in shown:
        sheet = _sheet_of_boxes(colours, shown, split.class_names)
    else:
        sheet = contact_sheet.draw(colours, [split.class_names[label] for label in shown["label"]])
    with atomic_write(path) as file:
        file.write_bytes(cv2.imencode(".png", sheet[..., ::-1])[1].tobytes())
    size = "×".join(map(str, augmented.shape[1:]))
    print(f"{path} shows {counted(len(augmented), 'image')} of {split.name} at {size}")


def _sheet_of_boxes(
    colours: np.ndarray, batch: dict[str, np.ndarray], class_names: Sequence[str]
) -> np.ndarray:
    """Returns a sheet of uint8 images [n, h, w, c] with the boxes of `batch` and their classes."""
    tiles, texts = [], []
    zoom = drawing.legible_zoom(colours[0])
    arrays = (batch[name] for name in ("boxes", "classes", "difficult"))
    for image, boxes, labels, difficult in zip(colours, *arrays, strict=True):
        rows = np.flatnonzero(labels != NONE)
        names = [
            class_names[int(labels[row])] + (" (difficult)" if difficult[row] else "")
            for row in rows
        ]
        tag_colours = [drawing.colour_of(labels[row]) for row in rows]
        tiles.append(drawing.draw_boxes(image, boxes[rows], names, tag_colours, zoom=zoom))
        texts.append(counted(len(rows), "object") if len(rows) else "no objects")
    return contact_sheet.draw(np.stack(tiles), texts)
