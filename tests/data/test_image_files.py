"""Every kind of image file that people have, as Pillow shows it, and files made to harm."""

import io
import struct
import zlib

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from support import faults

from cnn_papers.data import host_ops, image_files
from cnn_papers.errors import UserError

# --- decoding -------------------------------------------------------------------------------------


def encode(image, form="PNG", **options):
    """`image`, an array or a Pillow image, as the bytes of a file."""
    file = io.BytesIO()
    (PIL.Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(
        file, form, **options
    )
    return file.getvalue()


@pytest.fixture
def pixels():
    """Random RGB pixels, uint8 [12, 17, 3]."""
    return np.random.default_rng(0).integers(0, 256, (12, 17, 3), np.uint8)


@pytest.fixture
def photo():
    """Two smooth colours and a white corner, which JPEG keeps to 3 levels away from edges."""
    image = np.zeros((32, 48, 3), np.uint8)
    image[:, :24], image[:, 24:], image[:16, :16] = (200, 30, 90), (10, 150, 220), 255
    return image


def on_white(image, alpha):
    return np.rint(image * alpha + 255 * (1 - alpha))


def test_png_colour_is_rgb_to_the_bit(pixels):
    decoded = host_ops.decode(encode(pixels))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, pixels)


def test_grey_is_replicated_or_kept_as_one_channel(pixels):
    grey = pixels[..., 0]
    for data in (encode(grey), encode(grey > 127)):
        three, one = host_ops.decode(data), host_ops.decode(data, channels=1)
        assert one.shape == (12, 17, 1)
        np.testing.assert_array_equal(three, one.repeat(3, -1))
    np.testing.assert_array_equal(host_ops.decode(encode(grey), 1)[..., 0], grey)
    np.testing.assert_array_equal(
        host_ops.decode(encode(grey > 127), 1)[..., 0], np.where(grey > 127, 255, 0)
    )


def test_colour_becomes_grey_by_luma(pixels):
    for data, tolerance in (
        (encode(pixels), 1),
        (encode(pixels, "JPEG", quality=100, subsampling=0), 5),
    ):
        grey = host_ops.decode(data, channels=1)
        assert grey.shape == (12, 17, 1)
        np.testing.assert_allclose(grey[..., 0], pixels @ [0.299, 0.587, 0.114], atol=tolerance)


def test_transparency_is_laid_on_white(pixels):
    alpha = np.random.default_rng(1).integers(0, 256, (12, 17, 1), np.uint8)
    np.testing.assert_allclose(
        host_ops.decode(encode(np.dstack([pixels, alpha]))), on_white(pixels, alpha / 255), atol=1
    )
    grey = pixels[..., :1]
    for channels in (1, 3):
        decoded = host_ops.decode(encode(np.dstack([grey, alpha])), channels)
        np.testing.assert_allclose(
            decoded, on_white(grey, alpha / 255).repeat(channels, -1), atol=1
        )


def test_palettes_are_looked_up_and_their_transparent_entry_is_white(pixels):
    image = PIL.Image.fromarray(pixels).quantize(8)
    colours = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(host_ops.decode(encode(image)), colours)
    see_through = np.where(np.asarray(image)[..., None] == 3, 255, colours)
    np.testing.assert_array_equal(host_ops.decode(encode(image, transparency=3)), see_through)


def test_sixteen_bits_become_eight_over_the_whole_range():
    deep = np.linspace(0, 65535, 256 * 16).round().astype(np.uint16).reshape(64, 64)
    decoded = host_ops.decode(encode(deep), 1)
    assert (decoded.min(), decoded.max()) == (0, 255)
    np.testing.assert_allclose(decoded[..., 0], deep / 257, atol=1)
    colour = np.dstack([deep, deep[::-1], deep.T])
    data = cv2.imencode(".png", colour[..., ::-1])[1].tobytes()
    np.testing.assert_allclose(host_ops.decode(data), colour / 257, atol=1)


def test_cmyk_jpegs_become_the_colours_they_show(photo):
    data = encode(PIL.Image.fromarray(photo).convert("CMYK"), "JPEG", quality=100)
    assert PIL.Image.open(io.BytesIO(data)).mode == "CMYK"
    np.testing.assert_allclose(host_ops.decode(data)[20:, :20], photo[20:, :20], atol=3)
    np.testing.assert_allclose(host_ops.decode(data)[:, 30:], photo[:, 30:], atol=3)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(photo, form, orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    data = encode(
        photo, form, exif=exif, **({"quality": 100, "subsampling": 0} if form == "JPEG" else {})
    )
    upright = np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(data))))
    assert upright.shape[:2] == ((32, 48) if orientation < 5 else (48, 32))
    np.testing.assert_allclose(host_ops.decode(data), upright, atol=1)
    assert host_ops.decode(data, 1).shape == (*upright.shape[:2], 1)


