"""Where test protocols look at an image: crops, grids and whole rescaled images (NumPy, uint8 [h,
w, c]).

Coordinates are pixels; `method` is how `host_ops` resizes. Mirror images are made on the device.
"""

from collections.abc import Sequence

import numpy as np

from cnn_papers.data.host_ops import resize, resize_short

Views = list[np.ndarray]


def center(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The central height×width window."""
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def corners_and_center(image: np.ndarray, size: int) -> Views:
    """The four corner windows of size×size and the central one (AlexNet §4.1)."""
    bottom, right = image.shape[0] - size, image.shape[1] - size
    corners = [
        image[top : top + size, left : left + size]
        for top, left in ((0, 0), (0, right), (bottom, 0), (bottom, right))
    ]
    return [*corners, center(image, size, size)]


def five_crops(image: np.ndarray, method: str, *, size: int, short: int, whole: bool) -> Views:
    """Corners and centre of the central square of side `short`, or of the `whole` image, scaled to
    that side.
    """
    image = resize_short(image, short, method)
    return corners_and_center(image if whole else center(image, short, short), size)


def squares(image: np.ndarray) -> Views:
    """Three squares of the shorter side: left, centre and right, or top, centre and bottom
    (GoogLeNet §7).
    """
    side, longer = min(image.shape[:2]), max(image.shape[:2])
    starts = (0, (longer - side) // 2, longer - side)
    if image.shape[0] > image.shape[1]:
        return [image[start : start + side] for start in starts]
    return [image[:, start : start + side] for start in starts]


def six_crops_of_squares(
    image: np.ndarray, method: str, *, size: int, scales: Sequence[int]
) -> Views:
    """At each scale and of each of its squares: corners, centre, and the square resized to
    size×size (GoogLeNet §7).
    """
    scaled = (resize_short(image, scale, method) for scale in scales)
    parts = (square for each in scaled for square in squares(each))
    return [
        view
        for part in parts
        for view in (*corners_and_center(part, size), resize(part, size, size, method))
    ]


def grid(image: np.ndarray, method: str, *, size: int, scales: Sequence[int], count: int) -> Views:
    """At each scale a regular grid of count×count windows of size×size over the whole image (VGG
    §3.2).
    """
    scaled = [resize_short(image, scale, method) for scale in scales]
    return [
        each[top : top + size, left : left + size]
        for each in scaled
        for top in grid_starts(each.shape[0], size, count)
        for left in grid_starts(each.shape[1], size, count)
    ]


def grid_starts(length: int, size: int, count: int) -> list[int]:
    """Where `count` windows of `size` begin along `length`, evenly spread, the first at 0, the last
    at the end.
    """
    if count == 1:
        return [(length - size) // 2]
    return [
        (2 * i * (length - size) + count - 1) // (2 * (count - 1)) for i in range(count)
    ]  # to the nearest pixel


def whole(
    image: np.ndarray, method: str, *, scales: Sequence[int], step: int, longest: float
) -> Views:
    """At each scale the whole image with that shorter side; see `longer_side` for what goes from
    the longer one.
    """
    views = []
    for scale in scales:
        each = resize_short(image, scale, method)
        height, width = (longer_side(side, scale, step, longest) for side in each.shape[:2])
        views.append(center(each, height, width))
    return views


def longer_side(length: int, scale: int, step: int, longest: float) -> int:
    """How much of a side of `length` is looked at where the shorter one is `scale`: scale + a
    multiple of step.

    Every shape of image is one more program to compile. With `step` the pixels between two scores
    of the network, the central crop costs no whole position; a side of more than `longest` times
    the shorter one is cut to that.
    """
    return scale + (min(length, int(longest * scale)) - scale) // step * step


def covers(image: np.ndarray, method: str, *, sizes: Sequence[tuple[int, int]]) -> Views:
    """Windows of shorter×longer pixels (OverFeat, Table 5), turned as the image lies.

    The image is scaled, its aspect kept, until it covers the window, and cropped centrally.
    """
    views = []
    for shorter, longer in sizes:
        height, width = (longer, shorter) if image.shape[0] > image.shape[1] else (shorter, longer)
        factor = max(height / image.shape[0], width / image.shape[1])
        h, w = (
            max(height, round(factor * image.shape[0])),
            max(width, round(factor * image.shape[1])),
        )
        views.append(center(resize(image, h, w, method), height, width))
    return views


def nine_windows(height: int, width: int, size: int) -> np.ndarray:
    """SPP-net's views of a map (§3.1.5): the centre, four corners and four middles of sides, as int
    [k, 4].

    Rows are left, top, right, bottom in image pixels. Where the shorter side is `size` itself, the
    three windows along it are one: k is 3 instead of 9, whatever the image.
    """
    along = [[0, (side - size) // 2, side - size] for side in (height, width)]
    if min(height, width) == size:
        along[0 if height <= width else 1] = [0]
    return np.array([(left, top, left + size, top + size) for top in along[0] for left in along[1]])
