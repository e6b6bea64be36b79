"""The application on a small image folder: every step of it, from a weight file to an integer model."""

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from keras_mobilenets import MobileNetV2
from keras_mobilenets.tflite import TFLiteModel, audit

PROGRAM = Path(__file__).parent.parent / "applications" / "classify.py"


@pytest.fixture
def pictures(tmp_path):
    random = np.random.default_rng(0)
    for label, name in enumerate(("dark", "light")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for index in range(10):
            pixels = random.integers(100 * label, 100 * label + 120, (70, 80, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{index}.jpg")
    return tmp_path / "pictures"


@pytest.mark.slow
def test_weights_to_integer_model(pictures, tmp_path):
    keras.utils.set_random_seed(0)
    weights = tmp_path / "whole.weights.h5"
    MobileNetV2((32, 32, 3), alpha=0.35, weights=None).save_weights(weights)
    sizes = ["--alpha", "0.35", "--image-size", "32", "--batch-size", "8"]
    epochs = ["--head-epochs", "2", "--epochs", "1", "--quantize-epochs", "1"]
    command = [sys.executable, PROGRAM, pictures, "--weights", weights, "--output", tmp_path / "run", *sizes, *epochs]
    done = subprocess.run(list(map(str, command)), cwd=PROGRAM.parent.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert set(results) == {"float top-1", "qat top-1", "tflite top-1", "tflite agrees with float"}
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"float.keras", "qat.keras", "model.tflite"}
    assert audit(tmp_path / "run" / "model.tflite").is_integer
    assert TFLiteModel(tmp_path / "run" / "model.tflite").labels == ["dark", "light"]
    for phase in ("head", "fine-tuning", "8 bits"):
        assert f"{phase}: loss" in done.stdout


def test_the_program_is_short():
    assert len(PROGRAM.read_text().splitlines()) <= 150
