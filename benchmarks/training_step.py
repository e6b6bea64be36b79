"""How long a training step and a prediction take, against keras.applications and tfmot.

    python -m benchmarks.training_step      # some minutes; writes benchmarks/training_step.csv and ..._kinds.csv

All peers of a model run in one process, one step each in turn, so that what else the machine does meets all alike. What
counts are the ratios; milliseconds are of this machine. "training" is a step; "prediction" `predict` of eight batches,
which a quantized model computes in the integers of its file, to the bit. Peak memory is of a process that does nothing
else. The second table says where the time of a training step goes: milliseconds by kind of operation, the ten largest.
"""

from __future__ import annotations

import argparse
import collections
import csv
import itertools
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_mobilenets as km
from keras_mobilenets.utils import atomic_path

MODELS = {
    "MobileNetV2 0.5/128": ("MobileNetV2", {"alpha": 0.5, "input_shape": (128, 128, 3)}),
    "MobileNetV2 1.0/160": ("MobileNetV2", {"alpha": 1.0, "input_shape": (160, 160, 3)}),
    "MobileNetV3Small 1.0/96": ("MobileNetV3Small", {"alpha": 1.0, "input_shape": (96, 96, 3)}),
    "MobileNet 0.5/128": ("MobileNet", {"alpha": 0.5, "input_shape": (128, 128, 3)}),
}
KINDS = ("training", "prediction")
BATCH, CLASSES = 16, 10
PREDICTED = 8  # batches: whether weights have changed since, a quantized model looks once
REFERENCE = "keras.applications float"
CSV = Path(__file__).with_suffix(".csv")


def ours(name: str, arguments: dict) -> keras.Model:
    """This package's float model."""
    return getattr(km, name)(**arguments)


def ours_quantized(name: str, arguments: dict) -> keras.Model:
    """This package's quantization-aware model."""
    return km.quantize_model(ours(name, arguments))


def keras_applications(name: str, arguments: dict) -> keras.Model:
    """The float model of the installed Keras."""
    return getattr(keras.applications, name)(**arguments)


def tf_keras_float(name: str, arguments: dict) -> object:
    """The float model of Keras 2."""
    import tf_keras

    return getattr(tf_keras.applications, name)(**arguments)


def tfmot_quantized(name: str, arguments: dict) -> object | None:
    """tfmot's quantization-aware model of the Keras 2 twin; None for V3, which tfmot refuses."""
    from tensorflow_model_optimization.quantization.keras import quantize_model

    return None if "V3" in name else quantize_model(tf_keras_float(name, arguments))


PEERS: dict[str, Callable[[str, dict], object | None]] = {
    REFERENCE: keras_applications,
    "keras_mobilenets float": ours,
    "keras_mobilenets QAT": ours_quantized,
    "tf_keras float": tf_keras_float,
    "tfmot QAT": tfmot_quantized,
}


def steps(peer: str, model_name: str) -> dict[str, Callable[[], object]] | None:
    """The training step and the prediction of a peer, each as a function without arguments."""
    name, arguments = MODELS[model_name]
    model = PEERS[peer](name, {**arguments, "weights": None, "classes": CLASSES})
    if model is None:
        return None
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0, 255, (BATCH, *arguments["input_shape"])).astype("float32")
    images = pixels if "V3" in name else pixels / 127.5 - 1
    labels = rng.integers(0, CLASSES, BATCH)
    model.compile("sgd", "sparse_categorical_crossentropy")
    if isinstance(model, km.quantization.QuantizedModel):
        km.calibrate(model, images[:4])  # only then it has integers
    many = np.tile(images, (PREDICTED, 1, 1, 1))
    return {
        "training": lambda: model.train_on_batch(images, labels),
        "prediction": lambda: model.predict(many, batch_size=BATCH, verbose=0),
    }


