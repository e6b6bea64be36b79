"""From pictures to batches: shuffled, cropped, flipped and repeatable, or as an evaluation sees them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

from keras_mobilenets.data.augmentation import batch_augment, rand_augment
from keras_mobilenets.data.images import EDGE_TO_EDGE, read_image, read_pixels
from keras_mobilenets.data.names import PHOTO_AREA, STRETCH, THUMBNAIL_SHIFT
from keras_mobilenets.data.sources import Source

AUTOTUNE = tf.data.AUTOTUNE
THUMBNAIL_SIZE, PHOTO_SIZE = 32, 160
JPEG_MAGIC = b"\xff\xd8\xff"
CACHE_BYTES = 512 * 2**20  # held-out pictures up to this size are decoded once
ALIASED = 1.5  # to shrink by less: antialiasing takes three times as long, and changes less (36 dB) than JPEG has noise
REDUCTIONS = (1, 2, 4, 8)  # by which a JPEG can be decoded smaller
REDUCED = 2  # times the size that is wanted, at least: 42 dB from what antialiasing makes of all pixels


def usual_size(source: Source) -> int:
    """The image size to train at if nobody says: 32 for thumbnails, else 160."""
    item, _, _ = next(iter(source.examples))
    return THUMBNAIL_SIZE if min(read_pixels(source.read(item).numpy()).shape[:2]) <= EDGE_TO_EDGE else PHOTO_SIZE


def training_batches(
    source: Source,
    epochs: tf.data.Dataset,
    *,
    image_size: tuple[int, int],
    batch_size: int,
    augment: Sequence[str],
    classes: int,
    skip: int = 0,
    share: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Batches of (float32 images in [0, 255], labels), one pass over `source` for each number in `epochs`.

    The first `skip` batches are left out before anything is decoded. The order and all that is random in a picture
    follow from the number alone: epoch 40 is the same in a run that was interrupted. Of a `share` (process, processes)
    each batch has an even part, and nothing else is decoded; but what is mixed is so over the whole batch.
    """
    whole = source.count // batch_size * batch_size
    mixed = batch_augment(augment, classes)
    early, late = ((0, 1), share) if mixed else (share, (0, 1))
    size = batch_size // early[1]

    def shuffled(epoch: tf.Tensor) -> tf.data.Dataset:
        # Of this function's graph alone: the order shall not hang on the caller's seed, and TensorFlow's `shuffle`
        # fails on a tensor as seed if the caller's is 0.
        tf.compat.v1.set_random_seed(1)
        examples = source.examples.shuffle(source.shuffle_buffer, seed=epoch).take(whole).enumerate()
        if early[1] > 1:
            examples = examples.filter(_is_in(early, batch_size, whole))
        return examples.map(lambda index, example: (tf.stack([epoch, index]), *example))

    operations = rand_augment() if "rand_augment" in augment else lambda image, seed: image

    def decode(seed: tf.Tensor, item: tf.Tensor, label: tf.Tensor, plain: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return seed, operations(_training_image(source.read(item), plain, seed, image_size, augment), seed), label

    def finish(seeds: tf.Tensor, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = mixed(seeds[0], images, labels) if mixed else (images, labels)
        part = slice(late[0] * batch_size // late[1], (late[0] + 1) * batch_size // late[1])
        return (images[part], labels[part]) if late[1] > 1 else (images, labels)

    examples = epochs.flat_map(shuffled).skip(skip * size)
    batches = examples.map(decode, AUTOTUNE).batch(size, drop_remainder=True)
    return batches.map(finish, AUTOTUNE).prefetch(AUTOTUNE)


def _is_in(share: tuple[int, int], batch_size: int, count: int) -> Callable[..., tf.Tensor]:
    """Whether an example of that index, of so many in all, is in a process' part of its batch.

    All processes have as many: what does not go around of a last, smaller batch is left out.
    """
    process, processes = share

    def is_in(index: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        start = index // batch_size * batch_size
        size = tf.minimum(tf.constant(batch_size, tf.int64), count - start) // processes
        return (size > 0) & ((index - start) // tf.maximum(size, 1) == process)

    return is_in


def evaluation_batches(
    source: Source, *, image_size: tuple[int, int], batch_size: int, share: tuple[int, int] = (0, 1)
) -> tf.data.Dataset:
    """Batches of (uint8 images, labels) in a fixed order, read by `read_image` as everywhere else.

    Args:
        source: what is held out.
        image_size: (height, width).
        batch_size: of the whole batches.
        share: (process, processes): which even part of each batch to give.
    """

    def decode(item: tf.Tensor, label: tf.Tensor, plain: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return _read(source.read(item), image_size), label

    examples = source.examples
    if share[1] > 1:
        own = examples.enumerate().filter(_is_in(share, batch_size, source.count))
        examples = own.map(lambda index, example: example)
    images = examples.map(decode, AUTOTUNE)
    if source.count * image_size[0] * image_size[1] * 3 <= CACHE_BYTES:
        images = images.cache()
    return images.batch(batch_size // share[1]).prefetch(AUTOTUNE)


def _training_image(
    data: tf.Tensor, plain: tf.Tensor, seed: tf.Tensor, image_size: tuple[int, int], augment: Sequence[str]
) -> tf.Tensor:
    if "none" in augment:
        return tf.cast(_read(data, image_size), tf.float32)
    aspect = image_size[1] / image_size[0]
    if data.dtype == tf.string:
        is_jpeg = plain & (tf.strings.substr(data, 0, len(JPEG_MAGIC)) == JPEG_MAGIC)
        image, is_photo = tf.cond(
            is_jpeg,
            lambda: _cropped_jpeg(data, seed, image_size),
            lambda: _cropped(tf.cond(plain, lambda: _decoded(data), lambda: _read(data)), seed, aspect),
        )
    else:
        image, is_photo = _cropped(data, seed, aspect)
    image = _resized(image, image_size)
    image = tf.cond(is_photo, lambda: image, lambda: _shifted(image, seed))
    if "crop_flip" in augment:
        image = tf.image.stateless_random_flip_left_right(image, seed)
    return tf.ensure_shape(image, (*image_size, 3))


def _read(data: tf.Tensor, image_size: tuple[int, int] | None = None) -> tf.Tensor:
    """A picture as `read_pixels` gives it or, of an `image_size`, as `read_image` does."""
    read = read_pixels if image_size is None else functools.partial(read_image, image_size=image_size)
    return tf.ensure_shape(tf.numpy_function(read, [data], tf.uint8), (*(image_size or (None, None)), 3))


def _decoded(data: tf.Tensor) -> tf.Tensor:
    """The same of what TensorFlow decodes alike, faster."""
    return tf.ensure_shape(tf.io.decode_image(data, channels=3, expand_animations=False), (None, None, 3))


def _cropped_jpeg(data: tf.Tensor, seed: tf.Tensor, image_size: tuple[int, int]) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes only the part that is kept, a large one smaller; with the decoder's exact transform, as Pillow does."""
    height, width = image_size
    box, is_photo = _random_box(tf.io.extract_jpeg_shape(data), seed, width / height)

    def decoded(reduction: int) -> tf.Tensor:
        part = box // reduction
        return tf.io.decode_and_crop_jpeg(data, part, channels=3, ratio=reduction, dct_method="INTEGER_ACCURATE")

    excess = tf.minimum(box[2] // (REDUCED * height), box[3] // (REDUCED * width))
    enough = tf.reduce_sum([tf.cast(excess >= reduction, tf.int32) for reduction in REDUCTIONS[1:]])
    return tf.switch_case(enough, [functools.partial(decoded, reduction) for reduction in REDUCTIONS]), is_photo


def _resized(image: tf.Tensor, image_size: tuple[int, int]) -> tf.Tensor:
    """Bilinear, with antialiasing where a picture shrinks by much."""
    height, width = image_size
    largest = (int(height * ALIASED), int(width * ALIASED))
    return tf.cond(
        tf.reduce_all(tf.shape(image)[:2] <= largest),
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
