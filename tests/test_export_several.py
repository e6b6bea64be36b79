"""Several inputs and outputs: images and vectors by the names that Keras has for them, in files of every kind."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_mobilenets.export import export_onnx, export_saved_model, export_tflite
from keras_mobilenets.quantization import calibrate, quantize_model
from keras_mobilenets.tflite import TFLiteModel, read_tflite

COUNT, SIZE = 16, 16
RANDOM = np.random.default_rng(0)
PICTURES = RANDOM.uniform(-1, 1, (COUNT, SIZE, SIZE, 3)).astype("float32")
TABLE = RANDOM.normal(size=(COUNT, 5)).astype("float32")


def tower(value):
    value = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(value)
    return keras.layers.GlobalAveragePooling2D()(value)


def image_and_table():
    picture, table = keras.Input((SIZE, SIZE, 3), name="picture"), keras.Input((5,), name="table")
    both = keras.layers.Add()([tower(picture), keras.layers.Dense(8, activation="relu")(table)])
    model = keras.Model([table, picture], keras.layers.Dense(3, activation="softmax", name="scores")(both))
    return model, {"picture": PICTURES, "table": TABLE}


def siamese():
    inputs = {name: keras.Input((SIZE, SIZE, 3), name=name) for name in ("right", "left")}
    image = keras.Input((SIZE, SIZE, 3))
    base = keras.Model(image, tower(image))
    difference = keras.layers.Subtract()([base(inputs["left"]), base(inputs["right"])])
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(difference))
    return model, {"left": PICTURES, "right": PICTURES[::-1]}


def frames():
    image, given = keras.Input((SIZE, SIZE, 3)), keras.Input((4, SIZE, SIZE, 3), name="frames")
    base = keras.Model(image, tower(image))
    mean = keras.layers.GlobalAveragePooling1D()(keras.layers.TimeDistributed(base)(given))
    return keras.Model(given, keras.layers.Dense(3)(mean)), {"frames": PICTURES.reshape(-1, 4, SIZE, SIZE, 3)}


def detector():
    picture = keras.Input((SIZE, SIZE, 3), name="picture")
    features = tower(picture)
    scores, boxes = keras.layers.Dense(4, activation="softmax")(features), keras.layers.Dense(4)(features)
    outputs = {"scores": scores, "boxes": boxes}
    return keras.Model(picture, outputs), {"picture": PICTURES}


MODELS = [image_and_table, siamese, frames, detector]


def answers_of(model, given):
    found = model.predict(given if len(given) > 1 else next(iter(given.values())), verbose=0)
    return found if isinstance(found, dict) else {"": found}


@pytest.mark.filterwarnings("ignore:Of model")  # TimeDistributed stays in float
@pytest.mark.parametrize("quantize", [None, "int8"])
@pytest.mark.parametrize("make", MODELS)
def test_files_take_and_give_by_name(make, quantize, tmp_path):
    keras.utils.set_random_seed(0)
    model, given = make()
    report = export_tflite(model, tmp_path / "m.tflite", quantize=quantize, calibration=given, verbose=False)
    assert report.parity.equal == (report.parity.images if quantize and make is not frames else None)
    file = TFLiteModel(tmp_path / "m.tflite")
    assert set(file.input_names) == set(given)
    expected = answers_of(model, given)
    found = file.predict(given)
    found = found if isinstance(found, dict) else {"": found}
    assert set(found) == set(expected) and len(report.parity.outputs) == len(expected)
    for name, values in expected.items():
        # 8 bits of untrained scores: a few of 256 steps, and the spread of the outputs is about 1.
        np.testing.assert_allclose(found[name], values, atol=1e-5 if quantize is None else 0.1)
    in_order = file.predict([given[name] for name in file.input_names])
    np.testing.assert_array_equal(next(iter(found.values())), next(iter(answers(in_order).values())))
    runner = file.file.signatures["serving_default"]
    assert list(runner["inputs"]) == list(file.input_names) == [one.name for one in file.file.inputs]


@pytest.mark.needs("onnxruntime", "tf2onnx")
@pytest.mark.parametrize("make", [image_and_table, detector])
def test_onnx_files_take_and_give_by_name(make, tmp_path):
    import onnxruntime

    model, given = make()
    report = export_onnx(model, tmp_path / "m.onnx", verify=given, verbose=False)
    assert set(report.signatures) == set(given)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    assert {one.name for one in session.get_inputs()} == set(given)
    found = session.run(None, {name: values[:5] for name, values in given.items()})
    expected = [values[:5] for _, values in sorted(answers_of(model, given).items())]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


def answers(found):
    return found if isinstance(found, dict) else {"": found}


@pytest.mark.parametrize("make", [image_and_table, siamese, detector])
def test_saved_models_take_and_give_by_name(make, tmp_path):
    model, given = make()
    report = export_saved_model(model, tmp_path / "m", normalization=None, verify=given, verbose=False)
    assert set(report.signatures) == {"serve"}
    default = tf.saved_model.load(str(tmp_path / "m")).signatures["serving_default"]
    found = default(**{name: tf.constant(values) for name, values in given.items()})
    for name, values in answers_of(model, given).items():
        np.testing.assert_allclose(found[name] if name else next(iter(found.values())), values, atol=1e-5)


@pytest.mark.parametrize(
    "data",
    [
        lambda left, right: {"left": left, "right": right},
        lambda left, right: ({"left": left, "right": right}, np.zeros(len(left))),
        lambda left, right: [left, right],
        lambda left, right: ((left, right), np.zeros(len(left))),
        lambda left, right: tf.data.Dataset.from_tensor_slices(({"left": left, "right": right}, range(COUNT))).batch(5),
        lambda left, right: iter([((left, right), None)]),
    ],
)
def test_calibration_in_whatever_fit_takes(data, tmp_path):
    model, _ = siamese()
    report = export_tflite(
        model, tmp_path / "m.tflite", verify=data(PICTURES, PICTURES[::-1]), normalization=None, verbose=False
    )
    assert (report.parity.source, report.parity.images) == ("verify", COUNT)


def test_what_does_not_fit_is_told(tmp_path):
    model, given = image_and_table()
    for bad in ({"picture": PICTURES}, [PICTURES, TABLE], PICTURES, {**given, "table": TABLE[:, :4]}):
        with pytest.raises(ValueError, match=r"`verify` must give what the model takes, table: .*, picture: "):
            export_tflite(model, tmp_path / "m.tflite", verify=bad, verbose=False)
    export_tflite(model, tmp_path / "m.tflite", verify=given, verbose=False)
    file = TFLiteModel(tmp_path / "m.tflite")
    for bad, shown in [
        ({"picture": PICTURES}, "takes table, picture. Received: picture"),
        ([TABLE, PICTURES[:3]], r"must be as many. Received: \[16, 3\]"),
        ([PICTURES, TABLE], r"`table` must be of shape \(batch, 5\)"),
    ]:
        with pytest.raises(ValueError, match=shown):
            file.predict(bad)


def test_labels_and_agreement_are_of_the_scores(tmp_path):
    """Boxes have four coordinates, and there are four classes."""
    model, given = detector()
    with pytest.raises(ValueError, match="fit the outputs boxes, scores"):
        export_tflite(model, tmp_path / "m.tflite", labels=list("abcd"), verify=given, verbose=False)
    report = export_tflite(model, tmp_path / "m.tflite", labels={"scores": list("abcd")}, verify=given, verbose=False)
    assert {one.name: one.agreement for one in report.parity.outputs} == {"boxes": None, "scores": 1.0}
    assert {one.name: one.labels for one in read_tflite(tmp_path / "m.tflite").outputs} == {
        "boxes": (),
        "scores": tuple("abcd"),
    }


def test_the_file_says_which_layer_made_which_tensor(tmp_path):
    inputs = keras.Input((SIZE, SIZE, 3))
    swish = keras.layers.Activation("hard_swish", name="swish")(keras.layers.Conv2D(8, 3, name="maps")(inputs))
    scores = keras.layers.Dense(2, name="scores")(keras.layers.GlobalAveragePooling2D(name="mean")(swish))
    quantized = quantize_model(keras.Model(inputs, {"answer": scores}))
    calibrate(quantized, PICTURES)
    export_tflite(quantized, tmp_path / "m.tflite", verify=PICTURES, verbose=False)
    file = read_tflite(tmp_path / "m.tflite")
    made = {name: (file.graph.producers[index].name, factor) for index, (name, factor) in file.origin.items()}
    assert {name: made[name] for name in ("maps", "swish", "mean", "scores")} == {
        "maps": ("CONV_2D", 1.0),
        "swish": ("MUL", 6.0),  # the kernel behind the mean makes up for it
        "mean": ("MEAN", 6.0),
        "scores": ("FULLY_CONNECTED", 1.0),
    }
