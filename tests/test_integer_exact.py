"""A quantized model at inference against its own file: every answer, to the bit."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from runs import slow_but

import keras_mobilenets as km
from keras_mobilenets.pixels import PixelScale
from keras_mobilenets.quantization import view
from keras_mobilenets.tflite import TFLiteModel

SIZE = 36


def pixels(count, channels=3):
    return np.random.default_rng(7).integers(0, 256, (count, SIZE, SIZE, channels), "uint8")


def block(x, filters, strides=1, activation="relu"):
    x = layers.Conv2D(filters, 3, strides, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    return layers.Activation(activation)(x)


def u_net():
    inputs = keras.Input((SIZE, SIZE, 3))
    first = block(layers.Rescaling(1 / 127.5, -1)(inputs), 8)
    second = block(first, 12, 2)
    third = block(second, 16, 3, "relu6")
    x = layers.UpSampling2D(3, interpolation="bilinear")(third)
    x = block(layers.Concatenate()([x, second]), 12)
    x = layers.UpSampling2D(2, interpolation="nearest")(x)
    x = block(layers.Concatenate()([x, first]), 8)
    return keras.Model(inputs, layers.Conv2D(3, 1, activation="sigmoid")(x))


def heads():
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.MaxPooling2D(3, 2, padding="same")(block(layers.Rescaling(1 / 255)(inputs), 8, activation="hard_swish"))
    gate = layers.Conv2D(8, 1, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.ZeroPadding2D(((0, 1), (1, 0)))(layers.Multiply()([x, gate]))
    x = layers.Add()([block(x, 8), layers.AveragePooling2D(3, 1, padding="same")(x)])
    boxes = layers.Reshape((-1, 4))(layers.Conv2D(8, 3, 2)(x))
    scores = layers.Dense(1, activation="sigmoid")(layers.Flatten()(layers.DepthwiseConv2D(5, 3)(x)))
    return keras.Model(inputs, {"boxes": boxes, "score": scores})


def kinds():
    """Layers that MobileNets do not have, and a dead channel whose bias its kernel's grid cannot hold."""
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(8, 3, 2)(layers.Rescaling(1 / 127.5, -1)(inputs))
    x = layers.PReLU(shared_axes=[1, 2], alpha_initializer="glorot_uniform")(x)
    dead = layers.Conv2D(8, 3, groups=2, padding="same", bias_initializer="ones")
    x = layers.Maximum()([dead(x), layers.Conv2D(8, 1)(x)])
    dead.kernel.assign(dead.kernel * [0, 1e-9, 1e-7, 1e-5, 1, 1, 1, 1])
    left, right = keras.ops.split(x, 2, axis=-1)
    x = layers.Concatenate()([layers.Resizing(9, 9)(left), layers.CenterCrop(9, 9)(right)])
    x = layers.Conv2DTranspose(6, 3, 2, padding="same", activation="relu")(x[:, 1:, :, ::-1])
    x = layers.Conv1D(5, 3, padding="causal")(layers.Reshape((-1, 6))(layers.Rescaling(0.7, 0.1)(x)))
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling1D()(layers.ZeroPadding1D(1)(x))))


def network(builder, **arguments):
    return lambda: getattr(km, builder)(input_shape=(SIZE, SIZE, 3), weights=None, classes=20, **arguments)


MODELS = {
    "V1": (network("MobileNet", alpha=0.25), "xnnpack"),
    "V2": (network("MobileNetV2", alpha=0.35), "xnnpack"),
    "V3": (network("MobileNetV3Small", alpha=0.5), "xnnpack"),
    "u_net": (u_net, "xnnpack"),
    "heads": (heads, "xnnpack"),
    "heads-npu": (heads, "npu"),
    "kinds": (kinds, "xnnpack"),
}


@pytest.fixture(scope="module", params=slow_but(MODELS, *MODELS.keys() - {"V2"}))
def pair(request, tmp_path_factory):
    """A calibrated model, images as it takes them, and its file."""
    keras.utils.set_random_seed(0)
    make, target = MODELS[request.param]
    model = make()
    images = pixels(12).astype("float32")
    if request.param in ("V1", "V2"):
        images = images / np.float32(127.5) - 1
    for layer in km.inline(model).layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(images, training=True)
    quantized = km.quantize_model(model, target=target)
    km.calibrate(quantized, images[:6])
    path = tmp_path_factory.mktemp("pair") / "model.tflite"
    km.export_tflite(quantized, path, verify=images[:2], verbose=False)
    return quantized, images, path


