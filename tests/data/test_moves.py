"""Boxes move with the pixels by every operation: a box is painted, and found where it went."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_papers import opstrings
from cnn_papers.boxes import NONE, Boxed, area
from cnn_papers.data import device_ops, host_ops
from cnn_papers.data.augment import augment_batch, compose, parse_device
from cnn_papers.data.pipeline import parse_host
from cnn_papers.data.split import Objects
from cnn_papers.data.statistics import compute, compute_whitening

BOX = np.array([8, 12, 24, 40], np.float32)


def painted(height, width, box=BOX):
    """Returns uint8 noise [h, w, 3] below 60, and the same with a box of 250."""
    noise = np.random.default_rng(0).integers(0, 60, (height, width, 3), np.uint8)
    y1, x1, y2, x2 = box.astype(int)
    with_box = noise.copy()
    with_box[y1:y2, x1:x2] = 250
    return noise, with_box


def place(before, after):
    """Returns the box around the pixels that differ by more than half of the most, or zeros."""
    difference = np.abs(after.astype(float) - before.astype(float)).mean(-1)
    if not difference.any():
        return np.zeros(4)
    rows, columns = np.nonzero(difference > difference.max() / 2)
    return np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])


# --- on the host ----------------------------------------------------------------------------------

# Operations by name, each as often as it behaves differently.
HOST = {
    "resize": ["resize(24)", "resize(80, 44)", "resize(20, 90, method='bicubic')"],
    "resize_short": ["resize_short(30)", "resize_short(64, 'nearest')"],
    "resize_short_between": ["resize_short_between(24, 64)"],
    "resize_short_among": ["resize_short_among((24, 64))"],
    "resize_by_epoch": ["resize_by_epoch(24, 64)"],
    "center_crop": ["center_crop(32)", "center_crop(60)"],
    "pad": ["pad(5)"],
    "fit": ["fit(64, 64)", "fit(64, 30)", "fit(20, 90)"],
    "random_crop": ["random_crop(32)", "random_crop(16)"],
    "corner_crop": ["corner_crop(32)", "corner_crop(16)"],
    "area_aspect_crop": ["area_aspect_crop(32)", "area_aspect_crop(32, (0.3, 1.0), (1.0, 1.0))"],
    "random_object": ["random_object(0.25)", "random_object(0.25, True)|resize(32)"],
    "largest_object": ["largest_object(0.0)", "largest_object(0.5, square=True)"],
}


def test_every_host_operation_is_here():
    # descriptors have no boxes
    assert HOST.keys() == opstrings.functions(host_ops).keys() - {
        "decode",
        "dense_sift",
        "dense_colours",
    }


@pytest.mark.parametrize("text", [text for texts in HOST.values() for text in texts])
@pytest.mark.parametrize("size", [(48, 60), (60, 48)])
def test_a_host_operation_moves_boxes_as_it_moves_pixels(text, size):
    ops = parse_host(text, key="data.train_host").ops
    noise, with_box = painted(*size)
    objects = Objects(BOX[None], np.zeros(1, np.int32), np.zeros(1, bool), size)
    for seed in range(12):

        def moved(image, seed=seed):
            rng = np.random.default_rng(seed)
            for op in ops:
                image = op(image, rng=rng, epoch=seed % 2, objects=objects)
                if op.needs("objects"):
                    image, row = image
                    assert row == 0
            return image

        result = moved(Boxed(with_box, BOX[None]))
        np.testing.assert_array_equal(result.pixels, moved(with_box))
        assert result.boxes.shape == (1, 4) and result.boxes.dtype == np.float32
        found = place(moved(noise), result.pixels)
        scale = max(result.shape[0] / size[0], result.shape[1] / size[1], 1)
        expected = result.boxes[0] if area(result.boxes)[0] else np.zeros(4)
        if expected.any() and area(expected) < 4 and not found.any():
            continue  # less than a pixel of it is left
        np.testing.assert_allclose(found, expected, atol=1 + scale / 2)


@pytest.mark.parametrize(
    "text", ["center_crop(32)", "pad(5)", "random_crop(16)", "corner_crop(16)"]
)
def test_windows_and_padding_are_exact(text):
    (op,) = parse_host(text, key="data.train_host").ops
    noise, with_box = painted(48, 60)
    for seed in range(30):
        rngs = [np.random.default_rng(seed) for _ in range(2)]
        result = op(Boxed(with_box, BOX[None]), rng=rngs[0])
        found = place(op(noise, rng=rngs[1]), result.pixels)
        np.testing.assert_array_equal(found, result.boxes[0] if found.any() else np.zeros(4))
        assert found.any() == (area(result.boxes)[0] > 0)


def test_a_box_that_a_crop_cuts_does_not_reach_into_padding_that_follows():
    image = Boxed(np.zeros((20, 20, 3), np.uint8), np.float32([[0, 0, 10, 10], [0, 0, 3, 3]]))
    result = host_ops.pad(host_ops.center_crop(image, 12), 5)
    np.testing.assert_array_equal(result.boxes[0], [5, 5, 11, 11])
    assert area(result.boxes).tolist() == [36, 0]


# --- cut-out objects and images that are fitted ---------------------------------------------------


def objects_at(*boxes, difficult=()):
    array = np.array(boxes, np.float32)
    is_difficult = np.isin(np.arange(len(boxes)), difficult)
    return Objects(array, np.arange(len(boxes), dtype=np.int32), is_difficult, (48, 60))


def coded(height=48, width=60):
    """An image whose pixels say where they are."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    return np.dstack([rows, columns, rows])


