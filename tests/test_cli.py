"""The command line: the whole job, what is answered at once, and what happens when something is wrong."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from runs import RUN_FILES, write_colours, write_npm
from typer.testing import CliRunner

from keras_mobilenets.cli import app
from keras_mobilenets.data import read_image
from keras_mobilenets.tflite import TFLiteModel

BYTES = os.fsdecode(b"\xff\n.png")
TENSORBOARD = ["--tensorboard"] if importlib.util.find_spec("tensorboard") else []
SHORT = ("--alpha", "0.25", "--epochs", "2", "--quantize-epochs", "1", "--batch-size", "16", "--image-size", "16")


def call(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def start(*arguments, cwd):
    """A process of its own: for what must hold for the whole of it."""
    command = [sys.executable, "-m", "keras_mobilenets", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=cwd, env=environment, text=True, **pipes)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two classes that differ in colour, a file that is no picture, and one whose name is no text."""
    folder = write_colours(tmp_path_factory.mktemp("pictures"), 20, size=24, apart=100)
    (folder / "dark" / "page.jpg").write_text("<html>")
    (folder / "dark" / "2.png").rename(folder / "dark" / BYTES)
    return folder


@pytest.fixture(scope="module")
def run(pictures, tmp_path_factory):
    """A finished run on them."""
    folder = tmp_path_factory.mktemp("run") / "one"
    page = ["--page", write_npm(folder.parent / "npm")]
    result = call("train", "--data", pictures, "--model", "MobileNet", "--output", folder, *SHORT, *TENSORBOARD, *page)
    assert result.exit_code == 0, result.output
    return folder, result.output


def test_a_run_leaves_models_metrics_and_a_report(run):
    folder, output = run
    assert {path.name for path in folder.iterdir()} == RUN_FILES | {
        "page",
        *(name.removeprefix("--") for name in TENSORBOARD),
    }
    assert (folder / "page" / "model.tflite").exists()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert (metrics["data"]["train"], metrics["data"]["held_out"]) == (32, 8)
    assert len(metrics["data"]["broken"]) == 1 and "page.jpg" in output
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [(line["run"], line["epoch"]) for line in lines] == [("float", 1), ("float", 2), ("quantized", 1)]
    if TENSORBOARD:
        assert list((folder / "tensorboard" / "float" / "train").glob("events.out.tfevents.*"))
    assert metrics["tflite"]["is_integer"] and metrics["tflite"]["input"] == "uint8 1 x 16 x 16 x 3"
    assert set(metrics["models"]) == {"float", "qat", "tflite"}
    assert [len(metrics["history"][name]) for name in ("float", "quantized")] == [2, 1]
    assert (folder / "labels.txt").read_text() == "dark\nlight\n"
    for line in ("1/4", "2/4", "3/4", "4/4", "epoch 2/2"):
        assert line in output  # progress is shown all along


def test_the_report_is_one_page_that_needs_nothing_else(run):
    page = (run[0] / "report.html").read_text()
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    assert page.count("data:image/png;base64,") == 2 + 8  # two curves, and the held-out pictures
    assert "page.jpg" in page and "{{" not in page


def test_a_run_is_not_overwritten(run, pictures):
    before = (run[0] / "metrics.json").read_bytes()
    result = call("train", "--data", pictures, "--output", run[0], *SHORT)
    assert result.exit_code == 1 and "--resume" in result.output
    assert (run[0] / "metrics.json").read_bytes() == before


def test_a_run_cannot_change_on_the_way(run):
    result = call("train", "--resume", "--output", run[0], "--epochs", "7")
    assert result.exit_code == 1 and "--epochs was 2" in result.output


@pytest.mark.slow
def test_an_interrupted_run_is_resumed(pictures, tmp_path, run):
    process = start("train", "--data", pictures, "--model", "MobileNet", "--output", "one", *SHORT, cwd=tmp_path)
    for line in process.stdout:
        if "epoch 1/2" in line:
            break
    process.send_signal(signal.SIGSTOP)
    refused = call("train", "--resume", "--output", tmp_path / "one")
    assert refused.exit_code == 1 and "in use by another process" in refused.output.replace("\n", "")
    for number in (signal.SIGTERM, signal.SIGCONT):
        process.send_signal(number)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 143, stderr
    assert "Terminated" in stderr and "Traceback" not in stderr
    assert "To go on: keras-mobilenets train --resume --output one" in stdout
    assert not (tmp_path / "one" / "float.keras").exists()
    result = call("train", "--resume", "--output", tmp_path / "one")
    assert result.exit_code == 0, result.output
    assert "epoch 1/2" not in result.output and "epoch 2/2" in result.output
    resumed, whole = (json.loads((folder / "metrics.json").read_text()) for folder in (tmp_path / "one", run[0]))
    assert resumed["history"]["float"][0] == whole["history"]["float"][0]
    # The same pictures in the same order; convolutions over several threads may add up in another one.
    assert resumed["history"]["float"][1]["loss"] == pytest.approx(whole["history"]["float"][1]["loss"], rel=1e-4)


