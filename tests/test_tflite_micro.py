"""TFLite Micro itself runs the file for microcontrollers, and answers as its kernels' arithmetic in Keras does.

Its interpreter for Python is a development release for some platforms only: `bash tests/environments/run tflite-micro`
installs it in an environment of its own, and runs this.
"""

import subprocess

import numpy as np
from runs import other_python

from keras_mobilenets import MobileNet, export_tflite
from keras_mobilenets.integer import integer_model

PROGRAM = """
import numpy as np
from tflite_micro import runtime

interpreter = runtime.Interpreter.from_file("model.tflite")
answers = []
for image in np.load("images.npy"):
    interpreter.set_input(image[None], 0)
    interpreter.invoke()
    answers.append(interpreter.get_output(0)[0])
np.save("answers.npy", answers)
"""


def test_answers_are_those_of_the_reference_kernels(rng, tmp_path, monkeypatch):
    python = other_python("tflite-micro")
    monkeypatch.chdir(tmp_path)
    model = MobileNet((64, 64, 3), alpha=0.25, weights=None, classes=5, momentum=0.0)
    images = rng.uniform(-1, 1, (8, 64, 64, 3)).astype("float32")
    model(images, training=True)  # statistics, or signals fade to scales that TFLite Micro refuses
    options = {"target": "tflite-micro", "input_dtype": "int8", "strict": True, "verbose": False}
    export_tflite(model, "model.tflite", quantize="int8", calibration=images, **options)
    given = rng.integers(-128, 128, images.shape, dtype=np.int8)
    np.save("images.npy", given)
    subprocess.run([python, "-c", PROGRAM], check=True)
    expected = np.asarray(integer_model("model.tflite", kernels="reference")(given))
    np.testing.assert_array_equal(np.load("answers.npy"), expected)