def window(image):
    top, left = map(int, image[0, 0, :2])
    return top, left, top + image.shape[0], left + image.shape[1]


@pytest.mark.parametrize(
    ("box", "margin", "square", "expected"),
    [
        ((10, 20, 20, 40), 0.0, False, (10, 20, 20, 40)),
        ((10, 20, 20, 40), 0.1, False, (9, 18, 21, 42)),
        ((10.5, 20, 19.25, 40), 0.0, False, (10, 20, 20, 40)),  # whole pixels around it
        ((0, 50, 20, 60), 0.25, False, (0, 47, 25, 60)),  # 47.5 is rounded down
        ((10, 20, 20, 40), 0.0, True, (5, 20, 25, 40)),
        ((0, 20, 10, 40), 0.0, True, (0, 20, 20, 40)),  # moved onto the image
        ((20, 40, 30, 60), 0.5, True, (5, 20, 45, 60)),
        ((0, 0, 48, 60), 0.5, True, (0, 0, 48, 60)),  # as much as there is
    ],
)
def test_an_object_is_cut_out_with_its_margin(box, margin, square, expected):
    objects = objects_at((0, 0, 2, 2), box)
    image, row = host_ops.largest_object(coded(), margin, square, objects=objects)
    assert row == 1
    assert window(image) == expected


def test_difficult_objects_are_not_cut_out_and_others_equally_often():
    objects = objects_at((0, 0, 5, 5), (10, 10, 48, 60), (6, 6, 11, 13), difficult=[1])
    assert host_ops.largest_object(coded(), 0.0, objects=objects)[1] == 2
    rows = [
        host_ops.random_object(coded(), 0.0, rng=np.random.default_rng((1, i)), objects=objects)[1]
        for i in range(400)
    ]
    # 200 are expected of each, with a standard deviation of 10.
    assert set(rows) == {0, 2} and 150 < rows.count(0) < 250


