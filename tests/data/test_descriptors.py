"""Dense SIFT and colours: their values, places, sizes and mirror images; bad input."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.image_folders import write_images
from threadpoolctl import threadpool_info

from cnn_papers.boxes import Boxed
from cnn_papers.data import descriptors, host_ops, mirror, prefetch
from cnn_papers.data.augment import compose, parse_device
from cnn_papers.data.image_files import TooManyPixels
from cnn_papers.data.pipeline import parse_host
from cnn_papers.data.reader import Reader
from cnn_papers.data.sources import open_split
from cnn_papers.errors import UserError


def photograph(height, width, seed=0):
    """Smooth noise with structure at every size, uint8 [height, width, 3]."""
    random = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.float32)
    for grain in (4, 8, 16, 32):
        blotches = random.normal(0, 30, (grain, grain, 3)).astype(np.float32)
        image += cv2.resize(blotches, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(128 + image, 0, 255).astype(np.uint8)


def sift_of(image, *grid):
    return descriptors.dense(image, ("sift",), *grid)


def by_opencv(image, rows, columns, bin_size):
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    # A bin has three times the scale of a keypoint, whose size is twice its scale.
    size = 2 * bin_size / 3
    points = [cv2.KeyPoint(float(x), float(y), size, 0.0) for y in rows for x in columns]
    return cv2.SIFT_create().compute(grey, points)[1]


# --- the descriptors ------------------------------------------------------------------------------


@pytest.mark.parametrize("bin_size", [4, 6, 8])
@pytest.mark.parametrize("shape", [(64, 64), (80, 47)])
def test_descriptors_are_opencvs_to_one_level(shape, bin_size):
    image = photograph(*shape)
    ours = sift_of(image, 5, bin_size, (1.0,))[:, :128].astype(np.float32)
    rows, columns = (descriptors.grid(side, 5, bin_size) for side in shape)
    theirs = by_opencv(image, rows, columns, bin_size)
    assert len(ours) == len(rows) * len(columns) > 0
    assert np.abs(ours - theirs).max() <= 1
    cosines = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert cosines.min() > 0.9999


def test_a_scale_is_the_image_resized():
    image = photograph(96, 96)
    small = cv2.resize(
        cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32), (48, 48), None, 0, 0, 3
    )
    both = sift_of(image, 4, 4, (1.0, 0.5))
    whole = sift_of(image, 4, 4, (1.0,))
    np.testing.assert_array_equal(both[: len(whole)], whole)
    half = sift_of(np.rint(small).astype(np.uint8)[..., None], 4, 4, (1.0,))
    np.testing.assert_allclose(both[len(whole) :].astype(int), half.astype(int), atol=8)
    assert len(both) == 21**2 + 9**2 == descriptors.count((96, 96), 4, 4, (1.0, 0.5))


def test_places_are_symmetric_and_bins_lie_within_the_image():
    for length in range(32, 50):
        centers = descriptors.grid(length, 4, 8)
        assert len(centers) == (length - 32) // 4 + 1
        assert np.all(np.diff(centers) == 4)
        assert 0 <= (length - 1) - (centers[0] + centers[-1]) <= 1
        assert centers[0] >= 15 and centers[-1] <= length - 16
    (row,) = sift_of(photograph(33, 65), 40, 8, (1.0,))
    assert row[128:].tolist() == [128, 128]


def test_grey_images_are_those_of_equal_channels():
    grey = photograph(40, 40)[..., :1]
    np.testing.assert_array_equal(
        host_ops.dense_sift(grey), host_ops.dense_sift(np.repeat(grey, 3, -1))
    )


def test_colours_are_means_and_deviations_of_bins():
    image = photograph(41, 50)
    rows = host_ops.dense_colours(image, step=5, bin_size=6, scales=(1.0,))
    tops, lefts = (descriptors.grid(side, 5, 6) - 11 for side in (41, 50))
    assert rows.shape == (len(tops) * len(lefts), 98, 1) and len(rows) == 4 * 6
    assert tops[0] == 1 and lefts[-1] + 24 <= 50
    bins = rows[:, :96, 0].reshape(len(tops), len(lefts), 4, 4, 2, 3)
    for i, top in enumerate(tops):
        for j, left in enumerate(lefts):
            patch = image[top : top + 24, left : left + 24].astype(float)
            cells = patch.reshape(4, 6, 4, 6, 3)
            np.testing.assert_allclose(bins[i, j, :, :, 0], cells.mean((1, 3)), atol=0.51)
            np.testing.assert_allclose(bins[i, j, :, :, 1], 2 * cells.std((1, 3)), atol=0.51)


def test_colours_lie_beside_sift():
    image = photograph(40, 60)
    both = host_ops.dense_sift(image, longest=64, colours=True)
    assert both.shape[1:] == (226, 1)
    sift, colours = (
        host_ops.dense_sift(image, longest=64),
        host_ops.dense_colours(image, longest=64),
    )
    np.testing.assert_array_equal(both[:, :128], sift[:, :128])
    np.testing.assert_array_equal(both[:, 128:], colours)
    np.testing.assert_array_equal(sift[:, 128:], colours[:, 96:])
    assert not both[-1].any()


def test_an_area_of_one_colour_has_a_colour_and_a_place_but_no_sift():
    image = np.full((40, 40, 3), (200, 100, 0), np.uint8)
    rows = host_ops.dense_sift(image, scales=(1.0,), colours=True)[:, :, 0]
    bins = rows[:, 128:224].reshape(-1, 16, 6)
    assert not rows[:, :128].any()
    assert np.all(bins == [200, 100, 0, 0, 0, 0])
    assert len({(y, x) for y, x in rows[:, 224:].tolist()}) == len(rows) == 9
    assert not host_ops.dense_colours(np.zeros_like(image)).any()


def test_the_mirror_image_of_colours_is_that_of_the_image():
    image = photograph(44, 44)
    for colours in (host_ops.dense_colours, host_ops.dense_sift):
        options = {"colours": True} if colours is host_ops.dense_sift else {}
        rows = colours(image, scales=(1.0,), **options)
        expected = colours(image[:, ::-1], scales=(1.0,), **options)
        mirrored = mirror.descriptors(rows).reshape(4, 4, -1)[:, ::-1].reshape(rows.shape)
        np.testing.assert_array_equal(mirrored[:, -98:-2], expected[:, -98:-2])
        np.testing.assert_array_equal(
            mirror.descriptors(jnp.asarray(rows)), mirror.descriptors(rows)
        )
        np.testing.assert_array_equal(mirror.descriptors(mirror.descriptors(rows)), rows)


@pytest.mark.parametrize("width", [65, 68])
def test_the_mirror_image_of_descriptors_is_that_of_the_image(width):
    """Where the grid is symmetric to the pixel; descriptors come in another order."""
    image = photograph(65, width)
    rows = host_ops.dense_sift(image, step=4, bin_size=6, scales=(1.0,))
    expected = host_ops.dense_sift(image[:, ::-1], step=4, bin_size=6, scales=(1.0,))
    places = len(descriptors.grid(width, 4, 6))
    mirrored = mirror.descriptors(rows).reshape(-1, places, 130)[:, ::-1].reshape(rows.shape)
    difference = np.abs(mirrored.astype(int) - expected.astype(int))
    if width % 2:
        assert difference.max() <= 1
    else:  # the two grids are a pixel apart
        assert difference[:, :128].mean() < 8
    np.testing.assert_array_equal(mirror.descriptors(mirror.descriptors(rows)), rows)
    np.testing.assert_array_equal(mirror.descriptors(jnp.asarray(rows)), mirror.descriptors(rows))


def test_flip_descriptors_mirrors_about_half_the_images():
    rows = host_ops.dense_sift(photograph(40, 40))
    flip = compose(parse_device("flip_descriptors", key="data.train_device"), None, train=True)
    images = jax.jit(flip)(jnp.asarray(np.stack([rows] * 64)), jax.random.key(0))
    is_same = np.array([np.array_equal(image, rows) for image in images])
    is_mirrored = np.array([np.array_equal(i, mirror.descriptors(rows)) for i in images])
    assert np.all(is_same ^ is_mirrored)
    assert 20 < is_same.sum() < 44


# --- the operation --------------------------------------------------------------------------------


def test_images_of_any_size_come_out_with_as_many_rows():
    rows_of = {
        (100, 60): (100, 60),
        (40, 100): (40, 100),
        (300, 200): (100, 67),
        (50, 50): (50, 50),
    }
    for shape, shrunk in rows_of.items():
        rows = host_ops.dense_sift(photograph(*shape), scales=(1.0, 0.5), longest=100)
        assert rows.shape == (18 * 18 + 5 * 5, 130, 1)  # of 100×100 and 50×50
        count = descriptors.count(shrunk, 4, 8, (1.0, 0.5))
        assert rows[:count].any((1, 2)).all() and not rows[count:].any()


def test_an_image_too_small_for_one_descriptor_is_refused():
    with pytest.raises(
        ValueError, match="31×64 is too small for one descriptor: both sides need 32"
    ):
        host_ops.dense_sift(photograph(31, 64), scales=(1.0, 0.5))
    assert host_ops.dense_sift(photograph(32, 32), scales=(1.0, 0.5)).shape == (1, 130, 1)
    assert host_ops.dense_sift(photograph(16, 16), scales=(2.0,)).shape == (1, 130, 1)


@pytest.mark.parametrize("level", [0, 77, 255])
def test_an_image_of_one_colour_has_rows_of_zeros(level):
    image = np.full((50, 41, 3), level, np.uint8)
    assert not host_ops.dense_sift(image, scales=(1.414, 1.0, 0.9)).any()


@pytest.mark.parametrize(
    "arguments", [{"step": 0}, {"bin_size": 0}, {"scales": ()}, {"scales": (1.0, 0.0)}]
)
def test_arguments_that_make_no_sense_are_refused(arguments):
    with pytest.raises(UserError, match="descriptors take a positive step, bin_size and scales"):
        host_ops.dense_sift(photograph(40, 40), **arguments)


def test_a_scale_that_would_take_all_memory_is_refused():
    with pytest.raises(TooManyPixels, match="cannot be scaled: 40,000×40,000 pixels"):
        host_ops.dense_sift(photograph(40, 40), scales=(1000.0,))


def test_images_with_boxes_have_no_descriptors():
    with pytest.raises(ValueError, match="descriptors of an image have no boxes"):
        host_ops.dense_sift(Boxed(photograph(40, 40), np.zeros((1, 4), np.float32)))


# --- in a split -----------------------------------------------------------------------------------


def reader(folder, ops):
    split = open_split(f"folder:{folder}", "train")
    return Reader(split, parse_host(ops, key="data.train_host"), num_classes=2, max_skips=0)


def test_reader_threads_use_one_thread_of_blas_each():
    """Several would wait for each other, for several times the CPU time of the descriptors."""

    def threads(_: int = 0) -> list[int]:
        libraries = threadpool_info()
        return [found["num_threads"] for found in libraries if found["user_api"] == "blas"]

    before = threads()
    assert before and list(prefetch.read(2, threads)) == [[1] * len(before)] * 2
    assert threads() == before


def test_nothing_follows_descriptors(tmp_path):
    write_images(tmp_path, {"train/a": 1})
    with pytest.raises(UserError, match=r"data\.train_host: nothing can follow dense_sift"):
        reader(tmp_path, "decode|dense_sift|resize(32)")


@pytest.mark.fault("hostile: an image too small for one descriptor", "refused with its name")
@pytest.mark.fault("hostile: an image of one colour", "a vector of zeros; the first is named")
def test_an_image_of_one_colour_is_said_and_one_too_small_refused(tmp_path, caplog):
    folder = tmp_path / "train" / "a"
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "flat.png"), np.full((40, 40, 3), 9, np.uint8))
    cv2.imwrite(str(folder / "small.png"), photograph(20, 40))
    split = reader(tmp_path, "decode|dense_sift(longest=40)")
    assert "'dense_sift' finds only zeros in images of one colour, first a/flat.png" in caplog.text
    with pytest.raises(
        UserError,
        match=r"'dense_sift' fails on a/small.png, \(20, 40, 3\): an image of 20×40 is too small",
    ):
        split.example(1, seed=(0, 0))
