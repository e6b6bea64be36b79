"""The command line on detectors: the doors of a saved model, and the whole job on a folder of boxes."""

import json

import keras
import numpy as np
import pytest
from PIL import Image
from runs import RUN_FILES, StopAt
from test_cli import call

from keras_mobilenets.data import load_detection
from keras_mobilenets.export import export_tflite
from keras_mobilenets.tasks import Detection, task_of
from keras_mobilenets.tasks.saved import saved_task, write_task
from keras_mobilenets.tflite import read_tflite
from keras_mobilenets.tflite.runner import named_tensors
from keras_mobilenets.training import Checkpoint, build_model, fit

SIZE = 32


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Red and green squares on dark, in a CSV; one of them without a square."""
    folder = tmp_path_factory.mktemp("squares")
    random, rows = np.random.default_rng(0), ["filename,width,height,class,xmin,ymin,xmax,ymax"]
    for index in range(20):
        pixels = random.integers(0, 60, (48, 64, 3)).astype(np.uint8)
        (top, left), side = random.integers(0, 16, 2), int(random.integers(16, 32))
        if index:
            pixels[top : top + side, left : left + side] = (255, 0, 0) if index % 2 else (0, 255, 0)
        box = f"{left},{top},{left + side},{top + side}" if index else ",,,"
        rows.append(f"{index}.png,64,48,{('green', 'red')[index % 2]},{box}")
        Image.fromarray(pixels).save(folder / f"{index}.png")
    (folder / "boxes.csv").write_text("\n".join([*rows, "3.png,64,48,red,9,9,5,20"]))
    return folder


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A detector that was not trained, as a run leaves it and as a file to deploy."""
    folder = tmp_path_factory.mktemp("detector")
    keras.utils.set_random_seed(0)
    task = Detection(2, image_size=(SIZE, SIZE), alpha=0.25)
    model = build_model("MobileNet", task, image_size=SIZE, alpha=0.25)
    model.save(folder / "float.keras")
    write_task(folder / "float.keras", task)
    export_tflite(model, folder / "model.tflite", task=task, labels=["green", "red"], verbose=False)
    (folder / "labels.txt").write_text("green\nred\n")
    assert saved_task(folder / "float.keras") == task
    assert task_of(read_tflite(folder / "model.tflite")).image_size == (SIZE, SIZE)
    return folder


@pytest.mark.slow
def test_a_saved_detector_is_asked_alike_in_either_form(saved, pictures, tmp_path):
    found = []
    for name in ("float.keras", "model.tflite"):
        result = call("evaluate", saved / name, "--data", pictures / "boxes.csv", "--split", "all", "--json")
        assert result.exit_code == 0, result.output
        assert "a box of red with its sides reversed" in result.output
        found.append(json.loads(next(line for line in result.output.splitlines() if line.startswith("{"))))
        drawn = call("predict", saved / name, pictures / "1.png", "--json", "--draw", tmp_path / name)
        assert json.loads(drawn.stdout).keys() == {"image", "boxes"}
        assert Image.open(tmp_path / name / "000-1.png").size == (64, 48)  # as large as it came
    one, other = found
    assert (one["pictures"], one["left_out"]) == (20, 1) and one["classes"]["red"]["boxes"] == 10
    # One network in float32, decoded here and by the kernel: a score that ties may fall otherwise.
    assert one["mAP"] == pytest.approx(other["mAP"], abs=2e-3)
    result = call("export", saved / "float.keras", tmp_path / "raw.tflite", "--encoded")
    assert result.exit_code == 0, result.output
    assert set(named_tensors(read_tflite(tmp_path / "raw.tflite"), "outputs")) == {"boxes", "scores"}


def test_data_are_looked_at_before_anything_is_trained(pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = ("--task", "detection", "--data", pictures, "--image-size", SIZE)
    result = call("train", *options, "--anchors", "0.3", "--dry-run")
    assert result.exit_code == 0 and "anchors overlap" in result.output and not list(tmp_path.iterdir())
    refused = call("train", *options, "--strict", "--dry-run")
    assert refused.exit_code == 1 and "1 boxes or pictures are left out" in refused.output
    wrong = call("train", *options, "--augment", "mix_up")
    assert wrong.exit_code == 2 and "zoom_out" in wrong.output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--task", "detection", "--anchors", "tall"), "torchvision or a scale"),
        (("--task", "detection", "--anchors", "1.5"), "between 0 and 0.95"),
        (("--anchors", "0.1"), "is for detection, not classification"),
    ],
)
def test_anchors_that_are_none_are_refused(options, words):
    refused = call("train", *options)
    assert refused.exit_code == 2 and words in " ".join(refused.output.replace("│", " ").split())


@pytest.mark.slow
def test_a_folder_of_boxes_becomes_a_detector(pictures, tmp_path):
    sizes = ("--model", "MobileNet", "--alpha", "0.25", "--image-size", SIZE, "--batch-size", "8")
    epochs = ("--epochs", "2", "--quantize-epochs", "1")
    result = call("train", "--task", "detection", "--data", pictures, "--output", tmp_path / "one", *sizes, *epochs)
    assert result.exit_code == 0, result.output
    assert {path.name for path in (tmp_path / "one").iterdir()} == RUN_FILES
    metrics = json.loads((tmp_path / "one" / "metrics.json").read_text())
    assert metrics["headline"] == "mAP" and metrics["data"]["broken"]
    assert {"val_mAP", "val_mAP_50", "loss"} <= set(metrics["history"]["float"][0])
    page = (tmp_path / "one" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3 + 2 * 4  # mAP, loss, precision over recall; truth and answer
    assert "Precision over recall" in page and "{{" not in page
    assert "integers\nup to the choice of the boxes: it takes uint8" in page
    result = call("quantize", tmp_path / "one" / "float.keras", tmp_path / "two.tflite", "--data", pictures)
    assert result.exit_code == 0, result.output


@pytest.mark.slow
def test_an_interrupted_training_goes_on_to_the_same_weights(pictures, tmp_path):
    task = Detection(2, image_size=(SIZE, SIZE), alpha=0.25)
    data = load_detection(pictures, image_size=SIZE, batch_size=4)

    def trained(folder, *callbacks):
        keras.utils.set_random_seed(0)
        model = build_model("MobileNet", task, image_size=SIZE, alpha=0.25)
        options = {"task": task, "recipe": "detection", "epochs": 2, "callbacks": callbacks}
        fit(model, data, checkpoint=Checkpoint(folder, every=1), **options)
        return model

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "one", StopAt(6))  # of 4 in an epoch
    resumed, whole = trained(tmp_path / "one"), trained(tmp_path / "two")
    for one, other in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)  # threads add up in any order
