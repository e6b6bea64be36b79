"""What stands in front of a model: bringing pictures to size, and a scale for each channel."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers as L
from keras.applications.imagenet_utils import preprocess_input

from keras_mobilenets.diagnosis import quantization_report
from keras_mobilenets.export import export_saved_model, export_tflite
from keras_mobilenets.integer import integer_model
from keras_mobilenets.pixels import PixelScale
from keras_mobilenets.quantization import post_training_quantize, quantize_model
from keras_mobilenets.quantization.fronts import role_of
from keras_mobilenets.quantization.roles import Role
from keras_mobilenets.tflite import TFLiteModel

SIDE, INNER = 24, 16
BLOCKS = np.random.default_rng(0).integers(0, 256, (16, 6, 6, 3))
PICTURES = np.kron(BLOCKS, np.ones((1, 4, 4, 1))).astype("uint8")
MEAN, STD = (123.0, 116.0, 103.0), (58.0, 57.0, 40.0)


def network(x):
    for _ in range(2):
        x = L.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x)
    return L.Dense(3)(L.Flatten()(x))


def behind(front, size=SIDE, dtype=None):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((size, size, 3), dtype=dtype)
    return keras.Model(inputs, network(front(inputs)))


def scaled(x):
    return L.Rescaling(1 / 127.5, -1)(x)


def nested():
    keras.utils.set_random_seed(0)
    inner = keras.Input((INNER, INNER, 3))
    front = keras.Sequential([L.RandomFlip(), L.Resizing(INNER, INNER), L.Rescaling(1 / 127.5, -1)])
    return keras.Sequential([keras.Input((SIDE, SIDE, 3)), front, keras.Model(inner, network(inner))])


RESIZE = lambda **options: L.Resizing(INNER, INNER, **options)  # noqa: E731
SIZED = {  # the model, and whether a float file leaves the sizing out, too
    "Resizing": (lambda: behind(lambda x: scaled(RESIZE()(x))), False),
    "antialias": (lambda: behind(lambda x: scaled(RESIZE(antialias=True)(x))), True),
    "bicubic": (lambda: behind(lambda x: scaled(RESIZE(interpolation="bicubic")(x))), True),
    "padded by what is not 0": (
        lambda: behind(lambda x: L.Resizing(16, 24, pad_to_aspect_ratio=True)(scaled(x))),
        True,
    ),
    "CenterCrop, Normalization": (
        lambda: behind(lambda x: L.Normalization(mean=MEAN, variance=np.square(STD))(L.CenterCrop(INNER, INNER)(x))),
        False,
    ),
    "RandomCrop, CenterCrop": (lambda: behind(lambda x: L.CenterCrop(16, 16)(L.RandomCrop(16, 16)(scaled(x)))), False),
    "of any size": (lambda: behind(lambda x: scaled(RESIZE()(x)), None), True),
    "arithmetic before": (lambda: behind(lambda x: RESIZE()(x / 127.5 - 1)), False),
    "uint8": (lambda: behind(lambda x: keras.ops.cast(RESIZE()(x), "float32") / 127.5 - 1, dtype="uint8"), True),
    "nested": (nested, False),
}


@pytest.mark.parametrize("form", SIZED)
def test_a_file_takes_what_is_behind_the_sizing(form, tmp_path):
    make, always = SIZED[form]
    model = make()
    images = PICTURES if form == "uint8" else PICTURES.astype("float32")
    with pytest.warns(UserWarning, match="The app has to bring pictures to size: .*'image' as 16 x "):
        report = export_tflite(model, tmp_path / "m.tflite", quantize="int8", calibration=images, verbose=False)
    assert TFLiteModel(tmp_path / "m.tflite").input_shape[:2] in ((INNER, INNER), (16, 24))
    # The file beside the twin on whole pixels: rarely one lies half-way. Beside the model on the pictures: 8 bits.
    assert report.parity.max_steps < 2 and report.float_parity.outputs[0].noise < 0.05
    assert "RandomCrop" not in str(report.in_front)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = export_tflite(model, tmp_path / "f.tflite", verify=images, verbose=False)
    assert bool(report.in_front) is always
    assert any("The app has" in str(one.message) for one in caught) is always
    assert TFLiteModel(tmp_path / "f.tflite").input_shape[0] == (INNER if always else SIDE)


def test_sizing_through_every_door(tmp_path):
    """A saved twin exports by its path, is computed in integers, diagnosed on pictures of the outer size, served."""
    model, images = SIZED["Resizing"][0](), PICTURES.astype("float32")
    post_training_quantize(model, images).save(tmp_path / "q.keras")
    twin = keras.models.load_model(tmp_path / "q.keras")
    with pytest.warns(UserWarning, match="The app has to bring pictures to size"):
        export_tflite(tmp_path / "q.keras", tmp_path / "q.tflite", verify=images, verbose=False)
    file, pixels = TFLiteModel(tmp_path / "q.tflite"), PICTURES[:, :INNER, :INNER]
    np.testing.assert_array_equal(integer_model(twin).predict(pixels, verbose=0), file.predict(pixels, raw=True))
    assert twin.exact
    report = quantization_report(model, tmp_path / "q.tflite", images, verbose=False)
    assert report.outputs_db > 25  # 8 bits; on wrong pictures it is about 0
    made = export_saved_model(SIZED["of any size"][0](), tmp_path / "s", verify=images, verbose=False)
    assert made.signatures == {"serve": "float32 ? x None x None x 3", "serve_jpeg": "string ?"}


def test_crops_of_training_only(tmp_path):
    """Keras 3.15 gives back whole pictures at inference, whatever its symbolic shape says: so does the file."""
    if role_of(L.RandomCrop(2, 2)) is Role.FRONT:
        pytest.skip("this Keras crops at inference")
    crop = lambda x: scaled(L.RandomCrop(INNER, INNER)(x))  # noqa: E731
    with pytest.raises(ValueError, match=r"does not run at inference.*put keras.layers.CenterCrop"):
        export_tflite(behind(crop), tmp_path / "m.tflite", verbose=False)
    inputs = keras.Input((SIDE, SIDE, 3))
    model = keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(L.Conv2D(8, 3)(crop(inputs)))))
    images = PICTURES.astype("float32")
    report = export_tflite(model, tmp_path / "m.tflite", quantize="int8", calibration=images, verbose=False)
    assert report.audit.input == "uint8 1 x 24 x 24 x 3" and report.parity.max_steps < 2


def adapted(x):
    layer = L.Normalization()
    layer.adapt(PICTURES.astype("float32"))
    return layer(x)


CHANNELS = {
    "Normalization": lambda x: L.Normalization(mean=MEAN, variance=np.square(STD))(x),
    "adapted": adapted,
    "EfficientNet's": lambda x: L.Rescaling([2.0, 2.1, 2.2])(
        L.Normalization(mean=[0.5, 0.4, 0.3], variance=[0.05, 0.06, 0.07])(L.Rescaling(1 / 255)(x))
    ),
    "Rescaling": lambda x: L.Rescaling([1 / 50, 1 / 60, 1 / 70], [-2.0, -1.5, -1.0])(x),
    "arithmetic": lambda x: preprocess_input(x, mode="torch"),
    "caffe": lambda x: preprocess_input(x, mode="caffe"),
    "inverted": lambda x: L.Rescaling(-1 / 127.5, 1)(x),
    "nothing, standardized by its user": lambda x: x,
}


@pytest.mark.filterwarnings("error:Of model")  # nothing stays in float
@pytest.mark.parametrize("form", CHANNELS)
def test_a_scale_for_each_channel_becomes_integer(form, tmp_path):
    model = behind(CHANNELS[form])
    images, given = PICTURES.astype("float32"), {}
    if "user" in form:
        images, given = PixelScale.standardizing(MEAN, STD)(PICTURES), {"normalization": (MEAN, STD)}
    report = export_tflite(
        model, tmp_path / "m.tflite", quantize="int8", calibration=images, strict=True, verbose=False, **given
    )
    answers, expected = TFLiteModel(tmp_path / "m.tflite").predict(PICTURES), model.predict(images, verbose=0)
    # Raw pixels into the file, at the borders too. 8 bits on three layers: about .01.
    assert np.abs(answers - expected).mean() / expected.std() < 0.03
    assert report.parity.max_steps <= 2 and report.audit.is_integer


def test_uniform_normalization_needs_no_operation(tmp_path):
    model = behind(lambda x: L.Normalization(axis=None, mean=127.5, variance=127.5**2)(x))
    report = export_tflite(
        model, tmp_path / "m.tflite", quantize="int8", calibration=PICTURES.astype("float32"), verbose=False
    )
    assert "DEPTHWISE_CONV_2D" not in report.audit.operations and report.float_parity.outputs[0].noise < 0.03


@pytest.mark.parametrize("kind", ["Rescaling", "arithmetic", "Normalization"])
def test_tables_beside_pictures_are_taken_as_they_are(kind, tmp_path):
    """Columns of unlike ranges have no common grid: they are normalized in float, and the layer is named."""
    columns = np.random.default_rng(1).normal(size=(16, 4)) * [1, 10, 100, 1000] + [0, 50, 0, 3000]
    table, images = columns.astype("float32"), PICTURES / np.float32(127.5) - 1
    normalization = L.Normalization(name="columns")
    normalization.adapt(table)
    front = {"Rescaling": L.Rescaling(0.01), "arithmetic": lambda x: (x - 50.0) / 100.0, "Normalization": normalization}
    picture, numbers = keras.Input((SIDE, SIDE, 3), name="picture"), keras.Input((4,), name="table")
    both = L.Add()([L.GlobalAveragePooling2D()(L.Conv2D(8, 3)(picture)), L.Dense(8)(front[kind](numbers))])
    model = keras.Model([picture, numbers], L.Dense(3)(both))
    given = {"calibration": [images, table], "normalization": ((127.5,) * 3, (127.5,) * 3)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        report = export_tflite(model, tmp_path / "m.tflite", quantize="int8", verbose=False, **given)
    assert report.float_parity.outputs[0].noise < 0.05
    assert report.float_layers == (("columns",) if kind == "Normalization" else ())
    assert any("'columns'" in str(one.message) for one in caught) is (kind == "Normalization")


def test_adapted_statistics_survive_copies():
    mixed = L.Normalization(axis=(1, 2, 3), name="n")
    mixed.adapt(PICTURES.astype("float32"))
    inputs = keras.Input((SIDE, SIDE, 3))
    model = keras.Model(inputs, network(mixed(inputs)))
    with pytest.warns(UserWarning, match="'n'"):
        twin = quantize_model(model, input_range=(0, 255))
    given = PICTURES[:2].astype("float32")
    np.testing.assert_allclose(twin.get_layer("n")(given), mixed(given), rtol=1e-6)
