"""Reads image files: JPEG, PNG, BMP and WebP, told apart by their first bytes, not by their names.

OpenCV decodes them. This module does what OpenCV does not: it checks the size that a file declares
before any memory is taken for it, and it applies transparency and EXIF orientation both, of which
OpenCV applies one.
"""

import math
import struct
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np

# Usual suffixes of these files. A file with one of them is an image until it is decoded.
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp")
HEAD = 18  # bytes that tell the kind of a file
# A file of a megabyte can declare many more, and would take all memory.
MAX_PIXELS = 2**27
_BMP_HEADERS = (12, 40, 52, 56, 64, 108, 124)  # sizes that a BMP's second header has
_ORIENTATION = 0x0112  # the EXIF tag
# How many times smaller libjpeg can decode, and OpenCV's flag for it.
_REDUCED = {
    8: cv2.IMREAD_REDUCED_COLOR_8,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    1: 0,
}
_FIRST_BYTES = 2**16  # of a JPEG have its size and orientation, as a rule
# OpenCV's own messages about damaged files would repeat ours.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


class TooManyPixels(ValueError):
    """An image has more than MAX_PIXELS, or would have after it is scaled."""


def check_pixels(height: int, width: int, what: str) -> None:
    """Raises TooManyPixels for more than MAX_PIXELS; `what` begins the message."""
    if height * width > MAX_PIXELS:
        raise TooManyPixels(f"{what}: {width:,}×{height:,} pixels are more than {MAX_PIXELS:,}")


def kind(head: bytes) -> str:
    """Returns "JPEG", "PNG", "BMP" or "WebP" for the first HEAD bytes of a file, else ""."""
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WebP"
    return ""


def read(image: bytes, short: int = 0) -> np.ndarray:
    """Decodes a file to uint8 pixels, grey [h, w] or RGB [h, w, 3], upright, laid on white.

    Of an animation it is the first picture. With `short` a JPEG is decoded at 1/8, 1/4 or 1/2 of
    its size, the smallest that leaves its shorter side at least `short` pixels: sides become
    ⌈side / k⌉, and each pixel is about the mean of k×k pixels, from libjpeg's smaller transform.

    Raises:
      ValueError: another kind of file, one that is cut off or damaged.
      TooManyPixels: the file declares more than MAX_PIXELS.
    """
    name = kind(image)
    if not name:
        reason = "not a JPEG, PNG, BMP or WebP" if image else "there are no bytes"
        raise ValueError(f"cannot be decoded: {reason}")
    height, width = _declared_size(image, name)
    check_pixels(height, width, "cannot be decoded")
    # OpenCV keeps transparency (IMREAD_UNCHANGED) or applies the orientation, not both.
    by_hand = name in ("PNG", "WebP") or (name == "BMP" and _bmp_has_alpha(image))
    try:
        flag = cv2.IMREAD_UNCHANGED if by_hand else cv2.IMREAD_COLOR_RGB
        if name == "JPEG" and short:
            flag |= _reduced(min(height, width), short)
        pixels = None
        if height and width and (name != "PNG" or _has_whole_chunks(image)):
            pixels = cv2.imdecode(np.frombuffer(image, np.uint8), flag)
    except cv2.error as error:
        raise ValueError(f"cannot be decoded: {error.err}") from error
    if pixels is None:
        raise ValueError(f"cannot be decoded: a {name} that is cut off or damaged")
    if not by_hand:
        return pixels
    if name == "PNG" and pixels.ndim == 2:
        pixels = _clear_grey_to_white(pixels, image)
    return _upright(_eight_bits(pixels), _orientation(_exif(image, name)))


def _reduced(side: int, short: int) -> int:
    """Returns the flag that decodes a JPEG whose shorter side is `side` to `short` or little more.

    OpenCV's flags also ask for BGR, which we do not want.
    """
    times = next(k for k in _REDUCED if k == 1 or math.ceil(side / k) >= short)
    return _REDUCED[times] & ~cv2.IMREAD_COLOR_BGR


# --- sizes ----------------------------------------------------------------------------------------


class DeclaredSize(NamedTuple):
    """The size that an image has when it is seen as its EXIF orientation says.

    Attributes:
      upright: (height, width).
      orientation: 1 … 8; 1 leaves the pixels as they are stored, from 5 on the sides swap.
    """

    upright: tuple[int, int]
    orientation: int


def declared_size(image: bytes) -> DeclaredSize | None:
    """Returns the size that a file declares, without decoding it; None if it declares none.

    The bytes may be cut off behind the header.
    """
    name = kind(image)
    height, width = _declared_size(image, name) if name else (0, 0)
    if not (height and width):
        return None
    orientation = _orientation(_exif(image, name))
    return DeclaredSize((width, height) if orientation >= 5 else (height, width), orientation)


def read_declared_size(path: str) -> DeclaredSize | None:
    """Returns the size that the file `path` declares, as `declared_size`; OSError as `open`."""
    with open(path, "rb") as file:
        image = file.read(_FIRST_BYTES)
        size = declared_size(image) if kind(image) == "JPEG" else None
        # Other kinds may have their orientation at the end.
        return size or declared_size(image + file.read())


def _declared_size(image: bytes, name: str) -> tuple[int, int]:
    """Returns height and width in the header of a file of the kind `name`; zeros without one."""
    read_size = {"JPEG": _jpeg_size, "PNG": _png_size, "BMP": _bmp_size, "WebP": _webp_size}[name]
    try:
        return read_size(image)
    except struct.error:  # it is cut off
        return 0, 0


