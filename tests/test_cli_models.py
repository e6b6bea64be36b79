"""`predict`, `evaluate`, `quantize` and `profile` on models of every form: right answers, or one sentence."""

import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers
from PIL import Image
from runs import slow_but
from typer.testing import CliRunner

from keras_mobilenets.cli import app
from keras_mobilenets.cli.job import Job
from keras_mobilenets.export import export_tflite
from keras_mobilenets.quantization import calibrate, quantize_model
from keras_mobilenets.tasks import Classification
from keras_mobilenets.tflite import audit

SIZE = 16


def call(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Dark pictures and light ones, of all greys."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, lowest in (("dark", 0), ("light", 128)):
        (folder / name).mkdir()
        for index in range(10):
            Image.new("RGB", (SIZE, SIZE), (lowest + 12 * index,) * 3).save(folder / name / f"{index}.png")
    return folder


def model(activation=None, units=2, channels=3, **options):
    """Its scores follow the mean of the picture: class 1 is light. Of one number, that is the number."""
    inputs = keras.Input((SIZE, SIZE, channels))
    x = layers.Conv2D(1, 1, kernel_initializer=keras.initializers.Constant(1 / channels), use_bias=False)(
        layers.Rescaling(1 / 127.5, -1)(inputs)
    )
    x = layers.GlobalAveragePooling2D()(x)
    dense = layers.Dense(units, activation=activation, **options)
    made = keras.Model(inputs, dense(x))
    weights = np.array([[-8.0, 8.0] if units == 2 else [8.0] * units])
    dense.set_weights([weights, np.zeros(units)])
    return made


FORMS = {
    "softmax": ("softmax", 2, 3),
    "logits": (None, 2, 3),
    "one sigmoid": ("sigmoid", 1, 3),
    "several sigmoids": ("sigmoid", 2, 3),
    "grey softmax": ("softmax", 2, 1),
    "grey sigmoid": ("sigmoid", 1, 1),
}


@pytest.mark.parametrize("form", slow_but(FORMS, "softmax", "grey sigmoid"))
def test_every_form_of_classifier_is_asked_rightly(form, folder, tmp_path):
    made = model(*FORMS[form])
    made.save(tmp_path / "one.keras")
    export_tflite(made, tmp_path / "float.tflite", labels=["dark", "light"], verbose=False)
    quantized = call("quantize", tmp_path / "one.keras", tmp_path / "one.tflite", "--data", folder)
    assert quantized.exit_code == 0, quantized.output
    for name in ("one.keras", "float.tflite", "one.tflite"):
        found = call("evaluate", tmp_path / name, "--data", folder, "--split", "all", "--json")
        assert found.exit_code == 0, found.output
        result = json.loads(found.stdout)
        assert result["accuracy"] == 1 and result["top_5_accuracy"] is None
        assert result["classes"] == {one: {"right": 10, "pictures": 10, "accuracy": 1.0} for one in ("dark", "light")}
        assert "100.00%" in call("evaluate", tmp_path / name, "--data", folder).output
        said = call("predict", tmp_path / name, folder / "dark" / "0.png", folder / "light" / "9.png", "--json")
        assert said.exit_code == 0, said.output
        first = [json.loads(line)["classes"][0] for line in said.stdout.splitlines()]
        names = ["class 0", "class 1"] if name == "one.keras" else ["dark", "light"]
        assert [one["name"] for one in first] == names
        assert all(0.9 < one["score"] <= 1 for one in first)
    assert call("profile", tmp_path / "one.keras").exit_code == 0


def several(kind):
    image, table = keras.Input((SIZE, SIZE, 3), name="image"), keras.Input((4,), name="table")
    softmax = layers.Dense(3, "softmax", name="scores")
    x = layers.Conv2D(2, 3, name="conv")(layers.Rescaling(1 / 127.5, -1)(image))
    flat = layers.GlobalAveragePooling2D()(x)

    def of_shape(*shape):
        return keras.Sequential(
            [keras.Input(shape), layers.Rescaling(1 / 255), layers.GlobalAveragePooling2D(), softmax]
        )

    return {
        "two outputs": lambda: keras.Model(image, [layers.Dense(4)(flat), softmax(flat)]),
        "masks": lambda: keras.Model(image, layers.Conv2D(8, 1, activation="softmax")(x)),
        "one number": lambda: keras.Model(image, layers.Dense(1)(flat)),
        "two inputs": lambda: keras.Model([image, table], softmax(layers.Concatenate()([flat, table]))),
        "a vector": lambda: keras.Model(table, softmax(table)),
        "any size": lambda: of_shape(None, None, 3),
        "four channels": lambda: of_shape(SIZE, SIZE, 4),
        "three classes": lambda: keras.Model(image, softmax(flat)),
    }[kind]()


REFUSED = {
    "two outputs": "It cannot be told what the model is for",
    "masks": "It cannot be told what the model is for",
    "one number": "It cannot be told what the model is for",
    "two inputs": "A model of one image is needed",
    "a vector": "A model of one image is needed",
    "any size": "images of any size",
    "four channels": "this takes 4 channels",
    "three classes": "has 2 classes, which are not as many",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_models_are_refused_in_one_sentence(kind, folder, tmp_path):
    several(kind).save(tmp_path / "one.keras")
    commands = [("evaluate", tmp_path / "one.keras", "--data", folder)]
    commands += [("quantize", tmp_path / "one.keras", tmp_path / "out.tflite", "--data", folder)]
    if kind != "three classes":
        commands += [("predict", tmp_path / "one.keras", folder / "dark" / "0.png")]
    for command in commands:
        result = call(*command)
        assert result.exit_code == 1 and "Traceback" not in result.output
        assert REFUSED[kind] in result.output.replace("\n", " ")
    assert not (tmp_path / "out.tflite").exists()
    assert call("profile", tmp_path / "one.keras").exit_code == 0


def test_labels_that_do_not_fit_are_refused(folder, tmp_path):
    model("softmax").save(tmp_path / "one.keras")
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    result = call("predict", tmp_path / "one.keras", folder / "dark" / "0.png")
    assert result.exit_code == 1 and "2 classes. Received: 3 names" in result.output
    model("sigmoid", 1).save(tmp_path / "one.keras")
    (tmp_path / "labels.txt").write_text("light\n")
    result = call("predict", tmp_path / "one.keras", folder / "dark" / "0.png")
    assert "not light 100.0%" in result.output


def test_pixels_are_given_where_no_file_says_them(folder, tmp_path):
    told = model("softmax")
    network = keras.Model(told.layers[2].input, told.output)  # without its Rescaling
    network.save(tmp_path / "one.keras")
    export_tflite(network, tmp_path / "one.tflite", labels=["dark", "light"], verbose=False)
    # In [0, 1] all are light, but for the black one.
    for pixels, accuracy in (("-1,1", 1), ("127.5/127.5", 1), ("127.5,127.5,127.5/128,128,128", 1), ("0,1", 0.55)):
        for name in ("one.keras", "one.tflite"):
            found = call("evaluate", tmp_path / name, "--data", folder, "--split", "all", "--json", "--pixels", pixels)
            assert found.exit_code == 0, found.output
            assert json.loads(found.stdout)["accuracy"] == accuracy
    options = ("--data", folder, "--pixels", "-1,1")
    for name, epochs in (("calibrated.tflite", 0), ("trained.tflite", 1)):
        assert call("quantize", tmp_path / "one.keras", tmp_path / name, *options, "--epochs", epochs).exit_code == 0
        assert "dark" in call("predict", tmp_path / name, folder / "dark" / "0.png", "--top", 1).output
    for name in ("one.keras", "one.tflite"):
        result = call("predict", tmp_path / name, folder / "dark" / "0.png")
        assert result.exit_code == 1 and "ive --pixels, such as --pixels 0,1" in result.output.replace("\n", " ")
    result = call("quantize", tmp_path / "one.keras", tmp_path / "never.tflite", "--data", folder)
    assert result.exit_code == 1 and "Give --pixels" in result.output and not (tmp_path / "never.tflite").exists()


def test_a_job_exports_what_is_partly_float_and_tells_it(tmp_path, capsys):
    """A head of one's own with an activation that no runtime has in 8 bits is no reason to lose a finished training."""
    inputs = keras.Input((16, 16, 3))
    maps = layers.Conv2D(4, 3, activation="relu")(inputs)
    scores = layers.Dense(2, activation="softmax")(
        layers.GlobalAveragePooling2D()(layers.Activation("elu", name="own")(maps))
    )
    images = np.random.default_rng(0).uniform(-1, 1, (8, 16, 16, 3)).astype("float32")
    quantized = quantize_model(keras.Model(inputs, scores), skip=["own"])
    calibrate(quantized, images)
    one = object.__new__(Job)
    one.folder, one.task = tmp_path, Classification(2)
    one.data = SimpleNamespace(class_names=["a", "b"], val=(images, np.zeros(8)))
    assert not audit(one._exported(quantized)).is_integer
    assert "in float, as asked or as runtimes have no integer form: own" in " ".join(capsys.readouterr().out.split())
