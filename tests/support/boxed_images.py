"""A small data set with boxes: images of one grey each, by their number, of 0 to 3 objects."""

import cv2
import numpy as np

from cnn_papers.data.split import Objects, Split

HEIGHT, WIDTH, COUNT = 20, 30, 23
CLASSES = ("ant", "bee", "cow", "dog")


def make_objects(i: int) -> Objects:
    """Returns 0 to 3 objects of image i; of those of images 5, 12, 19 all are difficult."""
    count = i % 4
    rng = np.random.default_rng(i)
    corner = rng.integers(0, 12, (count, 2))
    boxes = np.concatenate([corner, corner + rng.integers(2, 9, (count, 2))], 1)
    difficult = np.arange(count) == i % 7 if i % 7 != 5 else np.ones(count, bool)
    classes = (np.arange(count) + i) % 4
    return Objects(boxes.astype(np.float32), classes.astype(np.int32), difficult, (HEIGHT, WIDTH))


def make_split(*, labels=False, proposals=False) -> Split:
    examples = []
    for i in range(COUNT):
        pixels = np.full((HEIGHT, WIDTH, 3), i, np.uint8)
        image = cv2.imencode(".png", pixels)[1].tobytes()
        examples.append({"image": image, "id": f"image_{i}"} | ({"label": i % 3} if labels else {}))
    return Split(
        "made[train]",
        examples,
        CLASSES,
        "/nowhere",
        objects=[make_objects(i) for i in range(COUNT)],
        proposals=[
            np.sort(np.random.default_rng(i).uniform(0, 20, (i % 6, 2, 2)), 1)
            .reshape(-1, 4)
            .astype(np.float32)
            for i in range(COUNT)
        ]
        if proposals
        else None,
    )
