"""MediaPipe Tasks opens the exported files, names the classes of a real photograph, draws boxes and colours pixels.

The real package, in an environment of its own: it needs absl-py 2, TensorFlow Model Optimization needs 1.
`bash tests/environments/run mediapipe` makes one, and runs this.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess

import keras
import numpy as np
import pytest
from export_models import images, living
from PIL import Image
from runs import other_python

from keras_mobilenets import LRASPP, SSD300, MobileNet
from keras_mobilenets.data import read_image
from keras_mobilenets.export import export_tflite
from keras_mobilenets.quantization import calibrate, quantize_model
from keras_mobilenets.tasks import Detection, Embedding, Segmentation, Suppression
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


DETECTS = """
import json, sys
import mediapipe as mp
from mediapipe.tasks.python import BaseOptions
from mediapipe.tasks.python.vision import ObjectDetector, ObjectDetectorOptions

picture, *models = sys.argv[1:]
for model in models:
    options = ObjectDetectorOptions(base_options=BaseOptions(model_asset_path=model), score_threshold=0.3)
    with ObjectDetector.create_from_options(options) as detector:
        found = detector.detect(mp.Image.create_from_file(picture)).detections
    rows = [(one.bounding_box, each) for one in found for each in one.categories]  # equal boxes are one, of all classes
    boxes = [[box.origin_y, box.origin_x, box.height, box.width] for box, _ in rows]
    print("boxes" + json.dumps([[each.category_name, each.score, *box] for (_, each), box in zip(rows, boxes)]))
"""
SIDE = 64
CLASSES = ["cat", "dog", "owl"]


@pytest.mark.parametrize("integer", [False, True], ids=["float32", "uint8"])
@pytest.mark.parametrize("background", [False, True], ids=["sigmoid", "softmax"])
def test_draws_the_boxes_of_a_detector(mediapipe_python, integer, background, tmp_path):
    options = {"alpha": 0.25, "background": background, "backbone_weights": None}
    keras.utils.set_random_seed(0)
    model = living(SSD300("MobileNet", (SIDE, SIDE, 3), classes=3, **options), images(32, SIDE))
    task = Detection(3, image_size=(SIDE, SIDE), background=background)
    if integer:
        model = quantize_model(model)
        calibrate(model, images(16, SIDE))
    pixels = np.rint((images(1, SIDE) + 1) * 127.5).astype(np.uint8)
    Image.fromarray(pixels[0]).save(tmp_path / "picture.png")
    # Without the operation in the file MediaPipe chooses itself: the best class of an anchor, at most .3 over another.
    theirs = Suppression(most_overlap=0.3, by_class=False, least_score=0.3)
    forms = {True: task, False: dataclasses.replace(task, suppression=theirs)}
    for decoded in forms:
        path = tmp_path / f"{decoded}.tflite"
        export_tflite(model, path, task=task, decoded=decoded, labels=CLASSES, verify=images(1, SIDE), verbose=False)
    models = [str(tmp_path / f"{decoded}.tflite") for decoded in forms]
    command = [mediapipe_python, "-c", DETECTS, str(tmp_path / "picture.png"), *models]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    drawn = [json.loads(line[5:]) for line in done.stdout.splitlines() if line.startswith("boxes")]
    for path, form, found in zip(models, forms.values(), drawn, strict=True):
        (answer,) = form.decode(TFLiteModel(path).predict(pixels))
        sure = answer["scores"] >= 0.3
        within = sure & (answer["boxes"].min(-1) >= 0) & (answer["boxes"].max(-1) <= 1)  # it cuts some of the others
        corners, sizes = answer["boxes"][:, :2], answer["boxes"][:, 2:] - answer["boxes"][:, :2]
        placed = np.concatenate([corners, sizes], -1) * SIDE
        rows = [values[within] for values in (answer["labels"], answer["scores"], placed)]
        assert 5 < sure.sum() == len(found) and within.any()
        same = [
            any(
                name == CLASSES[label] and abs(other - score) <= 1.01 / 256 and (np.abs(box - size) <= 1.6).all()
                for name, other, *size in found
            )
            for label, score, box in zip(*rows, strict=True)
        ]
        # It cuts to whole pixels. Its own build may round a step otherwise, and of boxes that score alike, as integers
        # do, keep another.
        assert np.mean(same) >= 0.9


SEGMENTS = """
import json, sys
import mediapipe as mp
import numpy as np
from mediapipe.tasks.python import BaseOptions
from mediapipe.tasks.python.vision import ImageSegmenter, ImageSegmenterOptions