# --- transparency with orientation, in every kind of file that has both ---------------------------


def shown(data):
    """What Pillow shows of a file: upright, on white, int [h, w, 3]."""
    image = PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(data))).convert("RGBA")
    layers = np.asarray(image).astype(float)
    return on_white(layers[..., :3], layers[..., 3:] / 255).astype(int)


def see_through(mode):
    """An image of a mode and the options that make a part of it transparent."""
    rng = np.random.default_rng(5)
    colour = PIL.Image.fromarray(rng.integers(0, 256, (12, 17, 3), np.uint8))
    alpha = PIL.Image.fromarray(rng.integers(0, 256, (12, 17), np.uint8))
    palette = colour.quantize(8)
    grey = colour.convert("L")
    if mode in ("LA", "RGBA"):
        colour = colour.convert(mode)
        colour.putalpha(alpha)
    return {
        "L": (grey, {}),
        "L, one value clear": (grey, {"transparency": grey.getpixel((3, 4))}),
        "LA": (colour, {}),
        "RGB": (colour, {}),
        "RGB, one colour clear": (colour, {"transparency": colour.getpixel((3, 4))}),
        "RGBA": (colour, {}),
        "P": (palette, {}),
        "P, one entry clear": (palette, {"transparency": 3}),
        "P, alpha of every entry": (palette, {"transparency": bytes(range(0, 256, 32))}),
    }[mode]


