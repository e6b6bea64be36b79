"""Biases make up for rounding: the means of channels are those of the float model again."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from export_models import images, tiny

from keras_mobilenets.export import export_tflite
from keras_mobilenets.quantization import calibrate, post_training_quantize, quantize_model, strip_quantization
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
    inputs = keras.Input((2, 2, 1))
    model = keras.Model(inputs, keras.layers.ReLU(6.0)(keras.layers.Conv2D(1, 1, name="conv")(inputs)))
    model.get_layer("conv").set_weights([np.full((1, 1, 1, 1), 2.0), np.zeros(1)])
    values = (
        np.array([-1.0, 1.0, 2.0, 5.0], "float32").reshape(1, 2, 2, 1).repeat(64, 0)
    )  # doubled and cut off: 0, 2, 4, 6
    assert channel_means(model, values)["conv"] == 3.0
    wanted = {"conv": np.array([3.5], "float32")}
    correct_biases(model, wanted, values[:63])
    assert model.get_layer("conv").bias.numpy() == 0.0  # of so few values the mean is noise
    correct_biases(model, wanted, values)
    assert model.get_layer("conv").bias.numpy() == 1.0  # 0.5 more, by the half of the values that is not cut off


def test_a_bias_is_left_alone_that_nothing_can_be_told_of():
    inputs = keras.Input((4, 4, 3))
    shared = keras.layers.Dense(3, name="shared")
    outputs = keras.layers.Dense(2, activation="softmax", name="inside")(shared(shared(inputs)))
    assert channel_means(keras.Model(inputs, outputs), images(2)[:, :4, :4]) == {}


@pytest.mark.filterwarnings("ignore:Of model")  # the highest values stay in float
def test_layers_that_give_several_values_are_passed():
    inputs = keras.Input((4, 4, 4))
    parts = keras.ops.split(keras.layers.Conv2D(6, 1, name="conv")(inputs), 3, axis=-1)
    whole = keras.layers.Concatenate()([parts[2], parts[0], parts[1]])
    model = keras.Model(inputs, [whole, *keras.ops.top_k(whole, 2)])
    values = np.random.default_rng(0).uniform(-1, 1, (20, 4, 4, 4)).astype("float32")
    quantized = post_training_quantize(model, values)
    # 8 bits of about [-3, 3], once for the pixels and once for the sums.
    np.testing.assert_allclose(quantized(values)[0], model(values)[0], atol=0.05)


def test_one_post_training_quantization_behind_every_door(tmp_path):
    import tensorflow as tf

    model, pictures = tiny(), images(32)
    batches = tf.data.Dataset.from_tensor_slices((pictures, np.zeros(32))).batch(5)
    makers = {
        "export": (model, {"quantize": "int8", "calibration": pictures}),
        "array": (post_training_quantize(model, pictures), {"verify": pictures}),
        "dataset": (post_training_quantize(model, batches), {"verify": pictures}),
    }
    for name, (given, arguments) in makers.items():
        export_tflite(given, tmp_path / name, verbose=False, **arguments)
    assert len({(tmp_path / name).read_bytes() for name in makers}) == 1
    with pytest.raises(ValueError, match="`images`: it is empty"):
        post_training_quantize(model, batches.take(0))
