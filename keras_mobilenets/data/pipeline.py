"""From examples to batches: shuffled, seen anew in each epoch and repeatable, or as an evaluation sees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_mobilenets.data.images import EDGE_TO_EDGE, read_pixels
from keras_mobilenets.data.sources import Source
from keras_mobilenets.data.views import View

AUTOTUNE = tf.data.AUTOTUNE
THUMBNAIL_SIZE, PHOTO_SIZE = 32, 160
CACHE_BYTES = 512 * 2**20  # held-out pictures up to this size are decoded once


def usual_size(source: Source) -> int:
    """The image size to train at if nobody says: 32 for thumbnails, else 160."""
    item, _, _ = next(iter(source.examples))
    return THUMBNAIL_SIZE if min(read_pixels(source.read(item).numpy()).shape[:2]) <= EDGE_TO_EDGE else PHOTO_SIZE


def training_batches(
    source: Source,
    epochs: tf.data.Dataset,
    *,
    view: View,
    batch_size: int,
    skip: int = 0,
    share: tuple[int, int] = (0, 1),
) -> tf.data.Dataset:
    """Batches of (float32 images in [0, 255], targets), one pass over `source` for each number in `epochs`.

    The first `skip` batches are left out before anything is decoded. The order and all that is random in a picture
    follow from the number alone: epoch 40 is the same in a run that was interrupted. Of a `share` (process, processes)
    each batch has an even part, and nothing else is decoded; but what is mixed is so over the whole batch.
    """
    whole = source.count // batch_size * batch_size
    mixed = view.mixed
    early, late = ((0, 1), share) if mixed else (share, (0, 1))
    size = batch_size // early[1]

    def shuffled(epoch: tf.Tensor) -> tf.data.Dataset:
        # Of this function's graph alone: the order shall not hang on the caller's seed, and TensorFlow's `shuffle`
        # fails on a tensor as seed if the caller's is 0.
        tf.compat.v1.set_random_seed(1)
        examples = source.examples.shuffle(source.shuffle_buffer, seed=epoch)
        if source.two_by_two:
            examples = examples.group_by_window(lambda item, label, plain: label, lambda _, two: two, window_size=2)
        examples = examples.take(whole).enumerate()
        if early[1] > 1:
            examples = examples.filter(_is_in(early, batch_size, whole))
        return examples.map(lambda index, example: (tf.stack([epoch, index]), *example))

    def decode(seed: tf.Tensor, item: tf.Tensor, target: Any, plain: tf.Tensor) -> tuple[Any, ...]:
        return seed, *view.training(source.read(item), target, plain, seed)

    def finish(seeds: tf.Tensor, images: tf.Tensor, targets: Any) -> tuple[tf.Tensor, Any]:
        images, targets = mixed(seeds[0], images, targets) if mixed else (images, targets)
        part = slice(late[0] * batch_size // late[1], (late[0] + 1) * batch_size // late[1])
        return tf.nest.map_structure(lambda one: one[part], (images, targets)) if late[1] > 1 else (images, targets)

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
    source: Source, *, view: View, batch_size: int, share: tuple[int, int] = (0, 1)
) -> tf.data.Dataset:
    """Batches of (uint8 images, targets) in a fixed order, read by `read_image` as everywhere else.

    Args:
        source: what is held out.
        view: what a network sees of it.
        batch_size: of the whole batches.
        share: (process, processes): which even part of each batch to give.
    """
    examples = source.examples
    if share[1] > 1:
        own = examples.enumerate().filter(_is_in(share, batch_size, source.count))
        examples = own.map(lambda index, example: example)
    images = examples.map(lambda item, target, plain: view.evaluation(source.read(item), target), AUTOTUNE)
    height, width = view.image_size
    if source.count * height * width * 3 <= CACHE_BYTES:
        images = images.cache()
    return images.batch(batch_size // share[1]).prefetch(AUTOTUNE)