def measure(
    model_name: str, rounds: int, peers: Sequence[str], kinds: Sequence[str]
) -> dict[tuple[str, str], np.ndarray]:
    """Milliseconds of each peer and kind, one step each in turn."""
    functions = {peer: made for peer in peers if (made := steps(peer, model_name))}
    seconds: dict[tuple[str, str], list[float]] = {}
    # One kind after the other: behind each training step a quantized model would have new integers to predict with.
    for kind, turn in itertools.product(kinds, range(rounds + 3)):
        for peer, made in functions.items():
            start = time.perf_counter()
            made[kind]()
            if turn >= 3:  # three to warm up
                seconds.setdefault((peer, kind), []).append(time.perf_counter() - start)
    return {key: np.asarray(values) * 1e3 for key, values in seconds.items()}


def kinds(peer: str, model_name: str, count: int = 5) -> dict[str, float]:
    """Milliseconds of a training step by kind of operation, the largest first, as TensorFlow's profiler sees them."""
    import tensorflow as tf
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    functions = steps(peer, model_name)
    if functions is None:
        return {}
    for _ in range(3):
        functions["training"]()
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        for _ in range(count):
            functions["training"]()
        tf.profiler.experimental.stop()
        space = xplane_pb2.XSpace.FromString(next(Path(folder).rglob("*.xplane.pb")).read_bytes())
    totals: collections.Counter[str] = collections.Counter()
    for plane in space.planes:
        names = {key: value.name for key, value in plane.event_metadata.items()}
        for event in (event for line in plane.lines for event in line.events):
            node, _, kind = names[event.metadata_id].rpartition(":")
            if node and not node.endswith(":") and kind[0] != " ":  # an operation; all else is the runtime around it
                totals[kind.removeprefix("_MklNative")] += event.duration_ps / 1e9 / count
    return dict(totals.most_common(10))


def peak_memory_mb(peer: str, model_name: str) -> int:
    """Largest resident size of a fresh process that does three training steps, in MB."""
    arguments = [sys.executable, "-m", "benchmarks.training_step", "--only", peer, model_name]
    return int(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=MODELS)
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=PEERS, help=f"with {REFERENCE!r}")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS)
    parser.add_argument("--output", type=Path, default=CSV)
    parser.add_argument("--only", nargs=2, metavar=("PEER", "MODEL"), help="peak memory of one peer, in MB")
    options = parser.parse_args()
    if options.only:
        train = steps(*options.only)["training"]
        for _ in range(3):
            train()
        # Not getrusage: its maximum counts the parent's pages at the fork.
        print(int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
        return
    times, largest = [], []
    for model_name in options.models:
        measured = measure(model_name, options.rounds, options.peers, options.kinds)
        for (peer, kind), one in measured.items():
            ratio = np.median(one) / np.median(measured[REFERENCE, kind])
            memory = peak_memory_mb(peer, model_name) if kind == "training" else ""
            times.append([model_name, kind, peer, f"{np.median(one):.1f}", f"{np.percentile(one, 10):.1f}"])
            times[-1] += [f"{ratio:.2f}", memory]
            print(*times[-1], sep="\t", flush=True)
        for peer in options.peers if "training" in options.kinds else ():
            largest += [[model_name, peer, kind, f"{one:.2f}"] for kind, one in kinds(peer, model_name).items()]
    header = ["model", "kind", "peer", "median_ms", "p10_ms", f"ratio to {REFERENCE}", "peak_memory_mb"]
    write(options.output, header, times)
    path = options.output.with_name(f"{options.output.stem}_kinds.csv")
    write(path, ["model", "peer", "operation", "ms_per_step"], largest)


def write(path: Path, header: list[str], rows: list[list]) -> None:
    """Writes a table; what other runs measured stays, but for lines with the first two columns of a new one."""
    new = {tuple(row[:2]) for row in rows}
    found = list(csv.reader(path.read_text().splitlines()))[1:] if path.exists() else []
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        kept = [row for row in found if tuple(row[:2]) not in new]
        csv.writer(file, lineterminator="\n").writerows([header, *kept, *rows])


if __name__ == "__main__":
    main()
