"""LR-ASPP on CamVid, from ImageNet weights to an integer file: mIoU of 11 classes at 256 x 192, one row for each seed.

    python -m benchmarks.segmentation CAMVID WEIGHTS --models MobileNetV3Small MobileNetV2 --seeds 0 1 2

`CAMVID/` holds SegNet's `train` and `val` with images and masks (11 is "void"), `WEIGHTS/` files in keras.applications'
layout. Each row is a run of applications/segment.py by the package's recipes.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FILES = {
    "MobileNetV3Small": "weights_mobilenet_v3_small_224_1.0_float.h5",
    "MobileNetV2": "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5",
}
PROGRAM = Path(__file__).parents[1] / "applications" / "segment.py"


def main() -> None:
    """Does what the head of this file says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--models", nargs="+", choices=FILES, default=list(FILES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--quantize-epochs", type=int, default=3)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".csv"))
    options = parser.parse_args()
    with options.output.open("w", newline="") as file:
        writer = None
        for model in options.models:
            for seed in options.seeds:
                row = measured(model, seed, options)
                if writer is None:
                    writer = csv.DictWriter(file, list(row), lineterminator="\n")
                    writer.writeheader()
                writer.writerow(row)
                file.flush()


def measured(model: str, seed: int, options: argparse.Namespace) -> dict[str, str | float]:
    """One run."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        given = {
            "--model": model,
            "--weights": options.weights / FILES[model],
            "--seed": seed,
            "--epochs": options.epochs,
            "--quantize-epochs": options.quantize_epochs,
            "--output": folder,
        }
        arguments = [str(part) for pair in given.items() for part in pair]
        fixed = ["--ignore", "11", "--image-size", "192", "256"]
        subprocess.run([sys.executable, PROGRAM, options.data, *fixed, *arguments], check=True)
        scores = json.loads(Path(folder, "metrics.json").read_text())
    return {
        "model": model,
        "seed": seed,
        "epochs": options.epochs,
        "quantize_epochs": options.quantize_epochs,
        **{f"mIoU_{name}": round(score["mIoU"], 4) for name, score in scores.items()},
        "pixel_accuracy_tflite": round(scores["tflite"]["pixel_accuracy"], 4),
        "minutes": round((time.perf_counter() - began) / 60, 1),
    }


if __name__ == "__main__":
    main()
