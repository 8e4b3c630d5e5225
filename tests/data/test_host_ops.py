"""Host operations: exact windows and sizes."""

import collections

import cv2
import numpy as np
import pytest

from cnn_papers.data import host_ops, image_files
from cnn_papers.errors import UserError


def coded(height, width, channels=3):
    """An image whose pixels say where they are: (row, column, 7) or, grey, 16·row + column."""
    rows, columns = np.mgrid[:height, :width].astype(np.uint8)
    if channels == 1:
        return (16 * rows + columns)[..., None]
    return np.dstack([rows, columns, np.full_like(rows, 7)])


def corner(window):
    """Returns where a window of a coded image begins; fails if it is no such window."""
    top, left = map(int, window[0, 0, :2])
    height, width = window.shape[:2]
    np.testing.assert_array_equal(window, coded(top + height, left + width)[top:, left:])
    return top, left


def generators(count):
    return (np.random.default_rng((3, i)) for i in range(count))


# --- geometry -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "size", "expected"),
    [
        (375, 500, 256, (256, 341)),  # 341.3
        (500, 375, 256, (341, 256)),
        (300, 300, 256, (256, 256)),
        (100, 350, 256, (256, 896)),  # enlarged
        (1, 999, 2, (2, 1998)),
        (257, 256, 255, (256, 255)),
    ],
)
def test_resize_short_keeps_the_aspect(height, width, size, expected):
    image = np.zeros((height, width, 3), np.uint8)
    assert host_ops.resize_short(image, size).shape == (*expected, 3)


def test_shrinking_averages_the_area_each_pixel_covers():
    image = np.random.default_rng(0).integers(0, 64, (24, 40, 3), np.uint8) * 4
    blocks = image.reshape(12, 2, 20, 2, 3).mean((1, 3))
    np.testing.assert_allclose(host_ops.resize_short(image, 12), blocks, atol=0.5)
    np.testing.assert_allclose(host_ops.resize(image, 12, 20), blocks, atol=0.5)


def test_resize_gives_a_square_unless_told_otherwise_and_leaves_what_fits():
    image = coded(10, 16)
    assert host_ops.resize(image, 5).shape == (5, 5, 3)
    assert host_ops.resize(image, 5, 8, "bicubic").shape == (5, 8, 3)
    assert host_ops.resize(image, 10, 16) is image
    np.testing.assert_array_equal(
        host_ops.resize(image, 20, 32, "nearest"), image.repeat(2, 0).repeat(2, 1)
    )


def test_area_enlarges_bilinearly_also_where_only_one_side_grows():
    image = coded(8, 64)
    np.testing.assert_array_equal(host_ops.resize(image, 16), cv2.resize(image, (16, 16)))
    np.testing.assert_array_equal(
        host_ops.resize(image, 16), host_ops.resize(image, 16, method="bilinear")
    )


def test_an_unknown_method_is_refused_with_the_list():
    with pytest.raises(UserError, match="'lanczos'; there are: area, bilinear, bicubic, nearest"):
        host_ops.resize(coded(4, 4), 2, method="lanczos")


@pytest.mark.parametrize(
    ("height", "width", "size", "expected"),
    [(10, 10, 10, (0, 0)), (12, 10, 8, (2, 1)), (11, 20, 4, (3, 8)), (256, 197, 128, (64, 34))],
)
def test_center_crop_is_the_central_window(height, width, size, expected):
    window = host_ops.center_crop(coded(height, width), size)
    assert window.shape == (size, size, 3)
    assert corner(window) == expected


def test_random_crop_takes_every_window_equally_often():
    counts = collections.Counter(
        corner(host_ops.random_crop(coded(6, 5), 4, rng=rng)) for rng in generators(1200)
    )
    # Each of 3 × 2 places is expected 200 times, with a standard deviation of 13.
    assert set(counts) == {(top, left) for top in range(3) for left in range(2)}
    assert all(140 < count < 260 for count in counts.values()), counts


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_crops_scale_a_smaller_image_up_until_it_holds_them(shape):
    image = coded(*shape)
    whole = host_ops.resize_short(image, 12, "bilinear")
    assert sorted(whole.shape[:2]) == [12, 18]
    middle = (slice(None), slice(3, 15)) if shape[0] < shape[1] else (slice(3, 15), slice(None))
    np.testing.assert_array_equal(host_ops.center_crop(image, 12), whole[middle])
    for rng in generators(20):
        window = host_ops.random_crop(image, 12, rng=rng)
        places = [(i, 0) for i in range(7)] + [(0, i) for i in range(7)]
        assert any(
            np.array_equal(window, whole[t : t + 12, left : left + 12]) for t, left in places
        )