def equal(quantized, images, path):
    """Whether `predict` gives what the file gives, output by output."""
    wanted = TFLiteModel(path).predict(pixels(12))
    wanted = keras.tree.flatten(wanted)  # a dictionary by name: both are in the order of the names
    found = keras.tree.flatten(quantized.predict(images, verbose=0))
    return [np.array_equal(one, other) for one, other in zip(found, wanted, strict=True)]


def test_inference_is_the_files(pair):
    quantized, images, path = pair
    assert quantized.exact
    assert all(equal(quantized, images, path))
    in_batch = keras.tree.flatten(quantized.predict(images[:3], verbose=0))
    for called, predicted in zip(keras.tree.flatten(quantized(images[:3])), in_batch, strict=True):
        np.testing.assert_array_equal(called, predicted)


@pytest.mark.parametrize("pair", ["u_net"], indirect=True)
def test_a_function_of_somebody_else_is_traced_exactly_where_asked(pair):
    quantized, images, _ = pair
    with quantized.exactly():
        traced = tf.function(quantized).get_concrete_function(tf.TensorSpec(images.shape))
    np.testing.assert_array_equal(traced(tf.constant(images)), quantized.predict(images, verbose=0))
    outside = tf.function(quantized).get_concrete_function(tf.TensorSpec(images.shape))
    assert not np.array_equal(outside(tf.constant(images)), quantized.predict(images, verbose=0))


@pytest.mark.parametrize("pair", ["u_net"], indirect=True)
def test_weights_that_change_are_taken_over(pair, tmp_path):
    quantized, images, path = pair
    before, wanted = quantized.get_weights(), images / 255
    quantized.compile("adam", loss="mse")
    history = quantized.fit(images, wanted, batch_size=4, epochs=2, verbose=0, validation_data=(images, wanted))
    assert not all(equal(quantized, images, path))
    km.export_tflite(quantized, tmp_path / "trained.tflite", verify=images[:2], verbose=False)
    assert all(equal(quantized, images, tmp_path / "trained.tflite"))
    loss = np.mean((TFLiteModel(tmp_path / "trained.tflite").predict(pixels(12)) - wanted) ** 2)
    assert history.history["val_loss"][-1] == pytest.approx(loss)
    quantized.set_weights(before)
    assert all(equal(quantized, images, path))
    assert len(quantized.get_weights()) == len(before)  # the integers are no weights


@pytest.mark.parametrize("pair", ["V1"], indirect=True)
def test_exact_can_be_switched_off(pair):
    quantized, images, path = pair
    quantized.exact = False
    assert not any(equal(quantized, images, path))
    quantized.exact = True
    assert all(equal(quantized, images, path))


def test_exact_needs_ranges_and_integers():
    quantized = km.quantize_model(network("MobileNet", alpha=0.25)())
    assert not quantized.exact
    with pytest.raises(ValueError, match="cannot be evaluated exactly: .* has no range yet"):
        quantized.exact = True
    narrow = km.quantize_model(network("MobileNet", alpha=0.25)(), weight_bits=4)
    km.calibrate(narrow, pixels(2) / np.float32(127.5) - 1)
    with pytest.raises(ValueError, match="weights of 4 bits"):
        narrow.exact = True


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (1 / 127.5, -1.0)])
def test_halves_of_pixels_fall_as_in_the_file(scale, offset):
    """Resized pictures are full of them, and scaling moves them by a rounding error to either side."""
    inputs = keras.Input((8, 8, 3))
    front = layers.Rescaling(1 / 127.5, -1)(inputs) if scale == 1 else inputs
    model = keras.Model(inputs, layers.Conv2D(3, 1)(front))
    halves = np.random.default_rng(0).integers(0, 255, (16, 8, 8, 3)) + np.float32(0.5)
    images = (halves * np.float32(scale) + np.float32(offset)).astype("float32")
    twin = km.quantize_model(model)
    km.calibrate(twin, images)
    taken = PixelScale.of(twin)
    np.testing.assert_array_equal(twin.predict(images, verbose=0), twin.predict(taken(taken.pixels(images)), verbose=0))


def test_only_what_has_no_integers_makes_a_model_inexact(monkeypatch):
    inputs = keras.Input((4,))
    twin = km.quantize_model(keras.Model(inputs, layers.Dense(2)(inputs)))
    assert not twin.exact and "no range yet" in twin.inexact_reason
    km.calibrate(twin, np.ones((2, 4), "float32"))
    monkeypatch.setattr(view, "IntegerView", lambda model: int("a fault"))
    with pytest.raises(ValueError, match="a fault"):
        twin.predict(np.ones((2, 4), "float32"), verbose=0)
