"""`train --task segmentation`, from a folder of masks to a file and a report, and a run that is interrupted."""

import json
import multiprocessing

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from runs import RUN_FILES, StopAt
from test_cli import call

from keras_mobilenets.data import load_segmentation
from keras_mobilenets.tasks import Segmentation
from keras_mobilenets.training import Checkpoint, build_model, fit

pytestmark = pytest.mark.slow
SIZE = 64


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    """A light disc on dark, which is class 1, above a row that nobody labelled."""
    folder = tmp_path_factory.mktemp("streets")
    random, places = np.random.default_rng(0), np.mgrid[:SIZE, :SIZE]
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for index in range(20):
        center, radius = random.integers(20, 44, 2), random.integers(10, 20)
        mask = (((places - center[:, None, None]) ** 2).sum(0) < radius**2).astype(np.uint8)
        pixels = np.clip(60 + 120 * mask[..., None] + random.normal(0, 10, (SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
        mask[-4:] = 255
        Image.fromarray(pixels).save(folder / "images" / f"{index}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{index}.png")
    (folder / "labels.txt").write_text("ground\ndisc\n")
    return folder


def test_a_folder_of_masks_becomes_a_file_and_a_report(streets, tmp_path):
    options = ("--model", "MobileNetV2", "--alpha", "0.35", "--image-size", SIZE, "--batch-size", "4")
    epochs = ("--epochs", "6", "--quantize-epochs", "1")
    run = tmp_path / "run"
    result = call("train", "--task", "segmentation", "--data", streets, "--output", run, *options, *epochs)
    assert result.exit_code == 0, result.output
    assert {path.name for path in run.iterdir()} == RUN_FILES
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["headline"] == "mIoU" and metrics["data"]["classes"] == ["ground", "disc"]
    assert metrics["tflite"]["is_integer"] and metrics["models"]["tflite"]["mIoU"] > 0.2  # 24 steps show that it runs
    without = {"file": 0, "size_bytes": 0, "latency_ms": 0}
    file, twin = (metrics["models"][name] | without for name in ("tflite", "qat"))
    assert file == twin  # evaluated as the file computes
    page = (run / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2 + 2 * 4  # mIoU and loss; truth and answer of 4 pictures
    assert "overlap" in page and "{{" not in page
    result = call("evaluate", run / "model.tflite", "--data", streets, "--json")
    assert json.loads(result.stdout)["mIoU"] == pytest.approx(metrics["models"]["tflite"]["mIoU"])


def test_an_interrupted_run_goes_on_to_the_same_bits(streets, tmp_path):
    """In a process of its own: deterministic operations cannot be switched off again."""
    process = multiprocessing.get_context("spawn").Process(target=resumed_is_whole, args=(streets, tmp_path))
    process.start()
    process.join()
    assert process.exitcode == 0


def resumed_is_whole(streets, folder):
    tf.config.experimental.enable_op_determinism()
    data = load_segmentation(streets, image_size=SIZE, batch_size=4)

    def trained(name, *callbacks):
        keras.utils.set_random_seed(0)
        model = build_model("MobileNetV2", Segmentation(2), image_size=SIZE, alpha=0.35)
        fit(model, data, recipe="segmentation", epochs=2, checkpoint=Checkpoint(folder / name), callbacks=callbacks)
        return model

    with pytest.raises(KeyboardInterrupt):
        trained("one", StopAt(6))  # of 4 in an epoch
    for one, other in zip(trained("one").variables, trained("two").variables, strict=True):
        assert np.array_equal(one, other), one.path
