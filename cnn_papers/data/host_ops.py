"""Operations on one image on the host (OpenCV, NumPy): uint8 RGB [h, w, c] in and out.

An operation that draws at random names `rng`, a NumPy generator that depends on the seed and the example alone.
"""

import cv2
import numpy as np

from cnn_papers.errors import UserError

METHODS = {
    "area": cv2.INTER_AREA,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "nearest": cv2.INTER_NEAREST,
}


def decode(image: bytes, channels: int = 3) -> np.ndarray:
    """Encoded JPEG or PNG to uint8 [h, w, channels], RGB or grey.

    EXIF rotation is applied, transparency is laid on white, CMYK and 16-bit images are converted, grey images are
    replicated to three channels.

    Raises:
      ValueError: bytes that are no image OpenCV can read.
      UserError: another number of channels.
    """
    if channels not in (1, 3):
        raise UserError(f"an image decodes to 1 or 3 channels, not {channels}")
    encoded = np.frombuffer(image, np.uint8)
    try:
        # OpenCV keeps transparency (IMREAD_UNCHANGED) or applies EXIF rotation, which few PNGs have, not both.
        as_it_is = image[:8] == b"\x89PNG\r\n\x1a\n" and b"eXIf" not in image
        pixels = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED if as_it_is else cv2.IMREAD_COLOR) if len(encoded) else None
    except cv2.error as error:
        raise ValueError(f"cannot be decoded: {error.err}") from error
    if pixels is None:
        raise ValueError("cannot be decoded: neither a JPEG nor a PNG")
    pixels = _eight_bits(pixels)
    if channels == 1:
        return pixels[..., None] if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)[..., None]
    return cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB if pixels.ndim == 2 else cv2.COLOR_BGR2RGB)


def _eight_bits(pixels: np.ndarray) -> np.ndarray:
    """Grey [h, w] or BGR [h, w, 3] in uint8, transparency laid on white."""
    if pixels.dtype == np.uint16:
        pixels = (pixels // 257).astype(np.uint8)
    if pixels.ndim == 3 and pixels.shape[-1] in (2, 4):
        alpha = pixels[..., -1:].astype(np.float32) / 255
        pixels = np.rint(pixels[..., :-1] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels


def resize(image: np.ndarray, height: int, width: int | None = None, method: str = "area") -> np.ndarray:
    """To height×width (square when one side is given), whatever the aspect. `area` averages, so it shrinks cleanly."""
    if method not in METHODS:
        raise UserError(f"unknown resize method '{method}'; there are: {', '.join(METHODS)}")
    width = height if width is None else width
    if image.shape[:2] == (height, width):
        return image
    grows = height > image.shape[0] or width > image.shape[1]
    interpolation = METHODS["bilinear" if method == "area" and grows else method]
    return cv2.resize(image, (width, height), interpolation=interpolation).reshape(height, width, image.shape[2])


def resize_short(image: np.ndarray, size: int, method: str = "area") -> np.ndarray:
    """Scales so that the shorter side is `size`, aspect kept (AlexNet §2)."""
    height, width = image.shape[:2]
    if height <= width:
        return resize(image, size, max(size, round(width * size / height)), method)
    return resize(image, max(size, round(height * size / width)), size, method)


def resize_short_between(
    image: np.ndarray, low: int, high: int, method: str = "area", *, rng: np.random.Generator
) -> np.ndarray:
    """Scale jitter: the shorter side is drawn from [low, high] (VGG §3.1, ResNet §3.4)."""
    return resize_short(image, int(rng.integers(low, high + 1)), method)


def center_crop(image: np.ndarray, size: int) -> np.ndarray:
    """The central size×size window; an image that is smaller is scaled up to hold it."""
    image = _at_least(image, size)
    return _window(image, (image.shape[0] - size) // 2, (image.shape[1] - size) // 2, size, size)


def pad(image: np.ndarray, pixels: int) -> np.ndarray:
    """Zeros on every side (LeNet-5 §II-B: 28×28 digits in 32×32)."""
    return np.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)))


def random_crop(image: np.ndarray, size: int, *, rng: np.random.Generator) -> np.ndarray:
    """A size×size window at a random place (AlexNet §4.1); an image that is smaller is scaled up to hold it."""
    image = _at_least(image, size)
    top, left = rng.integers(0, image.shape[0] - size + 1), rng.integers(0, image.shape[1] - size + 1)
    return _window(image, int(top), int(left), size, size)


def area_aspect_crop(
    image: np.ndarray,
    size: int,
    area: tuple[float, float] = (0.08, 1.0),
    aspect: tuple[float, float] = (3 / 4, 4 / 3),
    *,
    rng: np.random.Generator,
) -> np.ndarray:
    """A window of random area and aspect ratio, scaled to size×size with a random interpolation (GoogLeNet §6)."""
    height, width = image.shape[:2]
    method = str(rng.choice(list(METHODS)))
    for _ in range(10):  # most draws fit; a long thin image may never fit one
        target = rng.uniform(*area) * height * width
        ratio = np.exp(rng.uniform(np.log(aspect[0]), np.log(aspect[1])))
        w, h = round(np.sqrt(target * ratio)), round(np.sqrt(target / ratio))
        if 0 < h <= height and 0 < w <= width:
            top, left = int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1))
            return resize(_window(image, top, left, h, w), size, method=method)
    return resize(center_crop(image, min(height, width)), size, method=method)


def _at_least(image: np.ndarray, size: int) -> np.ndarray:
    return resize_short(image, size, "bilinear") if min(image.shape[:2]) < size else image


def _window(image: np.ndarray, top: int, left: int, height: int, width: int) -> np.ndarray:
    return image[top : top + height, left : left + width]