def _jpeg_size(image: bytes) -> tuple[int, int]:
    at = 2
    while at + 9 <= len(image):
        marker = image[at + 1]
        if image[at] != 0xFF or marker == 0xFF:  # libjpeg skips what lies between two markers
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a frame begins
            return struct.unpack_from(">HH", image, at + 5)
        elif marker <= 0x01 or 0xD0 <= marker <= 0xD9:  # markers without a segment
            at += 2
        else:
            at += 2 + int.from_bytes(image[at + 2 : at + 4], "big")
    return 0, 0


def _png_size(image: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", image, 16)
    return height, width


def _bmp_size(image: bytes) -> tuple[int, int]:
    form = "<HH" if image[14] == 12 else "<ii"
    width, height = struct.unpack_from(form, image, 18)
    return abs(height), abs(width)  # a negative height: rows from the top


def _webp_size(image: bytes) -> tuple[int, int]:
    """Returns the size of a lossy or lossless picture, or of the canvas that holds all pictures."""
    first = image[12:16]
    if first == b"VP8 ":
        width, height = struct.unpack_from("<HH", image, 26)
        return height & 0x3FFF, width & 0x3FFF
    if first == b"VP8L":
        (bits,) = struct.unpack_from("<I", image, 21)
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if first == b"VP8X" and len(image) >= 30:
        width, height = (int.from_bytes(image[at : at + 3], "little") for at in (24, 27))
        return height + 1, width + 1
    return 0, 0


# --- transparency and orientation -----------------------------------------------------------------


def _bmp_has_alpha(image: bytes) -> bool:
    """Tells whether a BMP says which bits of its pixels are alpha; few of 32 bits do."""
    if int.from_bytes(image[14:18], "little") < 56 or len(image) < 70:
        return False
    bits, bit_fields, alpha_mask = struct.unpack_from("<HI32xI", image, 28)
    return bits == 32 and bit_fields == 3 and alpha_mask != 0


def _clear_grey_to_white(pixels: np.ndarray, png: bytes) -> np.ndarray:
    """Makes the grey value white that a PNG declares transparent, which OpenCV does not read."""
    depth, value = png[24], _png_chunk(png, b"tRNS")
    if len(value) != 2:
        return pixels
    grey = int.from_bytes(value, "big") & (2**depth - 1)
    if depth < 8:
        grey = grey * 255 // (2**depth - 1)  # as OpenCV has scaled the pixels
    return np.where(pixels == grey, np.iinfo(pixels.dtype).max, pixels)


def _eight_bits(pixels: np.ndarray) -> np.ndarray:
    """Returns grey [h, w] or RGB [h, w, 3] in uint8, of OpenCV's BGR; transparency on white."""
    if pixels.dtype == np.uint16:
        pixels = (pixels // 257).astype(np.uint8)
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[-1] in (2, 4):
        alpha = pixels[..., -1:].astype(np.float32) / 255
        pixels = np.rint(pixels[..., :-1] * alpha + 255 * (1 - alpha)).astype(np.uint8)
    return pixels[..., 0] if pixels.shape[-1] == 1 else cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def _exif(image: bytes, name: str) -> bytes:
    """Returns the EXIF data of a file, b"" if it has none."""
    if name == "JPEG":
        return _jpeg_exif(image)
    if name == "PNG":
        return _png_chunk(image, b"eXIf")
    return _webp_chunk(image, b"EXIF") if name == "WebP" else b""


def _jpeg_exif(image: bytes) -> bytes:
    """Returns the content of a JPEG's first EXIF segment, b"" if its header has none."""
    at = 2
    while at + 4 <= len(image) and image[at] == 0xFF:
        marker, size = image[at + 1], int.from_bytes(image[at + 2 : at + 4], "big")
        content = image[at + 4 : at + 2 + size]
        if marker == 0xE1 and content.startswith(b"Exif\0\0"):
            return content
        if marker == 0xDA:  # the pixels begin
            return b""
        at += 1 if marker == 0xFF else 2 + size
    return b""


def _png_chunks(image: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yields name, start and end of the content of every chunk of a PNG."""
    at = 8
    while at + 8 <= len(image):
        size, name = struct.unpack_from(">I4s", image, at)
        yield name, at + 8, at + 8 + size
        if name == b"IEND":
            return
        at += size + 12  # with length, name and checksum


def _has_whole_chunks(image: bytes) -> bool:
    """Tells whether no chunk of a PNG is longer than the file; OpenCV takes memory for it first."""
    return all(end <= len(image) for _, _, end in _png_chunks(image))


def _png_chunk(image: bytes, wanted: bytes) -> bytes:
    """Returns the content of a PNG's first chunk of one name, b"" if there is none."""
    if wanted not in image:
        return b""
    chunks = _png_chunks(image)
    return next((image[start:end] for name, start, end in chunks if name == wanted), b"")


def _webp_chunk(image: bytes, wanted: bytes) -> bytes:
    """Returns the content of a WebP's first chunk of one name, b"" if there is none."""
    at = 12
    while wanted in image and at + 8 <= len(image):
        name, size = struct.unpack_from("<4sI", image, at)
        if name == wanted:
            return image[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    return b""


def _orientation(exif: bytes) -> int:
    """Returns the orientation in EXIF data, 1 … 8; 1 (upright) if it has none or is damaged."""
    exif = exif.removeprefix(b"Exif\0\0")  # of JPEGs; some programs write it to other files
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (directory,) = struct.unpack_from(f"{order}I", exif, 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, directory)
        for i in range(entries):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", exif, directory + 2 + 12 * i)
            if tag == _ORIENTATION:
                return value if 1 <= value <= 8 else 1
    except struct.error:  # it is cut off
        return 1
    return 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Returns pixels as their EXIF orientation says that they are seen."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
