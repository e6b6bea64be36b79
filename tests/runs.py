"""What several tests of training runs need: the pictures that go in, and the files that come out."""

import json
import os

import keras
import numpy as np
import pytest
from PIL import Image

from keras_mobilenets.apps.runtime import FILES, PACKAGES

RUN_FILES = {
    "float.keras",
    "qat.keras",
    "model.tflite",
    "labels.txt",
    "metrics.json",
    "curves.png",
    "report.html",
    "run.json",
    "history-float.json",
    "history-quantized.json",
    "log.jsonl",
    ".lock",
}
"""What `keras-mobilenets train` leaves in its folder."""


def write_colours(folder, count, *, size=16, apart=40):
    """So many pictures of each of two classes, the second lighter by `apart`."""
    random = np.random.default_rng(0)
    for label, name in enumerate(("dark", "light")):
        (folder / name).mkdir()
        for index in range(count):
            pixels = random.integers(apart * label, apart * label + 120, (size, size, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


def write_npm(folder):
    """What npm would install of a page's runtime, without its content."""
    for file in FILES:
        (folder / "node_modules" / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / "node_modules" / file).write_text("")
    for package, version in PACKAGES.items():
        (folder / "node_modules" / package / "package.json").write_text(json.dumps({"version": version}))
    return folder


def slow_but(values, *fast):
    """Parameters of which some stand for all in the README's command; .ci/run all takes all. A tuple is its first."""
    cases = [value if isinstance(value, tuple) else (value,) for value in values]
    return [pytest.param(*case, marks=[] if case[0] in fast else pytest.mark.slow) for case in cases]


def other_python(name):
    """The Python of an environment of tests/environments; without it the test is skipped."""
    variable = f"KERAS_MOBILENETS_{name.upper().replace('-', '_')}_PYTHON"
    if not os.environ.get(variable):
        pytest.skip(f"needs {name} in an environment of its own: bash tests/environments/run {name}")
    return os.environ[variable]


class StopAt(keras.callbacks.Callback):
    """Interrupts a training after so many steps."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations == self.step:
            raise KeyboardInterrupt
