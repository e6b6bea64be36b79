"""What cannot be exported, or not well, ends in one sentence: no crash, no page of a converter, no absurd file."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from export_models import CLASSES, SIZE, images, tiny

from keras_mobilenets.export import export_onnx, export_saved_model, export_tflite, parity
from keras_mobilenets.export.signature import Signature
from keras_mobilenets.layers import DepthwiseSeparableConv
from keras_mobilenets.quantization import calibrate, quantize_model


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    return tiny()


@pytest.mark.parametrize("quantize", [None, "int8"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers(value, quantize, tmp_path):
    """The runtime dies of them."""
    broken = tiny()
    broken.get_layer("logits").kernel.assign(np.full_like(broken.get_layer("logits").kernel, value))
    with pytest.raises(ValueError, match="weights that are not finite numbers .* in 'logits/kernel'"):
        export_tflite(broken, tmp_path / "m.tflite", quantize=quantize, calibration=images(8), verbose=False)


def test_pictures_that_are_no_numbers(model, tmp_path):
    pictures = images(8)
    pictures[5, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="`calibration` holds values that are not finite .* number 5"):
        export_tflite(model, tmp_path / "m.tflite", quantize="int8", calibration=pictures, verbose=False)
    assert not list(tmp_path.iterdir())


def test_numbers_that_are_none_only_once_they_are_folded(tmp_path):
    """The runtime dies of them."""
    broken = tiny()
    variance = next(one for one in broken.variables if one.path.endswith("stem_dw_bn/moving_variance"))
    variance.assign(-np.ones(variance.shape))
    twin = quantize_model(broken)
    with pytest.raises(ValueError, match="'stem_dw_bn_.*quant' saw values that are not finite|'stem_.*quant' saw"):
        calibrate(twin, images(8))
    variance.assign(np.ones(variance.shape))
    twin = quantize_model(broken)
    calibrate(twin, images(8))
    next(one for one in twin.variables if one.path.endswith("stem_dw_bn/moving_variance")).assign(variance * -1)
    with pytest.raises(ValueError, match="'stem_dw' has weights that are not finite numbers, once the normalization"):
        export_tflite(twin, tmp_path / "m.tflite", verify=images(8), verbose=False)
    pictures = images(8)
    pictures[5, 0, 0, 0] = np.inf
    with pytest.raises(ValueError, match="'image_quant' saw values that are not finite"):
        calibrate(twin, pictures)


@pytest.mark.parametrize("export", [export_tflite, export_onnx])
def test_a_keras_model_is_not_replaced(export, model, tmp_path):
    (tmp_path / "model.keras").write_bytes(b"weeks of work")
    with pytest.raises(ValueError, match="`path` is that of the file to write"):
        export(model, tmp_path / "model.keras", verbose=False)
    assert (tmp_path / "model.keras").read_bytes() == b"weeks of work"


def test_the_converter_is_quoted_in_a_sentence(tmp_path, capfd):
    class Cross(keras.layers.Layer):
        def call(self, inputs):
            return tf.raw_ops.BitwiseXor(x=tf.cast(inputs, tf.int64), y=tf.cast(inputs, tf.int64)) + tf.cast(
                tf.math.igamma(inputs, inputs), tf.int64
            )

        def compute_output_shape(self, shape):
            return shape

    inputs = keras.Input((4,))
    odd = keras.Model(inputs, Cross(name="cross")(inputs), name="odd")
    with pytest.raises(ValueError, match=r"odd cannot be converted to float32: .*Replace it by other layers") as caught:
        export_tflite(odd, tmp_path / "m.tflite", verbose=False)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500 and "Igamma" in str(caught.value)
    assert "error:" not in capfd.readouterr().err


def test_an_absurd_file_is_not_written(model, tmp_path, monkeypatch):
    """As if the converter had wired a wrong quantizer: the file of other weights."""
    twin = quantize_model(model)
    calibrate(twin, images(32))
    other = quantize_model(tiny())
    other.get_layer("logits").bias.assign(np.arange(CLASSES) * 5.0)
    calibrate(other, images(32))
    from keras_mobilenets.export import precisions

    deployable = precisions.deployable
    monkeypatch.setattr(precisions, "deployable", lambda given, **options: deployable(other, **options))
    with pytest.raises(RuntimeError, match=r"'predictions' is off by \d\.\d\d of its standard deviation"):
        export_tflite(twin, tmp_path / "m.tflite", verify=images(32), verbose=False)
    assert not list(tmp_path.iterdir())


def test_the_limits_lie_between_good_files_and_absurd_ones():
    rng = np.random.default_rng(0)
    exact = rng.normal(0, 1, (64, 10)).astype("float32")
    for noise, poor, absurd in [(0.1, False, False), (0.4, True, False), (0.9, True, True)]:
        # The mean of an absolute normal value is 0.8 of its deviation.
        answers = exact + rng.normal(0, noise / 0.8, exact.shape)
        found = parity.measure({"a": exact}, {"a": answers}, "verify", steps={"a": 0.03})
        assert bool(parity.losses(found)) is poor
        assert found.outputs[0].exceeds(parity.ABSURD) is absurd
    flat = np.full((64, 10), 0.1, np.float32) + rng.normal(0, 1e-5, (64, 10)).astype("float32")
    rounded = parity.measure({"a": flat}, {"a": np.full_like(flat, 26 / 256)}, "verify", steps={"a": 1 / 256})
    parity.require_alike(rounded)  # nothing but a step of rounding, whatever the output's spread


def test_post_training_quantization_that_loses_much_is_told(tmp_path):
    """Weights of one channel so far above the others' maps that these are rounded away."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((SIZE, SIZE, 3))
    maps = keras.layers.Conv2D(8, 3, strides=2, name="maps")(inputs)
    pooled = keras.layers.GlobalAveragePooling2D()(maps)
    model = keras.Model(inputs, keras.layers.Dense(3, name="scores")(pooled))
    bias, kernel = np.zeros(8), model.get_layer("scores").kernel.numpy()
    bias[0], kernel[0] = 4000.0, 0.0
    model.get_layer("maps").bias.assign(bias)
    model.get_layer("scores").kernel.assign(kernel)
    with pytest.warns(UserWarning, match=r"'scores' differs from the float model's by \d"):
        report = export_tflite(model, tmp_path / "m.tflite", quantize="int8", calibration=images(32), verbose=False)
    assert report.warnings and report.float_parity.outputs[0].noise > parity.POOR


