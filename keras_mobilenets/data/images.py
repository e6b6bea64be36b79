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

import numpy as np
from PIL import Image, ImageOps

CROP_FRACTION = 0.875  # of the short side, as the published accuracies of MobileNets were measured
EDGE_TO_EDGE = 64  # pictures up to this short side (digits, CIFAR, icons) are filled by their object: never cropped
JPEG_REDUCTION = 8  # a JPEG can be decoded at 1/8 of its size: enough to find out that it is whole


class BrokenImage(ValueError):
    """A file that is not a whole, readable picture."""


def read_image(source: str | os.PathLike[str] | bytes | np.ndarray, image_size: int | tuple[int, int]) -> np.ndarray:
    """Reads a picture as a classifier is evaluated: upright, RGB, central crop, resized.

    The crop is the central 87.5 % of the largest part that has the wanted proportions; a thumbnail (short side up
    to 64 pixels) is not cropped. The resizing is bilinear with antialiasing.

    Args:
        source: path of a file in any format that Pillow reads, the file's bytes, or its pixels as a uint8 array of
            shape (height, width, 3).
        image_size: side of a square in pixels, or (height, width).

    Returns:
        uint8 array of shape (height, width, 3), values in [0, 255].

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
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    image = _decode(source)
    # Cropped first: `resize` with a box would blend in pixels from outside of it.
    image = image.crop(_central_box(image.size, width / height))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def read_pixels(source: str | os.PathLike[str] | bytes | np.ndarray) -> np.ndarray:
    """The whole picture, upright, as a uint8 array of shape (height, width, 3)."""
    return np.asarray(_decode(source))


def check_image(path: str | os.PathLike[str]) -> bool:
    """Whether TensorFlow's JPEG and PNG decoders give the same pixels as `read_pixels`.

    Raises:
        BrokenImage: the file is cut short, is not a picture or cannot be read.
    """
    with _named_errors(path), Image.open(path) as image:
        plain = (image.format, image.mode) in {("JPEG", "RGB"), ("JPEG", "L"), ("PNG", "RGB"), ("PNG", "L")}
        upright = image.getexif().get(0x0112, 1) == 1  # the EXIF orientation tag; TensorFlow ignores it
        image.draft(image.mode, (max(image.width // JPEG_REDUCTION, 1), max(image.height // JPEG_REDUCTION, 1)))
        image.load()
    return plain and upright


def _decode(source: str | os.PathLike[str] | bytes | np.ndarray) -> Image.Image:
    if isinstance(source, np.ndarray):
        return Image.fromarray(source)
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    with _named_errors(source), Image.open(file) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):  # 16 bits per pixel: Pillow's own conversion would clip it to white
            image = Image.fromarray((np.asarray(image) // 256).clip(0, 255).astype(np.uint8))
        return image.convert("RGB")


@contextlib.contextmanager
def _named_errors(source: str | os.PathLike[str] | bytes) -> Iterator[None]:
    """Turns whatever Pillow raises about a file into one `BrokenImage` with the file's name."""
    name = "image" if isinstance(source, bytes) else os.fspath(source)
    try:
        yield
    except Image.UnidentifiedImageError:
        raise BrokenImage(f"{name}: not a picture in a known format") from None
    except Image.DecompressionBombError as error:
        raise BrokenImage(f"{name}: too large ({error})") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error) as error:  # the range Pillow raises
        raise BrokenImage(f"{name}: {getattr(error, 'strerror', None) or error}") from None


def _central_box(size: tuple[int, int], aspect: float) -> tuple[int, int, int, int]:
    """The central part of a picture of `size` with width / height = `aspect`, as (left, top, right, bottom)."""
    width, height = size
    fraction = CROP_FRACTION if min(width, height) > EDGE_TO_EDGE else 1.0
    crop_width = round(min(width, height * aspect) * fraction)
    crop_height = round(min(height, width / aspect) * fraction)
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return left, top, left + max(crop_width, 1), top + max(crop_height, 1)
