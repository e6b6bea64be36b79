"""Whether the latencies of a network's blocks add up to that of the network, in int8 on this machine's LiteRT.

    python -m benchmarks.latency_table --output benchmarks/latency_table.csv

Each block is a file of its own, timed as `keras_mobilenets.search.LatencyTable` does it; the whole network is timed by
the same function, in the same minute. Weights are random: they make no difference to the time.

Results: a line for each network, with the ratio of sum to whole.
"""

from __future__ import annotations

import argparse
import csv
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras_mobilenets as km
from benchmarks.ondevice import Architecture
from keras_mobilenets.export import export_tflite
from keras_mobilenets.search import LatencyTable, measure
from keras_mobilenets.search.latency import CALL, Chain

NETWORKS = (
    Architecture("V1 0.25 128", "MobileNet", 0.25, 128),
    Architecture("V1 0.5 160", "MobileNet", 0.5, 160),
    Architecture("V2 0.35 96", "MobileNetV2", 0.35, 96),
    Architecture("V2 1.0 224", "MobileNetV2", 1.0, 224),
    Architecture("V3 Small 224", "MobileNetV3Small", 1.0, 224),
    Architecture("V3 Large 224", "MobileNetV3Large", 1.0, 224),
    Architecture("V4 Conv-S 224", "MobileNetV4ConvSmall", 1.0, 224),
)
ROUNDS = 60


def main() -> None:
    """Measures, and writes the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("latency_table.csv"))
    parser.add_argument("--only", nargs="+", help="networks whose names contain one of these")
    arguments = parser.parse_args()
    lines = [row for row in measure.rows(arguments.output) if arguments.only]
    for network in NETWORKS:
        if arguments.only and not any(part in network.name for part in arguments.only):
            continue
        line = {"network": network.name, **compared(network)}
        print(line, flush=True)
        lines = [*(one for one in lines if one["network"] != network.name), line]
    with arguments.output.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def compared(network: Architecture) -> dict[str, object]:
    """Sum and whole of one network; the blocks and the whole take turns."""
    model = network.build(km)
    blocks = {block.key: block for block in [*Chain(model).blocks(), CALL]}
    images = network.images()
    if network.builder.startswith("MobileNetV4"):
        images = 127.5 * (images + 1)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.tflite" for number in range(len(blocks))]
        for block, file in zip(blocks.values(), files, strict=True):
            block.write(file)
        whole = Path(folder) / "whole.tflite"
        options = {"quantize": "int8", "input_dtype": "int8", "strict": True, "verbose": False}
        export_tflite(model, whole, calibration=images, **options)
        *times, whole_ms = measure.measure([*files, whole], rounds=ROUNDS)
    table = LatencyTable()
    table.add(dict(zip(blocks, times, strict=True)))
    total = table.latency_ms(model)
    return {
        "blocks": len(Chain(model).blocks()),
        "call_us": f"{1e3 * times[-1]:.2f}",
        "sum_ms": f"{total:.4f}",
        "whole_ms": f"{whole_ms:.4f}",
        "ratio": f"{total / whole_ms:.3f}",
        "processor": table.processor,
        "runtime": table.runtime,
    }


if __name__ == "__main__":
    main()
