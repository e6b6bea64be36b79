"""What Keras' own `model.export(format="litert")` and `model.quantize("int8")` give on MobileNetV2.

    python -m benchmarks.keras_export

Writes keras_export.csv: for each way the bytes of the file, its operations, how many of them compute in float, and the
median time of one image on one thread. Of MobileNetV2 0.35 at 96 x 96, with random weights: none of these figures
depends on them.
"""

from __future__ import annotations

import csv
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mobilenets import MobileNetV2, export_tflite, inline
from keras_mobilenets.tflite import TFLiteModel, audit

SIZE, IMAGES, RUNS = 96, 32, 100
FIELDS = ("way", "bytes", "operations", "float_operations", "ms", "note")


def model() -> keras.Model:
    """The network, of random weights."""
    return MobileNetV2((SIZE, SIZE, 3), alpha=0.35, weights=None, classes=10)


def ways(images: np.ndarray) -> Iterator[tuple[str, Callable[[str], Any]]]:
    """Each way to a file, by its name."""
    import tensorflow as tf

    def quantized(path: str) -> None:
        given = model()
        given.quantize("int8")
        given.export(path, format="litert", verbose=False)

    def full_integer(path: str) -> None:
        model().export(
            path,
            format="litert",
            verbose=False,
            optimizations=[tf.lite.Optimize.DEFAULT],
            representative_dataset=lambda: ([one[None]] for one in images),
        )

    yield "export(format='litert')", lambda path: model().export(path, format="litert", verbose=False)
    yield "export(format='litert', optimizations, representative_dataset)", full_integer
    yield "quantize('int8'), export(format='litert')", quantized
    yield "export_tflite", lambda path: export_tflite(model(), path, verbose=False)
    yield (
        "export_tflite(quantize='int8')",
        lambda path: export_tflite(model(), path, quantize="int8", calibration=images, verbose=False),
    )


def row(way: Callable[[str], Any], path: str, image: np.ndarray) -> dict[str, Any]:
    """What a way to a file gives."""
    try:
        way(path)
    except Exception as error:  # what a converter refuses
        return {"note": f"refused: {type(error).__name__}"}
    found, runner = audit(path), TFLiteModel(path)
    times = []
    for _ in range(RUNS):
        began = time.perf_counter()
        runner.predict(image)
        times.append((time.perf_counter() - began) * 1e3)
    return {
        "bytes": found.size_bytes,
        "operations": sum(found.operations.values()),
        "float_operations": len(found.float_operations),
        "ms": round(statistics.median(times), 2),
    }


def main() -> None:
    """Writes the table."""
    images = np.random.default_rng(0).uniform(-1, 1, (IMAGES, SIZE, SIZE, 3)).astype("float32")
    with tempfile.TemporaryDirectory() as folder, Path(__file__).with_suffix(".csv").open("w", newline="") as file:
        table = csv.DictWriter(file, FIELDS)
        table.writeheader()
        given = model()
        given.quantize("int8")
        integer = [one.name for one in inline(given).layers if getattr(one, "quantization_mode", None)]
        table.writerow({"way": "quantize('int8')", "note": f"integer layers: {', '.join(integer)}"})
        for number, (way, run) in enumerate(ways(images)):
            found = {"way": way, **row(run, f"{folder}/{number}.tflite", images[:1])}
            table.writerow(found)
            file.flush()
            print(found, flush=True)


if __name__ == "__main__":
    main()