@pytest.mark.parametrize("name", ["model.tflite", "float.keras"])
def test_predict_gives_the_models_answers_in_either_form(run, pictures, name):
    """How far integers are from floats on one picture is chance, and measured over many in test_quantization_files."""
    paths = [pictures / "dark" / "1.png", pictures / "light" / "1.png"]
    result = call("predict", run[0] / name, *paths, "--json", "--top", "2")
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.output.splitlines() if line.startswith("{")]
    assert [line["image"] for line in lines] == [str(path) for path in paths]
    answers = [{one["name"]: one["score"] for one in line["classes"]} for line in lines]
    pixels = np.stack([read_image(path, 16) for path in paths])
    model = TFLiteModel(run[0] / name) if name.endswith("tflite") else keras.models.load_model(run[0] / name)
    expected = model.predict(pixels) if name.endswith("tflite") else model(pixels.astype("float32"))
    # The file's to the last bit; in floats each of 28 layers may add up in another order.
    found = [[answer[label] for label in ("dark", "light")] for answer in answers]
    np.testing.assert_allclose(found, expected, atol=0 if name.endswith("tflite") else 1e-5)


def test_predict_names_what_it_cannot_read(run, pictures):
    result = call("predict", run[0] / "model.tflite", pictures / "dark" / "page.jpg", pictures / "dark" / "1.png")
    assert result.exit_code == 1
    assert "page.jpg: not a picture" in result.output and "1.png" in result.output
    result = call("predict", run[0] / "model.tflite", pictures / "dark" / BYTES)
    assert result.exit_code == 0 and r"\udcff\n.png" in result.output
    result = call("predict", run[0] / "model.tflite", pictures / "dark" / BYTES, "--json")
    assert json.loads(result.stdout)["image"] == str(pictures / "dark" / BYTES)


@pytest.mark.parametrize("name", ["model.tflite", "float.keras"])
def test_evaluate_measures_what_the_run_reported(run, pictures, name):
    result = call("evaluate", run[0] / name, "--data", pictures, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(next(line for line in result.output.splitlines() if line.startswith("{")))
    kind = "tflite" if name.endswith("tflite") else "float"
    metrics = json.loads((run[0] / "metrics.json").read_text())
    assert (found["pictures"], found["left_out"]) == (8, 1)
    assert found["accuracy"] == metrics["models"][kind]["accuracy"]
    everything = call("evaluate", run[0] / name, "--data", pictures, "--split", "all")
    assert "40 pictures" in everything.output and "light" in everything.output


def test_a_run_that_cannot_begin_leaves_no_folder(pictures, tmp_path):
    result = call("train", "--data", pictures, "--strict", "--output", tmp_path / "one")
    assert result.exit_code == 1 and "page.jpg" in result.output
    assert not (tmp_path / "one").exists()


def test_evaluate_refuses_other_classes(run):
    result = call("evaluate", run[0] / "model.tflite", "--data", "digits")
    assert result.exit_code == 1 and "The model's classes are not those of digits" in result.output


def test_quantize_and_export_write_files(run, pictures, tmp_path):
    scores = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, activation="softmax")]
    front = [keras.Input((16, 16, 3)), keras.layers.Rescaling(1 / 127.5, -1), keras.layers.Conv2D(4, 3, 2)]
    keras.Sequential([*front, *scores]).save(tmp_path / "small.keras")
    (tmp_path / "labels.txt").write_text("dark\nlight\n")
    result = call("quantize", tmp_path / "small.keras", tmp_path / "ptq.tflite", "--data", pictures, "--report")
    assert result.exit_code == 0, result.output
    assert "What each layer costs" in (tmp_path / "ptq.html").read_text()
    result = call("export", run[0] / "qat.keras", tmp_path / "qat.tflite")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "qat.tflite").read_bytes() == (run[0] / "model.tflite").read_bytes()
    result = call("predict", tmp_path / "ptq.tflite", pictures / "dark" / "1.png")
    assert result.exit_code == 0 and "dark" in result.output
    result = call("quantize", run[0] / "qat.keras", tmp_path / "twice.tflite", "--data", pictures)
    assert result.exit_code == 1 and "quantized already" in result.output