@pytest.mark.parametrize(
    ("size", "fitted", "expected"),
    [
        ((48, 60), (24, 24), (19, 24)),  # 19.2
        ((48, 60), (96, 200), (96, 120)),
        ((10, 1000), (64, 64), (1, 64)),
        ((48, 60), (48, 60), (48, 60)),
    ],
)
def test_an_image_is_fitted_into_the_corner_of_its_mean_colour(size, fitted, expected):
    image = np.full((*size, 3), 200, np.uint8)
    image[:, : size[1] // 2] = (0, 100, 50)
    result = host_ops.fit(image, *fitted)
    rows, columns = expected
    assert result.shape == (*fitted, 3)
    fitting = host_ops.resize(image, rows, columns)
    assert (result[:rows, :columns] == fitting).all()
    mean = fitting.mean((0, 1)).round()
    assert (result[rows:] == mean).all() and (result[:, columns:] == mean).all()
    np.testing.assert_allclose(result.mean((0, 1)), image.mean((0, 1)), atol=0.5)


# --- on the device --------------------------------------------------------------------------------

DEVICE = {
    "flip": "flip",
    "pad_crop": "pad_crop(6)",
    "scale": "scale(0.5)",
    "normalize": "normalize((1.0, 2.0, 3.0), (1.0, 2.0, 3.0))",
    "subtract_mean": "subtract_mean",
    "subtract_own_mean": "subtract_own_mean",
    "subtract_mean_image": "subtract_mean_image",
    "standardize": "standardize",
    "pca_light": "pca_light",
    "permute_channels": "permute_channels",
    "invert": "invert",
    "photometric": "photometric",
    "gcn": "gcn",
    "zca": "zca",
    "lcn": "lcn",
}
SIDE, SMALL = 16, np.array([3, 6, 9, 14], np.float32)


@pytest.fixture(scope="module")
def statistics():
    images = np.random.default_rng(1).integers(0, 256, (40, SIDE, SIDE, 3), np.uint8)
    return compute([images])._replace(whitening=compute_whitening([images.astype(np.float32)]))


def test_every_device_operation_is_here():
    assert DEVICE.keys() == opstrings.functions(device_ops).keys() - {"flip_descriptors"}


@pytest.mark.parametrize("name", DEVICE)
def test_a_device_operation_moves_boxes_as_it_moves_pixels(name, statistics):
    """The box is where an operation's result changes most if the box is painted."""
    device = parse_device(DEVICE[name], key="data.train_device")
    noise, with_box = (np.stack([image] * 16) for image in painted(SIDE, SIDE, SMALL))
    boxes = np.tile(SMALL, (16, 1, 1))
    transform = jax.jit(compose(device, statistics, train=True))
    key = jax.random.key(3)
    pixels, moved = transform(Boxed(with_box, boxes), key)
    before = np.asarray(transform(noise, key))
    np.testing.assert_array_equal(transform(with_box, key), pixels)
    changes = np.abs(np.asarray(pixels) - before).mean(-1)
    places = set()
    for change, (box,) in zip(changes, np.asarray(moved), strict=True):
        y1, x1, y2, x2 = (int(edge) for edge in box)
        inside = np.zeros((SIDE, SIDE), bool)
        inside[y1:y2, x1:x2] = True
        places.add(tuple(box.tolist()))
        if name in device_ops.MOVES:
            np.testing.assert_array_equal(change > 0, inside)
        else:
            assert inside[np.unravel_index(change.argmax(), change.shape)]
            assert change[inside].mean() > 1.5 * change[~inside].mean()
    if name in device_ops.MOVES:
        assert len(places) == 2 if name == "flip" else len(places) > 8
    else:
        assert places == {tuple(SMALL.tolist())}


def test_a_batch_is_moved_with_its_boxes_and_proposals():
    """Of a corner that is cropped off nothing is left, also of rows that only fill up."""
    n = 64
    corner, middle, nothing = [0, 0, 2, 2], [5, 5, 9, 9], [0, 0, 0, 0]
    batch = {
        "image": np.zeros((n, SIDE, SIDE, 3), np.uint8),
        "boxes": np.tile(np.float32([corner, middle, nothing]), (n, 1, 1)),
        "classes": np.tile(np.int32([4, 7, NONE]), (n, 1)),
        "proposals": np.tile(np.float32([middle, corner]), (n, 1, 1)),
        "label": np.arange(n, dtype=np.int32),
    }
    batch["image"][:, 0, 0] = batch["image"][:, 5, 5] = 255
    device = parse_device("flip|pad_crop(4)", key="data.train_device")
    augment = compose(device, None, train=True)
    moved = jax.jit(lambda batch: augment_batch(augment, batch, jax.random.key(0)))(batch)
    alone = jax.jit(augment)(batch["image"], jax.random.key(0))
    np.testing.assert_array_equal(moved["image"], alone)
    np.testing.assert_array_equal(moved["label"], batch["label"])
    boxes, classes = np.asarray(moved["boxes"]), np.asarray(moved["classes"])
    np.testing.assert_array_equal(moved["proposals"], boxes[:, [1, 0]])
    is_left = area(boxes) > 0
    assert is_left[:, 1].all() and not is_left[:, 2].any()
    assert 0 < is_left[:, 0].mean() < 1
    np.testing.assert_array_equal(classes, np.where(is_left, [4, 7, NONE], NONE))
    assert not boxes[~is_left].any()
    assert jnp.asarray(boxes).dtype == jnp.float32 and classes.dtype == np.int32
