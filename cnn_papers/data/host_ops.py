"""Host operations of `config.data`, on one image (OpenCV, NumPy): uint8 RGB [h, w, c] in and out.

An operation that draws at random has a parameter `rng`, a NumPy generator that depends only on the
seed and the example. One that changes with the epoch has a parameter `epoch`. One that cuts out an
object has a parameter `objects`, and also returns which object it is. One that would scale or pad
an image to more than `image_files.MAX_PIXELS`, such as a thin one, raises `TooManyPixels`.
`dense_sift` and `dense_colours` come last: what they return in place of an image are descriptors.

Boxes on the image move with its pixels. Three functions at the end do this, `_resized`, `_window`
and `_padded`; operations call them.
"""

import math
from typing import TypeVar

import cv2
import numpy as np

from cnn_papers import boxes
from cnn_papers.boxes import Boxed
from cnn_papers.data import descriptors, image_files
from cnn_papers.data.split import Objects
from cnn_papers.errors import UserError

Image = TypeVar("Image", np.ndarray, Boxed)  # the same goes in and comes out

METHODS = {
    "area": cv2.INTER_AREA,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "nearest": cv2.INTER_NEAREST,
}

# Operations that scale up an image that is smaller than their window, as the papers do.
WINDOWS = ("center_crop", "random_crop", "corner_crop")

# Operations that return descriptors, uint8 [k, columns, 1], in place of an image.
DESCRIPTORS = ("dense_sift", "dense_colours")


def decode(image: bytes, channels: int = 3, short: int = 0) -> np.ndarray:
    """Decodes a JPEG, PNG, BMP or WebP to uint8 [h, w, channels], RGB or grey.

    EXIF rotation is applied, transparency is laid on white, CMYK and 16-bit images are converted,
    grey images are replicated to three channels. A JPEG has no checksums: if its inside is damaged,
    libjpeg decodes what it can.

    `short`, for training, is the length of the shorter side that is enough: a JPEG of at least
    twice that is decoded smaller, as `image_files.read` says, which takes less time and gives
    slightly other pixels. 0 decodes every pixel.

    Raises:
      ValueError: bytes of another kind, a file that is cut off, an image of more than MAX_PIXELS.
      TypeError: pixels in place of bytes.
      UserError: `channels` other than 1 and 3; a negative `short`.
    """
    if channels not in (1, 3):
        raise UserError(f"an image decodes to 1 or 3 channels, not {channels}")
    if not isinstance(image, bytes):
        raise TypeError("it takes the bytes of a file")
    if short < 0:
        raise UserError(f"decode(short={short}): it is a number of pixels, 0 for all")
    pixels = image_files.read(image, short)
    if pixels.ndim == 2:
        return pixels[..., None] if channels == 1 else cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None] if channels == 1 else pixels