def test_tflite_files_are_used_without_tensorflow(run, pictures, tmp_path):
    code = (
        "import sys; from keras_mobilenets.cli import app; app(sys.argv[1:], standalone_mode=False);"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    )
    for command in (
        ("predict", run[0] / "model.tflite", pictures / "dark" / "1.png"),
        ("evaluate", run[0] / "model.tflite", "--data", pictures),
    ):
        subprocess.run([sys.executable, "-c", code, *map(str, command)], check=True, capture_output=True)


AT_ONCE = {
    "help": (("--help",), 0, "quantize"),
    "help of train": (("train", "--help"), 0, "quantize-epochs"),
    "no command": ((), 2, "Usage"),
    "list": (("list",), 0, "2,554,968"),
    "list models": (("list", "models"), 0, "MobileNetV3Large"),
    "list datasets": (("list", "datasets"), 0, "cifar10"),
    "list recipes": (("list", "recipes"), 0, "arXiv:1905.02244"),
    "recipe": (("train", "--recipe", "v3-papr"), 2, "Did you mean v3-paper"),
    "recipe of a later part": (("train", "--recipe", "qat-paper"), 2, "for models that are trained already"),
    "recipe without weights": (("train", "--recipe", "finetune"), 1, "add --weights imagenet"),
    "teacher": (("train", "--teacher", "absent.keras"), 2, "there is no file absent.keras"),
    "choose": (("choose", "--max-latency-ms", "3", "--max-size-mb", "2", "--image-size", "160"), 0, "alpha=0.5)"),
    "choose what": (("choose", "--max-size-mb", "0.1"), 1, "No published variant fits"),
    "calibrate": (("choose", "--calibrate", "v2=18"), 2, "Unknown variant 'v2'"),
    "model": (("train", "--model", "mobilenetv2"), 2, "Did you mean MobileNetV2"),
    "data": (("train", "--data", "cifar_10"), 2, "did you mean cifar10"),
    "no folder": (("train", "--data", "./absent"), 2, "There is no folder ./absent"),
    "empty folder": (("train", "--data", "empty"), 2, "The folder is empty"),
    "one class": (("train", "--data", "one"), 2, "found only one, 'ant'"),
    "help of adapt": (("adapt", "--help"), 0, "netadapt.html"),
    "adapt": (("adapt", "model.keras", "--latency-ms", "0"), 2, "must be > 0"),
    "adapt what": (("adapt", "absent.keras", "--latency-ms", "2"), 2, "there is no file absent.keras"),
    "adapt to where": (("adapt", "model.keras", "--latency-ms", "2", "--device", "phone"), 2, "--table"),
    "alpha": (("train", "--alpha", "-1"), 2, "must be > 0"),
    "epochs": (("train", "--epochs", "0"), 2, "--epochs"),
    "weights": (("train", "--weights", "absent.h5"), 2, "there is no file absent.h5"),
    "resume": (("train", "--resume"), 1, "There is no unfinished run"),
    "predict": (("predict", "absent.tflite", "a.jpg"), 2, "there is no file absent.tflite"),
    "kind": (("evaluate", "model.h5"), 2, "must end in .tflite or .keras"),
    "help of export": (("export", "--help"), 0, "in one line: keras-mobilenets export MobileNetV2 --weights imagenet"),
    "export of what": (("export", "Mobilenet"), 2, "Did you mean MobileNet"),
    "export of a file": (("export", "model.h5"), 2, "must end in .keras"),
    "export to what": (("export", "MobileNet", "m.h5"), 2, "must end in .tflite or .onnx, or be a folder"),
    "no pictures": (("export", "MobileNet", "--calibration", "empty"), 2, "There is no picture in empty"),
    "no calibration": (("export", "MobileNet", "--quantize", "int8"), 2, "needs --calibration"),
    "of a builder": (("export", "model.keras", "--alpha", "1"), 2, "is for a builder's model"),
    "of MobileNetV3": (("export", "MobileNet", "--minimalistic"), 2, "is for MobileNetV3, not MobileNet"),
    "profile of MobileNetV3": (("profile", "MobileNet", "--minimalistic"), 2, "is for MobileNetV3, not MobileNet"),
    "profile of a file": (("profile", "model.keras", "--alpha", "1"), 2, "is for a builder's model"),
    "an augmentation": (("train", "--augment", "lots"), 2, "must be of auto, none, crop, crop_flip, rand_augment"),
    "of a .tflite": (("export", "MobileNet", "m.onnx", "--strict"), 2, "is for a .tflite file, not m.onnx"),
    "pixels": (("export", "MobileNet", "--pixels", "0,1,2"), 2, "must be BLACK,WHITE such as 0,1, or MEAN/STD"),
    "pixels that are all one": (("evaluate", "model.keras", "--pixels", "1,1"), 2, "must be BLACK,WHITE"),
    "option": (("train", "--alfa", "1"), 2, "No such option"),
}


