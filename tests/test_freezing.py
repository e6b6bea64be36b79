"""Loops that people bring along from keras.applications freeze what they mean, or a warning says what to call."""

import warnings

import keras
import numpy as np
import pytest
from runs import slow_but

from keras_mobilenets.applications import MobileNet, MobileNetV2, MobileNetV3Small
from keras_mobilenets.layers import inline
from keras_mobilenets.training import freeze_normalization, unfreeze

BUILDERS = {one.__name__: one for one in (MobileNet, MobileNetV2, MobileNetV3Small)}
IMAGES = np.zeros((2, 32, 32, 3), "float32")


def network(builder):
    alpha = 0.75 if builder == "MobileNetV3Small" else 0.35 if builder == "MobileNetV2" else 0.25
    return BUILDERS[builder]((32, 32, 3), alpha=alpha, weights=None, include_top=False, pooling="avg")


def normalizations(model):
    return [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]


def warned(model):
    """What a training step says: once, as `fit` traces it once."""
    outer = keras.Sequential([keras.Input((32, 32, 3)), model, keras.layers.Dense(2)])
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        outer(IMAGES, training=True)
        outer(IMAGES, training=True)
        outer(IMAGES, training=False)
    return [str(one.message) for one in found]


@pytest.mark.parametrize("builder", slow_but(BUILDERS, "MobileNetV2"))
def test_halves_of_the_normalization_are_named(builder):
    base = network(builder)
    for layer in normalizations(base):
        layer.trainable = False
    left = sum(layer.trainable for layer in normalizations(inline(base)))
    (message,) = warned(base)
    assert f"and the {left} inside of its blocks are not" in message and "freeze_normalization" in message
    freeze_normalization(base)
    before = [np.array(weight) for layer in normalizations(inline(base)) for weight in layer.weights]
    assert warned(network(builder)) == warned(base) == []
    after = [weight for layer in normalizations(inline(base)) for weight in layer.weights]
    assert all(map(np.array_equal, before, after))


def test_a_slice_that_freezes_everything_is_named():
    base = network("MobileNetV2")
    for layer in base.layers[:100]:
        layer.trainable = False
    (message,) = warned(base)
    assert "unfreeze(model, stages)" in message and f"It has {len(base.layers)}" in message
    base = network("MobileNetV2")
    for layer in inline(base).layers[:100]:
        layer.trainable = False
    assert len(base.trainable_weights) > 30 and warned(base) == []


def test_what_is_meant_is_not_warned_of():
    whole, stem, stages = (network("MobileNetV2") for _ in range(3))
    whole.trainable = False
    for layer in stem.layers[:3]:
        layer.trainable = False
    unfreeze(stages, 1)
    assert [warned(one) for one in (whole, stem, stages)] == [[], [], []]
