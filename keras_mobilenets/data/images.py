"""One picture, from its file to the pixels that a model sees, with Pillow and NumPy alone.

Every evaluation and prediction of this package reads its images here, be the model a `.keras` or a `.tflite` file:
what differs between two answers is then the model, never the decoder, the crop or the interpolation.
"""

from __future__ import annotations

import contextlib
import io
import os
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps

from keras_mobilenets.arguments import check_choice, check_sizes

CROP_FRACTION = 0.875  # of the short side, as the published accuracies of MobileNets were measured
EDGE_TO_EDGE = 64  # pictures up to this short side (digits, CIFAR, icons) are filled by their object: never cropped
JPEG_REDUCTION = 8  # a JPEG can be decoded at 1/8 of its size: enough to find out that it is whole
WHITES = (1, 255, 1023, 4095, 16383, 65535)  # of values in [0, 1], and of 8, 10, 12, 14 and 16 bits
LEAST_WHITE = 1 / 4  # a picture that is darker than that has another white
OVERSHOOT = 1 / 4  # by which interpolation (bicubic, Lanczos) leaves the range of real numbers
GREY = np.array([[0.299], [0.587], [0.114]], np.float32)  # of red, green and blue, as Pillow and TensorFlow see it
# How Pillow unpacks colours of 16 bits, of which it keeps the upper 8; and how, so that it keeps the lower ones.
LOWER = {f"{kind};16{one}": f"{kind};16{other}" for kind in ("RGB", "RGBA") for one, other in ("BL", "LB", "NB")}

PROGRAMS = ("EPS",)  # formats that are programs, which Pillow lets Ghostscript run

Picture = str | os.PathLike[str] | bytes | np.ndarray


class BrokenImage(ValueError):
    """A file that is not a whole, readable picture."""


def read_image(
    source: Picture, image_size: int | tuple[int, int], *, channels: int = 3, crop: bool = True
) -> np.ndarray:
    """Reads a picture as a classifier is evaluated: upright, RGB, over white, central crop, resized.

    The crop is the central 87.5 % of the largest part that has the wanted proportions; a thumbnail (short side up
    to 64 pixels) is not cropped. Without a crop all of the picture is stretched to the size, as detectors see it.
    The resizing is bilinear with antialiasing. What is transparent shows white. Values of more than 8 bits are scaled
    to what they show, see `value_range`; where no range fits, the least is black and the greatest white.

    Args:
        source: path of a file in any format that Pillow reads, the file's bytes, or its pixels as an array of shape
            (height, width), (height, width, 1), (height, width, 3) or, with alpha, (height, width, 4).
        image_size: side of a square in pixels, or (height, width).
        channels: 3 for RGB, 1 for grey.
        crop: whether to the central part.

    Returns:
        uint8 array of shape (height, width, channels), values in [0, 255].

    Raises:
        BrokenImage: the file is cut short, is not a picture or cannot be read; the message names it.

    Example:

    >>> import io
    >>> from PIL import Image
    >>> file = io.BytesIO()
    >>> Image.new("RGB", (320, 240), "red").save(file, "JPEG")
    >>> read_image(file.getvalue(), 96).shape
    (96, 96, 3)
    """
    check_sizes(image_size=image_size)
    check_choice((1, 3), channels=channels)
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    image = _decode(source)
    # Cropped first: `resize` with a box would blend in pixels from outside of it.
    image = image.crop(_central_box(image.size, width / height)) if crop else image
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    return pixels if channels == 3 else to_grey(pixels)


def read_pixels(source: Picture) -> np.ndarray:
    """The whole picture, upright and over white, as a uint8 array of shape (height, width, 3)."""
    return np.asarray(_decode(source))


def to_grey(pixels: np.ndarray) -> np.ndarray:
    """RGB pixels, (..., 3), as grey ones, (..., 1)."""
    return np.rint(pixels @ GREY).astype(np.uint8)


