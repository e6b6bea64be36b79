"""The input pipeline that does without TensorFlow."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from keras_mobilenets.data import Digits, load, load_grain

pytest.importorskip("grain")

GRAIN = """
import sys
import numpy as np
from keras_mobilenets.data import load_grain
data = load_grain(sys.argv[1], image_size=16, batch_size=4, seed=3, preprocess=lambda images: images / 255)
steps = data.steps_per_epoch
stream = iter(data.train_from(0))
batches = [next(stream) for _ in range(3 * steps)]
resumed = next(iter(data.train_from(2, 1)))
assert all(np.array_equal(*pair) for pair in zip(resumed, batches[2 * steps + 1]))
assert not np.array_equal(batches[0][0], batches[steps][0])
assert batches[0][0].shape == (4, 16, 16, 3) and batches[0][0].dtype == np.float32 and batches[0][0].max() <= 1
assert sum(len(labels) for _, labels in data.val) == data.val_count > 0
assert "tensorflow" not in sys.modules
"""


FIT = """
import signal, sys
from pathlib import Path
import keras
import numpy as np
from keras_mobilenets.data import load_grain
from keras_mobilenets.training import Checkpoint, distribute, fit

folder, pictures = map(Path, sys.argv[1:])
data = load_grain(pictures, image_size=16, batch_size=4)
assert data.val_count == 5 and data.steps_per_epoch == 3

class Interrupt(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (1, 1):
            signal.raise_signal(signal.SIGINT)

def train(**options):
    make = lambda seed: keras.initializers.GlorotUniform(seed=seed)
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
    x = keras.layers.Conv2D(4, 3, strides=4, use_bias=False, kernel_initializer=make(0))(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x)))
    outputs = keras.layers.Dense(2, activation="softmax", kernel_initializer=make(1))(x)
    model = keras.Model(inputs, outputs)
    history = fit(model, data, epochs=2, **options)
    return [keras.ops.convert_to_numpy(one) for one in model.weights], history

whole, history = train()
assert [set(logs) for logs in history] == [{"loss", "accuracy", "val_loss", "val_accuracy"}] * 2
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    train(checkpoint=Checkpoint(folder), callbacks=[Interrupt()])
    raise AssertionError("not interrupted")
except KeyboardInterrupt:
    pass
resumed, again = train(checkpoint=Checkpoint(folder))
assert again == history and all(map(np.array_equal, resumed, whole))
if keras.backend.backend() == "jax":
    with distribute(2):
        split, _ = train()
    assert max(np.abs(one - other).max() for one, other in zip(split, whole, strict=True)) <= 1e-4
assert "tensorflow" not in sys.modules
"""


@pytest.fixture
def pictures(tmp_path):
    """Photographs of two classes: 12 to train on, 5 held out."""
    for part, count in (("train", 6), ("val", 3)):
        for label, name in enumerate(("ant", "bee")):
            (tmp_path / "noise" / part / name).mkdir(parents=True)
            for index in range(count - label * (part == "val")):
                noise = np.random.default_rng((label, index)).integers(0, 256, (40, 60, 3), np.uint8)
                Image.fromarray(noise).save(tmp_path / "noise" / part / name / f"{index}.jpg")
    return tmp_path / "noise"


def test_a_folder_is_read_without_tensorflow(pictures):
    subprocess.run([sys.executable, "-c", GRAIN, pictures], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_fit_takes_it_without_tensorflow(backend, pictures, tmp_path):
    """On one device, interrupted and resumed to the bit and, on JAX, on two devices."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    environment = {**os.environ, **flags, "KERAS_BACKEND": backend}
    command = [sys.executable, "-c", FIT, tmp_path / "checkpoints", pictures]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]


def test_what_tfds_prepared_is_read_alike(tmp_path):
    with pytest.raises(ValueError, match="Prepare it once: tfds.builder"):
        load_grain("digits", image_size=8, data_dir=tmp_path)
    builder = Digits(data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    theirs = load(builder.data_path, image_size=8, batch_size=64)
    for data in (str(builder.data_path), "digits"):
        ours = load_grain(data, image_size=8, batch_size=64, data_dir=tmp_path)
        assert (ours.class_names, ours.train_count, ours.augment) == (theirs.class_names, 1438, ("crop",))
        for mine, other in zip(ours.val, theirs.val.as_numpy_iterator(), strict=True):
            assert np.array_equal(mine[0], other[0]) and np.array_equal(mine[1], other[1])
