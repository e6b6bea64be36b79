"""Small models with living signals, for the tests of export: random weights alone would leave every output alike."""

from __future__ import annotations

import re

import keras
import numpy as np

from keras_mobilenets.layers import DepthwiseSeparableConv, InvertedResidual, inline

SIZE = 32
CLASSES = 5
LABELS = [f"class {number}" for number in range(CLASSES)]


def tiny(
    *, activation: str = "relu6", se_ratio: float | None = None, size: int | None = SIZE, width: int = 8, **kwargs
) -> keras.Model:
    """Stem, a block with a residual, one without, pooling and a softmax: 32 x 32 pixels, 5 classes."""
    inputs = keras.Input((size, size, 3), name="image")
    x = DepthwiseSeparableConv(width, strides=2, momentum=0.0, name="stem", **kwargs)(inputs)
    x = InvertedResidual(width, activation=activation, se_ratio=se_ratio, momentum=0.0, name="block_1", **kwargs)(x)
    x = InvertedResidual(2 * width, strides=2, activation=activation, momentum=0.0, name="block_2", **kwargs)(x)
    x = keras.layers.GlobalAveragePooling2D(keepdims=True, name="pool")(x)
    x = keras.layers.Conv2D(CLASSES, 1, name="logits")(x)
    x = keras.layers.Reshape((CLASSES,), name="flat")(x)
    x = keras.layers.Softmax(dtype="float32", name="predictions")(x)
    model = keras.Model(inputs, x, name="tiny")
    model.get_layer("logits").kernel.assign(model.get_layer("logits").kernel * 8)  # scores that differ
    model(images(32), training=True)  # momentum 0: the statistics are this batch's
    return model


def living(detector: keras.Model, given: np.ndarray) -> keras.Model:
    """The detector with statistics of images, and answers that differ from anchor to anchor."""
    for layer in inline(detector).layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
        elif re.fullmatch(r"(boxes|scores)_\d", layer.name):
            layer.kernel.assign(layer.kernel * 4)
            layer.bias.assign(layer.bias / 2)
    detector(given, training=True)
    return detector


def images(count: int, size: int = SIZE, seed: int = 0) -> np.ndarray:
    """Images in [-1, 1] that lie on pixels, each with a colour and a contrast of its own."""
    rng = np.random.default_rng(seed)
    base = rng.uniform(0, 255, (count, 1, 1, 3)) + rng.normal(0, 60, (count, size // 4, size // 4, 3))
    pixels = np.clip(np.rint(base), 0, 255).repeat(4, 1).repeat(4, 2)
    return (pixels / 127.5 - 1).astype("float32")
