"""The page of `keras-mobilenets app web` in real headless Chromium: the answers of the runtime in Python.

`bash tests/environments/run browser` makes the environment, and runs this; it needs Chromium and npm.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
from export_models import images, living
from PIL import Image
from runs import other_python
from typer.testing import CliRunner

from keras_mobilenets import LRASPP, SSD300, MobileNet, SSDLite
from keras_mobilenets.cli import app
from keras_mobilenets.cli.models import tflite_model
from keras_mobilenets.data import read_image
from keras_mobilenets.export import export_tflite
from keras_mobilenets.tasks import Detection, Embedding, Segmentation
from keras_mobilenets.tflite import TFLiteModel

PROGRAM = Path(__file__).parent / "browser_program.py"
SHAPES = [("RGB", (311, 253)), ("L", (60, 41)), ("RGBA", (500, 700)), ("RGB", (224, 224)), ("RGB", (97, 640))]


@pytest.fixture(autouse=True)
def browser():
    """Nothing is made for a browser that is not there."""
    other_python("browser")


def in_browser(page, **request):
    command = [other_python("browser"), str(PROGRAM), json.dumps({"page": str(page), **request})]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def write_page(model, folder):
    result = CliRunner().invoke(app, ["app", "web", str(model), str(folder)])
    assert result.exit_code == 0, result.output
    return folder


def photographs(testdata):
    return sorted((testdata / "data" / "imagenet_sample").glob("*.jpg"))[::10]


def float_file(testdata, folder):
    model = MobileNet((128, 128, 3), alpha=0.25, weights=str(testdata / "weights" / "mobilenet_2_5_128_tf.h5"))
    labels = (testdata / "published" / "imagenet_labels_1001.txt").read_text().splitlines()[1:]
    export_tflite(model, folder / "float.tflite", labels=labels, verbose=False)
    return folder / "float.tflite"


def published(testdata, folder):
    return testdata / "published" / "mobilenet_v2_1.0_224_quant.tflite"


# In float, WebAssembly's fused multiply-adds round otherwise than this machine's: a millionth of a probability.
@pytest.mark.parametrize(("file", "tolerance"), [(published, 0), (float_file, 1e-4)])
def test_answers_are_those_of_the_runtime_in_python(testdata, tmp_path, file, tolerance):
    path = file(testdata, tmp_path)
    page, model, pictures = write_page(path, tmp_path / "page"), TFLiteModel(path), photographs(testdata)
    assert len(pictures) == 50
    seen = in_browser(page, pictures=[*map(str, pictures)], camera=True)
    for picture, answer in zip(pictures, seen["answers"], strict=True):
        scores = model.predict(read_image(picture, model.input_shape[:2])[None])[0]
        assert answer["names"][0] == model.labels[int(scores.argmax())], picture
        np.testing.assert_allclose(answer["scores"], np.sort(scores)[::-1][:5], atol=tolerance)
    assert seen["keyboard"][:2] == ["choose", "camera"]
    assert seen["phone"][0] <= seen["phone"][1]  # nothing to scroll sideways for
    assert len(seen["camera"]["on"]["names"]) == 5 and seen["camera"]["on"]["live"] == "off"
    assert seen["camera"]["pressed"] == "false"
    assert seen["offline"]["names"] == seen["answers"][0]["names"]
    assert "web server" in seen["as_file"]
    assert (seen["errors"], seen["foreign"]) == ([], [])


def test_pixels_are_those_of_read_image_to_the_bit(testdata, tmp_path):
    page = write_page(published(testdata, tmp_path), tmp_path / "page")
    random = np.random.default_rng(0)
    for index, (mode, size) in enumerate(SHAPES):
        image = Image.fromarray(random.integers(0, 256, (*size[::-1], 3), np.uint8)).convert(mode)
        if mode == "RGBA":
            image.putalpha(Image.fromarray((random.random(size[::-1]) > 0.5).astype(np.uint8) * 255))
        image.save(page / f"{index}.png")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    seen = in_browser(
        page, pictures=[str(page / "0.png"), str(broken)], pixels=[f"{i}.png" for i in range(len(SHAPES))]
    )
    for index, pixels in enumerate(seen["pixels"]):
        np.testing.assert_array_equal(pixels, read_image(page / f"{index}.png", 224).ravel(), str(SHAPES[index]))
    assert seen["answers"][1]["bad"] and "not a picture" in seen["answers"][1]["status"]


SIDE = 96
WITHOUT = {"alpha": 0.35, "backbone_weights": None}


def published_detector():
    """Its last operation chooses the boxes, and does not say how many there may be."""
    return None, None


def sigmoid_detector():
    task = Detection(3, image_size=(SIDE, SIDE), alpha=0.35)
    return living(SSDLite("MobileNetV2", (SIDE, SIDE, 3), classes=3, **WITHOUT), images(16, SIDE)), task


def softmax_detector():
    model = SSD300("MobileNet", (SIDE, SIDE, 3), classes=3, background=True, **{**WITHOUT, "alpha": 0.25})
    return living(model, images(16, SIDE)), Detection(3, image_size=(SIDE, SIDE), background=True, alpha=0.25)


def segmenter():
    return living(LRASPP("MobileNetV2", (SIDE, SIDE, 3), classes=4, **WITHOUT), images(16, SIDE)), Segmentation(4)


def embedder():
    trunk = MobileNet((SIDE, SIDE, 3), alpha=0.25, include_top=False, pooling="avg", weights=None)
    vector = keras.layers.Dense(16, name="embedding")(trunk.output)
    return living(keras.Model(trunk.input, {"embedding": vector}), images(16, SIDE)), Embedding(16)


def same_boxes(said, answer):
    sure = np.asarray(answer["scores"]) >= 0.3
    assert sure.any() and [one["label"] for one in said] == answer["labels"][sure].tolist()
    for name in ("box", "score"):
        expected = answer["boxes" if name == "box" else "scores"][sure]
        np.testing.assert_allclose([one[name] for one in said], expected, atol=1e-4)  # float32 in WebAssembly


def same_masks(said, answer):
    assert (np.reshape(said["numbers"], answer.shape) == answer).mean() > 0.999  # two logits may be as good as equal
    assert len(np.unique(answer)) > 1


def same_vectors(said, answer):
    np.testing.assert_allclose(said, answer, atol=1e-4)


@pytest.mark.parametrize(
    ("make", "same"),
    [
        (published_detector, same_boxes),
        (sigmoid_detector, same_boxes),
        (softmax_detector, same_boxes),
        (segmenter, same_masks),
        (embedder, same_vectors),
    ],
)
def test_every_task_says_in_the_browser_what_it_says_in_python(testdata, tmp_path, make, same):
    keras.utils.set_random_seed(0)
    model, task = make()
    path = testdata / "published" / "ssd_mobilenet_v1_coco_300_quant.tflite"
    if model is not None:
        path = tmp_path / "model.tflite"
        export_tflite(model, path, task=task, decoded=False, verbose=False)
    page, here = write_page(path, tmp_path / "page"), tflite_model(path)
    pictures = photographs(testdata)[:3]
    for picture in pictures:
        shutil.copy(picture, page)
    seen = in_browser(page, pictures=[str(pictures[0])], decoded=[picture.name for picture in pictures])
    assert seen["errors"] == [] and not seen["answers"][0]["bad"]
    for picture, said in zip(pictures, seen["decoded"], strict=True):
        same(said, here.predict(here.read(picture)[None])[0])