def resize(image: Image, height: int, width: int | None = None, method: str = "area") -> Image:
    """Resizes to height×width, or to a square if only `height` is given; the aspect may change.

    The method `area` averages blocks of k×k pixels, where k is how many times the image is larger,
    rounded down, after a bilinear resize to k times the new size, in which every pixel counts.
    OpenCV's own area method takes longer than decoding.
    """
    if method not in METHODS:
        raise UserError(f"unknown resize method '{method}'; there are: {', '.join(METHODS)}")
    width = height if width is None else width
    if method == "area":
        blocks = max(1, min(image.shape[0] // max(1, height), image.shape[1] // max(1, width)))
        image = _resized(image, blocks * height, blocks * width, cv2.INTER_LINEAR)
    return _resized(image, height, width, METHODS[method])


def resize_short(image: Image, size: int, method: str = "area") -> Image:
    """Resizes so that the shorter side is `size`; the aspect is kept (AlexNet §2)."""
    height, width = image.shape[:2]
    if height <= width:
        return resize(image, size, max(size, round(width * size / height)), method)
    return resize(image, max(size, round(height * size / width)), size, method)


def resize_short_between(
    image: Image, low: int, high: int, method: str = "area", *, rng: np.random.Generator
) -> Image:
    """Resizes the shorter side to a random length in [low, high] (VGG §3.1, ResNet §3.4)."""
    return resize_short(image, int(rng.integers(low, high + 1)), method)


def resize_short_among(
    image: Image, sizes: tuple[int, ...], method: str = "area", *, rng: np.random.Generator
) -> Image:
    """Resizes the shorter side to one of `sizes`, each with the same probability."""
    return resize_short(image, int(rng.choice(sizes)), method)


def resize_by_epoch(image: Image, *sizes: int, method: str = "bilinear", epoch: int) -> Image:
    """Resizes to a square of the first of `sizes` in the first epoch, then of the second, in turns.

    SPP-net §2.3: the same region at 224 and at 180, one full epoch each.
    """
    return resize(image, sizes[epoch % len(sizes)], method=method)


def center_crop(image: Image, size: int) -> Image:
    """Crops the central size×size window; a smaller image is scaled up first."""
    image = _at_least(image, size)
    return _window(image, (image.shape[0] - size) // 2, (image.shape[1] - size) // 2, size, size)


def pad(image: Image, pixels: int) -> Image:
    """Pads every side with zeros (LeNet-5 §II-B: 28×28 digits in 32×32)."""
    return _padded(image, (pixels, pixels), (pixels, pixels))


def fit(image: Image, height: int, width: int, method: str = "area") -> Image:
    """Scales to the largest size within height×width, and pads right and bottom with one colour.

    It is the image's mean colour, which the whole then has too: `subtract_own_mean` leaves an image
    the same with and without padding.
    """
    factor = min(height / image.shape[0], width / image.shape[1])
    rows, columns = (max(1, round(factor * side)) for side in image.shape[:2])
    scaled = resize(image, rows, columns, method)
    pixels = scaled.pixels if isinstance(scaled, Boxed) else scaled
    colour = pixels.mean((0, 1)).round()
    return _padded(scaled, (0, height - rows), (0, width - columns), colour)


def random_crop(image: Image, size: int, *, rng: np.random.Generator) -> Image:
    """Crops a random size×size window (AlexNet §4.1); a smaller image is scaled up first."""
    image = _at_least(image, size)
    top = int(rng.integers(0, image.shape[0] - size + 1))
    left = int(rng.integers(0, image.shape[1] - size + 1))
    return _window(image, top, left, size, size)


def corner_crop(image: Image, size: int, *, rng: np.random.Generator) -> Image:
    """Crops size×size at a random one of the four corners or the centre (SPP-net §3.1).

    A smaller image is scaled up first.
    """
    image = _at_least(image, size)
    bottom, right = image.shape[0] - size, image.shape[1] - size
    places = ((0, 0), (0, right), (bottom, 0), (bottom, right), (bottom // 2, right // 2))
    top, left = places[rng.integers(len(places))]
    return _window(image, top, left, size, size)


def area_aspect_crop(
    image: Image,
    size: int,
    area: tuple[float, float] = (0.08, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
    method: str = "random",
    *,
    rng: np.random.Generator,
) -> Image:
    """Crops a window of random area and aspect, and resizes it to size×size (GoogLeNet §6).

    `area` is a range of shares of the image's area, `aspect` of width / height, whose logarithm is
    drawn evenly. The method of the resize is random too, unless `method` names one.
    """
    height, width = image.shape[:2]
    if method == "random":
        method = str(rng.choice(list(METHODS)))
    for _ in range(10):  # most draws fit; a long thin image may never fit one
        target = rng.uniform(*area) * height * width
        ratio = np.exp(rng.uniform(np.log(aspect[0]), np.log(aspect[1])))
        w, h = round(np.sqrt(target * ratio)), round(np.sqrt(target / ratio))
        if 0 < h <= height and 0 < w <= width:
            top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
            return resize(_window(image, top, left, h, w), size, method=method)
    return resize(center_crop(image, min(height, width)), size, method=method)


def random_object(
    image: Image,
    margin: float,
    square: bool = False,
    *,
    rng: np.random.Generator,
    objects: Objects,
) -> tuple[Image, int]:
    """Cuts out one of the objects, each with the same probability, as `largest_object` does."""
    return _cut_out(image, objects, int(rng.choice(objects.easy())), margin, square)


def largest_object(
    image: Image, margin: float, square: bool = False, *, objects: Objects
) -> tuple[Image, int]:
    """Cuts out the object whose box is the largest, the first of them if several are.

    The window is the box, widened on every side by the share `margin` of its height or width. If
    `square`, the shorter side of the box counts as long as the longer one, and a window at the rim
    is moved onto the image. What lies off the image is left out. The window keeps its aspect: a
    `resize` that follows warps it as R-CNN does (its Appendix A), a `fit` does not. Difficult
    objects are not chosen.
    """
    chosen = objects.easy()
    largest = chosen[np.argmax(boxes.area(objects.boxes[chosen]))]
    return _cut_out(image, objects, int(largest), margin, square)


def _cut_out(
    image: Image, objects: Objects, row: int, margin: float, square: bool
) -> tuple[Image, int]:
    """Returns the window around object `row`, and `row`."""
    (height, width), (y1, x1, y2, x2) = image.shape[:2], objects.boxes[row].tolist()
    down, right = (1 + 2 * margin) * (y2 - y1), (1 + 2 * margin) * (x2 - x1)
    if square:
        down = right = max(down, right)
    top, left = (y1 + y2 - down) / 2, (x1 + x2 - right) / 2
    if square:
        top, left = max(0, min(top, height - down)), max(0, min(left, width - right))
    bottom, right = math.ceil(min(top + down, height)), math.ceil(min(left + right, width))
    top, left = math.floor(max(0, top)), math.floor(max(0, left))
    return _window(image, top, left, bottom - top, right - left), row


_SCALES = (1.0, 0.707, 0.5, 0.354, 0.25)  # of descriptors: down by √2


def dense_sift(
    image: np.ndarray,
    step: int = 4,
    bin_size: int = 8,
    scales: tuple[float, ...] = _SCALES,
    longest: int = 0,
    colours: bool = False,
) -> np.ndarray:
    """Returns SIFT descriptors on a grid, uint8 [k, 130, 1]; see `descriptors.dense`.

    With `colours` those of colours are beside them, uint8 [k, 226, 1]. Images are of one size, or
    `longest` is given: it scales down an image whose longer side has more pixels, and k is then
    that of a square of `longest`; rows of zeros fill up.

    Raises:
      UserError: arguments that make no sense.
      ValueError: an image too small for one descriptor, or with boxes.
    """
    kinds = ("sift", "colours") if colours else ("sift",)
    return _described(image, kinds, step, bin_size, scales, longest)


def dense_colours(
    image: np.ndarray,
    step: int = 4,
    bin_size: int = 8,
    scales: tuple[float, ...] = _SCALES,
    longest: int = 0,
) -> np.ndarray:
    """Returns descriptors of colours on a grid, uint8 [k, 98, 1], as `dense_sift` those of SIFT."""
    return _described(image, ("colours",), step, bin_size, scales, longest)


def _described(
    image: np.ndarray,
    kinds: tuple[str, ...],
    step: int,
    bin_size: int,
    scales: tuple[float, ...],
    longest: int,
) -> np.ndarray:
    """Returns descriptors of `kinds` of an image, and the rows that fill up."""
    if step < 1 or bin_size < 1 or longest < 0 or not scales or not all(x > 0 for x in scales):
        raise UserError(
            f"descriptors take a positive step, bin_size and scales, not step={step}, "
            f"bin_size={bin_size}, scales={scales}, longest={longest}"
        )
    if isinstance(image, Boxed):
        raise ValueError("descriptors of an image have no boxes")
    if longest and max(image.shape[:2]) > longest:
        factor = longest / max(image.shape[:2])
        height, width = (max(1, round(factor * side)) for side in image.shape[:2])
        image = resize(image, height, width)
    found = descriptors.dense(image, kinds, step, bin_size, scales)
    if not len(found):
        height, width = image.shape[:2]
        side = math.ceil(descriptors.BINS * bin_size / max(scales))
        raise ValueError(
            f"an image of {height}×{width} is too small for one descriptor: "
            f"both sides need {side} pixels"
        )
    rows = descriptors.count((longest, longest), step, bin_size, scales) if longest else len(found)
    return _padded(found[..., None], (0, rows - len(found)), (0, 0))


def _at_least(image: Image, size: int) -> Image:
    return resize_short(image, size, "bilinear") if min(image.shape[:2]) < size else image


# --- moves of pixels, and of the boxes on them ----------------------------------------------------


def _resized(image: Image, height: int, width: int, interpolation: int) -> Image:
    if image.shape[:2] == (height, width):
        return image
    if isinstance(image, Boxed):
        factors = height / image.shape[0], width / image.shape[1]
        pixels = _resized(image.pixels, height, width, interpolation)
        return Boxed(pixels, boxes.scale(image.boxes, *factors))
    image_files.check_pixels(height, width, "cannot be scaled")
    return cv2.resize(image, (width, height), interpolation=interpolation).reshape(
        height, width, image.shape[2]
    )


def _window(image: Image, top: int, left: int, height: int, width: int) -> Image:
    if isinstance(image, Boxed):
        pixels = _window(image.pixels, top, left, height, width)
        return Boxed(pixels, boxes.clip(boxes.shift(image.boxes, -top, -left), height, width))
    return image[top : top + height, left : left + width]


def _padded(
    image: Image, rows: tuple[int, int], columns: tuple[int, int], colour: np.ndarray | int = 0
) -> Image:
    """Pads with a colour: `rows` at the top and the bottom, `columns` at the left and the right."""
    if isinstance(image, Boxed):
        pixels = _padded(image.pixels, rows, columns, colour)
        return Boxed(pixels, boxes.shift(image.boxes, rows[0], columns[0]))
    height, width = image.shape[:2]
    image_files.check_pixels(height + sum(rows), width + sum(columns), "cannot be padded")
    shape = (height + sum(rows), width + sum(columns), image.shape[2])
    padded = np.broadcast_to(np.asarray(colour, image.dtype), shape).copy()
    padded[rows[0] : rows[0] + height, columns[0] : columns[0] + width] = image
    return padded
