"""What more devices bring: measured with one process and two, and on paper beyond.

    python -m benchmarks.scaling             # three minutes; writes benchmarks/scaling.csv and scaling_measured.csv

Measured: steps of `fit` on Keras' JAX backend, each process with one thread and the same number of images, all that
they add up over the loopback; and how long a message of one number takes.

On paper: a ring all-reduce sends and receives 2 (N - 1) / N times the four bytes of each parameter, which is less than
8 bytes for any number N of devices. It hides behind the computation as long as that takes longer: with the batch that a
device needs for this, the network is no limit.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from keras_mobilenets.applications.variants import VARIANTS
from keras_mobilenets.training.recipes import RECIPES
from keras_mobilenets.utils import atomic_path

IMAGES, DAY = 1_281_167, 86_400  # ImageNet's training images; seconds
RECIPE = {"MobileNet": "v1-paper", "MobileNetV2": "v2-paper"}  # MobileNetV3: v3-paper
NETWORKS = {"1": 1e9, "10": 10e9, "100": 100e9}  # bits a second
DEVICE = 2000  # images a second on one device, assumed for the least batches; they are in proportion to it
MEASURED = (("MobileNet", 0.25, 96, 16), ("MobileNet", 0.25, 96, 2))  # builder, alpha, image size, images of a process
STEPS, WARM_UP = 30, 5
CSV, MEASURED_CSV = (Path(__file__).with_name(name) for name in ("scaling.csv", "scaling_measured.csv"))


def on_paper() -> list[dict[str, Any]]:
    """Each published network once, at its largest image size."""
    found = []
    largest = {(one.builder, one.alpha, one.minimalistic): one for one in reversed(VARIANTS)}
    for one in sorted(largest.values(), key=VARIANTS.index):
        all_reduce_bytes = 4 * one.parameters
        epochs = RECIPES[RECIPE.get(one.builder, "v3-paper")].epochs
        row: dict[str, Any] = {
            "model": one.name,
            "parameters": one.parameters,
            "all_reduce_bytes": all_reduce_bytes,
            "epochs": epochs,
            "images_per_s_for_a_day": round(IMAGES * epochs / DAY),
        }
        for name, bits in NETWORKS.items():
            seconds = 2 * all_reduce_bytes * 8 / bits
            row[f"ms_at_{name}_gbit"] = f"{1e3 * seconds:.2f}"
            row[f"least_batch_at_{name}_gbit"] = math.ceil(DEVICE * seconds)
        found.append(row)
    return found


def worker(process: int, builder: str, alpha: float, image_size: int, images: int) -> None:
    """One process of a measurement; the first prints what it found."""
    import keras
    import numpy as np

    from keras_mobilenets.training import build_classifier, distribute
    from keras_mobilenets.training.devices import gathered

    ends = []

    class Clock(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            float(logs["loss"])  # is there when the step is done
            ends.append(time.perf_counter())

    random = np.random.default_rng(process)
    pixels = random.uniform(0, 255, (images * (WARM_UP + STEPS + 1), image_size, image_size, 3)).astype("float32")
    with distribute():
        keras.utils.set_random_seed(0)
        model = build_classifier(builder, classes=10, image_size=image_size, alpha=alpha, stem_stride=4)
        model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=True)
        labels = np.arange(len(pixels)) % 10
        model.fit(pixels, labels, batch_size=images, shuffle=False, verbose=0, callbacks=[Clock()])
        messages = [time.perf_counter() for _ in range(STEPS) if len(gathered(0))]
    if process == 0:
        size_bytes = 4 * sum(math.prod(one.shape) for one in model.trainable_weights)
        found = {"all_reduce_bytes": size_bytes, "step_ms": median_ms(ends), "message_ms": median_ms(messages)}
        print(json.dumps(found))


def median_ms(ends: list[float]) -> float:
    """Between two of them, after the first."""
    return 1e3 * statistics.median(end - start for start, end in itertools.pairwise(ends[WARM_UP:]))


def measure(case: tuple[Any, ...], processes: int) -> dict[str, Any]:
    """The median step of so many processes."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    started = []
    for process in range(processes):
        job = {"COORDINATOR_ADDRESS": f"127.0.0.1:{port}", "NUM_PROCESSES": str(processes), "PROCESS_ID": str(process)}
        one_thread = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
        environment = {**os.environ, **job, **one_thread, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
        command = [sys.executable, "-m", "benchmarks.scaling", str(process), *map(str, case)]
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    outputs = [one.communicate()[0] for one in started]
    if any(one.returncode for one in started):
        raise SystemExit(f"{case} in {processes} processes failed")
    found = json.loads(outputs[0].splitlines()[-1])
    builder, alpha, image_size, images = case
    return {
        "model": f"{builder} {alpha}/{image_size}",
        "processes": processes,
        "images_per_process": images,
        "all_reduce_bytes": found["all_reduce_bytes"],
        "message_ms": f"{found['message_ms']:.1f}" if processes > 1 else "",
        "step_ms": f"{found['step_ms']:.1f}",
        "images_per_s": f"{1e3 * images * processes / found['step_ms']:.0f}",
    }


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """A table, whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        process, builder, alpha, *numbers = sys.argv[1:]
        worker(int(process), builder, float(alpha), *map(int, numbers))
    else:
        write(CSV, on_paper())
        write(MEASURED_CSV, [measure(case, processes) for case in MEASURED for processes in (1, 2)])
