"""Latency and size of all published variants as full-integer files: what `keras-mobilenets choose` chooses by.

    python -m benchmarks.variants

Makes an int8 file of each variant (random weights, which do not change the speed; batch statistics and ranges of
random images) and runs them all on one thread, in turns, in an order drawn anew for each round, so that whatever else
the machine does hits all alike. Writes the CSV that the package ships; it says what one x86-64 core needs.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.ondevice import WARM_UP, Architecture, ours, runner
from keras_mobilenets.analysis.choice import MEASUREMENTS
from keras_mobilenets.applications.variants import VARIANTS, Variant
from keras_mobilenets.tflite.arena import arena_bytes
from keras_mobilenets.tflite.file import read_tflite
from keras_mobilenets.utils import atomic_path


def main() -> None:
    """Makes the files, runs them interleaved, writes the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=MEASUREMENTS, help="the CSV")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--files", type=Path, help="folder to keep the files in, to be measured again")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.files or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        files = {variant.name: make(variant, folder) for variant in VARIANTS}
        times = measure(files, arguments.rounds)
        with atomic_path(arguments.output) as path, path.open("w", newline="") as table:
            writer = csv.writer(table, lineterminator="\n")
            writer.writerow(["name", "latency_ms", "p10_ms", "size_bytes", "arena_bytes"])
            for name, file in files.items():
                milliseconds = [round(float(np.quantile(times[name], share)), 4) for share in (0.5, 0.1)]
                arena = arena_bytes(read_tflite(file).graph)
                writer.writerow([name, *milliseconds, file.stat().st_size, arena])


def make(variant: Variant, folder: Path) -> Path:
    """The int8 file of a variant, unless it is there."""
    path = folder / f"{variant.name}.tflite"
    if not path.exists():
        print(f"making {path.name}", flush=True)
        options = {"minimalistic": True} if variant.minimalistic else {}
        ours(Architecture(variant.name, variant.builder, variant.alpha, variant.size, options=options), path, "int8")
    return path


def measure(files: dict[str, Path], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each run; of two runs in a row the second, which finds its caches filled as in a video."""
    runners = {name: runner(path, threads=1) for name, path in files.items()}
    times: dict[str, list[float]] = {name: [] for name in runners}
    generator = np.random.default_rng(0)
    for turn in range(WARM_UP + rounds):
        for name in generator.permutation(list(runners)):
            runners[name]()
            start = time.perf_counter_ns()
            runners[name]()
            if turn >= WARM_UP:
                times[name].append((time.perf_counter_ns() - start) / 1e6)
    return times


if __name__ == "__main__":
    main()
