"""Google's integer classifiers against the Keras models that `from_tflite` makes of them.

    KERAS_MOBILENETS_TESTDATA=FOLDER python benchmarks/from_tflite.py

Results: benchmarks/from_tflite.csv, a line for each file, of 64 photographs. `same_top1`: the share of photographs of
which the float model's first class scores highest in the file, too. `difference`: the mean difference of all
probabilities, in steps of 1/256. Then both of the quantized model.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from keras_mobilenets.data import read_image
from keras_mobilenets.interop import from_tflite
from keras_mobilenets.tflite import TFLiteModel

CSV = Path(__file__).with_suffix(".csv")
PHOTOGRAPHS = 64
HEAD = ("file", "same_top1", "difference", "quantized_same_top1", "quantized_difference")


def compare(path: Path, photographs: list[Path]) -> list[str]:
    """The line of one file."""
    file = TFLiteModel(path)
    pixels = np.stack([read_image(one, file.input_shape[0]) for one in photographs])
    scores, line = file.predict(pixels), [path.name]
    for quantized in (False, True):
        model = from_tflite(path, quantized=quantized)
        answers = model.predict(pixels / np.float32(127.5) - 1, batch_size=16, verbose=0)
        first = scores[np.arange(len(scores)), answers.argmax(-1)] == scores.max(-1)
        line += [f"{first.mean():.3f}", f"{256 * np.abs(answers - scores).mean():.4f}"]
    return line


def main() -> None:
    """Compares all files and writes the table."""
    folder = Path(os.environ["KERAS_MOBILENETS_TESTDATA"])
    photographs = sorted((folder / "data" / "imagenet_sample").glob("*.jpg"))
    chosen = photographs[:: len(photographs) // PHOTOGRAPHS][:PHOTOGRAPHS]
    classifiers = sorted(path for path in (folder / "published").glob("*.tflite") if "coco" not in path.name)
    rows = []
    for path in classifiers:
        if "deeplab" not in path.name:
            rows.append(compare(path, chosen))
            print(*rows[-1], flush=True)
    with CSV.open("w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([HEAD, *rows])


if __name__ == "__main__":
    main()
