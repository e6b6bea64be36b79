"""What a model takes for pixels, whatever form its scaling has."""

import functools

import keras
import numpy as np
import pytest
from keras import layers as L

from keras_mobilenets import MobileNet, MobileNetV2, MobileNetV3Small, PixelScale, calibrate, quantize_model
from keras_mobilenets.applications import mobilenet_v2

SHAPE = (32, 32, 3)
PIXELS, UNIT, SCALED = (0.0, 255.0), (0.0, 1.0), (-1.0, 1.0)
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@functools.cache
def v2():
    return MobileNetV2(SHAPE, alpha=0.35, weights=None, classes=3)


@functools.cache
def v3(**kwargs):
    return MobileNetV3Small(SHAPE, alpha=0.35, weights=None, classes=3, **kwargs)


def plain():
    return keras.Sequential([keras.Input(SHAPE), L.Conv2D(4, 3), L.GlobalAveragePooling2D(), L.Dense(2)])


def behind(front, base=v2, dtype=None):
    """A functional model with `front(image)` before the network."""
    inputs = keras.Input(SHAPE, dtype=dtype)
    return keras.Model(inputs, base()(front(inputs)))


def standardized(x):
    return L.Normalization(mean=MEAN, variance=np.square(STD))(x)


FORMS = {
    "V1": (lambda: MobileNet(SHAPE, alpha=0.25, weights=None, classes=3), SCALED),
    "V3": (v3, PIXELS),
    "V3 without preprocessing": (lambda: v3(include_preprocessing=False), SCALED),
    "V3 in Sequential": (lambda: keras.Sequential([keras.Input(SHAPE), v3()]), PIXELS),
    "V3 in functional": (lambda: behind(lambda x: x, v3), PIXELS),
    "preprocess_input": (lambda: behind(mobilenet_v2.preprocess_input), PIXELS),
    "keras.applications": (
        lambda: behind(
            keras.applications.mobilenet_v2.preprocess_input,
            lambda: keras.applications.MobileNetV2(SHAPE, alpha=0.35, weights=None),
        ),
        PIXELS,
    ),
    "arithmetic": (lambda: behind(lambda x: x / 127.5 - 1), PIXELS),
    "keras.ops in another order": (lambda: behind(lambda x: -1 + keras.ops.multiply(1 / 127.5, x)), PIXELS),
    "uint8, cast": (lambda: behind(lambda x: keras.ops.cast(x, "float32") / 127.5 - 1, dtype="uint8"), PIXELS),
    "augmentation and Rescaling in Sequential": (
        lambda: behind(keras.Sequential([L.RandomFlip(), L.RandomRotation(0.1), L.Rescaling(1 / 127.5, -1)])),
        PIXELS,
    ),
    "Resizing and padding": (lambda: behind(lambda x: x[:, :32, :32] / 127.5 - 1, lambda: v2()), PIXELS),
    "Rescaling(2, -1)": (lambda: behind(L.Rescaling(2, -1)), UNIT),
    "Rescaling by channel": (lambda: behind(L.Rescaling([1 / 127.5] * 3, [-1.0] * 3)), PIXELS),
    "Rescaling to [0, 1]": (lambda: behind(L.Rescaling(1 / 255)), PIXELS),
    "Lambda": (lambda: behind(L.Lambda(lambda x: x / 127.5 - 1)), PIXELS),
    "Normalization of [0, 1]": (lambda: behind(standardized, plain), UNIT),
    "Normalization of pixels": (lambda: behind(lambda x: standardized(L.Rescaling(1 / 255)(x)), plain), PIXELS),
    "BGR less its mean": (lambda: behind(lambda x: x[..., ::-1] - np.float32([104, 117, 124]), plain), PIXELS),
    "scaled oddly, for a known network": (lambda: behind(L.Rescaling(0.25, 0.0)), (-4.0, 4.0)),
    "quantized": (lambda: quantize_model(v2(), input_range=UNIT), UNIT),
    "quantized, in Sequential": (lambda: keras.Sequential([keras.Input(SHAPE), quantize_model(v3())]), PIXELS),
}


@pytest.mark.parametrize("form", FORMS)
def test_is_read_off_the_model(form):
    make, expected = FORMS[form]
    assert PixelScale.of(make()).range == expected


@pytest.mark.parametrize(
    "make",
    [
        plain,
        lambda: behind(L.Rescaling(0.25), plain),
        lambda: behind(L.Lambda(lambda x: (x - keras.ops.mean(x)) / keras.ops.std(x))),
    ],
    ids=["nothing scales", "to no usual range", "standardized by image"],
)
def test_is_asked_for_where_nothing_says_it(make, rng):
    model = make()
    with pytest.raises(ValueError, match=r"does not say which values it takes.*Pass `normalization=\(mean, std\)`"):
        PixelScale.of(model)
    for low, high in (PIXELS, UNIT, SCALED):
        assert PixelScale.of(model, rng.uniform(low, high, (4, *SHAPE))).range == (low, high)


def test_images_tell_of_a_bare_network_that_it_was_trained_on_another_range(rng):
    model, images = v2(), rng.uniform(0, 1, (4, *SHAPE)).astype("float32")
    assert PixelScale.of(model, images).range == UNIT
    assert PixelScale.of(model, 2 * images - 1).range == PixelScale.of(model, 255 * images).range == SCALED
    with pytest.raises(ValueError, match=r"saw inputs in \[0, 1\], but is quantized for \[-1, 1\].*=\(0, 1\)"):
        calibrate(quantize_model(model), images)


def test_values_and_back():
    pixels = np.arange(256, dtype="uint8").repeat(3).reshape(1, 16, 16, 3)
    for scale in (PixelScale.standardizing([124, 116, 104], [58, 57, 57]), PixelScale.between(-1, 1)):
        values = scale(pixels)
        assert values.dtype == "float32"
        np.testing.assert_array_equal(scale.pixels(values), pixels)
    assert (values.min(), values.max()) == (-1, 1)
    assert PixelScale([0.5] * 3, [1.0] * 3) == PixelScale(0.5, 1)
    with pytest.raises(ValueError, match="`scale` must not be 0"):
        PixelScale(0.0, 1.0)
    with pytest.raises(ValueError, match="std other than 0"):
        PixelScale.standardizing(1.0, 0.0)