ASK_ALL = """
import json, os, sys
from typer.testing import CliRunner
from keras_mobilenets.cli import app

answers, before = {}, 0.0
for name, arguments in json.loads(sys.argv[1]).items():
    result = CliRunner().invoke(app, arguments)
    imported = sorted({"tensorflow", "keras", "jax", "torch"} & set(sys.modules))
    seconds, before = os.times().user - before, os.times().user
    answers[name] = [result.exit_code, result.output, imported, seconds]
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def at_once(tmp_path_factory):
    """The answers to all of AT_ONCE, of one process: each with what was imported till then, and its processor time."""
    folder = tmp_path_factory.mktemp("at_once")
    (folder / "empty").mkdir()
    (folder / "one" / "ant").mkdir(parents=True)
    (folder / "one" / "ant" / "1.png").touch()
    for kind in ("h5", "keras"):
        (folder / f"model.{kind}").touch()
    given = json.dumps({name: arguments for name, (arguments, _, _) in AT_ONCE.items()})
    process = subprocess.run(
        [sys.executable, "-c", ASK_ALL, given],
        cwd=folder,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


@pytest.mark.parametrize("name", AT_ONCE)
def test_help_and_mistakes_are_answered_at_once(name, at_once):
    _, expected, text = AT_ONCE[name]
    code, output, imported, seconds = at_once[name]
    assert code == expected, output
    # Wrapped by a box of rich, which breaks lines.
    shown = re.sub(r"[\s│]+", " ", output)
    assert text in shown and "Traceback" not in shown
    assert imported == []
    assert seconds < 1.0  # of processor time, for the first with the imports: the machine may do other things meanwhile


def test_damaged_models_are_one_clear_line(run, pictures, tmp_path):
    for name in ("model.tflite", "float.keras"):
        content = (run[0] / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        result = call("predict", tmp_path / name, pictures / "dark" / "1.png")
        assert result.exit_code == 1
        assert "Error" in result.output and name in result.output.replace("\n", "")


def test_profile_shows_layers_and_files(run):
    result = call("profile", "MobileNet", "--alpha", "0.25", "--image-size", "128", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(next(line for line in result.output.splitlines() if line.startswith("{")))
    assert found["parameters"] == 475_544
    assert "MAdds" in call("profile", run[0] / "model.tflite").output
    assert "predictions" in call("profile", run[0] / "float.keras").output


def test_unexpected_errors_keep_their_traceback(monkeypatch):
    from keras_mobilenets.cli import looking

    def defect():
        raise TypeError("a defect")

    monkeypatch.setattr(looking, "models", defect)
    with pytest.raises(TypeError, match="a defect"):
        call("list", "models")


@pytest.mark.slow
def test_the_main_job_without_an_argument(tmp_path):
    """Issue: at most three minutes on two cores, at least 95 % for all three."""
    began = time.monotonic()
    process = start("train", cwd=tmp_path)
    stdout, stderr = process.communicate(timeout=900)
    assert process.returncode == 0, stderr
    metrics = json.loads((tmp_path / "runs" / "digits-1" / "metrics.json").read_text())
    assert all(model["accuracy"] >= 0.95 for model in metrics["models"].values()), metrics["models"]
    assert metrics["agreement"]["qat"] >= 0.98  # 7 of 359 pictures
    print(f"{time.monotonic() - began:.0f} s\n{stdout}")