def test_scale_jitter_reaches_both_ends_and_nothing_beyond():
    sizes = {
        host_ops.resize_short_between(coded(40, 60), 16, 20, rng=rng).shape[0]
        for rng in generators(100)
    }
    assert sizes == {16, 17, 18, 19, 20}


def test_resize_short_among_draws_each_size_equally_often():
    image = coded(40, 60)
    sizes = collections.Counter(
        host_ops.resize_short_among(image, (16, 20, 40), rng=rng).shape[:2]
        for rng in generators(600)
    )
    assert set(sizes) == {(16, 24), (20, 30), (40, 60)}
    # 200 are expected, with a standard deviation of 12.
    assert all(150 < count < 250 for count in sizes.values()), sizes


def test_resize_by_epoch_takes_the_sizes_in_turns():
    image = coded(40, 40)
    shapes = [
        host_ops.resize_by_epoch(image, 24, 18, 30, epoch=epoch).shape[:2] for epoch in range(7)
    ]
    assert shapes == [(24, 24), (18, 18), (30, 30), (24, 24), (18, 18), (30, 30), (24, 24)]
    np.testing.assert_array_equal(
        host_ops.resize_by_epoch(image, 24, 18, epoch=1),
        host_ops.resize(image, 18, method="bilinear"),
    )


def test_corner_crop_takes_the_corners_and_the_centre_equally_often():
    places = collections.Counter(
        corner(host_ops.corner_crop(coded(9, 12), 4, rng=rng)) for rng in generators(1000)
    )
    assert set(places) == {(0, 0), (0, 8), (5, 0), (5, 8), (2, 4)}
    # 200 are expected, with a standard deviation of 13.
    assert all(140 < count < 260 for count in places.values()), places


def test_area_aspect_crop_draws_windows_of_the_stated_area_and_aspect(monkeypatch):
    monkeypatch.setattr(host_ops, "resize", lambda window, size, method: (window, size, method))
    height, width = 120, 200
    drawn = [
        host_ops.area_aspect_crop(coded(height, width), 64, rng=rng) for rng in generators(1000)
    ]
    areas, aspects, tops, lefts = [], [], [], []
    for window, size, _ in drawn:
        assert size == 64
        top, left = corner(window)  # and so inside the image
        h, w = window.shape[:2]
        # Sides are rounded: by up to half a pixel each.
        assert (h - 0.5) * (w - 0.5) <= 1.0 * height * width and (h + 0.5) * (
            w + 0.5
        ) >= 0.08 * height * width
        assert (w + 0.5) / (h - 0.5) >= 3 / 4 and (w - 0.5) / (h + 0.5) <= 4 / 3
        areas.append(h * w / (height * width))
        aspects.append(w / h)
        tops.append(top / max(1, height - h))
        lefts.append(left / max(1, width - w))
    # A window of the whole height is at most 4/3 as wide: 0.89 of this image.
    assert min(areas) < 0.1 and 0.75 < max(areas) < 0.9
    assert min(aspects) < 0.77 and max(aspects) > 1.3
    # Small windows fit at every aspect. Their logarithm is uniform in ±0.288: standard error 0.007.
    small = [aspect for area, aspect in zip(areas, aspects, strict=True) if area < 0.4]
    assert abs(np.mean(np.log(small))) < 0.03
    for places in (tops, lefts):
        assert min(places) < 0.01 and max(places) > 0.99 and 0.45 < np.mean(places) < 0.55
    assert collections.Counter(method for _, _, method in drawn).keys() == set(host_ops.METHODS)


def test_area_aspect_crop_takes_the_ranges_it_is_given(monkeypatch):
    monkeypatch.setattr(host_ops, "resize", lambda window, size, method: window)
    for rng in generators(200):
        h, w = host_ops.area_aspect_crop(
            coded(100, 100), 32, (0.25, 0.25), (4.0, 4.0), rng=rng
        ).shape[:2]
        assert (h, w) == (25, 100)


def test_area_aspect_crop_resizes_by_the_method_it_is_given(monkeypatch):
    image = coded(60, 80)
    monkeypatch.setattr(host_ops, "resize", lambda window, size, method: method)
    whole = ((1.0, 1.0), (4 / 3, 4 / 3))
    for ranges in ((), whole):  # a window, and mostly the central square
        assert {
            host_ops.area_aspect_crop(image, 9, *ranges, method="bicubic", rng=rng)
            for rng in generators(50)
        } == {"bicubic"}
    monkeypatch.undo()
    with pytest.raises(UserError, match="unknown resize method 'cubic'"):
        host_ops.area_aspect_crop(image, 9, method="cubic", rng=np.random.default_rng(0))


