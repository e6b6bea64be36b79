"""Pixels in, names out; and no image normalized twice, or not at all, without a word."""

import inspect
import urllib.error
import urllib.request
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_mobilenets import MobileNet, MobileNetV2, MobileNetV3Small
from keras_mobilenets.applications import check_input_range, mobilenet, mobilenet_v2, mobilenet_v3, pretrained

SHAPE = (32, 32, 3)
MODULES = {
    "mobilenet": (mobilenet, keras.applications.mobilenet),
    "mobilenet_v2": (mobilenet_v2, keras.applications.mobilenet_v2),
    "mobilenet_v3": (mobilenet_v3, keras.applications.mobilenet_v3),
}
modules = pytest.mark.parametrize("module", MODULES)


@pytest.fixture
def pixels(rng):
    return rng.integers(0, 256, (2, *SHAPE)).astype("uint8")


@pytest.fixture
def silence():
    """Any warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@modules
@pytest.mark.parametrize("dtype", ["float32", "float64", "uint8", "int64"])
@pytest.mark.parametrize("data_format", [None, "channels_last", "channels_first"])
def test_equals_keras_applications(module, dtype, data_format, pixels, silence):
    ours, theirs = MODULES[module]
    x = pixels.astype(dtype)
    expected = theirs.preprocess_input(x.copy(), data_format=data_format)
    found = ours.preprocess_input(x, data_format)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(x, pixels)  # keras.applications changes an array of floats in place


@pytest.mark.parametrize("module", ["mobilenet", "mobilenet_v2"])
def test_tensors_and_pipelines(module, pixels, silence):
    preprocess_input = MODULES[module][0].preprocess_input
    expected = preprocess_input(pixels)
    np.testing.assert_array_equal(preprocess_input(tf.constant(pixels)), expected)
    np.testing.assert_array_equal(preprocess_input(keras.ops.convert_to_tensor(pixels, "float32")), expected)
    data = tf.data.Dataset.from_tensor_slices(pixels).map(preprocess_input).batch(2)
    np.testing.assert_array_equal(next(iter(data)), expected)
    symbolic = preprocess_input(keras.Input(SHAPE))
    assert symbolic.shape == (None, *SHAPE)
    assert preprocess_input([0, 255]).tolist() == [-1, 1]


@modules
def test_unknown_data_format(module, pixels):
    with pytest.raises(ValueError, match="`data_format` must be None.*Received: data_format='NHWC'"):
        MODULES[module][0].preprocess_input(pixels, "NHWC")


@modules
@pytest.mark.parametrize("scale", [lambda x: x / 127.5 - 1, lambda x: x / 255.0], ids=["[-1, 1]", "[0, 1]"])
def test_twice_is_noticed(module, scale, pixels):
    for x in (scale(pixels), tf.constant(scale(pixels)), scale(pixels)[0]):
        with pytest.warns(UserWarning, match="takes pixels in.*seem to be scaled already") as caught:
            MODULES[module][0].preprocess_input(x)
        assert caught[0].filename == __file__


@modules
def test_dark_pixels_are_still_pixels(module, silence):
    for image in (np.zeros((1, *SHAPE)), np.ones((1, *SHAPE), "uint8"), np.full((1, *SHAPE), 0.5) * 4):
        MODULES[module][0].preprocess_input(image)


def test_v3_preprocessing_agrees_with_the_model(pixels, silence):
    """Either way round the network sees the same: that is what `include_preprocessing` is for, in both places."""
    inside = MobileNetV3Small(SHAPE, alpha=0.25, weights=None, include_top=False)
    outside = MobileNetV3Small(SHAPE, alpha=0.25, weights=None, include_top=False, include_preprocessing=False)
    outside.set_weights(inside.get_weights())
    one = inside(mobilenet_v3.preprocess_input(pixels.astype("float32")))
    another = outside(mobilenet_v3.preprocess_input(pixels.astype("float32"), include_preprocessing=False))
    # The layer multiplies by 1/127.5 where the function divides: the last bit of an input in [-1, 1] may differ.
    np.testing.assert_allclose(one, another, rtol=1e-5, atol=1e-9)


TWICE = r"takes images with values in \[0, 255\], but these lie in \[-1, .*scaled already"
NOT_AT_ALL = r"takes images with values in \[-1, 1\], but these lie in \[0, 255\].*not to be scaled.*preprocess_input"


@pytest.fixture
def images(pixels):
    """The same photographs before and after scaling, from black to white."""
    pixels = pixels.astype("float32")
    pixels.flat[:2] = 0, 255
    return {"pixels": pixels, "scaled": pixels / 127.5 - 1}


def assert_notices(use, images, right, message):
    """`use` says nothing about the right images, and warns about the others."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*takes images")
        use(images.pop(right))
    with pytest.warns(UserWarning, match=message):
        use(*images.values())


