"""What a network sees of an example with one class: cropped, moved and mirrored in training, else as it is measured."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import tensorflow as tf

from keras_mobilenets.data.augmentation import batch_augment, rand_augment
from keras_mobilenets.data.images import EDGE_TO_EDGE, read_image, read_pixels
from keras_mobilenets.data.names import PHOTO_AREA, STRETCH, THUMBNAIL_SHIFT

JPEG_MAGIC = b"\xff\xd8\xff"
ALIASED = 1.5  # to shrink by less: antialiasing takes three times as long, and changes less (36 dB) than JPEG has noise
REDUCTIONS = (1, 2, 4, 8)  # by which a JPEG can be decoded smaller
REDUCED = 2  # times the size that is wanted, at least: 42 dB from what antialiasing makes of all pixels


class View(Protocol):
    """How the examples of a task become what a network is shown. A target is of any structure."""

    @property
    def image_size(self) -> tuple[int, int]: ...

    def training(self, picture: tf.Tensor, target: Any, plain: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, Any]:
        """A float image in [0, 255] and its target; all that is random follows from the seed, of shape (2,)."""

    def evaluation(self, picture: tf.Tensor, target: Any) -> tuple[tf.Tensor, Any]:
        """A uint8 image, as `read_image` gives it, and its target."""

    @property
    def mixed(self) -> Callable[..., tuple[tf.Tensor, Any]] | None:
        """What is done to whole batches of (seed, images, targets); None for nothing."""


@dataclasses.dataclass(frozen=True)
class ClassView:
    """Of pictures with one class each.

    Args:
        image_size: (height, width).
        augment: names of augmentations.
        classes: how many.
        crop: whether pictures are measured by their middle; else all of them, stretched.
    """

    image_size: tuple[int, int]
    augment: Sequence[str]
    classes: int
    crop: bool = True

    def training(self, picture: tf.Tensor, target: Any, plain: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, Any]:
        if "none" in self.augment:
            image = tf.cast(read(picture, self.image_size, crop=self.crop), tf.float32)
        else:
            image = _training_image(picture, plain, seed, self.image_size, self.augment)
        return self._operations(image, seed), target

    def evaluation(self, picture: tf.Tensor, target: Any) -> tuple[tf.Tensor, Any]:
        return read(picture, self.image_size, crop=self.crop), target

    @functools.cached_property
    def mixed(self) -> Callable[..., tuple[tf.Tensor, Any]] | None:
        return batch_augment(self.augment, self.classes)

    @functools.cached_property
    def _operations(self) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        return rand_augment() if "rand_augment" in self.augment else lambda image, seed: image


def _training_image(
    data: tf.Tensor, plain: tf.Tensor, seed: tf.Tensor, image_size: tuple[int, int], augment: Sequence[str]
) -> tf.Tensor:
    aspect = image_size[1] / image_size[0]
    if data.dtype == tf.string:
        is_jpeg = plain & (tf.strings.substr(data, 0, len(JPEG_MAGIC)) == JPEG_MAGIC)
        image, is_photo = tf.cond(
            is_jpeg,
            lambda: _cropped_jpeg(data, seed, image_size),
            lambda: _cropped(whole(data, plain), seed, aspect),
        )
    else:
        image, is_photo = _cropped(data, seed, aspect)
    image = resized(image, image_size)
    image = tf.cond(is_photo, lambda: image, lambda: _shifted(image, seed))
    if "crop_flip" in augment:
        image = tf.image.stateless_random_flip_left_right(image, seed)
    return tf.ensure_shape(image, (*image_size, 3))


def read(data: tf.Tensor, image_size: tuple[int, int] | None = None, *, crop: bool = True) -> tf.Tensor:
    """A picture as `read_pixels` gives it or, of an `image_size`, as `read_image` does."""
    function: Any = functools.partial(read_image, image_size=image_size, crop=crop) if image_size else read_pixels
    return tf.ensure_shape(tf.numpy_function(function, [data], tf.uint8), (*(image_size or (None, None)), 3))


def whole(data: tf.Tensor, plain: tf.Tensor) -> tf.Tensor:
    """All pixels of a picture, by the faster decoder where that reads it alike."""
    return read(data) if data.dtype != tf.string else tf.cond(plain, lambda: decoded(data), lambda: read(data))


def decoded(data: tf.Tensor) -> tf.Tensor:
    """The same of what TensorFlow decodes alike, faster."""
    return tf.ensure_shape(tf.io.decode_image(data, channels=3, expand_animations=False), (None, None, 3))


def _cropped_jpeg(data: tf.Tensor, seed: tf.Tensor, image_size: tuple[int, int]) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes only the part that is kept, a large one smaller; with the decoder's exact transform, as Pillow does."""
    height, width = image_size
    box, is_photo = _random_box(tf.io.extract_jpeg_shape(data), seed, width / height)

    def part_of(reduction: int) -> tf.Tensor:
        part = box // reduction
        return tf.io.decode_and_crop_jpeg(data, part, channels=3, ratio=reduction, dct_method="INTEGER_ACCURATE")

    excess = tf.minimum(box[2] // (REDUCED * height), box[3] // (REDUCED * width))
    enough = tf.reduce_sum([tf.cast(excess >= reduction, tf.int32) for reduction in REDUCTIONS[1:]])
    return tf.switch_case(enough, [functools.partial(part_of, reduction) for reduction in REDUCTIONS]), is_photo


def resized(image: tf.Tensor, image_size: Any) -> tf.Tensor:
    """Bilinear, with antialiasing where a picture shrinks by much."""
    largest = tf.cast(image_size, tf.float32) * ALIASED
    return tf.cond(
        tf.reduce_all(tf.cast(tf.shape(image)[:2], tf.float32) <= largest),
        lambda: tf.image.resize(image, image_size),
        lambda: tf.image.resize(image, image_size, antialias=True),
    )


def _cropped(image: tf.Tensor, seed: tf.Tensor, aspect: float) -> tuple[tf.Tensor, tf.Tensor]:
    box, is_photo = _random_box(tf.shape(image), seed, aspect)
    top, left, height, width = tf.unstack(box)
    return image[top : top + height, left : left + width], is_photo


def _random_box(shape: tf.Tensor, seed: tf.Tensor, aspect: float) -> tuple[tf.Tensor, tf.Tensor]:
    """(top, left, height, width) of the part of a picture that is kept, and whether it is a photograph.

    Of a photograph that is a random part, its width / height near `aspect`; of a thumbnail the largest part.
    """
    height, width = tf.cast(shape[0], tf.float32), tf.cast(shape[1], tf.float32)
    is_photo = tf.minimum(height, width) > EDGE_TO_EDGE
    share, stretch, down, right = tf.unstack(tf.random.stateless_uniform((4,), seed))
    share = tf.where(is_photo, PHOTO_AREA + (1 - PHOTO_AREA) * share, 1.0)
    stretch = tf.where(is_photo, STRETCH ** (2 * stretch - 1), 1.0)
    largest_width = tf.minimum(width, height * aspect)
    crop_width = tf.clip_by_value(largest_width * tf.sqrt(share * stretch), 1, width)
    crop_height = tf.clip_by_value(largest_width / aspect * tf.sqrt(share / stretch), 1, height)
    box = [(height - crop_height) * down, (width - crop_width) * right, crop_height, crop_width]
    return tf.cast(tf.stack(box), tf.int32), is_photo


def _shifted(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """The picture moved by a few pixels in each direction, with black where nothing was."""
    height, width = image.shape[0], image.shape[1]
    rows, columns = round(height * THUMBNAIL_SHIFT), round(width * THUMBNAIL_SHIFT)
    padded = tf.pad(image, [[rows, rows], [columns, columns], [0, 0]])
    down = tf.random.stateless_uniform((), seed, maxval=2 * rows + 1, dtype=tf.int32)
    right = tf.random.stateless_uniform((), seed + 1, maxval=2 * columns + 1, dtype=tf.int32)
    return tf.ensure_shape(padded[down : down + height, right : right + width], image.shape)