def test_what_stays_in_float_is_a_row_of_the_report(tmp_path, capsys):
    inputs = keras.Input((SIZE, SIZE, 3))
    maps = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    scores = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(keras.layers.ELU(name="bent")(maps)))
    with pytest.warns(UserWarning, match="stay in float.*'bent'"):
        report = export_tflite(
            keras.Model(inputs, scores), tmp_path / "m.tflite", quantize="int8", calibration=images(8)
        )
    assert report.float_layers == tuple(report.to_dict()["float_layers"]) == ("bent",)
    assert re.search(r"in float .*bent", capsys.readouterr().out)
    again = export_tflite(keras.Model(inputs, scores), tmp_path / "m.tflite", verify=images(4), verbose=False)
    assert again.quantize is None and again.float_layers == ()


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_any_door_knows_the_layers(model, suffix, tmp_path):
    quantized = quantize_model(model)
    calibrate(quantized, images(8))
    quantized.save(tmp_path / f"m{suffix}")
    report = export_tflite(tmp_path / f"m{suffix}", tmp_path / "m.tflite", verify=images(4), verbose=False)
    assert report.quantize == "int8"


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_pictures_are_served_where_pictures_have_such_channels(channels, tmp_path):
    inputs = keras.Input((SIZE, SIZE, channels))
    scores = keras.layers.GlobalAveragePooling2D()(DepthwiseSeparableConv(4)(keras.layers.Rescaling(1 / 255)(inputs)))
    report = export_saved_model(keras.Model(inputs, scores), tmp_path / "1", verbose=False)
    assert set(report.signatures) == ({"serve", "serve_jpeg"} if channels == 1 else {"serve"})


def test_names_are_made_unique():
    inputs = keras.Input((4,))
    shared = keras.layers.Dense(2, name="twice")
    once = shared(inputs)
    model = keras.Model(inputs, [once, shared(keras.layers.ReLU()(inputs))])
    assert list(Signature.of(model).outputs) == ["twice", "twice_1"]
