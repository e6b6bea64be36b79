"""What 8 bits cost MobileNetV4's Conv-S: accuracy of a model trained here from random weights, and of its files.

    KERAS_MOBILENETS_TESTDATA=FOLDER python -m benchmarks.v4  # goes on where it was; `--seeds 1` is the first of three

STMicroelectronics' zoo reports 74.33 % for Conv-S in float and 64.24 % after post-training quantization by another
tool. ImageNet is not to be had here; on digits (bundled) and flowers the same question is asked of a smaller Conv-S.
All accuracies are of pictures that neither trained nor calibrated.

Methods: "float" is the Keras model; "PTQ" the file that `export_tflite` makes of it; "QAT" that of
`quantize_aware`; "PTQ tf.lite" and "PTQ tf.lite per tensor" are TensorFlow's converter, with a scale for each channel
of a kernel and with one for all.

Results: benchmarks/v4.csv, a line for each data set, method and seed.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from benchmarks.quantization import full_integer
from keras_mobilenets.data import load
from keras_mobilenets.export import export_tflite
from keras_mobilenets.tflite import TFLiteModel
from keras_mobilenets.training import build_classifier, fit, quantize_aware

CSV = Path(__file__).with_suffix(".csv")
FIELDS = ("data", "alpha", "size", "method", "seed", "top1", "pictures")
CALIBRATION = 128


@dataclass(frozen=True)
class Case:
    """What a Conv-S is trained on, how large it is, and for how many epochs in float and in 8 bits."""

    data: str
    alpha: float
    size: int
    stem_stride: int
    epochs: int
    quantize_epochs: int


CASES = (Case("digits", 0.35, 32, 2, 10, 1), Case("flowers", 0.35, 96, 4, 20, 2))


def main() -> None:
    """Measures what the CSV does not have yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", nargs="+", default=[case.data for case in CASES])
    options = parser.parse_args()
    rows = list(csv.DictReader(CSV.open())) if CSV.exists() else []
    done = {(row["data"], row["method"], int(row["seed"])) for row in rows}
    for seed, case in itertools.product(range(options.seeds), CASES):
        if case.data not in options.data or (case.data, "QAT", seed) in done:
            continue
        for row in measured(case, seed):
            rows.append(row)
            with CSV.open("w", newline="") as file:
                writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)


def measured(case: Case, seed: int) -> Iterator[dict[str, Any]]:
    """The lines of one model."""
    keras.utils.set_random_seed(seed)
    source = case.data if case.data == "digits" else f"{os.environ['KERAS_MOBILENETS_TESTDATA']}/data/{case.data}"
    data = load(source, image_size=case.size, batch_size=32, seed=seed)
    pixels, labels = (np.concatenate(parts) for parts in zip(*data.val.as_numpy_iterator(), strict=True))
    seen = np.concatenate([images for images, _ in data.train.take(CALIBRATION // 32).as_numpy_iterator()])
    options = {"image_size": case.size, "alpha": case.alpha, "stem_stride": case.stem_stride}
    model = build_classifier("MobileNetV4ConvSmall", classes=len(data.class_names), **options)
    fit(model, data, epochs=case.epochs)

    def row(method: str, answers: np.ndarray) -> dict[str, Any]:
        top1 = round(float((answers.argmax(-1) == labels).mean()), 4)
        return dict(zip(FIELDS, (case.data, case.alpha, case.size, method, seed, top1, len(labels)), strict=True))

    yield row("float", model.predict(pixels, verbose=0))
    yield row("PTQ", of_file(model, pixels, seen))
    trained = quantize_aware(model, data, recipe="scratch-qat", epochs=case.quantize_epochs)
    yield row("QAT", of_file(trained, pixels, seen))
    for method, per_channel in (("PTQ tf.lite", True), ("PTQ tf.lite per tensor", False)):
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        converter._experimental_disable_per_channel = not per_channel
        yield row(method, TFLiteModel(full_integer(converter, seen)).predict(pixels))


def of_file(model: keras.Model, pixels: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """What the int8 file answers."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        export_tflite(model, path, quantize="int8", calibration=seen, strict=True, verbose=False)
        return TFLiteModel(path).predict(pixels)


if __name__ == "__main__":
    main()
