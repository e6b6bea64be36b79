"""Concatenations, and layers that stay in float among integers: each keeps its range."""

import keras
import numpy as np
import pytest
from keras import layers as L
from runs import slow_but

import keras_mobilenets as km
from keras_mobilenets.export.conversion import convert
from keras_mobilenets.export.signature import Signature
from keras_mobilenets.quantization import FakeQuant, QuantizeConfig, calibrate, deployable, quantize_model
from keras_mobilenets.tflite import TFLiteModel, audit
from keras_mobilenets.tflite.edit.slim import slim

SHAPE = (32, 32, 3)


def conv(filters, name, **arguments):
    scaled = keras.initializers.RandomNormal(stddev=arguments.pop("spread", 0.3), seed=sum(map(ord, name)))
    return L.Conv2D(filters, 3, padding="same", kernel_initializer=scaled, name=name, **arguments)


def u_net():
    base = km.MobileNetV2(SHAPE, alpha=0.35, weights=None, include_top=False)
    names = [f"block_{number}_expand_relu" for number in (1, 3, 6)]
    maps = km.endpoints(base, layers=names)
    first, second, last = (maps[name] for name in names)
    x = conv(8, "a", activation="relu")(last)
    x = L.Concatenate()([L.UpSampling2D(2, interpolation="bilinear")(x), second])
    x = L.ReLU()(L.BatchNormalization()(conv(8, "b", use_bias=False)(x)))
    x = L.Concatenate()([L.UpSampling2D(2)(x), first])
    return keras.Model(base.input, conv(4, "c")(x))


def of_image(join):
    image = keras.Input(SHAPE, name="image")
    return keras.Model(image, join(image))


def stages(x):
    a = conv(4, "a", strides=2, activation="relu", spread=3.0)(x)
    b = conv(4, "b", strides=2, activation="relu")(a)
    return L.Dense(3)(L.Concatenate()([L.GlobalAveragePooling2D()(a), L.GlobalAveragePooling2D()(b)]))


def of_unlike_parts(x):
    a = conv(4, "a", activation="relu", spread=2.0)(x)
    parts = [x, a, L.Activation("sigmoid")(a), conv(2, "b")(a), L.MaxPooling2D(3, 1, padding="same")(a)]
    parts += [L.ReLU()(L.BatchNormalization()(conv(3, "c")(a))), conv(4, "d", spread=1.0)(x), km.HardSigmoid()(a)]
    return conv(3, "e")(L.Concatenate()(parts))


def transposed(x):
    """Without a bias: a converter leaves such a layer, and the ReLU behind it, in float."""
    a, up = conv(4, "a", strides=2, activation="relu")(x), {"strides": 2, "padding": "same"}
    bare = L.ReLU()(L.BatchNormalization()(L.Conv2DTranspose(4, 3, use_bias=False, **up)(a)))
    return conv(3, "d")(L.Concatenate()([L.Conv2DTranspose(4, 3, activation="relu", **up)(a), x, bare]))


def nested(x):
    a, b = conv(4, "a", activation="relu", spread=3.0)(x), conv(4, "b")(x)
    inner = L.Concatenate()([a, x, conv(2, "c", spread=5.0)(b)])
    return conv(3, "d")(L.Concatenate()([inner, b, L.Concatenate()([inner, a])]))


def gray_as_three(x):
    gray = conv(1, "gray", activation="relu")(x)
    return conv(4, "a", activation="relu")(L.Concatenate()([gray, gray, gray]))


MODELS = {
    "u_net": u_net,
    "stages": lambda: of_image(stages),
    "unlike parts": lambda: of_image(of_unlike_parts),
    "transposed": lambda: of_image(transposed),
    "nested": lambda: of_image(nested),
    "repeated map": lambda: of_image(gray_as_three),
    "repeated image": lambda: of_image(lambda x: conv(4, "a")(L.Concatenate()([x, x]))),
    "image and map": lambda: of_image(lambda x: L.Concatenate()([x, conv(4, "a", activation="relu", spread=2.0)(x)])),
}


def images(count=16):
    coarse = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3)).repeat(4, 1).repeat(4, 2)
    return coarse.astype("uint8"), (coarse / 127.5 - 1).astype("float32")


def decibels(true, found):
    return 10 * np.log10(np.square(true).sum() / np.square(true - found).sum())


