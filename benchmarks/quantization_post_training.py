"""Post-training quantization of published weights, here and by TensorFlow's own converter.

    KERAS_MOBILENETS_TESTDATA=FOLDER python -m benchmarks.quantization_post_training  # half an hour on two busy cores

Every fifth of the 500 photographs of the sample calibrates, the other 400 test. A line for each model and method: top-1
accuracy, and how often the first choice is the float model's. MobileNetV3's weights come from a file that was trained
quantization-aware, so that an integer file may be right more often than the float model: look at both figures.

Methods: "float"; "post_training_quantize" (its file by `export_tflite`); "min_max, uncorrected" (the file without what
`post_training_quantize` does: ranges that hold every value, biases as they were); "tf.lite" (TensorFlow's converter).

Result: benchmarks/quantization_post_training.csv.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_mobilenets as km
from benchmarks.quantization import V1_5, V1_25, V2, full_integer
from keras_mobilenets.data.images import read_image
from keras_mobilenets.pixels import PixelScale
from keras_mobilenets.tflite import TFLiteModel
from keras_mobilenets.utils import atomic_path

CSV = Path(__file__).with_suffix(".csv")
FIELDS = ("model", "method", "photographs", "top1", "agreement")
MODELS = {
    "V1 0.25/128": ("MobileNet", 0.25, 128, V1_25),
    "V1 0.5/160": ("MobileNet", 0.5, 160, V1_5),
    "V2 1.0/224": ("MobileNetV2", 1.0, 224, V2),
    "V3 Small 1.0/224": ("MobileNetV3Small", 1.0, 224, "weights_mobilenet_v3_small_224_1.0_float.h5"),
}


def measure(name: str, folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of one model."""
    builder, alpha, size, weights = MODELS[name]
    model = getattr(km, builder)((size, size, 3), alpha=alpha, weights=folder / "weights" / weights)
    files = sorted((folder / "data" / "imagenet_sample").glob("*.jpg"))
    pixels = np.stack([read_image(file, size) for file in files])
    calibrates = np.arange(len(files)) % 5 == 0
    images, tested = PixelScale.of(model)(pixels[calibrates]), pixels[~calibrates]
    labels = np.array([int(file.name[:4]) for file in files])[~calibrates]
    in_float = model.predict(PixelScale.of(model)(tested), verbose=0).argmax(-1)

    def line(method: str, chosen: np.ndarray) -> dict[str, Any]:
        figures = (len(labels), (chosen == labels).mean().round(4), (chosen == in_float).mean().round(4))
        return dict(zip(FIELDS, (name, method, *figures), strict=True))

    yield line("float", in_float)
    yield line("post_training_quantize", choices(exported(km.post_training_quantize(model, images), images), tested))
    plain = km.quantize_model(model, observer="min_max")
    km.calibrate(plain, images)
    yield line("min_max, uncorrected", choices(exported(plain, images), tested))
    yield line("tf.lite", choices(by_tensorflow(model, images), tested))


def exported(quantized: keras.Model, images: np.ndarray) -> bytes:
    """The file of a quantized model."""
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "model.tflite"
        km.export_tflite(quantized, path, verify=images[:8], strict=True, verbose=False)
        return path.read_bytes()


def by_tensorflow(model: keras.Model, images: np.ndarray) -> bytes:
    """By TensorFlow's converter, as its guide to post-training quantization does it."""
    import tensorflow as tf

    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return full_integer(tf.lite.TFLiteConverter.from_keras_model(clone), images)


def choices(content: bytes, pixels: np.ndarray) -> np.ndarray:
    """The classes that a file chooses."""
    return TFLiteModel(content).predict(pixels).argmax(-1)


def main() -> None:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=MODELS)
    parser.add_argument("--output", type=Path, default=CSV)
    options = parser.parse_args()
    if "KERAS_MOBILENETS_TESTDATA" not in os.environ:
        parser.error("set KERAS_MOBILENETS_TESTDATA to the folder with photographs and weights")
    rows = []
    for name in options.models:
        for row in measure(name, Path(os.environ["KERAS_MOBILENETS_TESTDATA"])):
            rows.append(row)
            print(*row.values(), sep="  ", flush=True)
    with atomic_path(options.output) as path, path.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
