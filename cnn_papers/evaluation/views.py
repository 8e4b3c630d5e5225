"""Views of an image for test protocols: crops, grids and whole rescaled images.

Images are NumPy arrays, uint8 [h, w, c]. Coordinates are in pixels; `method` is one of
`host_ops.METHODS`. Mirror images are made on the device.
"""

from collections.abc import Sequence

import numpy as np

from cnn_papers.data.host_ops import resize, resize_short

Views = list[np.ndarray]


def center(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns the central height×width window."""
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def corners_and_center(image: np.ndarray, size: int) -> Views:
    """Returns the four corner windows of size×size and the central one (AlexNet §4.1)."""
    bottom, right = image.shape[0] - size, image.shape[1] - size
    corners = [
        image[top : top + size, left : left + size]
        for top, left in ((0, 0), (0, right), (bottom, 0), (bottom, right))
    ]
    return [*corners, center(image, size, size)]


def five_crops(image: np.ndarray, method: str, *, size: int, short: int, whole: bool) -> Views:
    """Returns corners and centre of the image at shorter side `short`, or of its central square.

    With `whole` they are of the whole image.
    """
    image = resize_short(image, short, method)
    return corners_and_center(image if whole else center(image, short, short), size)


def squares(image: np.ndarray) -> Views:
    """Returns three squares of the shorter side (GoogLeNet §7).

    They are left, centre and right, or top, centre and bottom.
    """
    side, longer = min(image.shape[:2]), max(image.shape[:2])
    starts = (0, (longer - side) // 2, longer - side)
    if image.shape[0] > image.shape[1]:
        return [image[start : start + side] for start in starts]
    return [image[:, start : start + side] for start in starts]


def six_crops_of_squares(
    image: np.ndarray, method: str, *, size: int, scales: Sequence[int]
) -> Views:
    """Returns, of each square at each scale, corners, centre and itself resized (GoogLeNet §7)."""
    views = []
    for scale in scales:
        for square in squares(resize_short(image, scale, method)):
            views += corners_and_center(square, size)
            views.append(resize(square, size, size, method))
    return views


def grid(image: np.ndarray, method: str, *, size: int, scales: Sequence[int], count: int) -> Views:
    """Returns, at each scale, a regular grid of count×count windows of size×size (VGG §3.2)."""
    views = []
    for scale in scales:
        scaled = resize_short(image, scale, method)
        for top in grid_starts(scaled.shape[0], size, count):
            for left in grid_starts(scaled.shape[1], size, count):
                views.append(scaled[top : top + size, left : left + size])
    return views


def grid_starts(length: int, size: int, count: int) -> list[int]:
    """Returns where `count` windows of `size` begin along `length`, evenly spread to both ends."""
    if count == 1:
        return [(length - size) // 2]
    # Rounded to the nearest pixel.
    return [(2 * i * (length - size) + count - 1) // (2 * (count - 1)) for i in range(count)]


def whole(
    image: np.ndarray, method: str, *, scales: Sequence[int], step: int, longest: float
) -> Views:
    """Returns the whole image at each shorter side of `scales`.

    A little of its longer side is cut off, as `longer_side` says.
    """
    views = []
    for scale in scales:
        scaled = resize_short(image, scale, method)
        height, width = (longer_side(side, scale, step, longest) for side in scaled.shape[:2])
        views.append(center(scaled, height, width))
    return views


def longer_side(length: int, scale: int, step: int, longest: float) -> int:
    """Returns the length that is kept of a side of `length`: `scale` plus a multiple of `step`.

    `scale` is the length of the shorter side. Every shape of image is one more program to compile,
    so that shapes are few. If `step` is the number of pixels between two scores of the network, the
    central crop costs no whole position. A side of more than `longest` times the shorter one is cut
    to that.
    """
    return scale + (min(length, int(longest * scale)) - scale) // step * step


def covers(image: np.ndarray, method: str, *, sizes: Sequence[tuple[int, int]]) -> Views:
    """Returns windows of shorter×longer pixels (OverFeat, Table 5), portrait if the image is.

    The image is scaled, its aspect kept, until it covers the window, and cropped centrally.
    """
    views = []
    for shorter, longer in sizes:
        height, width = (longer, shorter) if image.shape[0] > image.shape[1] else (shorter, longer)
        factor = max(height / image.shape[0], width / image.shape[1])
        scaled_height = max(height, round(factor * image.shape[0]))
        scaled_width = max(width, round(factor * image.shape[1]))
        scaled = resize(image, scaled_height, scaled_width, method)
        views.append(center(scaled, height, width))
    return views


def nine_windows(height: int, width: int, size: int) -> np.ndarray:
    """Returns the windows of SPP-net (§3.1.5), int [k, 4]: boxes `[y1, x1, y2, x2]` in pixels.

    They are the centre, the four corners and the middles of the four sides. If the shorter side is
    `size` itself, the three windows along it are one, so that k is 3 in place of 9.
    """
    tops, lefts = ([0, (side - size) // 2, side - size] for side in (height, width))
    if height == size and height <= width:
        tops = [0]
    elif width == size and width < height:
        lefts = [0]
    return np.array([(top, left, top + size, left + size) for top in tops for left in lefts])