def exif_of(orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return exif


def chunk(name, content):
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def exif_last(png):
    """Moves the EXIF chunk behind the pixels."""
    at = png.index(b"eXIf") - 4
    size = 12 + int.from_bytes(png[at : at + 4], "big")
    return png[:at] + png[at + size : -12] + png[at : at + size] + png[-12:]


PNG_MODES = [
    "L",
    "L, one value clear",
    "LA",
    "RGB",
    "RGB, one colour clear",
    "RGBA",
    "P",
    "P, one entry clear",
    "P, alpha of every entry",
]


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("mode", PNG_MODES)
def test_a_png_is_upright_and_on_white_whatever_its_colour_type(mode, orientation):
    image, options = see_through(mode)
    data = encode(image, exif=exif_of(orientation), **options)
    expected = shown(data)
    assert (expected.shape == (12, 17, 3)) == (orientation < 5)
    for png in (data, exif_last(data)):
        np.testing.assert_allclose(host_ops.decode(png), expected, atol=1)
    if orientation == 1:
        np.testing.assert_array_equal(
            host_ops.decode(encode(image, **options)), host_ops.decode(data)
        )


def raw_png(depth, rows, *chunks):
    """A grey PNG of packed rows."""
    width = 8 * len(rows[0]) // depth
    head = struct.pack(">IIBBBBB", width, len(rows), depth, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [chunk(b"IHDR", head), *chunks, chunk(b"IDAT", pixels), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("depth", "row", "clear", "expected"),
    [
        (1, [0b01010101], 0, [255] * 8),
        (1, [0b01010101], 1, [0, 255] * 4),
        (2, [0b00011011], 2, [0, 85, 255, 255]),
        (4, [0x3A, 0x30], 3, [255, 170, 255, 0]),
        (8, [7, 8, 9], 8, [7, 255, 9]),
        (16, [0x12, 0x34, 0x12, 0x35], 0x1234, [255, 0x1235 // 257]),
    ],
)
def test_the_transparent_value_of_a_grey_png_is_white_at_every_depth(depth, row, clear, expected):
    data = raw_png(depth, [bytes(row)], chunk(b"tRNS", struct.pack(">H", clear)))
    np.testing.assert_array_equal(host_ops.decode(data, channels=1)[0, :, 0], expected)
    np.testing.assert_array_equal(host_ops.decode(data)[0, :, 2], expected)


def test_the_transparent_colour_of_a_deep_png_is_white():
    pixels = struct.pack(">6H", 1000, 2000, 3000, 1000, 2000, 3001)
    data = bytearray(raw_png(16, [pixels], chunk(b"tRNS", struct.pack(">3H", 1000, 2000, 3000))))
    data[16:33] = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0) + data[29:33]
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    np.testing.assert_array_equal(host_ops.decode(bytes(data))[0], [[255] * 3, [3, 7, 11]])


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("lossless", [True, False])
def test_a_webp_is_upright_and_on_white(mode, lossless, orientation):
    image, _ = see_through(mode)
    data = encode(image, "WEBP", lossless=lossless, exif=exif_of(orientation))
    np.testing.assert_allclose(host_ops.decode(data), shown(data), atol=1)
    plain = encode(image, "WEBP", lossless=lossless)
    np.testing.assert_allclose(host_ops.decode(plain), shown(plain), atol=1)


def test_of_an_animation_it_is_the_first_picture(pixels):
    more = {"save_all": True, "append_images": [PIL.Image.fromarray(255 - pixels)]}
    for data in (encode(pixels, "WEBP", lossless=True, **more), encode(pixels, "PNG", **more)):
        np.testing.assert_array_equal(host_ops.decode(data), pixels)


# --- BMP ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
def test_a_bmp_is_what_pillow_shows(pixels, mode):
    image = PIL.Image.fromarray(pixels).convert(mode)
    data = encode(image, "BMP")
    np.testing.assert_array_equal(host_ops.decode(data), shown(data))


def bmp(header_size, compression, masks, height):
    """A BMP of 2×2 pixels of 32 bits, from blue 10, green 20, red 30, fourth byte 0 on."""
    pixels = bytes([10, 20, 30, 0, 11, 21, 31, 64, 12, 22, 32, 128, 13, 23, 33, 255])
    head = struct.pack("<IiiHHIIiiII", header_size, 2, height, 1, 32, compression, 16, 0, 0, 0, 0)
    head += masks.ljust(header_size - 40, b"\0")
    start = 14 + len(head)
    return b"BM" + struct.pack("<IHHI", start + 16, 0, 0, start) + head + pixels


MASKS = struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)
ALPHA = struct.pack("<I", 0xFF000000)


@pytest.mark.parametrize("height", [2, -2])
@pytest.mark.parametrize(
    ("header_size", "compression", "masks", "has_alpha"),
    [
        (40, 0, b"", False),
        (40, 3, MASKS, False),
        (56, 3, MASKS + ALPHA, True),
        (108, 3, MASKS + ALPHA, True),
        (108, 3, MASKS, False),
        (124, 0, MASKS + ALPHA, False),
    ],
)
def test_the_fourth_byte_of_a_bmp_is_alpha_only_where_it_says_so(
    header_size, compression, masks, has_alpha, height
):
    data = bmp(header_size, compression, masks, height)
    rows = [[(30, 20, 10), (31, 21, 11)], [(32, 22, 12), (33, 23, 13)]]
    expected, alpha = np.array(rows), np.array([[0, 64], [128, 255]])[..., None]
    if has_alpha:
        expected = on_white(expected, alpha / 255)
    np.testing.assert_array_equal(host_ops.decode(data), expected[:: -1 if height > 0 else 1])
    np.testing.assert_allclose(host_ops.decode(data), shown(data), atol=1)


def test_a_bmp_of_the_first_kind_has_colours(pixels):
    core = struct.pack("<IHHHH", 12, 2, 1, 1, 24) + bytes(range(8))
    data = b"BM" + struct.pack("<IHHI", 14 + len(core), 0, 0, 26) + core
    np.testing.assert_array_equal(host_ops.decode(data), [[[2, 1, 0], [5, 4, 3]]])


def test_text_that_begins_like_a_bmp_is_none():
    assert image_files.kind(b"BMW and other makers of cars") == ""


# --- EXIF -----------------------------------------------------------------------------------------


def exif_bytes(order, entries):
    """EXIF data in one byte order, "<" or ">", with `entries` of (tag, type, value)."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    rows = [struct.pack(f"{order}HHIHH", tag, kind, 1, value, 0) for tag, kind, value in entries]
    return mark + struct.pack(f"{order}IH", 8, len(rows)) + b"".join(rows) + bytes(4)


@pytest.mark.parametrize("prefix", [b"", b"Exif\0\0"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_is_read_in_both_byte_orders(pixels, order, prefix):
    exif = prefix + exif_bytes(order, [(0x0100, 3, 17), (0x0112, 3, 6)])
    png = encode(pixels)
    png = png[:33] + chunk(b"eXIf", exif) + png[33:]
    np.testing.assert_array_equal(host_ops.decode(png), np.rot90(pixels, -1))


@pytest.mark.parametrize(
    "exif",
    [
        b"",
        b"II*\0",
        b"no EXIF at all",
        exif_bytes("<", []),
        exif_bytes("<", [(0x0112, 3, 0)]),
        exif_bytes("<", [(0x0112, 3, 9)]),
        exif_bytes("<", [(0x0112, 3, 6)])[:15],
        b"II*\0" + struct.pack("<I", 2**32 - 1),
        b"MM\0*" + struct.pack(">IH", 8, 65535),
    ],
)
def test_damaged_exif_leaves_an_image_as_it_is(pixels, exif):
    png = encode(pixels)
    png = png[:33] + chunk(b"eXIf", exif) + png[33:]
    np.testing.assert_array_equal(host_ops.decode(png), pixels)


# --- damage ---------------------------------------------------------------------------------------


def test_a_png_called_jpeg_is_no_matter(tmp_path, pixels):
    (tmp_path / "image.jpeg").write_bytes(encode(pixels))
    np.testing.assert_array_equal(host_ops.decode((tmp_path / "image.jpeg").read_bytes()), pixels)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("empty", "there are no bytes"),
        ("text", "not a JPEG, PNG, BMP or WebP"),
        ("zeros", "not a JPEG, PNG, BMP or WebP"),
        ("half a JPEG", "a JPEG that is cut off or damaged"),
        ("half a progressive JPEG", "a JPEG that is cut off or damaged"),
        ("a JPEG without its last byte", "a JPEG that is cut off or damaged"),
        ("a JPEG's head", "a JPEG that is cut off or damaged"),
        ("half a PNG", "a PNG that is cut off or damaged"),
        ("half a BMP", "a BMP that is cut off or damaged"),
        ("half a WebP", "a WebP that is cut off or damaged"),
        ("a WebP's head", "a WebP that is cut off or damaged"),
    ],
)
def test_bytes_that_are_no_whole_image_are_a_value_error(pixels, damage, reason, capfd):
    jpeg, png = encode(pixels.repeat(9, 0).repeat(9, 1), "JPEG"), encode(pixels)
    progressive = encode(pixels.repeat(9, 0).repeat(9, 1), "JPEG", progressive=True)
    data = {
        "empty": b"",
        "half a progressive JPEG": progressive[: len(progressive) // 2],
        "a JPEG without its last byte": jpeg[:-1],
        "text": b"<html>404 not found</html>",
        "half a JPEG": jpeg[: len(jpeg) // 2],
        "a JPEG's head": jpeg[:20],
        "half a PNG": png[: len(png) // 2],
        "half a BMP": encode(pixels, "BMP")[:300],
        "half a WebP": encode(pixels, "WEBP")[:-20],
        "a WebP's head": encode(pixels, "WEBP")[:25],
        "zeros": bytes(1000),
    }[damage]
    with pytest.raises(ValueError, match=f"^cannot be decoded: {reason}$"):
        host_ops.decode(data)


def test_an_image_decodes_to_one_or_three_channels(pixels):
    with pytest.raises(UserError, match="1 or 3 channels, not 4"):
        host_ops.decode(encode(pixels), channels=4)


@pytest.mark.parametrize(
    ("short", "shape"),
    [
        (0, (75, 101)),
        (38, (38, 51)),
        (39, (75, 101)),
        (19, (19, 26)),
        (10, (10, 13)),
        (1, (10, 13)),
    ],
)
def test_a_jpeg_decodes_smaller_where_that_is_enough(short, shape):
    """Its shorter side stays at least `short`; every pixel is about the mean of those it covers."""
    ramp = np.add.outer(np.arange(75), np.arange(101)).astype(np.uint8)
    data = encode(np.stack([ramp, ramp // 2, 200 - ramp], -1), "JPEG", quality=95)
    full = host_ops.decode(data)
    decoded = host_ops.decode(data, short=short)
    assert decoded.shape == (*shape, 3)
    times = round(75 / shape[0])
    blocks = full[: 75 // times * times, : 101 // times * times].astype(float)
    means = blocks.reshape(75 // times, times, 101 // times, times, 3).mean((1, 3))
    inside = decoded[: means.shape[0], : means.shape[1]]
    np.testing.assert_allclose(inside, means, atol=0 if times == 1 else 5)


def test_a_smaller_jpeg_is_upright_and_other_files_are_whole(pixels):
    tall = encode(np.zeros((40, 80, 3), np.uint8), "JPEG", exif=exif_of(6))
    assert host_ops.decode(tall, short=20).shape == (40, 20, 3)
    assert host_ops.decode(tall, 1, short=10).shape == (20, 10, 1)
    for form in ("PNG", "BMP", "WEBP"):
        assert host_ops.decode(encode(pixels, form), short=2).shape == (12, 17, 3)
    with pytest.raises(UserError, match=r"^decode\(short=-1\): it is a number of pixels"):
        host_ops.decode(encode(pixels), short=-1)


# --- made to harm ---------------------------------------------------------------------------------


@pytest.mark.fault(
    "hostile: an image of few bytes that declares more pixels than memory holds",
    "refused undecoded",
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "JPEG after noise", "BMP", "WebP"])
def test_an_image_that_would_fill_the_memory_is_refused(pixels, kind, monkeypatch):
    monkeypatch.setattr(image_files.cv2, "imdecode", None)
    if kind == "PNG":
        bomb = faults.png_of(20_000, 20_000)
        assert len(bomb) < 500_000  # to 400 MB in grey
    elif kind == "BMP":
        bomb = bytearray(encode(pixels, "BMP"))
        struct.pack_into("<ii", bomb, 18, 20_000, -20_000)
    elif kind == "WebP":
        bomb = bytearray(encode(pixels, "WEBP", lossless=True, exif=b"Exif"))
        bomb[24:30] = 2 * (19_999).to_bytes(3, "little")
    else:
        bomb = faults.jpeg_declaring(encode(pixels, "JPEG"), 20_000, 20_000)
        bomb = bomb.replace(b"\xff\xc0", b"\x00noise\xff\xff\xff\xc0") if "noise" in kind else bomb
    with pytest.raises(
        ValueError, match=r"^cannot be decoded: 20,000×20,000 pixels are more than 134,217,728$"
    ):
        host_ops.decode(bytes(bomb))


@pytest.mark.fault(
    "hostile: an image of few bytes that declares more pixels than memory holds",
    "refused undecoded",
)
@pytest.mark.parametrize("name", [b"PLTE", b"IDAT", b"eXIf"])
def test_a_chunk_that_would_fill_the_memory_is_refused(pixels, name, monkeypatch):
    monkeypatch.setattr(image_files.cv2, "imdecode", None)
    image = PIL.Image.fromarray(pixels).quantize(8)
    png = bytearray(encode(image, exif=exif_of(6)))
    png[png.index(name) - 4] = 0xFF  # 4 GB
    with pytest.raises(ValueError, match=r"^cannot be decoded: a PNG that is cut off or damaged$"):
        host_ops.decode(bytes(png))


@pytest.mark.parametrize(
    ("form", "options"),
    [
        ("PNG", {}),
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("JPEG", {"exif": b"Exif" * 99}),
        ("BMP", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"lossless": True, "exif": b"Exif" * 99}),
        ("WEBP", {"save_all": True, "append_images": [PIL.Image.new("RGB", (17, 12))]}),
    ],
)
def test_the_size_that_is_checked_is_the_one_that_is_decoded(pixels, form, options):
    data = encode(pixels, form, **options)
    name = image_files.kind(data)
    assert name.upper() == form
    assert image_files._declared_size(data, name) == pixels.shape[:2]
    # Whatever is left of a head, there is a size or none.
    for length in range(len(data)):
        if image_files.kind(data[:length]):
            size = image_files._declared_size(data[:length], name)
            assert size in ((0, 0), pixels.shape[:2])


def test_a_picture_of_another_size_than_its_container_says_is_refused(pixels):
    """The size that is checked is the container's."""
    data = bytearray(encode(pixels, "WEBP", lossless=True, exif=b"Exif"))
    data[24:30] = 2 * bytes(3)  # 1×1
    with pytest.raises(ValueError, match="a WebP that is cut off or damaged"):
        host_ops.decode(bytes(data))


@pytest.mark.fault(
    "hostile: an image of another kind than JPEG, PNG, BMP and WebP",
    "refused; OpenCV's other decoders never run",
)
@pytest.mark.parametrize("form", ["TIFF", "GIF", "PPM"])
def test_other_kinds_of_images_are_refused(pixels, form):
    with pytest.raises(ValueError, match=r"^cannot be decoded: not a JPEG, PNG, BMP or WebP$"):
        host_ops.decode(encode(pixels, form))
