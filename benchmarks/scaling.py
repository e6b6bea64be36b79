"""What training a published model asks of its devices and of the network between them, on paper.

    python -m benchmarks.scaling             # at once; writes benchmarks/scaling.csv

A ring all-reduce sends and receives 2 (N - 1) / N times the four bytes of each parameter, which is less than 8 bytes
for any number N of devices. It hides behind the computation as long as that takes longer: with the batch that a device
needs for this, the network is no limit.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

from keras_mobilenets.applications.variants import VARIANTS
from keras_mobilenets.training.recipes import RECIPES
from keras_mobilenets.utils import atomic_path

IMAGES, DAY = 1_281_167, 86_400  # ImageNet's training images; seconds
RECIPE = {"MobileNet": "v1-paper", "MobileNetV2": "v2-paper"}  # MobileNetV3: v3-paper
NETWORKS = {"1": 1e9, "10": 10e9, "100": 100e9}  # bits a second
DEVICE = 2000  # images a second on one device, assumed for the least batches; they are in proportion to it
CSV = Path(__file__).with_suffix(".csv")


def rows() -> list[dict[str, object]]:
    """Each published network once, at its largest image size."""
    found = []
    largest = {(one.builder, one.alpha, one.minimalistic): one for one in reversed(VARIANTS)}
    for one in sorted(largest.values(), key=VARIANTS.index):
        all_reduce_bytes = 4 * one.parameters
        epochs = RECIPES[RECIPE.get(one.builder, "v3-paper")].epochs
        row: dict[str, object] = {
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


def main() -> None:
    """Writes the table, whole or not at all."""
    with atomic_path(CSV) as temporary, temporary.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows()[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows())


if __name__ == "__main__":
    main()
