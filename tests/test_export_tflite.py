"""export_tflite: each kind of file answers as the Keras model, is whole or absent, and says what it is."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from export_models import CLASSES, LABELS, SIZE, images, tiny
from runs import slow_but

import keras_mobilenets
from keras_mobilenets.export import equality, export_tflite
from keras_mobilenets.quantization import calibrate, quantize_model
from keras_mobilenets.tflite import TFLiteModel, read_tflite

pytestmark = pytest.mark.usefixtures("eagerly")


@pytest.fixture
def model(tiny_model) -> keras.Model:
    return tiny_model


@pytest.fixture
def quantized(tiny_twin) -> keras.Model:
    return tiny_twin


@pytest.fixture
def integer(tiny_export):
    return tiny_export


def test_float_file_answers_as_keras(model, tmp_path):
    report = export_tflite(model, tmp_path / "m.tflite", verify=images(16), verbose=False)
    # Float kernels differ in the order of their sums: 1e-5 of a probability is some 100 roundings.
    assert report.parity.max_difference < 1e-5
    assert report.parity.agreement == 1.0
    assert (report.parity.images, report.parity.source, report.quantize) == (16, "verify", None)
    answers = TFLiteModel(tmp_path / "m.tflite").predict(images(3))
    np.testing.assert_allclose(answers, model.predict(images(3), verbose=0), atol=1e-5)


@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize(
    "family", slow_but(["MobileNet", "MobileNetV2", "MobileNetV3Small", "MobileNetV3Large"], "MobileNet")
)
def test_heads_of_one_and_of_two_outputs(family, classes, tmp_path):
    """Axes of a mean and the shape of two classes may be one constant, [1, 2], which only one of them gives up."""
    activation = "softmax" if classes == 2 else "sigmoid"
    arguments = {"weights": None, "alpha": 0.25 if family == "MobileNet" else 0.35, "minimalistic": True}
    if family in ("MobileNet", "MobileNetV2"):
        del arguments["minimalistic"]
    build = getattr(keras_mobilenets, family)
    model = build((64, 64, 3), classes=classes, classifier_activation=activation, **arguments)
    report = export_tflite(model, tmp_path / "m.tflite", verbose=False)
    assert report.audit.output == f"float32 1 x {classes}" and report.audit.partitions == 1


def test_integer_file_is_integer_and_answers_as_the_quantized_model(integer):
    _, report = integer
    assert report.quantize == "int8"
    assert report.audit.is_integer and not report.audit.conversions_inside
    assert report.audit.operations["QUANTIZE"] == 1  # int8 scores to uint8; the pixels go in by CAST, ADD and SUB
    assert report.audit.depthwise_per_channel and report.audit.partitions == 1
    assert report.parity.equal == report.parity.images == 32 and report.parity.agreement == 1.0
    assert report.inexact is None and not report.warnings
    assert report.float_agreement is None


def test_uint8_file_takes_raw_pixels(integer, quantized):
    path, _ = integer
    floats = images(16, seed=3)
    pixels = np.rint((floats + 1) * 127.5).astype(np.uint8)
    file = TFLiteModel(path)
    assert (file.input_dtype, file.input_shape) == ("uint8", (SIZE, SIZE, 3))
    np.testing.assert_array_equal(file.predict(pixels), file.predict(floats))
    np.testing.assert_array_equal(file.predict(pixels), quantized.predict(pixels / np.float32(127.5) - 1, verbose=0))


@pytest.mark.parametrize("input_dtype", ["int8", "float32"])
def test_other_input_dtypes_answer_alike(quantized, integer, input_dtype, tmp_path):
    path = tmp_path / "m.tflite"
    export_tflite(quantized, path, input_dtype=input_dtype, verify=images(8), verbose=False, strict=True)
    pixels = np.rint((images(16) + 1) * 127.5).astype(np.uint8)
    file = TFLiteModel(path)
    assert file.input_dtype == input_dtype
    np.testing.assert_array_equal(file.predict(pixels), TFLiteModel(integer[0]).predict(pixels))


def test_pixels_into_a_model_with_rescaling_inside(tmp_path):
    """V3 takes pixels: its Rescaling leaves no operation behind, and the bytes go in as they are."""
    inputs = keras.Input((SIZE, SIZE, 3))
    normalized = keras.layers.Rescaling(1 / 127.5, offset=-1.0)(inputs)
    model = keras.Model(inputs, tiny()(normalized))
    pixels = np.rint((images(32) + 1) * 127.5).astype("float32")
    report = export_tflite(
        model, tmp_path / "m.tflite", quantize="int8", calibration=pixels, strict=True, verbose=False
    )
    assert set(report.audit.operations) <= {
        *("CAST", "SUB", "QUANTIZE", "CONV_2D", "DEPTHWISE_CONV_2D", "ADD", "MEAN", "RESHAPE", "SOFTMAX"),
    }
    file = TFLiteModel(tmp_path / "m.tflite")
    assert file.normalization.mean == (0.0,) and file.normalization.std == (1.0,)
    np.testing.assert_array_equal(file.predict(pixels.astype(np.uint8)), file.predict(pixels))
    assert report.parity.equal == 32 and report.float_agreement >= 0.8


def test_hard_swish_with_squeeze_excite_in_integers(tmp_path):
    model = tiny(activation="hard_swish", se_ratio=0.25)
    report = export_tflite(
        model, tmp_path / "m.tflite", quantize="int8", calibration=images(32), strict=True, verbose=False
    )
    assert "HARD_SWISH" not in report.audit.operations and report.audit.partitions == 1
    assert report.parity.equal == 32


@pytest.mark.parametrize(("quantize", "limit"), [("dynamic", 0.1), ("float16", 0.01), ("int16x8", 0.1)])
def test_other_schemes(quantize, limit, tmp_path):
    """8-bit kernels move a probability by a few percent, 16-bit floats by their 11 bits of mantissa."""
    model = tiny(width=32)  # the converter leaves kernels of fewer than 1024 weights in float
    report = export_tflite(
        model, tmp_path / "m.tflite", quantize=quantize, calibration=images(32), input_dtype="uint8", verbose=False
    )
    assert report.quantize == quantize
    assert report.parity.max_difference < limit
    assert report.audit.partitions == (0 if quantize == "int16x8" else 1)  # XNNPACK has nothing for 16-bit integers
    whole = export_tflite(model, tmp_path / "f.tflite", verbose=False).audit
    assert report.audit.bytes_by_use["weights"] <= 0.6 * whole.bytes_by_use["weights"]


def test_hard_swish_in_int16x8(tmp_path):
    """The converter has no 16-bit HARD_SWISH: it is taken apart."""
    model = tiny(activation="hard_swish")
    report = export_tflite(model, tmp_path / "m.tflite", quantize="int16x8", calibration=images(32), verbose=False)
    assert "HARD_SWISH" not in report.audit.operations
    assert report.parity.agreement >= 0.9


def test_quantization_aware_int16x8(tmp_path):
    """From fake quantization of 16 bits: what was trained, to a few of 32768 steps."""
    twin = quantize_model(tiny(), activation_bits=16)
    calibrate(twin, images(32))
    with pytest.raises(ValueError, match="`quantize` must be 'int16x8'"):
        export_tflite(twin, tmp_path / "m.tflite", quantize="int8")
    report = export_tflite(twin, tmp_path / "m.tflite", verify=images(16), strict=True, verbose=False)
    assert report.quantize == "int16x8" and report.audit.input == f"float32 1 x {SIZE} x {SIZE} x 3"
    assert report.parity.agreement == 1.0 and report.parity.max_difference < 2e-3
    dtypes = {tensor.dtype for tensor in read_tflite(tmp_path / "m.tflite").graph.tensors}
    assert dtypes == {"float32", "int16", "int8", "int32", "int64"}  # int32: shapes


def test_quantized_model_as_float(quantized, tmp_path):
    report = export_tflite(quantized, tmp_path / "m.tflite", quantize=None, verbose=False)
    assert report.audit.input == f"float32 1 x {SIZE} x {SIZE} x 3" and report.parity.max_difference < 1e-5


def test_size_is_asked_for(tmp_path):
    model = tiny(size=None)
    with pytest.raises(ValueError, match="input_shape=.height, width, channels."):
        export_tflite(model, tmp_path / "m.tflite")
    export_tflite(model, tmp_path / "m.tflite", input_shape=(48, 32, 3), verbose=False)
    assert TFLiteModel(tmp_path / "m.tflite").input_shape == (48, 32, 3)
    with pytest.raises(ValueError, match="must fit the model's"):
        export_tflite(tiny(), tmp_path / "m.tflite", input_shape=(48, 32, 3))


@pytest.mark.parametrize("dynamic_batch", [False, True])
def test_any_batch_in_one_piece(model, dynamic_batch, tmp_path):
    """Without SHAPE, STRIDED_SLICE and PACK, which no delegate takes; a signature runner resizes by itself."""
    from ai_edge_litert.interpreter import Interpreter

    path = tmp_path / "m.tflite"
    report = export_tflite(model, path, dynamic_batch=dynamic_batch, verbose=False)
    assert report.audit.partitions == 1 and not report.audit.undelegated
    assert read_tflite(path).graph.tensors[0].signature[0] == (-1 if dynamic_batch else 1)
    runner = Interpreter(model_path=str(path)).get_signature_runner()
    expected = model.predict(images(5), verbose=0)
    np.testing.assert_allclose(runner(image=images(5))["predictions"], expected, atol=1e-5)
    np.testing.assert_allclose(TFLiteModel(path).predict(images(5)), expected, atol=1e-5)


def test_mixed_precision_is_exported_in_float32(tmp_path):
    model = tiny(dtype="mixed_float16")
    report = export_tflite(model, tmp_path / "m.tflite", verify=images(8), verbose=False)
    assert "CAST" not in report.audit.operations and report.audit.input.startswith("float32")
    assert report.parity.agreement == 1.0


def test_keras_file_nested_and_sequential(model, tmp_path):
    nested = keras.Sequential([keras.Input((SIZE, SIZE, 3)), model, keras.layers.Dense(2, activation="softmax")])
    nested.save(tmp_path / "m.keras")
    report = export_tflite(tmp_path / "m.keras", tmp_path / "m.tflite", verify=images(4), verbose=False)
    assert report.audit.output == "float32 1 x 2" and report.parity.max_difference < 1e-5
    with pytest.raises(FileNotFoundError, match=r"nowhere\.keras"):
        export_tflite(tmp_path / "nowhere.keras", tmp_path / "m.tflite")


def test_subclassed_model(model, tmp_path):
    class Subclassed(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = model

        def call(self, image):
            return self.inner(image)

    report = export_tflite(
        Subclassed(), tmp_path / "m.tflite", input_shape=(SIZE, SIZE, 3), verify=images(4), verbose=False
    )
    assert report.parity.max_difference < 1e-5


def test_several_outputs(model, tmp_path):
    features = model.get_layer("pool").output
    both = keras.Model(model.input, {"features": features, "scores": model.output})
    report = export_tflite(both, tmp_path / "m.tflite", quantize="int8", calibration=images(16), verbose=False)
    outputs = TFLiteModel(tmp_path / "m.tflite").predict(images(2))
    assert {name: one.shape for name, one in outputs.items()} == {"features": (2, 1, 1, 16), "scores": (2, CLASSES)}
    assert report.parity.equal == 16


def test_labels_and_normalization_inside(integer, tmp_path):
    path, report = integer
    assert TFLiteModel(path).labels == LABELS and report.labels == CLASSES
    (tmp_path / "labels.txt").write_text("\n".join(LABELS), encoding="utf-8")
    other = tmp_path / "m.tflite"
    export_tflite(tiny(), other, labels=tmp_path / "labels.txt", normalization=(0, 255), verbose=False)
    assert read_tflite(other).labels == LABELS
    np.testing.assert_allclose(read_tflite(other).normalization(np.uint8([255])), 1.0)
    with pytest.raises(FileNotFoundError, match=r"none\.txt"):
        export_tflite(tiny(), other, labels=tmp_path / "none.txt")


def test_home_and_links_at_every_door(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "link.tflite").symlink_to("m.tflite")
    (tmp_path / "labels.txt").write_text("\n".join(LABELS), encoding="utf-8")
    model.save(tmp_path / "m.keras")
    report = export_tflite("~/m.keras", "~/link.tflite", labels="~/labels.txt", verbose=False)
    assert report.path == tmp_path / "link.tflite" and report.path.is_symlink()
    assert TFLiteModel("~/m.tflite").labels == read_tflite("~/link.tflite").labels == LABELS
    with pytest.raises(FileExistsError, match="which is a folder"):
        export_tflite(model, "~", verbose=False)


def test_same_model_same_bytes(quantized, integer, tmp_path):
    export_tflite(quantized, tmp_path / "again.tflite", labels=LABELS, verify=images(32), verbose=False)
    assert (tmp_path / "again.tflite").read_bytes() == integer[0].read_bytes()


def test_a_difference_is_found_and_said(quantized, tmp_path, monkeypatch):
    """Of logits too, which the softmax may hide: here of one image."""
    run = equality._run
    monkeypatch.setattr(equality, "_run", lambda *given: [one + np.eye(len(one), 1)[:, 0, None] for one in run(*given)])
    with pytest.warns(UserWarning, match=r"answers 1 of 8 images otherwise than the quantized model evaluates them"):
        report = export_tflite(quantized, tmp_path / "m.tflite", verify=images(8), verbose=False)
    assert report.parity.equal == 7 and report.warnings and "equal on 7 of 8" in str(report.parity)


def test_what_is_not_exact_is_measured_and_says_why(tmp_path):
    inputs = keras.Input((8, 8, 3))
    scores = keras.layers.Softmax(axis=1, name="rows")(keras.layers.Conv2D(2, 1)(inputs))
    model = keras.Model(inputs, scores)
    report = export_tflite(
        model, tmp_path / "m.tflite", quantize="int8", calibration=images(4)[:, :8, :8], verbose=False
    )
    assert "rows (Softmax) has no integer form" in report.inexact and report.parity.equal is None
    assert "equal" not in str(report.parity)


def test_report_prints_and_serializes(integer, capsys):
    _, report = integer
    report.print()
    shown = capsys.readouterr().out
    assert "equal on 32 of 32 given images, to the bit" in shown and "MAdds" in shown
    assert json.loads(json.dumps(report.to_dict()))["audit"]["is_integer"] is True


def test_strict_writes_nothing(model, tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="Not integer throughout.*CONV_2D"):
        export_tflite(model, path, strict=True)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (
            OSError(28, "No space left on device"),
            "m.tflite could not be written and is as it was before: No space left",
        ),
        (KeyboardInterrupt("stopped"), "stopped"),
    ],
)
def test_failed_write_leaves_the_old_file(model, error, shown, tmp_path, monkeypatch):
    path = tmp_path / "m.tflite"
    path.write_bytes(b"old")

    def fail(self, content):
        open(self, "wb").close()  # what a full disk leaves
        raise error

    monkeypatch.setattr("pathlib.Path.write_bytes", fail)
    with pytest.raises(type(error), match=shown):
        export_tflite(model, path, verbose=False)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"quantize": "int4"}, r"`quantize` must be one of.*'int8'.*Received: quantize='int4'"),
        ({"input_dtype": "float64"}, "`input_dtype` must be one of.*Received: input_dtype='float64'"),
        ({"labels": ["one"]}, "`labels` must name the model's 5 classes. Received: 1 names"),
        ({"quantize": "int8"}, "pass `calibration`"),
        ({"quantize": "int8", "calibration": np.zeros((0, SIZE, SIZE, 3))}, "no images"),
        ({"verify": np.zeros((SIZE, SIZE, 3))}, r"Received: shape \(32, 32, 3\)"),
        ({"normalization": (0, 0)}, "std other than 0"),
    ],
)
def test_bad_arguments(model, arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        export_tflite(model, tmp_path / "m.tflite", **arguments)
    assert not list(tmp_path.iterdir())


def test_other_backends_are_told_what_to_do(model, tmp_path, monkeypatch):
    monkeypatch.setattr("keras.backend.backend", lambda: "jax")
    with pytest.raises(RuntimeError, match="keras-mobilenets export"):
        export_tflite(model, tmp_path / "m.tflite")


@pytest.mark.slow
def test_calibration_in_whatever_fit_takes(model, tmp_path):
    import tensorflow as tf

    class Sequence(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return images(16)[8 * index : 8 * index + 8], np.zeros(8)

    def generator():
        while True:
            yield images(16), np.zeros(16)

    sources = [images(16), Sequence(), tf.data.Dataset.from_tensor_slices((images(16), np.zeros(16))).batch(8)]
    counts = []
    for source in [*sources, generator()]:
        report = export_tflite(model, tmp_path / "m.tflite", quantize="int8", calibration=source, verbose=False)
        counts.append(report.parity.images)
    assert counts == [16, 16, 16, 64]  # a generator without end gives as many as are used
