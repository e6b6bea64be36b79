"""Times `.tflite` files, here or on a device far away. Needs the standard library, and LiteRT where it times itself.

    python measure.py FOLDER                                     # on the machine that this runs on
    python measure.py FOLDER --push "adb push {file} /data/local/tmp/block.tflite" \\
        --run "adb shell /data/local/tmp/benchmark_model --graph=/data/local/tmp/block.tflite --num_threads=1"

FOLDER holds blocks.csv (operation, input, file) and the files. Beside it latency.csv is written, which a `LatencyTable`
reads: operation, input, processor, runtime, ms. What is in it already is not measured again. `ssh` serves
as `adb` does.
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import re
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

COLUMNS = ("operation", "input", "processor", "runtime", "ms")
BLOCKS, LATENCY = "blocks.csv", "latency.csv"
ROUNDS, WARM_UP, SWEPT = 100, 3, 2**15
AVERAGE = re.compile(r"Inference \(avg\): ([\d.e+]+)")  # of benchmark_model, in microseconds


def processor() -> str:
    """The name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Hardware"))]
    return names[0] if names else platform.processor() or platform.machine()


def runtime() -> str:
    """The runtime that times here, with its version."""
    from importlib import metadata

    for name in ("ai-edge-litert", "tflite-runtime", "tensorflow"):
        try:
            return f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            continue
    raise ImportError("Neither ai-edge-litert nor tflite-runtime nor tensorflow is installed")


def measure(files: Sequence[str | os.PathLike[str]], *, rounds: int = ROUNDS) -> list[float]:
    """Milliseconds of one call of each file, on one thread of this machine.

    The files take turns, and memory is written between two calls: inside of a network, too, a block finds the caches
    filled with what came before. The lower quartile counts: whatever else the machine does only adds time.
    """
    runners = [_runner(os.fspath(file)) for file in files]
    times: list[list[float]] = [[] for _ in runners]
    memory, zeros = bytearray(SWEPT), bytes(SWEPT)
    for turn in range(WARM_UP + rounds):
        for run, found in zip(runners, times, strict=True):
            memory[:] = zeros
            began = time.perf_counter_ns()
            run()
            if turn >= WARM_UP:
                found.append((time.perf_counter_ns() - began) / 1e6)
    return [sorted(found)[len(found) // 4] for found in times]


def _runner(file: str) -> Callable[[], Any]:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        try:
            from tflite_runtime.interpreter import Interpreter
        except ImportError:
            from tensorflow.lite import Interpreter
    interpreter = Interpreter(model_path=file, num_threads=1)
    interpreter.allocate_tensors()
    return interpreter.invoke


def far(file: Path, run: str, push: str) -> float:
    """What benchmark_model says of a file, in milliseconds."""
    for command in filter(None, (push, run)):
        words = [word.replace("{file}", str(file)) for word in shlex.split(command)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{shlex.join(words)} failed: {done.stderr.strip() or done.stdout.strip()}")
    found = AVERAGE.search(done.stdout + done.stderr)
    if found is None:
        raise SystemExit(f"{shlex.join(words)} did not say how long an inference took")
    return float(found[1]) / 1e3


def rows(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV, none of one that is not there."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    """What the head of this file says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--run", help="a command that runs benchmark_model on the device; {file} is the block's path")
    parser.add_argument("--push", default="", help="a command that brings {file} there first")
    parser.add_argument("--processor", help="the device's name; this machine's processor by default")
    parser.add_argument("--runtime", help="its runtime; this machine's by default, benchmark_model with --run")
    arguments = parser.parse_args()
    names = {
        "processor": arguments.processor or processor(),
        "runtime": arguments.runtime or ("benchmark_model" if arguments.run else runtime()),
    }
    result = arguments.folder / LATENCY
    known = {(row["operation"], row["input"]) for row in rows(result)}
    for row in rows(arguments.folder / BLOCKS):
        if (row["operation"], row["input"]) in known:
            continue
        file = arguments.folder / row["file"]
        ms = far(file, arguments.run, arguments.push) if arguments.run else measure([file])[0]
        begun = result.exists()
        with result.open("a", newline="") as out:
            writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
            if not begun:
                writer.writeheader()
            writer.writerow({"operation": row["operation"], "input": row["input"], **names, "ms": f"{ms:.5f}"})
        print(f"{ms:9.4f} ms  {row['input']:14} {row['operation']}", flush=True)


if __name__ == "__main__":
    main()
