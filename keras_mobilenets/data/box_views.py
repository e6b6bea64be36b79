"""What a detector sees of an example: the whole picture, stretched; in training cut, zoomed out, mirrored and tinted.

The crop is SSD's, with all trials drawn at once. Keras' `RandomCrop` is not used: it moves boxes along the wrong axis
(keras #23518), and knows no overlap.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_mobilenets.data.augmentation import applied
from keras_mobilenets.data.views import read, resized, whole

PADDING = -1
OVERLAPS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)  # of which a crop must have one with a box it keeps; or there is no crop
TRIALS = 40
SHORTEST, STRETCH = 0.3, 2.0  # side of a crop in shares, and how much wider or higher than the picture it may be
ZOOM_OUT, ZOOMED = 4.0, 0.5  # the canvas is up to so many times as large; share of the pictures
TINTED = 0.5  # share of the pictures for each change of colour
BRIGHTNESS, CONTRAST, SATURATION, HUE = 32 / 255, 0.5, 0.5, 0.05  # SSD's: caffe's, and torchvision's of photometric
GREY = 124.0, 116.0, 104.0  # ImageNet's mean, around what is zoomed out


@dataclasses.dataclass(frozen=True)
class BoxView:
    """Of pictures with boxes: {"boxes": (most, 4) rel_yxyx, "labels": (most,)}.

    Args:
        image_size: (height, width).
        augment: of "crop", "zoom_out", "flip" and "colour"; or "none".

    Reference:
        SSD, arXiv:1512.02325, section 2.2 and 3.6.
    """

    image_size: tuple[int, int]
    augment: Sequence[str]
    mixed = None

    def training(self, picture: tf.Tensor, target: Any, plain: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, Any]:
        if tuple(self.augment) == ("none",):
            image, target = self.evaluation(picture, target)
            return tf.cast(image, tf.float32), target
        pixels = tf.cast(whole(picture, plain), tf.float32)
        boxes, labels = target["boxes"], target["labels"]
        seeds = [tf.random.experimental.stateless_fold_in(seed, turn) for turn in range(4)]
        window = tf.constant([0.0, 0.0, 1.0, 1.0])
        if "zoom_out" in self.augment:
            window = zoomed_out(seeds[0])
        if "crop" in self.augment:
            # Of what was not zoomed out: a part of a small picture on a grey canvas shows nothing new.
            is_whole = tf.reduce_all(window == [0.0, 0.0, 1.0, 1.0])
            window = tf.cond(is_whole, lambda: crop(boxes, labels, seeds[1]), lambda: window)
        boxes, labels = within(boxes, labels, window)
        image = _seen(pixels, window, self.image_size)
        if "flip" in self.augment:
            image, boxes = flipped(image, boxes, seeds[2])
        if "colour" in self.augment:
            image = self._tinted(image, seeds[3])
        return tf.ensure_shape(image, (*self.image_size, 3)), {"boxes": boxes, "labels": labels}

    def evaluation(self, picture: tf.Tensor, target: Any) -> tuple[tf.Tensor, Any]:
        return read(picture, self.image_size, crop=False), target

    @functools.cached_property
    def _tinted(self) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
        """Keras' layers of colour, which leave boxes alone, each on half of the pictures."""
        import keras

        layers = (
            keras.layers.RandomBrightness(BRIGHTNESS),
            keras.layers.RandomContrast(CONTRAST),
            keras.layers.RandomSaturation((0.5 - SATURATION / 2, 0.5 + SATURATION / 2)),
            keras.layers.RandomHue(HUE),
        )

        def tinted(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            chosen = tf.random.stateless_uniform((len(layers),), seed) < TINTED
            for turn, layer in enumerate(layers):
                drawn = tf.random.experimental.stateless_fold_in(seed, turn)
                changed = functools.partial(applied, layer, image, drawn)
                image = tf.cond(chosen[turn], changed, lambda image=image: image)
            return tf.clip_by_value(image, 0, 255)

        return tinted


def zoomed_out(seed: tf.Tensor) -> tf.Tensor:
    """The window of a canvas that is larger than the picture, or the picture: (top, left, bottom, right) in shares."""
    chosen, scale, down, right = tf.unstack(tf.random.stateless_uniform((4,), seed))
    side = tf.where(chosen < ZOOMED, 1 + (ZOOM_OUT - 1) * scale, 1.0)
    top, left = -(side - 1) * down, -(side - 1) * right
    return tf.stack([top, left, top + side, left + side])


def crop(boxes: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """SSD's crop: the first of 40 windows that overlaps a box by as much as was drawn, and keeps a box' centre.

    Args:
        boxes: (most, 4), rel_yxyx.
        labels: (most,); of rows that are no box -1.
        seed: (2,).

    Returns:
        The window (4,), rel_yxyx; the whole picture in one of seven times, and where no window is right.
    """
    draws = tf.random.stateless_uniform((TRIALS, 4), seed)
    asked = tf.random.stateless_uniform((), seed + 1, maxval=len(OVERLAPS) + 1, dtype=tf.int32)
    least = tf.gather(tf.constant((*OVERLAPS, 2.0)), asked)  # no overlap is that large: no crop
    sides = SHORTEST + (1 - SHORTEST) * draws[:, :2]
    corners = (1 - sides) * draws[:, 2:]
    windows = tf.concat([corners, corners + sides], -1)
    low, high = tf.maximum(windows[:, None, :2], boxes[:, :2]), tf.minimum(windows[:, None, 2:], boxes[:, 2:])
    shared = tf.reduce_prod(tf.maximum(high - low, 0), -1)
    areas = tf.reduce_prod(boxes[:, 2:] - boxes[:, :2], -1)
    overlap = shared / tf.maximum(tf.reduce_prod(sides, -1, keepdims=True) + areas - shared, 1e-9)
    held = _holds(windows[:, None], boxes) & (labels >= 0)
    ratio = sides[:, 1] / sides[:, 0]
    right = tf.reduce_any(held & (overlap >= least), -1) & (ratio >= 1 / STRETCH) & (ratio <= STRETCH)
    first = windows[tf.argmax(right)]
    return tf.where(tf.reduce_any(right), first, tf.constant([0.0, 0.0, 1.0, 1.0]))


def within(boxes: tf.Tensor, labels: tf.Tensor, window: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Boxes in shares of a window, cut to it; those whose centre lies outside are no boxes any more."""
    kept = _holds(window, boxes) & (labels != PADDING)
    size = window[2:] - window[:2]
    moved = (boxes - tf.tile(window[:2], [2])) / tf.tile(size, [2])
    moved = tf.clip_by_value(moved, 0, 1)
    return tf.where(kept[:, None], moved, 0.0), tf.where(kept, labels, PADDING)


def flipped(image: tf.Tensor, boxes: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Half of the pictures mirrored, with their boxes."""
    mirrored = tf.random.stateless_uniform((), seed) < 0.5
    top, left, bottom, right = tf.unstack(boxes, axis=-1)
    turned = tf.stack([top, 1 - right, bottom, 1 - left], -1)
    return tf.where(mirrored, image[:, ::-1], image), tf.where(mirrored, turned, boxes)


def _holds(window: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """Whether windows (..., 4) have the centres of boxes (most, 4) in them."""
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    return tf.reduce_all((centers >= window[..., :2]) & (centers <= window[..., 2:]), -1)


def _seen(pixels: tf.Tensor, window: tf.Tensor, image_size: tuple[int, int]) -> tf.Tensor:
    """The pixels in a window, stretched to the size, with grey where nothing is."""
    height, width = (tf.cast(one, tf.float32) for one in tf.unstack(tf.shape(pixels)[:2]))
    shape = tf.stack([height, width])
    inside = tf.concat([tf.maximum(window[:2], 0), tf.minimum(window[2:], 1)], 0)
    low = tf.cast(tf.round(inside[:2] * shape), tf.int32)
    high = tf.maximum(tf.cast(tf.round(inside[2:] * shape), tf.int32), low + 1)
    part = pixels[low[0] : high[0], low[1] : high[1]]
    size = tf.constant(image_size, tf.float32)
    span = window[2:] - window[:2]
    place = tf.minimum(
        tf.cast(tf.round((inside[:2] - window[:2]) / span * size), tf.int32), tf.constant(image_size) - 1
    )
    taken = tf.cast(tf.round((inside[2:] - inside[:2]) / span * size), tf.int32)
    taken = tf.clip_by_value(taken, 1, tf.constant(image_size) - place)
    image = resized(part, taken)
    return tf.pad(image - GREY, [*tf.unstack(_margins(place, taken, image_size)), [0, 0]]) + GREY


def _margins(place: tf.Tensor, taken: tf.Tensor, image_size: tuple[int, int]) -> tf.Tensor:
    return tf.stack([place, tf.constant(image_size) - place - taken], -1)
