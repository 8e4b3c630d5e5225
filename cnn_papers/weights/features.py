"""Writes the outputs of a layer to an .npz file: `features`, float32 [n, …].

The other arrays are `label` [n] or `labels` [n, classes] and `class_names` for a split, `path` [n]
for images.
"""

import pathlib
import zipfile
from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np

from cnn_papers import files
from cnn_papers.data.pipeline import parse_host
from cnn_papers.data.progress import reported
from cnn_papers.data.split import with_classes_of
from cnn_papers.errors import UserError
from cnn_papers.runs import inputs, splits
from cnn_papers.weights.predictor import check_finite, make_apply
from cnn_papers.weights.trained import Trained


def of_split(network: Trained, layer: str, split: str, path: pathlib.Path) -> None:
    """Writes the features of a split of the network's data set, in its order, batch by batch.

    If the network knows all classes of the split, `label` are its numbers for them; otherwise they
    are those of the split. `class_names` has their names in either case. Images without a label of
    their own, as of data with boxes, have no `label`; where images may have several they have
    `labels` int8 [n, classes], 1, -1 or 0 for neither.

    Raises:
      UserError: no such layer or split, missing data, an image that cannot be decoded.
    """
    config = network.config
    opened = splits.open_one_to_test(config, split)
    if set(opened.class_names) <= set(network.class_names):
        opened = with_classes_of(opened, network.class_names)
    eval_host = parse_host(config.data.eval_host, key="data.eval_host")
    pipeline = inputs.open_pipeline(
        opened, config, eval_host, network.mesh, num_classes=len(opened.class_names)
    )
    apply = make_apply(network, layer)
    image = jax.ShapeDtypeStruct((network.mesh.size, *pipeline.image_shape), np.uint8)
    shape = (len(pipeline), *jax.eval_shape(apply, network.variables, image).shape[1:])
    labels: dict[str, list[np.ndarray]] = {"label": [], "labels": []}

    def chunks() -> Iterator[np.ndarray]:
        for batch in pipeline.eval_batches(inputs.eval_batch_size(config)):
            real = np.asarray(batch["mask"])
            for name in batch.keys() & labels.keys():
                labels[name].append(np.asarray(batch[name])[real])
            rows = np.asarray(apply(network.variables, batch["image"]))[real]
            check_finite(rows, network)
            yield rows

    def others() -> Iterator[tuple[str, np.ndarray]]:
        for name, parts in labels.items():
            if parts:
                yield name, np.concatenate(parts)
        yield "class_names", np.array(opened.class_names)

    rows = reported(chunks(), len(pipeline), f"{layer} of {opened.name}", size=len)
    _write(path, shape, rows, others())
    print(f"{path}: {layer} of {opened.name}, {'×'.join(map(str, shape))}")


def of_images(
    layer: str, rows: Sequence[tuple[pathlib.Path, np.ndarray]], path: pathlib.Path
) -> None:
    """Writes the features of images: `rows` are their paths and outputs of `layer`."""
    if not rows:
        raise UserError("none of the images could be read: there are no features to write")
    features = np.stack([row for _, row in rows])
    _write(path, features.shape, [features], [("path", np.array([str(name) for name, _ in rows]))])
    print(f"{path}: {layer} of {len(rows)} images, {'×'.join(map(str, features.shape))}")


def _write(
    path: pathlib.Path,
    shape: tuple[int, ...],
    chunks: Iterable[np.ndarray],
    others: Iterable[tuple[str, np.ndarray]],
) -> None:
    """Writes an .npz with `features` of `shape`, which arrive in chunks, and then `others`.

    NumPy's savez needs whole arrays in memory.
    """
    with files.atomic_write(path) as part, zipfile.ZipFile(part, "w") as archive:
        with archive.open("features.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(
                file, {"descr": "<f4", "fortran_order": False, "shape": shape}
            )
            for chunk in chunks:
                file.write(np.ascontiguousarray(chunk, "<f4").tobytes())
        for name, array in others:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
