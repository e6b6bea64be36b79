"""Where the time of an integer file goes: the latency of each beginning of its graph.

    python -m benchmarks.prefixes [FILE.tflite] [--output benchmarks/prefixes.csv]

By default MobileNetV3-Small of 224 x 224 with random weights. A beginning ends behind one operation, whose result is
then its output; what the operation costs is the difference of the medians to the beginning before it, which is more
than a profile of single operations says: XNNPACK computes them fused and in other orders. All beginnings run in turns,
on one thread. Differences of some microseconds are noise; the sums by kind are what counts.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks.ondevice import ARCHITECTURES, WARM_UP, ours, processor
from keras_mobilenets.tflite.edit.slim import pack
from keras_mobilenets.tflite.file import Graph, Operator, read_tflite, unpack
from keras_mobilenets.tflite.runner import make_interpreter
from keras_mobilenets.utils import atomic_path

CSV = Path(__file__).with_suffix(".csv")


def beginning(content: bytes, last: int) -> bytes:
    """The file that ends behind an operation."""
    model: Any = unpack(content)
    graph = model.subgraphs[0]
    graph.operators = graph.operators[: last + 1]
    graph.outputs = [graph.operators[-1].outputs[0]]
    model.signatureDefs, model.metadata = [], []  # which tell of the outputs
    return pack(model)


def kind_of(graph: Graph, operator: Operator) -> str:
    """What an operation is, for the sums."""
    source, result = (graph.tensors[indices[0]] for indices in (operator.inputs, operator.outputs))
    if operator.name == "CONV_2D":
        kernel = graph.tensors[operator.inputs[1]].shape
        return "pointwise of one pixel" if result.shape[1:3] == (1, 1) else f"convolution {kernel[1]}x{kernel[2]}"
    if operator.name == "MUL":
        shapes = {graph.tensors[index].shape for index in operator.inputs}
        return "hard-swish" if len(shapes) == 1 else "gate"
    if operator.name == "ADD" and any(graph.tensors[index].data is not None for index in operator.inputs):
        return "hard-swish" if source.dtype == "int8" else "pixels"
    return {"DEPTHWISE_CONV_2D": "depthwise", "ADD": "residual", "MEAN": "mean"}.get(operator.name, operator.name)


def measure(content: bytes, rounds: int) -> np.ndarray:
    """Median milliseconds of each beginning."""
    count = len(read_tflite(content).graph.operators)
    interpreters = [make_interpreter(beginning(content, last), f"beginning {last}") for last in range(count)]
    times = np.zeros((rounds, count))
    generator = np.random.default_rng(0)
    for turn in range(WARM_UP + rounds):
        for last in generator.permutation(count):
            interpreters[last].invoke()
            start = time.perf_counter_ns()
            interpreters[last].invoke()
            times[max(turn - WARM_UP, 0), last] = (time.perf_counter_ns() - start) / 1e6
    return np.median(times, axis=0)


def main() -> None:
    """Measures, prints the sums and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--output", type=Path, default=CSV)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.file or Path(folder) / "model.tflite"
        if options.file is None:
            ours(next(one for one in ARCHITECTURES if one.name == "V3 Small 224"), path, "int8")
        content = path.read_bytes()
    graph = read_tflite(content).graph
    ends = measure(content, options.rounds)
    sums: dict[str, float] = defaultdict(float)
    with atomic_path(options.output) as path, path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["processor", "operation", "name", "kind", "shape", "ms_until_here", "ms"])
        for operator, until, own in zip(graph.operators, ends, np.diff(ends, prepend=0.0), strict=True):
            kind, shape = kind_of(graph, operator), "x".join(map(str, graph.tensors[operator.outputs[0]].shape[1:]))
            sums[kind] += own
            writer.writerow([processor(), operator.index, operator.name, kind, shape, f"{until:.4f}", f"{own:.4f}"])
    for kind, own in sorted(sums.items(), key=lambda one: -one[1]):
        print(f"{kind:24}{own:8.3f} ms {own / ends[-1]:6.1%}")


if __name__ == "__main__":
    main()
