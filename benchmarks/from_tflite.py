"""Published integer files against the Keras models that `from_tflite` makes of them.

    KERAS_MOBILENETS_TESTDATA=FOLDER python benchmarks/from_tflite.py

Results: benchmarks/from_tflite.csv, a line for each file and output, of what the runtime computes in front of softmax,
of the choice of boxes or of classes. `same_top1`: in which share of answers (a photograph, an anchor, a pixel) the
float model's first class scores highest in the file, too. Then the quantized model as it is evaluated, against the
file's integers: in how many photographs all are equal, in how many none is off by more than one step, and both as
shares of all integers.
"""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from keras_mobilenets.data import read_image
from keras_mobilenets.interop import from_tflite
from keras_mobilenets.tflite import TFLiteModel, read_tflite
from keras_mobilenets.tflite.edit.endings import in_front_of_softmax, without_choice
from keras_mobilenets.tflite.edit.slim import pack
from keras_mobilenets.tflite.file import Graph, unpack
from keras_mobilenets.tflite.runner import make_interpreter

CSV = Path(__file__).with_suffix(".csv")
PHOTOGRAPHS = 25
BATCH = 5
HEAD = (
    *("file", "output", "photographs", "same_top1"),
    *("quantized_equal", "quantized_one_step", "quantized_values_equal", "quantized_values_one_step"),
)


def compare(path: Path, photographs: list[Path]) -> list[list[object]]:
    """The lines of one file."""
    graph = read_tflite(path).graph
    pixels = np.stack([read_image(one, graph.tensors[graph.inputs[0]].shape[1]) for one in photographs])
    images = pixels / np.float32(127.5) - 1
    ends = ends_of(graph)
    stored = run(path, ends, pixels)
    floats = answers_of(from_tflite(path), images)
    twin = from_tflite(path, quantized=True)
    exact = answers_of(twin.exact_logits() or twin, images)
    lines: list[list[object]] = []
    for index, integers, real, same in zip(ends, stored, floats, exact, strict=True):
        tensor, columns = graph.tensors[index], real.shape[-1]
        integers = integers[..., -columns:].astype(int)  # a detector's scores without the background
        found = np.rint(same.astype("float64") / tensor.scales[0]) + tensor.zero_points[0]
        off = np.abs(integers.ravel() - found.ravel()).reshape(len(pixels), -1)
        rows = integers.reshape(-1, columns)
        first = rows[np.arange(len(rows)), real.reshape(-1, columns).argmax(-1)] == rows.max(-1)
        counts = [(off.max(1) <= steps).sum() for steps in (0, 1)]
        shares = [f"{(off <= steps).mean():.5f}" for steps in (0, 1)]
        top = "" if columns == 4 else f"{first.mean():.4f}"  # corners of boxes have no first
        lines.append([path.name, tensor.name, len(pixels), top, *counts, *shares])
    return lines


def ends_of(graph: Graph) -> list[int]:
    """The tensors that a file's answers are made of."""
    graph = without_choice(graph)
    before, written = in_front_of_softmax(graph), {index: one for one in graph.operators for index in one.outputs}
    ends = []
    for index in (before.get(index, index) for index in graph.outputs):
        while index in written and written[index].name in ("ARG_MAX", "RESIZE_BILINEAR", "DEQUANTIZE"):
            index = written[index].inputs[0]
        ends.append(index)
    return ends


def run(path: Path, ends: list[int], pixels: np.ndarray) -> list[np.ndarray]:
    """What the runtime computes for some tensors of a file, which is cut behind them."""
    model = unpack(path.read_bytes())
    graph, needed, kept = model.subgraphs[0], set(ends), []
    for operator in reversed(graph.operators):
        if needed & set(map(int, operator.outputs)):
            needed.update(map(int, operator.inputs))
            kept.append(operator)
    graph.operators, graph.outputs, model.signatureDefs, model.metadata = kept[::-1], ends, [], []
    interpreter = make_interpreter(pack(model), path.name)
    indices = [one["index"] for one in interpreter.get_output_details()]
    rows = []
    for image in TFLiteModel(path).prepare(pixels):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[np.newaxis])
        interpreter.invoke()
        rows.append([interpreter.get_tensor(index) for index in indices])
    return [np.concatenate(parts) for parts in zip(*rows, strict=True)]


def answers_of(model: keras.Model, images: np.ndarray) -> list[np.ndarray]:
    """Its outputs; of a detector boxes and scores."""
    answers = model.predict(images, batch_size=BATCH, verbose=0)
    return (
        [answers["boxes"], answers["scores"]]
        if isinstance(answers, dict) and "boxes" in answers
        else keras.tree.flatten(answers)
    )


def main() -> None:
    """Compares all files, or those that are named, and writes the table."""
    folder = Path(os.environ["KERAS_MOBILENETS_TESTDATA"])
    photographs = sorted((folder / "data" / "imagenet_sample").glob("*.jpg"))
    chosen = photographs[:: len(photographs) // PHOTOGRAPHS][:PHOTOGRAPHS]
    rows = []
    for path in map(Path, sys.argv[1:]) if sys.argv[1:] else sorted((folder / "published").glob("*.tflite")):
        for line in compare(path, chosen):
            rows.append(line)
            print(*line, flush=True)
    with CSV.open("w", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows([HEAD, *rows])


if __name__ == "__main__":
    main()
