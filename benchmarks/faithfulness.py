"""Whether a quantized Keras model answers as its integer file does, on real photographs.

    KERAS_MOBILENETS_TESTDATA=FOLDER python -m benchmarks.faithfulness

After calibration alone, on the photographs of the sample (every fifth of them calibrates; accuracies are of the
others): top-1 of the float model, of the quantized one and of the integer file; in how many photographs every answer,
and every logit in front of its softmax, is the file's: of the quantized model as it is (`exact`), of its
fake-quantized forward, and of `integer_model` on the file; and images per second of keras.applications' float model,
of the quantized model, and of the runtime on one thread. Without weights a model gets random ones with the batch
statistics of photographs, and has no accuracy.

Result: benchmarks/faithfulness.csv, a line for each model and target; rates are left empty where other work ran beside.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_mobilenets as km
from keras_mobilenets.data.images import read_image
from keras_mobilenets.integer import integer_model
from keras_mobilenets.pixels import PixelScale
from keras_mobilenets.tflite import TFLiteModel
from keras_mobilenets.tflite.edit.endings import without_softmax
from keras_mobilenets.utils import atomic_path

CSV = Path(__file__).with_suffix(".csv")
BATCH = 20

V2_WEIGHTS = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5"
V3_WEIGHTS = "weights_mobilenet_v3_small_224_1.0_float.h5"
MODELS: dict[str, tuple[str, float, int, str | None, str]] = {
    "V1 0.25/128": ("MobileNet", 0.25, 128, "mobilenet_2_5_128_tf.h5", "xnnpack"),
    "V1 0.5/160": ("MobileNet", 0.5, 160, "mobilenet_5_0_160_tf.h5", "xnnpack"),
    "V2 1.0/224": ("MobileNetV2", 1.0, 224, V2_WEIGHTS, "xnnpack"),
    "V3 Small 1.0/224": ("MobileNetV3Small", 1.0, 224, V3_WEIGHTS, "xnnpack"),
    "V3 Small 1.0/224 npu": ("MobileNetV3Small", 1.0, 224, V3_WEIGHTS, "npu"),
    "V3 Large 1.0/224": ("MobileNetV3Large", 1.0, 224, None, "xnnpack"),
}


def measure(name: str, folder: Path, temporary: Path, count: int) -> dict[str, Any]:
    """One line of the table."""
    builder, alpha, size, weights, target = MODELS[name]
    files = sorted((folder / "data" / "imagenet_sample").glob("*.jpg"))[:: max(1, 500 // count)][:count]
    labels = np.array([int(file.name[:4]) for file in files])
    pixels = np.stack([read_image(file, size) for file in files])
    model = getattr(km, builder)((size, size, 3), alpha=alpha, weights=weights and folder / "weights" / weights)
    images = PixelScale.of(model)(pixels)
    calibration = np.arange(len(files)) % 5 == 0
    if weights is None:
        with_statistics_of(model, images[calibration][:40])
    quantized = km.quantize_model(model, target=target)
    km.calibrate(quantized, images[calibration], batch_size=BATCH)
    path = temporary / "model.tflite"
    km.export_tflite(quantized, path, verify=images[:8], verbose=False)

    theirs = getattr(keras.applications, builder)((size, size, 3), alpha=alpha, weights=None)
    _, float_rate = timed(theirs.predict, images)
    float_answers = model.predict(images, batch_size=BATCH, verbose=0)
    exact, rate = timed(quantized.predict, images)
    answers, runtime_rate = timed(TFLiteModel(path).predict, pixels, warm_up=pixels[:2])
    logits = integer_model(path, logits=True).predict(pixels, batch_size=BATCH, verbose=0)
    code_logits = integers(without_softmax(path), pixels)
    quantized.exact = False
    fake = quantized.predict(images, batch_size=BATCH, verbose=0)

    def accuracy(given: np.ndarray) -> float | str:
        return "" if weights is None else (given.argmax(-1) == labels)[~calibration].mean().round(4)

    return {
        "model": name,
        "target": target,
        "photographs": len(files),
        "top1_float": accuracy(float_answers),
        "top1_quantized": accuracy(exact),
        "top1_file": accuracy(answers),
        "equal_exact": int((exact == answers).all(-1).sum()),
        "equal_fake_quantized": int((fake == answers).all(-1).sum()),
        "agreement_fake_quantized": (fake.argmax(-1) == answers.argmax(-1)).mean().round(4),
        "equal_logits": int((logits == code_logits).all(-1).sum()),
        "applications_float_images_per_s": round(float_rate, 1),
        "exact_images_per_s": round(rate, 1),
        "runtime_images_per_s": round(runtime_rate, 1),
    }


def with_statistics_of(model: keras.Model, images: np.ndarray) -> None:
    """Gives batch normalization the statistics of the images: at random weights the signal would die out."""
    for layer in km.inline(model).layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    model(images, training=True)


def timed(
    predict: Callable[..., Any], images: np.ndarray, warm_up: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """The answers, and how many images a second they took."""
    settings = {"batch_size": BATCH, "verbose": 0} if warm_up is None else {}
    predict(images[:BATCH] if warm_up is None else warm_up, **settings)  # traced, and memory had
    start = time.perf_counter()
    answers = predict(images, **settings)
    return np.asarray(answers), len(images) / (time.perf_counter() - start)


def integers(content: bytes, pixels: np.ndarray) -> np.ndarray:
    """The output bytes of the runtime."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    source, result = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    answers = []
    for image in pixels:
        interpreter.set_tensor(source, image[None])
        interpreter.invoke()
        answers.append(interpreter.get_tensor(result)[0])
    return np.stack(answers)


def main() -> None:
    """Measures, prints and writes the table."""
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=MODELS)
    parser.add_argument("--photographs", type=int, default=500)
    parser.add_argument("--output", type=Path, default=CSV)
    options = parser.parse_args()
    if "KERAS_MOBILENETS_TESTDATA" not in os.environ:
        parser.error("set KERAS_MOBILENETS_TESTDATA to the folder with photographs and weights")
    folder = Path(os.environ["KERAS_MOBILENETS_TESTDATA"])
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for name in options.models:
            keras.utils.set_random_seed(0)
            rows.append(measure(name, folder, Path(temporary), options.photographs))
            print(*(f"{key}={value}" for key, value in rows[-1].items()), sep="  ", flush=True)
    with atomic_path(options.output) as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