def check_image(path: str | os.PathLike[str]) -> bool:
    """Whether TensorFlow's decoders of JPEG and PNG, which are faster, make the same pixels as `read_pixels`.

    Raises:
        BrokenImage: the file is cut short, is not a picture or cannot be read.
    """
    with _named_errors(path), _opened(path) as image:
        # TensorFlow ignores the orientation, drops alpha, and keeps the upper of 16 bits.
        plain = image.mode in ("RGB", "L") and not image.has_transparency_data and _lower_bits(image) is None
        upright = image.getexif().get(0x0112, 1) == 1  # a PNG is loaded for it
        if image.format == "JPEG":
            image.draft(image.mode, (max(image.width // JPEG_REDUCTION, 1), max(image.height // JPEG_REDUCTION, 1)))
            image.load()
        else:
            _decode(path)
        return image.format in ("JPEG", "PNG") and plain and upright


def value_range(low: float, high: float, *, overshoot: float = 0.0) -> tuple[float, float] | None:
    """What black and white are in pictures with values from `low` to `high`: 0 and 1, -1 and 1, or 0 and 2^bits - 1.

    White is the least of 1, 255, 1023, 4095, 16383 and 65535 that no value exceeds. Where all values stay below a
    quarter of it (so those of 16 levels, or of a standardized picture), none of these ranges is meant: None.

    Args:
        low: the least value.
        high: the greatest.
        overshoot: by how much of its size a range may be left on each side.
    """
    if -1 - overshoot <= low < -overshoot and high <= 1 + overshoot:
        return -1.0, 1.0
    for white in WHITES:
        if -overshoot * white <= low and high <= (1 + overshoot) * white:
            return (0.0, float(white)) if white == 1 or high >= LEAST_WHITE * white else None
    return None


@contextlib.contextmanager
def opened_picture(source: str | os.PathLike[str] | bytes) -> Iterator[ImageFile.ImageFile]:
    """A picture as its file has it, as Pillow opens it.

    Raises:
        BrokenImage: whatever goes wrong with it inside of the `with`.
    """
    with _named_errors(source), _opened(source) as image:
        yield image


def printable(path: str | bytes | os.PathLike[str]) -> str:
    """A file's name in one line of plain text: bytes that are no UTF-8 and line breaks are written as escapes."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in os.fsdecode(path))


def _decode(source: Picture) -> Image.Image:
    if not isinstance(source, str | bytes | os.PathLike | np.ndarray):
        raise ValueError(f"`source` must be a path, a file's bytes or an array. Received: source={source!r}")
    with _named_errors(source):
        image = _from_array(source) if isinstance(source, np.ndarray) else _from_file(source)
        if image.has_transparency_data:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        return image.convert("RGB")


def _from_array(pixels: np.ndarray) -> Image.Image:
    if pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (1,), (3,), (4,)):
        raise ValueError(f"an array of shape (height, width, 1, 3 or 4) is needed, not {pixels.shape}")
    if not pixels.size:
        raise ValueError(f"it has no pixels: its shape is {pixels.shape}")
    grey = pixels.shape[2:] == (1,)
    return Image.fromarray(_in_8_bits(pixels[..., 0] if grey else pixels))


def _from_file(source: str | os.PathLike[str] | bytes) -> Image.Image:
    """Upright, with 8 bits per channel."""
    with _opened(source) as opened:
        lower = _lower_bits(opened)
        image = ImageOps.exif_transpose(opened)
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_in_8_bits(np.asarray(image)))
    if lower is None:
        return image
    with _opened(source) as opened:
        opened.tile = [one._replace(args=lower) for one in opened.tile]
        values = np.asarray(image).astype(np.uint16) * 256 + np.asarray(ImageOps.exif_transpose(opened))
    alpha = (values[..., 3:] // 256).astype(np.uint8)
    return Image.fromarray(np.concatenate([_in_8_bits(values[..., :3]), alpha], axis=-1))


def _opened(source: str | os.PathLike[str] | bytes) -> ImageFile.ImageFile:
    opened = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    if opened.format in PROGRAMS:
        opened.close()
        raise Image.UnidentifiedImageError
    return opened


def _lower_bits(opened: ImageFile.ImageFile) -> Any:
    """How to decode the lower bytes of a picture with 16 bits per colour; None of any other."""
    args = opened.tile[0].args if opened.tile else None
    if isinstance(args, tuple):  # of some formats, with more than the mode
        return (LOWER[args[0]], *args[1:]) if args and args[0] in LOWER else None
    return LOWER.get(str(args))


def _in_8_bits(values: np.ndarray) -> np.ndarray:
    """Values of any type as pixels."""
    if values.dtype == np.uint8:
        return values
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("some of its values are no numbers")
    overshoot = OVERSHOOT if values.dtype.kind == "f" else 0.0
    black, white = value_range(low, high, overshoot=overshoot) or (low, high)
    return np.rint((values - black) * (255 / (white - black or 1))).clip(0, 255).astype(np.uint8)


@contextlib.contextmanager
def _named_errors(source: Picture) -> Iterator[None]:
    """Turns whatever Pillow raises about a file into one `BrokenImage` with the file's name."""
    name = "image" if isinstance(source, bytes | np.ndarray) else printable(source)
    try:
        yield
    except BrokenImage:
        raise
    except Image.UnidentifiedImageError:
        raise BrokenImage(f"{name}: not a picture in a known format") from None
    except Image.DecompressionBombError as error:
        raise BrokenImage(f"{name}: too large ({error})") from None
    except (OSError, SyntaxError, ValueError, EOFError, LookupError, RuntimeError, struct.error) as error:
        raise BrokenImage(f"{name}: {getattr(error, 'strerror', None) or error}") from None


def _central_box(size: tuple[int, int], aspect: float) -> tuple[int, int, int, int]:
    """The central part of a picture of `size` with width / height = `aspect`, as (left, top, right, bottom)."""
    width, height = size
    fraction = CROP_FRACTION if min(width, height) > EDGE_TO_EDGE else 1.0
    crop_width = round(min(width, height * aspect) * fraction)
    crop_height = round(min(height, width / aspect) * fraction)
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return left, top, left + max(crop_width, 1), top + max(crop_height, 1)