def test_area_aspect_crop_of_an_image_that_no_window_fits_is_its_central_square(monkeypatch):
    image = coded(10, 200)
    for rng in generators(20):
        # A window of 8 % of the image is wider than 10 at any aspect.
        window = host_ops.area_aspect_crop(image, 10, rng=rng)
        assert corner(window) == (0, 95)


def test_area_aspect_crop_comes_out_at_the_size_asked_for():
    for rng in generators(50):
        window = host_ops.area_aspect_crop(coded(60, 80), 32, rng=rng)
        assert window.shape == (32, 32, 3) and window.dtype == np.uint8
        assert window[..., 0].max() < 60 and window[..., 1].max() < 80
        assert (window[..., 2] == 7).all()


@pytest.mark.parametrize(
    "op",
    [
        lambda image, rng: host_ops.random_crop(image, 7, rng=rng),
        lambda image, rng: host_ops.resize_short_between(image, 8, 16, rng=rng),
        lambda image, rng: host_ops.area_aspect_crop(image, 9, rng=rng),
        lambda image, rng: host_ops.resize_short_among(image, tuple(range(8, 16)), rng=rng),
    ],
)
def test_a_result_depends_on_image_and_generator_alone(op):
    image = np.random.default_rng(1).integers(0, 256, (24, 32, 3), np.uint8)
    before = image.copy()
    first, again = ([op(image, rng) for rng in generators(20)] for _ in range(2))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len({a.tobytes() for a in first}) > 5
    np.testing.assert_array_equal(image, before)


def test_grey_images_keep_their_channel_axis():
    image, rng = coded(10, 14, channels=1), np.random.default_rng(0)
    assert host_ops.resize(image, 5).shape == (5, 5, 1)
    assert host_ops.resize_short(image, 5).shape == (5, 7, 1)
    assert host_ops.center_crop(image, 12).shape == (12, 12, 1)
    assert host_ops.random_crop(image, 12, rng=rng).shape == (12, 12, 1)
    assert host_ops.corner_crop(image, 12, rng=rng).shape == (12, 12, 1)
    assert host_ops.area_aspect_crop(image, 6, rng=rng).shape == (6, 6, 1)


# --- thin images ----------------------------------------------------------------------------------


@pytest.mark.fault(
    "hostile: a thin image that scaling would make larger than memory",
    "refused before it is scaled; training leaves it out, `predict` names it",
)
@pytest.mark.parametrize(
    ("op", "result"),
    [
        (lambda image, rng: host_ops.resize_short(image, 256), "scaled: 15,360,000×256"),
        (
            lambda image, rng: host_ops.resize_short_between(image, 256, 256, rng=rng),
            "scaled: 15,360,000×256",
        ),
        (
            lambda image, rng: host_ops.resize_short_among(image, (200,), rng=rng),
            "scaled: 12,000,000×200",
        ),
        (lambda image, rng: host_ops.center_crop(image, 224), "scaled: 13,440,000×224"),
        (lambda image, rng: host_ops.random_crop(image, 224, rng=rng), "scaled: 13,440,000×224"),
        (lambda image, rng: host_ops.corner_crop(image, 224, rng=rng), "scaled: 13,440,000×224"),
        (lambda image, rng: host_ops.resize(image, 12_000, 12_000), "scaled: 12,000×12,000"),
        (lambda image, rng: host_ops.pad(image, 2000), "padded: 64,000×4,001"),
    ],
)
def test_no_operation_makes_more_pixels_than_the_limit(op, result):
    image, (rng,) = np.zeros((1, 60_000, 3), np.uint8), generators(1)
    message = rf"^cannot be {result} pixels are more than 134,217,728$"
    with pytest.raises(image_files.TooManyPixels, match=message):
        op(image, rng)


def test_a_thin_image_is_resized_to_a_window_and_one_at_the_limit_is_scaled():
    thin = np.full((1, 60_000, 3), 9, np.uint8)
    (rng,) = generators(1)
    assert (host_ops.resize(thin, 32) == 9).all()
    assert (host_ops.area_aspect_crop(thin, 32, rng=rng) == 9).all()
    assert host_ops.resize_short(thin[:, :4096], 128).shape == (128, 2**19, 3)
