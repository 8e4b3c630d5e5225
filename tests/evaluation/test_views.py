"""Views, exactly, over many sizes of images: number, places, coverage, mirrored pairs."""

import cv2
import numpy as np
import pytest

from cnn_papers.evaluation import protocols, views

draw = np.random.default_rng(0)
SIZES = [
    (16, 16),
    (16, 41),
    (41, 16),
    (17, 40),
    (29, 17),
    *map(tuple, draw.integers(16, 60, (12, 2)).tolist()),
]
each_size = pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")


def coded(height, width):
    """An image whose pixels say where they are."""
    y, x = np.mgrid[:height, :width].astype(np.uint8)
    return np.stack([y, x, np.full_like(y, 7)], -1)


def places(image, seen):
    """Top and left of windows of a coded image, which they must be, pixel by pixel."""
    begins = []
    for view in seen:
        top, left = map(int, view[0, 0, :2])
        np.testing.assert_array_equal(
            view, image[top : top + view.shape[0], left : left + view.shape[1]]
        )
        begins.append((top, left))
    return begins


def covered(image, seen):
    """Returns a mask of the pixels of a coded image that the windows show."""
    mask = np.zeros(image.shape[:2], bool)
    for (top, left), view in zip(places(image, seen), seen, strict=True):
        mask[top : top + view.shape[0], left : left + view.shape[1]] = True
    return mask


def assert_mirrored_pairs(lefts, width, size):
    """Fails unless windows and their mirror images are at the same places, to one pixel."""
    mirrored = sorted(width - size - left for left in lefts)
    assert all(abs(a - b) <= 1 for a, b in zip(sorted(lefts), mirrored, strict=True))


# --- ten crops ------------------------------------------------------------------------------------


