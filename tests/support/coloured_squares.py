"""A split of images with coloured squares, its proposals, and a small network to look at them."""

from typing import Any, NamedTuple

import cv2
import jax
import numpy as np
from ml_collections import ConfigDict

from cnn_papers import zoo
from cnn_papers.data.split import Objects, Split
from cnn_papers.parallel import mesh as meshes
from support.random_variables import random_variables

HEIGHT, WIDTH, COLOURS = 48, 64, ("red", "green", "blue")


class Network(NamedTuple):
    """What detectors need of a `weights.trained.Trained`."""

    model: Any
    variables: Any
    normalise: Any
    mesh: jax.sharding.Mesh
    config: Any


def network() -> Network:
    """Returns a narrow ZF-5 with random weights, whose classes are COLOURS."""
    fields = {"width": 0.03, "num_classes": 4, "levels": (2, 1), "conv1_stride": 1}
    model: Any = zoo.build_model("spp", variant="zf5", **fields)

    def normalise(image: jax.Array, key: jax.Array) -> jax.Array:
        return image.astype(np.float32) / 128 - 1

    config = ConfigDict(
        {"model_name": "spp", "model": fields, "data": {"eval_device": "", "max_skips": 0}}
    )
    variables = random_variables(model, (32, 32, 3))
    return Network(model, variables, normalise, meshes.make_mesh(1), config)


def split(images: int, seed: int = 0) -> Split:
    """Returns images of none to two squares, with windows around them and elsewhere."""
    rng = np.random.default_rng(seed)
    examples, objects, proposals = [], [], []
    for i in range(images):
        pixels = rng.integers(100, 140, (HEIGHT, WIDTH, 3)).astype(np.uint8)
        classes = rng.integers(0, 3, i % 3).astype(np.int32)
        boxes = np.zeros((len(classes), 4), np.float32)
        for k, label in enumerate(classes):  # one in the left half, one in the right half
            side, y, x = rng.integers(14, 25), rng.integers(0, 24), 32 * k + rng.integers(0, 8)
            pixels[y : y + side, x : x + side] = np.eye(3)[label] * 255
            boxes[k] = y, x, y + side, x + side
        near = np.repeat(boxes, 4, 0) + rng.integers(-4, 5, (4 * len(boxes), 4))
        corner = rng.integers(0, 32, (8, 2))
        far = np.concatenate([corner, corner + rng.integers(8, 16, (8, 2))], 1)
        windows = np.concatenate([near, far]).clip(0, [HEIGHT, WIDTH] * 2).astype(np.float32)
        encoded = cv2.imencode(".png", pixels[..., ::-1])[1].tobytes()
        examples.append({"image": encoded, "id": f"image{i}"})
        difficult = np.zeros(len(classes), bool)
        objects.append(Objects(boxes, classes, difficult, (HEIGHT, WIDTH)))
        proposals.append(windows)
    return Split(
        "squares[train]", examples, COLOURS, "/nowhere", objects=objects, proposals=proposals
    )
