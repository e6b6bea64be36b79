"""The other backends of Keras, one process for each: backend_checks.py. TensorFlow looks at what it leaves."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_mobilenets as km
from keras_mobilenets.export.conversion import convert
from keras_mobilenets.export.signature import Signature
from keras_mobilenets.quantization import calibrate, deployable, quantize_model
from keras_mobilenets.tflite import TFLiteModel, audit

CHECKS = Path(__file__).with_name("backend_checks.py")

pytestmark = pytest.mark.slow


def integer_file(folder):
    """A full-integer MobileNetV3 with measured batch statistics, and images for it."""
    images = np.random.default_rng(1).integers(0, 256, (16, 32, 32, 3), "uint8")
    model = km.MobileNetV3Small((32, 32, 3), alpha=0.75, weights=None, classes=50)
    for layer in km.inline(model).layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(images.astype("float32"), training=True)
    quantized = quantize_model(model)
    calibrate(quantized, images.astype("float32"))
    km.export_tflite(quantized, folder / "model.tflite", verbose=False)
    np.save(folder / "images.npy", images[:4])


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.needs(name, "grain")) for name in ("jax", "torch")],
)
def session(request, tmp_path_factory):
    """The folder of the backend's process, when it has ended, and what it printed."""
    folder = tmp_path_factory.mktemp(request.param)
    integer_file(folder)
    backend = {"KERAS_BACKEND": request.param, "KERAS_MOBILENETS_SESSION": str(folder), "JAX_PLATFORMS": "cpu"}
    # Half of the time would go into making programs fast that run once.
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=10", CHECKS]
    done = subprocess.run(
        command, env={**inherited, **backend, **flags}, cwd=folder, capture_output=True, text=True, check=False
    )
    return folder, done


def test_all_checks_pass(session):
    _, done = session
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    print(done.stdout)


def test_trained_elsewhere_and_deployed_from_tensorflow(session):
    folder, _ = session
    quantized = keras.models.load_model(folder / "model.keras")
    saved = np.load(folder / "trained.npz")
    answers = quantized.predict(saved["images"], verbose=0)
    # Two libraries of convolutions: now and then a value falls on the other side of a tie.
    assert np.abs(answers - saved["answers"]).mean() <= 2 / 256
    found = audit(convert(deployable(quantized), Signature.of(quantized), scheme="int8", input_dtype="uint8"))
    assert found.is_integer and found.conversions_inside == ()


def test_the_integer_model_answers_as_the_file(session):
    folder, _ = session
    if folder.name.startswith("torch"):
        pytest.skip("torch has no variables of integers that could be trained, as Keras makes all")
    expected = TFLiteModel(folder / "model.tflite").predict(np.load(folder / "images.npy"), raw=True)
    np.testing.assert_array_equal(np.load(folder / "answers.npy"), expected)
