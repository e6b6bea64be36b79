"""What one picture is read as, whatever its format, depth and transparency; and the same by every way of reading."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from keras_mobilenets.data import BrokenImage, load, load_grain, read_image
from keras_mobilenets.data.images import check_image, printable, read_pixels, value_range

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
PIXELS[0, :2] = [[255, 255, 255], [0, 0, 0]]
GREY = PIXELS[..., 0]


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_of_16_bits(values):
    """Written by hand: Pillow writes 16 bits of grey only."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunks = (struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_more_than_8_bits_are_scaled_to_the_depth_in_use(bits):
    deep = np.rint(PIXELS / 255 * (2**bits - 1)).astype(np.uint16)
    opaque = np.concatenate([deep, np.full((20, 30, 1), 65535, np.uint16)], axis=-1)
    for data in (deep, opaque):
        assert np.array_equal(read_pixels(png_of_16_bits(data)), PIXELS)
    for kind in ("PNG", "TIFF"):
        assert np.array_equal(read_pixels(encoded(Image.fromarray(deep[..., 0]), kind))[..., 1], GREY)


RANGES = {
    "0 to 1": GREY / 255,
    "0 to 1, overshot": GREY / 255 * 1.1 - 0.05,  # clipped: 12 levels at each end
    "-1 to 1": GREY / 127.5 - 1,
    "pixels": GREY,
    "16 bits": GREY * 257.0,
    "Hounsfield": (GREY - 100.0) * 13,
    "16 levels": GREY / 16,
}


@pytest.mark.parametrize("values", RANGES.values(), ids=RANGES)
def test_real_numbers_of_any_range_are_scaled_to_what_they_show(values):
    found = read_pixels(encoded(Image.fromarray(values.astype(np.float32)), "TIFF"))[..., 0]
    assert np.abs(found.astype(int) - GREY).max() <= 12
    assert np.array_equal(found, read_pixels(values)[..., 0])
    integers = np.rint(values).astype(np.int32)
    if np.abs(integers).max() >= 255:
        found = read_pixels(encoded(Image.fromarray(integers), "TIFF"))[..., 0]
        assert np.abs(found.astype(int) - GREY).max() <= 1


def test_a_range_is_what_values_fill():
    assert value_range(0, 0.1) == (0, 1)  # a dark picture
    assert value_range(0, 64) == (0, 255) and value_range(0, 63) is None
    assert value_range(-0.7, 1) == (-1, 1) and value_range(-2.1, 2.6) is None
    assert value_range(-20, 280) is None and value_range(-20, 280, overshoot=0.25) == (0, 255)


def test_pictures_without_numbers_are_named(tmp_path):
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(tmp_path / "nan.tif")
    with pytest.raises(BrokenImage, match=r"nan\.tif: some of its values are no numbers"):
        read_image(tmp_path / "nan.tif", 8)


def test_pictures_that_are_programs_are_not_run(tmp_path):
    """PostScript, which Pillow hands to Ghostscript where that is installed."""
    file = tmp_path / "picture.jpg"
    Image.fromarray(PIXELS).save(file, "EPS")
    for read in (read_pixels, check_image):
        with pytest.raises(BrokenImage, match="not a picture in a known format"):
            read(file)


def test_what_is_transparent_shows_white():
    clear = np.zeros((20, 30, 1), np.uint8)
    grey = Image.fromarray(GREY).convert("LA")
    grey.putalpha(0)
    palette = Image.fromarray(PIXELS // 128 * 255).convert("P")
    index = palette.getpixel((1, 0))
    for data in (
        encoded(Image.fromarray(np.concatenate([PIXELS, clear], -1)), "PNG"),
        encoded(Image.fromarray(np.concatenate([PIXELS, clear], -1)), "WEBP", lossless=True),
        encoded(grey, "PNG"),
        encoded(palette, "PNG", transparency=index),
        encoded(Image.fromarray(PIXELS), "PNG", transparency=(0, 0, 0)),
        png_of_16_bits(np.zeros((20, 30, 4))),
    ):
        assert (read_pixels(data)[0, 1] == 255).all()
    half = np.concatenate([np.zeros((2, 2, 3), np.uint8), np.full((2, 2, 1), 128, np.uint8)], -1)
    assert (read_pixels(half) == 127).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "PA", "CMYK", "YCbCr", "RGBA"])