picture, model, output = sys.argv[1:]
base = BaseOptions(model_asset_path=model)
options = ImageSegmenterOptions(base_options=base, output_confidence_masks=True, output_category_mask=True)
with ImageSegmenter.create_from_options(options) as segmenter:
    found = segmenter.segment(mp.Image.create_from_file(picture))
    print("labels" + json.dumps(list(segmenter.labels)))
confidence = [np.squeeze(one.numpy_view()) for one in found.confidence_masks]
np.savez(output, mask=np.squeeze(found.category_mask.numpy_view()), confidence=np.stack(confidence, -1))
"""


@pytest.mark.parametrize("integer", [False, True], ids=["float32", "uint8"])
def test_colours_the_pixels_of_a_picture(mediapipe_python, integer, tmp_path):
    keras.utils.set_random_seed(0)
    options = {"classes": 3, "alpha": 0.35, "output_stride": 32, "backbone_weights": None}
    model = living(LRASPP("MobileNetV2", (SIDE, SIDE, 3), **options), images(32, SIDE))
    task, path = Segmentation(3), tmp_path / "model.tflite"
    if integer:
        model = quantize_model(model)
        calibrate(model, images(16, SIDE))
    export_tflite(model, path, task=task, labels=CLASSES, verify=images(2, SIDE), verbose=False)
    pixels = np.rint((images(1, SIDE) + 1) * 127.5).astype(np.uint8)
    Image.fromarray(pixels[0]).save(tmp_path / "picture.png")
    command = [mediapipe_python, "-c", SEGMENTS, str(tmp_path / "picture.png"), str(path), str(tmp_path / "found.npz")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    (labels,) = (json.loads(line[6:]) for line in done.stdout.splitlines() if line.startswith("labels"))
    found, logits = np.load(tmp_path / "found.npz"), TFLiteModel(path).predict(pixels)
    scores = np.exp(logits[0]) / np.exp(logits[0]).sum(-1, keepdims=True)
    assert labels == CLASSES and len(np.unique(found["mask"])) > 1
    # It makes probabilities of the logits, as the file says. Its own build may round a step of these otherwise.
    assert (found["mask"] == task.decode(logits)[0]).mean() > 0.98
    assert np.abs(found["confidence"] - scores).mean() < 0.01


EMBEDS = """
import json, sys
import mediapipe as mp
from mediapipe.tasks.python import BaseOptions
from mediapipe.tasks.python.vision import ImageEmbedder, ImageEmbedderOptions

picture, model = sys.argv[1:]
options = ImageEmbedderOptions(base_options=BaseOptions(model_asset_path=model), l2_normalize=True)
with ImageEmbedder.create_from_options(options) as embedder:
    (found,) = embedder.embed(mp.Image.create_from_file(picture)).embeddings
print("vector" + json.dumps([found.head_name, found.embedding.tolist()]))
"""


@pytest.mark.parametrize("integer", [False, True], ids=["float32", "uint8"])
def test_gives_the_vector_of_an_embedder(mediapipe_python, integer, tmp_path):
    task = Embedding(16)
    trunk = MobileNet((SIDE, SIDE, 3), alpha=0.25, include_top=False, weights=None)
    model = living(keras.Model(trunk.input, task.head(trunk.output)), images(32, SIDE))
    path = tmp_path / "model.tflite"
    options = {"quantize": "int8", "calibration": images(16, SIDE)} if integer else {}
    export_tflite(model, path, strict=integer, verbose=False, verify=images(1, SIDE), **options)
    pixels = np.rint((images(1, SIDE) + 1) * 127.5).astype(np.uint8)
    Image.fromarray(pixels[0]).save(tmp_path / "picture.png")
    command = [mediapipe_python, "-c", EMBEDS, str(tmp_path / "picture.png"), str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    name, vector = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("vector"))[6:])
    assert name == "embedding" and np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    (answer,) = task.decode(TFLiteModel(path).predict(pixels))
    assert np.dot(vector, answer) > 0.999  # its own build may round a step otherwise