@each_size
def test_five_crops_of_the_central_square(size):
    image, short = coded(*size), min(size)
    seen = views.five_crops(image, "area", size=13, short=short, whole=False)
    top, left = (size[0] - short) // 2, (size[1] - short) // 2
    rest = short - 13
    corners = [(top, left), (top, left + rest), (top + rest, left), (top + rest, left + rest)]
    assert places(image, seen) == [*corners, (top + rest // 2, left + rest // 2)]
    assert {view.shape for view in seen} == {(13, 13, 3)}
    assert_mirrored_pairs([x - left for _, x in places(image, seen)], short, 13)
    assert (
        covered(image, seen)[top : top + short, left : left + short].sum()
        == covered(image, seen).sum()
    )


@each_size
def test_five_crops_of_the_whole_image_reach_its_corners(size):
    image = coded(*size)
    seen = views.five_crops(image, "area", size=13, short=min(size), whole=True)
    mask = covered(image, seen)
    assert mask[0, 0] and mask[0, -1] and mask[-1, 0] and mask[-1, -1] and len(seen) == 5
    assert places(image, seen)[4] == ((size[0] - 13) // 2, (size[1] - 13) // 2)


@pytest.mark.parametrize("size", [(300, 500), (500, 300), (100, 90)])
def test_ten_crop_scales_the_shorter_side_as_it_is_told(size):
    image = draw.integers(0, 256, (*size, 3), np.uint8)
    ((crops, *_),) = protocols.ten_crop(224, 256)
    height, width = (round(side * 256 / min(size)) for side in size)
    scaled = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    top, left = (height - 256) // 2, (width - 256) // 2
    np.testing.assert_array_equal(
        crops(image, "bilinear")[0], scaled[top : top + 224, left : left + 224]
    )


# --- 144 crops ------------------------------------------------------------------------------------


@each_size
def test_three_squares_along_the_longer_side(size):
    image, side = coded(*size), min(size)
    seen = views.squares(image)
    assert {view.shape for view in seen} == {(side, side, 3)} and len(seen) == 3
    rest = max(size) - side
    along = [max(place) for place in places(image, seen)]
    assert along == [0, rest // 2, rest]
    if max(size) <= 2 * side:
        assert covered(image, seen).all()


@pytest.mark.parametrize("size", [(288, 400), (400, 288), (300, 300), (77, 130)])
def test_144_crops(size):
    image = draw.integers(0, 256, (*size, 3), np.uint8)
    (part,) = protocols.crops_144()
    seen = part.views(image, "bilinear")
    assert len(seen) * (1 + part.mirrored) == 144 and {view.shape for view in seen} == {
        (224, 224, 3)
    }
    expected = []
    for scale in (256, 288, 320, 352):
        height, width = (
            scale if side == min(size) else round(side * scale / min(size)) for side in size
        )
        scaled = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        for start in (0, (max(height, width) - scale) // 2, max(height, width) - scale):
            square = (
                scaled[start : start + scale]
                if height > width
                else scaled[:, start : start + scale]
            )
            far, middle = scale - 224, (scale - 224) // 2
            for top, left in ((0, 0), (0, far), (far, 0), (far, far), (middle, middle)):
                expected.append(square[top : top + 224, left : left + 224])
            expected.append(cv2.resize(square, (224, 224), interpolation=cv2.INTER_LINEAR))
    for view, wanted in zip(seen, expected, strict=True):
        np.testing.assert_array_equal(view, wanted)


def test_every_sixth_crop_shows_the_whole_square():
    """Its corners are near those of the square, which no crop of 224 shows at the same time."""
    image = coded(256, 256)
    seen = views.six_crops_of_squares(image, "bilinear", size=224, scales=(256,))
    corners = [(view[0, 0, :2].tolist(), view[-1, -1, :2].tolist()) for view in seen]
    assert corners[:5] == [
        ([top, left], [top + 223, left + 223])
        for top, left in ((0, 0), (0, 32), (32, 0), (32, 32), (16, 16))
    ]
    assert corners[5] == ([0, 0], [255, 255])


# --- VGG's grid and whole images ------------------------------------------------------------------


@each_size
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_grid_is_regular_and_reaches_the_edges(size, count):
    image = coded(*size)
    seen = views.grid(image, "area", size=13, scales=(min(size),), count=count)
    begins = places(image, seen)
    starts = [views.grid_starts(side, 13, count) for side in size]
    assert len(begins) == count**2 and begins == [
        (top, left) for top in starts[0] for left in starts[1]
    ]
    for side in size:
        exact = (
            [(side - 13) / 2]
            if count == 1
            else [i * (side - 13) / (count - 1) for i in range(count)]
        )
        assert np.abs(np.array(views.grid_starts(side, 13, count)) - exact).max() <= 0.5
        assert_mirrored_pairs(views.grid_starts(side, 13, count), side, 13)
    if count > 1 and all(side - 13 <= 13 * (count - 1) for side in size):
        assert covered(image, seen).all()


def test_vgg_looks_50_times_a_scale_and_150_times_at_three():
    image = draw.integers(0, 256, (300, 450, 3), np.uint8)
    for scales, count in ((256, 50), ((256, 384, 512), 150)):
        (part,) = protocols.vgg_multi_crop(scales)
        assert len(part.views(image, "area")) * (1 + part.mirrored) == count


@pytest.mark.parametrize("scale", [16, 100, 224, 256, 640])
@pytest.mark.parametrize("step", [1, 7, 32])
@pytest.mark.parametrize("longest", [1.0, 1.5, 2.0, 3.0])
def test_a_longer_side_loses_less_than_a_step_and_takes_few_values(scale, step, longest):
    lengths = {
        length: views.longer_side(length, scale, step, longest)
        for length in range(scale, 4 * scale)
    }
    for length, kept in lengths.items():
        assert scale <= kept <= min(length, longest * scale) and (kept - scale) % step == 0
        assert min(length, int(longest * scale)) - kept < step
    assert len(set(lengths.values())) <= (longest - 1) * scale / step + 1


@each_size
def test_whole_images_are_central_and_keep_their_shorter_side(size):
    image = coded(*size)
    (seen,) = views.whole(image, "area", scales=(min(size),), step=4, longest=2.0)
    assert min(seen.shape[:2]) == min(size)
    assert places(image, [seen]) == [
        tuple((a - b) // 2 for a, b in zip(size, seen.shape[:2], strict=True))
    ]


# --- OverFeat -------------------------------------------------------------------------------------

OVERFEAT = ((245, 245), (281, 317), (317, 389), (389, 461), (425, 497), (461, 569))


@pytest.mark.parametrize("size", [(375, 500), (500, 375), (400, 400), (120, 700), (333, 500)])
def test_overfeats_six_sizes_lie_as_the_image_does_and_keep_its_aspect(size):
    height, width = size
    image = draw.integers(0, 256, (*size, 3), np.uint8)
    (part,) = protocols.overfeat_dense()
    seen = part.views(image, "bilinear")
    portrait = height > width
    assert [view.shape[:2] for view in seen] == [
        pair[::-1] if portrait else pair for pair in OVERFEAT
    ]
    for view in seen:
        factor = max(view.shape[0] / height, view.shape[1] / width)
        h, w = max(view.shape[0], round(factor * height)), max(view.shape[1], round(factor * width))
        scaled = cv2.resize(image, (w, h), interpolation=cv2.INTER_LINEAR)
        top, left = (h - view.shape[0]) // 2, (w - view.shape[1]) // 2
        assert top == 0 or left == 0
        np.testing.assert_array_equal(
            view, scaled[top : top + view.shape[0], left : left + view.shape[1]]
        )


# --- SPP-net --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size", [(224, 300), (300, 224), (224, 224), (256, 341), (560, 700), (700, 560), (300, 300)]
)
def test_nine_windows_or_three(size):
    height, width = size
    windows = views.nine_windows(height, width, 224)
    assert len(windows) == (3 if min(size) == 224 else 9)
    assert (windows[:, 2:] - windows[:, :2] == 224).all() and (windows >= 0).all()
    assert windows[:, 2].max() == height and windows[:, 3].max() == width
    assert ((height - 224) // 2, (width - 224) // 2) in [
        (top, left) for top, left, *_ in windows.tolist()
    ]
    assert_mirrored_pairs(windows[:, 1].tolist(), width, 224)
    assert len(set(map(tuple, windows.tolist()))) == len(windows) or height == width == 224


def test_spp_net_looks_96_times_and_twice_more():
    on_maps, full = protocols.spp_multi_view()
    assert on_maps.weight == 96 and full.weight == 2
    assert on_maps.mirrored and full.mirrored
    (alone,) = protocols.spp_multi_view(full=0)
    assert (
        alone.sizes
        == on_maps.sizes
        == tuple((scale, scale) for scale in (224, 256, 300, 360, 448, 560))
    )