def test_every_mode_of_colour_is_read(mode):
    image = Image.fromarray(GREY // 128 * 255).convert("RGB").convert(mode if mode != "PA" else "P").convert(mode)
    found = read_pixels(encoded(image, "TIFF")).astype(int)
    assert np.abs(found[..., 0] - GREY // 128 * 255).max() <= 1


def test_pictures_are_upright():
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright: show turned by 90 degrees
    for values in (PIXELS, GREY, GREY.astype(np.uint16) * 257):
        lying = Image.fromarray(np.rot90(values).copy())
        assert np.array_equal(read_pixels(encoded(lying, "PNG", exif=turned))[..., 0], GREY)


def test_grey_is_read_for_models_of_one_channel():
    assert np.array_equal(read_image(GREY, (20, 30), channels=1)[..., 0], GREY)
    expected = np.asarray(Image.fromarray(PIXELS).convert("L"))
    found = read_image(PIXELS, (20, 30), channels=1)[..., 0]
    assert np.abs(found.astype(int) - expected).max() <= 1  # Pillow computes in integers
    with pytest.raises(ValueError, match="`channels` must be 1"):
        read_image(PIXELS, 20, channels=4)


def test_names_are_printed_in_one_line():
    assert printable(b"a\xff\n\xe2\x80\xa8\xc3\xa9.png") == r"a\udcff\n\u2028é.png"


def test_tensorflow_decodes_only_what_it_decodes_alike(tmp_path):
    """Its decoders drop alpha and orientation, and keep the upper of 16 bits."""
    import tensorflow as tf

    turned = Image.Exif()
    turned[0x0112] = 3
    colour, grey = Image.fromarray(PIXELS), Image.fromarray(GREY)
    plain = [encoded(image, kind) for image in (colour, grey) for kind in ("PNG", "JPEG")]
    others = [encoded(image, kind, exif=turned) for image in (colour, grey) for kind in ("PNG", "JPEG")]
    others += [
        encoded(colour, "PNG", transparency=(0, 0, 0)),
        encoded(colour, "WEBP"),
        encoded(colour.convert("P"), "PNG"),
    ]
    others += [encoded(colour.convert("CMYK"), "JPEG"), png_of_16_bits(PIXELS * np.uint16(16))]
    for number, data in enumerate([*plain, *others]):
        (tmp_path / "one").write_bytes(data)
        assert check_image(tmp_path / "one") == (number < len(plain))
        if number < len(plain):
            exact = {"dct_method": "INTEGER_ACCURATE"} if data.startswith(b"\xff") else {}
            decode = tf.io.decode_jpeg if exact else tf.io.decode_png
            assert np.array_equal(decode(data, channels=3, **exact), read_pixels(data))


def test_every_way_of_reading_gives_the_same_pixels(tmp_path):
    """Deep, transparent, turned and in files whose names are bytes: the pipeline, Grain and `read_image`."""
    turned = Image.Exif()
    turned[0x0112] = 3
    square = PIXELS[:20, :20]
    pictures = {
        b"\xff deep.png": png_of_16_bits(square * np.uint16(16)),
        b"clear.webp": encoded(Image.fromarray(np.concatenate([square, square[..., :1]], -1)), "WEBP", lossless=True),
        b"turned.jpg": encoded(Image.fromarray(square), "JPEG", exif=turned),
        b"plain.jpg": encoded(Image.fromarray(square), "JPEG"),
    }
    for name in (b"ant", b"b\xfee"):
        folder = os.path.join(os.fsencode(tmp_path), name)
        os.mkdir(folder)
        for file, data in pictures.items():
            with open(os.path.join(folder, file), "wb") as stream:
                stream.write(data)
    options = {"image_size": 20, "batch_size": 6, "augment": "none", "validation_split": 0.25}
    data = load(tmp_path, **options)
    assert data.class_names == ("ant", "bþe") and not data.broken
    expected = sorted(read_image(one, 20).tobytes() for one in pictures.values() for _ in range(2))
    pipelines = [[data.train, data.val]]
    if pytest.importorskip("grain"):
        grain = load_grain(tmp_path, **options)
        pipelines.append([[next(iter(grain.train_from(0)))], grain.val])
    for parts in pipelines:
        found = [np.asarray(image).astype(np.uint8) for part in parts for images, _ in part for image in images]
        assert sorted(image.tobytes() for image in found) == expected
    cropped = next(iter(load(tmp_path, **{**options, "augment": "crop"}).train))[0]
    assert cropped.shape == (6, 20, 20, 3) and np.mean(cropped) > 50