class Batches(keras.utils.PyDataset):
    def __init__(self, images):
        super().__init__()
        self.images = images

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.images, np.zeros(len(self.images))


@pytest.mark.parametrize(
    ("make", "right", "message"),
    [
        (lambda: MobileNetV3Small(SHAPE, alpha=0.25, weights=None), "pixels", TWICE),
        (lambda: MobileNetV3Small(SHAPE, alpha=0.25, weights=None, include_preprocessing=False), "scaled", NOT_AT_ALL),
        (lambda: MobileNetV2(SHAPE, alpha=0.35, weights=None), "scaled", NOT_AT_ALL),
    ],
    ids=["V3", "V3 without preprocessing", "V2"],
)
def test_models_notice(make, right, message, images):
    model = make()
    around = keras.Sequential([keras.Input(SHAPE), model])
    forms = (
        lambda x: check_input_range(model, tf.constant(x)),
        lambda x: check_input_range(around, ({"table": np.zeros((len(x), 2)), "image": x}, None)),
        lambda x: check_input_range(model, tf.data.Dataset.from_tensors((x, np.zeros(len(x))))),
        lambda x: check_input_range(model, Batches(x)),
    )
    for use in forms:
        assert_notices(use, dict(images), right, message)


def test_notice_passes_over_what_has_no_values(pixels, silence):
    model = MobileNet(SHAPE, alpha=0.25, weights=None, classes=2)
    for given in (iter([pixels]), keras.Input(SHAPE), None, tf.data.Dataset.from_tensors(pixels).take(0)):
        check_input_range(model, given)


@modules
def test_decode_predictions(module, monkeypatch):
    theirs = inspect.getmodule(keras.applications.imagenet_utils.decode_predictions)
    index = {str(i): [f"n{i:08}", f"class {i}"] for i in range(1000)}
    monkeypatch.setattr(theirs, "CLASS_INDEX", index)
    monkeypatch.setattr(pretrained, "_fetch", lambda name, url, md5: None)
    scores = np.linspace(0, 1, 1000, dtype="float32")[None]
    assert MODULES[module][0].decode_predictions(scores, top=2) == [
        [("n00000999", "class 999", 1.0), ("n00000998", "class 998", scores[0, 998])]
    ]
    assert len(MODULES[module][0].decode_predictions(tf.constant(scores))[0]) == 5


def test_decode_predictions_of_another_shape():
    with pytest.raises(ValueError, match=r"`preds` must have the shape \(batch, 1000\). Received: .*\(2, 10\)"):
        mobilenet.decode_predictions(np.zeros((2, 10)))


def test_decode_predictions_offline(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no network in tests")

    fetch = keras.utils.get_file
    monkeypatch.setattr(keras.utils, "get_file", lambda *args, **kwargs: fetch(*args, **kwargs, cache_dir=tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", offline)
    with pytest.raises(ConnectionError, match="imagenet_class_index.json"):
        mobilenet_v2.decode_predictions(np.zeros((1, 1000)))
