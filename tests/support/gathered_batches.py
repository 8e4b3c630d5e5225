"""A program that tests run as several processes: writes batches of small pipelines to a file."""

import sys

import cv2
import jax
import numpy as np
from jax.experimental import multihost_utils

from cnn_papers.data.pipeline import Pipeline, parse_host
from cnn_papers.data.split import Split
from cnn_papers.parallel import hosts
from cnn_papers.parallel import mesh as meshes

IMAGES, BATCH = 23, 8


def batches(resident: str, data: int, column: int) -> dict[str, np.ndarray]:
    """Returns the arrays of three training batches and of all evaluation batches, by name.

    `train/read` and `eval/read` are the numbers of examples that each process reads.
    """

    class Examples(list):
        def __getitem__(self, i):
            read.add(i)
            return super().__getitem__(i)

    read: set[int] = set()
    images = (
        np.full((6, 6, 3), 3 * i, np.uint8) + np.arange(6, dtype=np.uint8)[:, None]
        for i in range(IMAGES)
    )
    encoded = [cv2.imencode(".png", image)[1].tobytes() for image in images]
    examples = Examples(
        {"image": png, "label": i % 10, "id": str(i)} for i, png in enumerate(encoded)
    )
    mesh = meshes.make_mesh(data, column)
    ops = "decode|random_crop(4)" if resident == "never" else "decode"
    pipe = Pipeline(
        Split("counted", examples, tuple("0123456789"), ""),
        parse_host(ops, key="data.train_host"),
        num_classes=10,
        resident=resident,
        sharding=meshes.data_sharding(mesh),
        replicated=meshes.replicated(mesh),
    )
    arrays = {}
    read.clear()
    train = pipe.train_batches(BATCH, seed=5, steps=range(3))
    for kind, made in (("train", train), ("eval", pipe.eval_batches(BATCH))):
        for i, batch in enumerate(made):
            for name, array in batch.items():
                arrays[f"{kind}{i}/{name}"] = multihost_utils.process_allgather(array, tiled=True)
        arrays[f"{kind}/read"] = multihost_utils.process_allgather(np.int32(len(read)))
        read.clear()
    return arrays


if __name__ == "__main__":
    coordinator, count, index, out, resident, data, column = sys.argv[1:]
    place = hosts.Place(coordinator, int(count), int(index))
    hosts.join(place, timeout_s=60, heartbeat_timeout_s=30)
    arrays = batches(resident, int(data), int(column))
    if jax.process_index() == 0:
        np.savez(out, **{name.replace("/", "|"): array for name, array in arrays.items()})
