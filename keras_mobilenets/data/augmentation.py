"""Augmentations beyond crops and mirrors, of Keras' preprocessing layers; what is random follows from a seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

OPERATIONS = 2  # of RandAugment, as in the paper
# Sampled evenly up to twice magnitude 9 of 30: its mean is what the paper, and torchvision, use for small networks.
SHEAR, TRANSLATION, TURN = 0.18, 0.27, 18 / 360
ENHANCEMENT = 0.54
BRIGHTNESS = ENHANCEMENT / 2  # Keras adds this share of white where Pillow multiplies
SHARPNESS = (0.5 - ENHANCEMENT / 2, 0.5 + ENHANCEMENT / 2)  # 0.5 is the image itself
POSTERIZED_BITS = (5, 8)  # the last is left out
ERASED_SHARE = 0.2  # of the pictures, as torchvision's references/classification train MobileNetV3
MIX_UP_ALPHA, CUT_MIX_ALPHA = 0.2, 1.0  # of the Beta distribution; torchvision's, and the papers'


class _Draws(keras.random.SeedGenerator):
    """The seeds that follow from one pair of numbers, where Keras' generator counts in a variable.

    Threads share a variable in the order of the day; what is drawn from numbers depends on nothing else.
    """

    def __init__(self, pair: tf.Tensor) -> None:  # no variable is made
        self.pair, self.count = pair, 0

    def next(self, ordered: bool = True) -> tf.Tensor:
        self.count += 1
        return tf.random.experimental.stateless_fold_in(self.pair, self.count)


def applied(layer: keras.layers.Layer, data: Any, seed: tf.Tensor) -> Any:
    """What a preprocessing layer makes of images, its random numbers drawn from `seed`."""
    draws = _Draws(seed)
    layer._get_seed_generator = lambda backend=None: draws
    return layer(data, training=True)


def rand_augment() -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """RandAugment (arXiv:1909.13719) of one image: two of the operations of `keras.layers.RandAugment`.

    Keras' layer computes all eleven for each image and keeps two; here two are computed, or none in a twelfth of the
    turns.

    Returns:
        A function of a float image in [0, 255] and a seed, of shape (2,).
    """
    layers = (
        keras.layers.RandomShear(SHEAR, SHEAR),
        keras.layers.RandomTranslation(TRANSLATION, TRANSLATION),
        keras.layers.RandomRotation(TURN),
        keras.layers.RandomBrightness(BRIGHTNESS),
        keras.layers.RandomColorDegeneration(ENHANCEMENT),
        keras.layers.RandomContrast(ENHANCEMENT),
        keras.layers.RandomSharpness(SHARPNESS),
        keras.layers.RandomPosterization(POSTERIZED_BITS),
        keras.layers.Solarization(threshold_factor=1.0),
        keras.layers.AutoContrast(),
        keras.layers.Equalization(),
    )

    def augmented(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        shape = image.shape
        for turn in range(OPERATIONS):
            drawn = tf.random.experimental.stateless_fold_in(seed, turn)
            choice = tf.random.stateless_uniform((), drawn, maxval=len(layers) + 1, dtype=tf.int32)
            # Bound as defaults: the branches are traced after the loop has gone on.
            branches = [lambda layer=layer, image=image, drawn=drawn: applied(layer, image, drawn) for layer in layers]
            image = tf.switch_case(choice, [*branches, lambda image=image: image])
        return tf.ensure_shape(tf.clip_by_value(image, 0, 255), shape)

    return augmented


def batch_augment(names: Sequence[str], classes: int) -> Callable[..., tuple[tf.Tensor, tf.Tensor]] | None:
    """Random erasing, mix-up and cut-mix of a batch; of the two mixes, each batch gets one.

    Args:
        names: of `"random_erasing"`, `"mix_up"` and `"cut_mix"`, those wanted.
        classes: how many; mixed labels are vectors with a share of each.

    Returns:
        A function of seed, float images in [0, 255] and int labels that returns images and labels; None if there is
        nothing to do.
    """
    erasing = keras.layers.RandomErasing((ERASED_SHARE, ERASED_SHARE)) if "random_erasing" in names else None
    mixes = [keras.layers.MixUp(MIX_UP_ALPHA)] if "mix_up" in names else []
    mixes += [keras.layers.CutMix((CUT_MIX_ALPHA, CUT_MIX_ALPHA))] if "cut_mix" in names else []
    if not erasing and not mixes:
        return None

    def augmented(seed: tf.Tensor, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        shape = images.shape
        if erasing:
            images = applied(erasing, images, tf.random.experimental.stateless_fold_in(seed, -1))
        if mixes:
            labels = tf.one_hot(labels, classes)
            mixed = [
                lambda layer=layer: tuple(applied(layer, {"images": images, "labels": labels}, seed).values())
                for layer in mixes
            ]
            choice = tf.random.stateless_uniform((), seed, maxval=len(mixes), dtype=tf.int32)
            images, labels = tf.switch_case(choice, mixed)
        return tf.ensure_shape(images, shape), labels

    return augmented
