"""Quantization-aware training on JAX and torch, deployment from TensorFlow."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_mobilenets.export.conversion import convert
from keras_mobilenets.quantization import deployable
from keras_mobilenets.tflite import audit


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_trained_elsewhere_and_deployed_from_tensorflow(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    script = Path(__file__).with_name("quantization_jax_script.py")
    environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    run = subprocess.run(
        [sys.executable, script, tmp_path], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-3000:]
    quantized = keras.models.load_model(tmp_path / "model.keras")
    saved = np.load(tmp_path / "answers.npz")
    answers = quantized.predict(saved["images"], verbose=0)
    # Two libraries of convolutions: now and then a value falls on the other side of a tie.
    assert np.abs(answers - saved["answers"]).mean() <= 2 / 256
    found = audit(convert(deployable(quantized), (32, 32, 3), scheme="int8", input_dtype="uint8"))
    assert found.is_integer and found.conversions_inside == ()


def test_deployment_says_where_it_runs(tmp_path):
    code = (
        "import keras, numpy as np\n"
        "from keras_mobilenets.quantization import calibrate, deployable, quantize_model\n"
        "model = quantize_model(keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 1)]))\n"
        "calibrate(model, np.zeros((1, 8, 8, 3)))\n"
        "deployable(model)\n"
    )
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert "RuntimeError: A model is deployed from the TensorFlow backend" in run.stderr, run.stderr[-3000:]
