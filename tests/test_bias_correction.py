"""Biases make up for rounding: the means of channels are those of the float model again."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from export_models import images, tiny

from keras_mobilenets.quantization import calibrate, quantize_model, strip_quantization
from keras_mobilenets.quantization.bias_correction import channel_means, correct_biases

pytestmark = pytest.mark.usefixtures("eagerly")


def test_channels_of_a_quantized_model_have_the_means_of_the_float_one():
    twin = quantize_model(tiny(activation="relu"), weight_bits=4)  # coarse, so that means move
    calibrate(twin, images(64))
    wanted = channel_means(strip_quantization(twin), images(64))

    def error(of: np.ndarray) -> float:
        found = channel_means(twin, of)
        assert found.keys() == wanted.keys() and "logits" in found and "stem_dw_bn" in found
        return float(np.mean([np.abs(found[name] - wanted[name]).mean() for name in wanted]))

    before = error(images(64))
    correct_biases(twin, wanted, images(64))
    # Where ReLU cuts off some values the mean is no straight line of the bias, and later rounding follows.
    assert error(images(64)) < 0.25 * before


def test_one_bias_by_hand():
    inputs = keras.Input((1, 1, 1))
    model = keras.Model(inputs, keras.layers.ReLU(6.0)(keras.layers.Conv2D(1, 1, name="conv")(inputs)))
    model.get_layer("conv").set_weights([np.full((1, 1, 1, 1), 2.0), np.zeros(1)])
    values = np.array([-1.0, 1.0, 2.0, 5.0], "float32").reshape(4, 1, 1, 1)  # doubled and cut off: 0, 2, 4, 6
    assert channel_means(model, values)["conv"] == 3.0
    correct_biases(model, {"conv": np.array([3.5], "float32")}, values)
    assert model.get_layer("conv").bias.numpy() == 1.0  # 0.5 more, by the half of the values that is not cut off


def test_a_bias_is_left_alone_that_nothing_can_be_told_of():
    inputs = keras.Input((4, 4, 3))
    shared = keras.layers.Dense(3, name="shared")
    outputs = keras.layers.Dense(2, activation="softmax", name="inside")(shared(shared(inputs)))
    assert channel_means(keras.Model(inputs, outputs), images(2)[:, :4, :4]) == {}
