"""MediaPipe Tasks opens the exported files and names the classes of a real photograph.

The real package, in an environment of its own: it needs absl-py 2, TensorFlow Model Optimization needs 1.
`bash tests/environments/run mediapipe` makes one, and runs this.
"""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest
from PIL import Image
from runs import other_python

from keras_mobilenets import MobileNet
from keras_mobilenets.data import read_image
from keras_mobilenets.export import export_tflite
from keras_mobilenets.tflite import TFLiteModel

SIZE = 128
PHOTOGRAPH = "0292_n02129604_tiger.jpg"

PROGRAM = """
import json, sys
import mediapipe as mp
from mediapipe.tasks.python import BaseOptions
from mediapipe.tasks.python.vision import ImageClassifier, ImageClassifierOptions

model, photograph = sys.argv[1:]
options = ImageClassifierOptions(base_options=BaseOptions(model_asset_path=model), max_results=5)
with ImageClassifier.create_from_options(options) as classifier:
    result = classifier.classify(mp.Image.create_from_file(photograph))
(head,) = result.classifications
print(json.dumps([[one.category_name, one.index, one.score] for one in head.categories]))
"""


@pytest.fixture(scope="module")
def mediapipe_python() -> str:
    return other_python("mediapipe")


@pytest.fixture(scope="module")
def cropped(testdata, tmp_path_factory):
    """A photograph at the model's size: MediaPipe would stretch a whole one, where we crop."""
    path = tmp_path_factory.mktemp("photograph") / "tiger.png"
    Image.fromarray(read_image(testdata / "data" / "imagenet_sample" / PHOTOGRAPH, SIZE)).save(path)
    return path


@pytest.fixture(scope="module", params=[None, "int8"], ids=["float32", "uint8"])
def exported(request, testdata, mediapipe_python, tmp_path_factory):
    model = MobileNet((SIZE, SIZE, 3), alpha=0.25, weights=str(testdata / "weights" / "mobilenet_2_5_128_tf.h5"))
    labels = (testdata / "published" / "imagenet_labels_1001.txt").read_text().splitlines()[1:]
    photographs = sorted((testdata / "data" / "imagenet_sample").glob("*.jpg"))[::10]
    pixels = np.stack([read_image(path, SIZE) for path in photographs])
    path = tmp_path_factory.mktemp("mediapipe") / "model.tflite"
    export_tflite(model, path, quantize=request.param, calibration=pixels / 127.5 - 1, labels=labels, verbose=False)
    return path


def test_names_the_classes_of_a_photograph(exported, cropped, mediapipe_python):
    done = subprocess.run(
        [mediapipe_python, "-c", PROGRAM, str(exported), str(cropped)], check=True, capture_output=True, text=True
    )
    categories = json.loads(done.stdout.splitlines()[-1])
    model = TFLiteModel(exported)
    scores = model.predict(np.asarray(Image.open(cropped))[None])[0]
    assert categories[0][:2] == ["tiger, Panthera tigris", 292]
    for name, index, score in categories:
        assert name == model.labels[index]
        # The same runtime on the same pixels; MediaPipe's own build may round a probability's last step otherwise.
        assert abs(score - scores[index]) <= 1 / 256
