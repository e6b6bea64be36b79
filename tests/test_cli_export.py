"""`keras-mobilenets export`: from weights and a folder of pictures to a file that is deployed, in one line."""

from __future__ import annotations

import inspect

import keras
import numpy as np
import pytest
from export_models import SIZE
from PIL import Image
from typer.testing import CliRunner

from keras_mobilenets import MobileNet
from keras_mobilenets.applications import pretrained
from keras_mobilenets.cli import app
from keras_mobilenets.cli.request import InputDtype, Quantize, Target
from keras_mobilenets.data import read_image
from keras_mobilenets.export import export_tflite
from keras_mobilenets.export.conversion import INPUT_DTYPES
from keras_mobilenets.export.precisions import SCHEMES
from keras_mobilenets.quantization.settings import TARGETS
from keras_mobilenets.tflite import TFLiteModel, audit

SCALED = ("--pixels", "-1,1")
TINY = ("--alpha", "0.25", "--image-size", "32")
ONE_LINE = "MobileNet_0.25_32_int8.tflite"


def call(*arguments):
    result = CliRunner().invoke(app, ["export", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(autouse=True)
def somewhere(tmp_path, monkeypatch):
    """Where a command writes that was not told where."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Some beside each other, some deeper, a hidden one, one that is broken, and a text."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for index, place in enumerate(["a.png", "b.jpg", "deep/c.PNG", "deep/er/d.jpeg", ".hidden/e.png"]):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        colours = random.integers(0, 256, (5, 7, 3), np.uint8)
        Image.fromarray(colours).resize((90 + index, 80), Image.Resampling.BICUBIC).save(folder / place)
    (folder / "deep" / "page.jpg").write_text("<html>")
    (folder / "labels.txt").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def saved(tiny_model, tmp_path_factory):
    """A model that does not say which pixels it takes: SCALED."""
    path = tmp_path_factory.mktemp("saved") / "tiny.keras"
    tiny_model.save(path)
    return path


def test_integer_file_of_a_builder_in_one_line(pictures, tmp_path, somewhere):
    MobileNet((32, 32, 3), alpha=0.25, weights=None).save_weights(tmp_path / "m.weights.h5")
    result = call("MobileNet", *TINY, "--weights", tmp_path / "m.weights.h5", "--calibration", pictures)
    assert result.exit_code == 0, result.output
    assert "page.jpg: not a picture" in result.output and "4 calibration images" in result.output
    assert [path.name for path in somewhere.iterdir()] == [ONE_LINE]
    found = audit(somewhere / ONE_LINE)
    assert found.is_integer and found.input == "uint8 1 x 32 x 32 x 3" and found.output == "uint8 1 x 1000"


def test_pictures_come_cropped_and_normalized_as_in_evaluation(saved, pictures, tmp_path):
    result = call(saved, tmp_path / "cli.tflite", "--calibration", pictures, *SCALED)
    assert result.exit_code == 0, result.output
    paths = [pictures / name for name in ("a.png", "b.jpg", "deep/c.PNG", "deep/er/d.jpeg")]
    images = (np.stack([read_image(path, SIZE) for path in paths]) - np.float32(127.5)) / np.float32(127.5)
    export_tflite(
        keras.models.load_model(saved), tmp_path / "m.tflite", quantize="int8", calibration=images, verbose=False
    )
    assert (tmp_path / "cli.tflite").read_bytes() == (tmp_path / "m.tflite").read_bytes()


def test_imagenet_weights_bring_their_class_names(pictures, tmp_path, somewhere, monkeypatch):
    weights = tmp_path / "imagenet.weights.h5"
    MobileNet((128, 128, 3), alpha=0.25, weights=None).save_weights(weights)

    def fetch(name, url, md5):
        if name.endswith(".json"):
            raise ConnectionError("Cannot download the names")
        return str(weights)

    monkeypatch.setattr(pretrained, "_fetch", fetch)
    given = ("MobileNet", "m.tflite", "--alpha", 0.25, "--image-size", 128, "--weights", "imagenet")
    result = call(*given, "--quantize", "float32")
    assert result.exit_code == 0 and "no class names in the file" in result.output.replace("\n", " ")
    assert TFLiteModel("m.tflite").labels is None

    keras_names = inspect.getmodule(keras.applications.imagenet_utils.decode_predictions)
    names = [f"class {index}" for index in range(1000)]
    monkeypatch.setattr(keras_names, "CLASS_INDEX", {str(i): [f"n{i:08}", name] for i, name in enumerate(names)})
    monkeypatch.setattr(pretrained, "_fetch", lambda name, url, md5: str(weights))
    assert call(*given, "--calibration", pictures).exit_code == 0
    assert TFLiteModel("m.tflite").labels == names


def test_options_reach_the_file(saved, pictures, tmp_path, somewhere):
    (saved.parent / "labels.txt").write_text("\n".join("abcde"))
    options = ("--target", "tflite-micro", "--input-dtype", "int8", "--dynamic-batch", "--strict")
    result = call(saved, "m.tflite", "--calibration", pictures, "--verify", pictures / "deep", *SCALED, *options)
    assert result.exit_code == 0 and "2 given images" in result.output
    file, found = TFLiteModel("m.tflite"), audit("m.tflite")
    assert (file.input_dtype, file.labels) == ("int8", list("abcde"))
    assert file.normalization.range == (-1, 1)
    assert found.lacking["tflite-micro"] == () and found.input == "int8 ? x 32 x 32 x 3"
    assert call(saved, "--quantize", "float16").exit_code == 0
    assert "float16" in {one.dtype for one in _tensors(saved.with_suffix(".tflite"))}


def _tensors(path):
    from keras_mobilenets.tflite import read_tflite

    return read_tflite(path).graph.tensors


@pytest.mark.parametrize("output", [pytest.param("m.onnx", marks=pytest.mark.needs("tf2onnx")), "model/1"])
def test_other_formats_by_the_ending(output, saved, pictures, somewhere):
    result = call(saved, output, "--verify", pictures, *SCALED)
    assert result.exit_code == 0, result.output
    shown = " ".join(result.output.replace("│", " ").split())  # wherever lines are broken
    assert "agreement 100.0%" in shown and "4 given images" in shown
    assert (somewhere / output).exists()


@pytest.mark.parametrize("output", ["m.tflite", "model/1"])
def test_pixels_are_asked_for_where_the_model_does_not_say(output, saved, pictures, somewhere):
    result = call(saved, output, "--verify", pictures)
    assert result.exit_code == 1 and not (somewhere / output).exists()
    shown = " ".join(result.output.split())
    assert "tiny does not say which values it takes for pixels" in shown and "Give --pixels" in shown


def test_strict_fails_and_leaves_nothing(saved, somewhere):
    (somewhere / "m.tflite").write_bytes(b"old")
    result = call(saved, "m.tflite", "--strict")
    assert result.exit_code == 1 and "Not integer throughout, so nothing was written" in result.output
    assert [path.read_bytes() for path in somewhere.iterdir()] == [b"old"]


def test_no_readable_picture(saved, tmp_path):
    (tmp_path / "broken.jpg").write_text("<html>")
    result = call(saved, "--calibration", tmp_path)
    assert result.exit_code == 1 and "None of 1 pictures could be read" in result.output.replace("\n", " ")


def test_choices_are_those_of_the_library():
    assert {one.value for one in Quantize} == {"float32" if one is None else one for one in SCHEMES}
    assert tuple(one.value for one in Target) == TARGETS
    assert tuple(one.value for one in InputDtype) == INPUT_DTYPES


def test_home_is_expanded_and_a_project_stays(saved, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(saved.parent))
    assert call("~/tiny.keras", "~/made.tflite").exit_code == 0 and (saved.parent / "made.tflite").is_file()
    assert "made.keras" in call("~/made.keras").output.replace(str(saved.parent), "~")
    project = tmp_path / "project"
    project.mkdir()
    (project / "thesis.docx").touch()
    result = call(saved, project)
    assert result.exit_code == 1 and "holds 'thesis.docx', which would be lost" in result.output
    assert [path.name for path in project.iterdir()] == ["thesis.docx"]