def quantized_and_file(model, **settings):
    pixels, given = images()
    quantized = quantize_model(model, observer="min_max", **settings)
    calibrate(quantized, given)
    deployed = deployable(quantized)
    content = slim(convert(deployed, Signature.of(deployed), scheme="int8", input_dtype="uint8"))
    true, found = (one.predict(given, verbose=0) for one in (model, quantized))
    return quantized, true, found, TFLiteModel(content).predict(pixels), audit(content)


@pytest.mark.parametrize("name", slow_but(MODELS, "u_net", "unlike parts", "repeated map"))
def test_what_is_joined_keeps_its_range(name):
    keras.utils.set_random_seed(0)
    model = MODELS[name]()
    quantized, true, found, of_file, report = quantized_and_file(model)
    # 8 bits leave 40 to 50 dB behind one layer; a part on the grid of another one left 1 to 8.
    assert decibels(true, found) > 30
    assert report.is_integer
    assert report.operations.get("MAX_POOL_2D", 0) == (1 if name == "unlike parts" else 0)  # of the model's own
    scale = float([layer for layer in quantized.layers if isinstance(layer, FakeQuant)][-1].scale)
    # Roundings that fall to the other side, in each layer one step at most; few layers add up to more than two.
    assert np.abs(of_file - found).max() <= (8.01 if name == "u_net" else 3.01) * scale


def test_a_part_of_another_width_keeps_its_quantizer():
    model = of_image(lambda x: L.Concatenate(name="join")([conv(4, "a")(x), conv(4, "b")(x)]))
    names = [layer.name for layer in quantize_model(model, configs={"a": QuantizeConfig(activation_bits=4)}).layers]
    assert "a_quant" in names and "b_quant" not in names


def test_an_image_and_a_table_are_joined():
    image, table = keras.Input(SHAPE, name="image"), keras.Input((5,), name="table")
    x = L.Concatenate()([L.GlobalAveragePooling2D()(conv(8, "a", activation="relu")(image)), table])
    model = keras.Model({"image": image, "table": table}, L.Dense(3)(x))
    data = {"image": images()[1], "table": np.random.default_rng(1).normal(0, 20, (16, 5)).astype("float32")}
    quantized = quantize_model(model)
    calibrate(quantized, data)
    assert decibels(model.predict(data, verbose=0), quantized.predict(data, verbose=0)) > 30
    assert np.abs(deployable(quantized).predict(data, verbose=0) - quantized.predict(data, verbose=0)).max() < 1


def unlike(x, join):
    return conv(3, "end")(join([conv(4, "small", spread=0.01)(x), conv(4, "big", activation="relu", spread=3.0)(x)]))


@pytest.mark.parametrize(
    "join",
    [
        L.Maximum(name="skipped"),
        L.Concatenate(name="skipped"),
        lambda parts: L.Reshape((*SHAPE[:2], 4), name="skipped")(L.Add()(parts)),
        lambda parts: conv(4, "skipped", activation="relu")(L.Concatenate()(parts)),
    ],
)
def test_what_is_skipped_is_float_in_the_file_too(join):
    model = of_image(lambda x: unlike(x, join))
    _, true, found, of_file, report = quantized_and_file(model, skip=["skipped"])
    assert report.float_operations
    assert min(decibels(true, found), decibels(true, of_file)) > 30


@pytest.mark.parametrize("move", [L.MaxPooling2D(2), L.ZeroPadding2D(1), L.Cropping2D(1)], ids=lambda one: one.name)
def test_what_is_moved_joined_and_read_keeps_its_grid(tmp_path, move):
    """Converters rounded it in front of the move, to the grid of the whole, for all that read it."""
    image = keras.Input((8, 8, 3))
    x = move(conv(4, "a", activation="relu")(image))
    model = keras.Model(image, L.Concatenate()([x, conv(3, "b", spread=3.0)(L.Dropout(0.1)(x))]))
    values = np.random.default_rng(0).uniform(-1, 1, (4, 8, 8, 3)).astype("float32")
    quantized = quantize_model(model, input_range=(-1, 1))
    calibrate(quantized, values)
    options = {"verify": values, "normalization": (127.5, 127.5), "verbose": False}
    assert km.export_tflite(quantized, tmp_path / "model.tflite", **options).parity.equal == 4
