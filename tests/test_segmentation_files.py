"""A segmentation network's integer file: equal to the bit, logits or the class of each pixel, and back as a model."""

import keras
import numpy as np
import pytest
from export_models import images, living

from keras_mobilenets import LRASPP, DeepLabV3
from keras_mobilenets.data import read_image
from keras_mobilenets.export import export_tflite
from keras_mobilenets.interop import from_tflite
from keras_mobilenets.quantization import calibrate, quantize_model
from keras_mobilenets.tasks import Segmentation, task_of
from keras_mobilenets.tflite import TFLiteModel, read_tflite

pytestmark = pytest.mark.usefixtures("eagerly")

SIZE = 64
LABELS = ["sky", "road", "car"]
PIXELS = np.rint((images(4, SIZE) + 1) * 127.5).astype(np.uint8)
MODELS = {
    "LRASPP": (LRASPP, {"output_stride": 32}),
    "DeepLabV3": (DeepLabV3, {"aspp": True, "resize": False, "divisor": 1}),
}


@pytest.fixture(scope="module", params=["LRASPP", pytest.param("DeepLabV3", marks=pytest.mark.slow)])
def made(request, tmp_path_factory):
    builder, options = MODELS[request.param]
    keras.utils.set_random_seed(0)
    model = living(
        builder("MobileNetV2", (SIZE, SIZE, 3), classes=3, alpha=0.35, backbone_weights=None, **options),
        images(32, SIZE),
    )
    quantized = quantize_model(model)
    calibrate(quantized, images(32, SIZE))
    path = tmp_path_factory.mktemp("files") / "model.tflite"
    report = export_tflite(
        quantized, path, task=Segmentation(3), labels=LABELS, verify=images(4, SIZE), strict=True, verbose=False
    )
    return request.param, model, quantized, path, report


def test_file_is_equal_to_the_bit_and_says_what_it_is_for(made):
    _, _, quantized, path, report = made
    found = TFLiteModel(path)
    assert report.audit.is_integer and found.labels == LABELS
    given = quantized.predict(images(4, SIZE), verbose=0)["mask"]
    assert np.array_equal(found.predict(images(4, SIZE)), given)
    task = task_of(read_tflite(path))
    assert (task.classes, task.decode(found.predict(PIXELS), (SIZE, SIZE)).shape) == (3, (4, SIZE, SIZE))


@pytest.mark.slow
def test_the_class_of_each_pixel_inside(made, tmp_path):
    _, _, quantized, path, _ = made
    inside = tmp_path / "inside.tflite"
    task = Segmentation(3)
    export_tflite(quantized, inside, task=task, decoded=True, labels=LABELS, verify=images(2, SIZE), verbose=False)
    numbers = TFLiteModel(inside).predict(PIXELS)
    assert numbers.dtype == np.int32
    assert np.array_equal(numbers, TFLiteModel(path).predict(PIXELS).argmax(-1))
    times = SIZE // numbers.shape[1]
    assert np.array_equal(task.decode(numbers, (SIZE, SIZE)), numbers.repeat(times, 1).repeat(times, 2))


def test_deeplab_comes_back(made):
    name, model, _, path, _ = made
    if name == "LRASPP":
        with pytest.raises(ValueError, match="cannot become a model of this package"):
            from_tflite(path)
        return
    back = from_tflite(path)
    assert back.output["mask"].shape == model.output["mask"].shape
    expected, found = (np.asarray(one(images(4, SIZE))["mask"]) for one in (model, back))
    # Kernels of 8 bits alone, through seventy layers that nobody trained; another order of branches leaves nothing.
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.7


@pytest.mark.slow
def test_the_published_deeplab(testdata):
    path = testdata / "published" / "deeplabv3_mnv2_dm05_pascal_quant.tflite"
    files = sorted((testdata / "data" / "coco256" / "images" / "val2017").glob("*.jpg"))[:4]
    pixels = np.stack([read_image(file, 513) for file in files])
    model, task = from_tflite(path), Segmentation(21, corners=True)
    found = task.decode(np.asarray(model(pixels / np.float32(127.5) - 1)["mask"]), (513, 513))
    # 99.3 % on 24 pictures: what the file rounds decides on the edges.
    assert task.agreement(found, TFLiteModel(path).predict(pixels)).mean() > 0.985
