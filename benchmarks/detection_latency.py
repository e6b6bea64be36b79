"""Latency of integer detectors on this machine, beside Google's published SSD V1 file.

    KERAS_MOBILENETS_TESTDATA=... python benchmarks/detection_latency.py --output benchmarks/detection_latency.csv

One thread. In each round every file runs twice on a photograph, in an order drawn anew, so that whatever else the
machine does hits all alike; the second run is timed. "SSD V1" has the published weights; others are random, with
statistics of photographs, so that the choice of boxes takes longer than of trained ones. Each file chooses as the
published one (10 boxes, the best class of an anchor), "by class" as `tasks.Detection` does by default.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from PIL import Image

import keras_mobilenets as km
from keras_mobilenets.export import export_tflite
from keras_mobilenets.interop import from_tflite
from keras_mobilenets.quantization import calibrate, quantize_model
from keras_mobilenets.tasks import Detection, Suppression, task_of
from keras_mobilenets.tflite import audit
from keras_mobilenets.tflite.runner import make_interpreter

PUBLISHED = "Google, SSD V1 300"
AS_PUBLISHED = Suppression(most=10, least_score=1e-8, most_overlap=0.6, by_class=False)
SSDLITE = (("MobileNetV2", 0.5), ("MobileNetV3Small", 1.0), ("MobileNetV2", 1.0), ("MobileNetV3Large", 1.0))
CALIBRATED_ON = 4
WARM_UP = 5


def main() -> None:
    """Makes the files, runs them interleaved, writes the CSV."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("detection_latency.csv"))
    parser.add_argument("--rounds", type=int, default=60)
    arguments = parser.parse_args()
    data = Path(os.environ["KERAS_MOBILENETS_TESTDATA"])
    photographs = sorted((data / "data" / "coco256" / "images" / "val2017").glob("*.jpg"))[:CALIBRATED_ON]
    with tempfile.TemporaryDirectory() as folder:
        files = dict(files_of(data, photographs, Path(folder)))
        rows = measure(files, photographs[0], arguments.rounds)
    with arguments.output.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def files_of(data: Path, photographs: list[Path], folder: Path) -> Iterator[tuple[str, Path]]:
    """Each detector's file by its name."""
    published = data / "published" / "ssd_mobilenet_v1_coco_300_quant.tflite"
    yield PUBLISHED, published
    detector = from_tflite(published)
    for name, suppression in (("SSD V1 300", AS_PUBLISHED), ("SSD V1 300, by class", Suppression())):
        yield name, exported(detector, suppression, photographs, folder / f"{name}.tflite")
    for backbone, alpha in SSDLITE:
        keras.utils.set_random_seed(0)
        model = km.SSDLite(backbone, (320, 320, 3), alpha=alpha, backbone_weights=None)
        for layer in km.inline(model).layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.momentum = 0.0  # the moving averages become the statistics of the one batch
        model(images(model, photographs), training=True)
        name = f"SSDLite {backbone.removeprefix('MobileNet')} {alpha:g} 320"
        yield name, exported(model, AS_PUBLISHED, photographs, folder / f"{name}.tflite")


def images(model: keras.Model, photographs: list[Path]) -> np.ndarray:
    """Photographs as a detector takes them."""
    taken = np.stack([pixels(one, model.input_shape[1]) for one in photographs])
    return km.PixelScale.of(model)(taken)


def pixels(photograph: Path, size: int) -> np.ndarray:
    """Stretched to a square."""
    return np.asarray(Image.open(photograph).convert("RGB").resize((size, size)))


def exported(model: keras.Model, suppression: Suppression, photographs: list[Path], path: Path) -> Path:
    """An integer file with the choice of boxes inside."""
    print(f"making {path.name}", flush=True)
    task = task_of(model)
    assert isinstance(task, Detection)
    given, twin = images(model, photographs), quantize_model(model)
    calibrate(twin, given)
    task = dataclasses.replace(task, suppression=suppression)
    export_tflite(twin, path, task=task, verify=given[:1], strict=True, verbose=False)
    return path


def measure(files: dict[str, Path], photograph: Path, rounds: int) -> list[dict[str, Any]]:
    """Runs all files in turns; a row for each."""
    runners, times = {}, {name: list[float]() for name in files}
    for name, path in files.items():
        runners[name] = make_interpreter(path.read_bytes(), name)
        (entry,) = runners[name].get_input_details()
        runners[name].set_tensor(entry["index"], pixels(photograph, entry["shape"][1])[np.newaxis])
    generator = np.random.default_rng(0)
    for turn in range(WARM_UP + rounds):
        for name in generator.permutation(list(runners)):
            runners[name].invoke()
            began = time.perf_counter_ns()
            runners[name].invoke()
            if turn >= WARM_UP:
                times[name].append((time.perf_counter_ns() - began) / 1e6)
    rows = []
    for name, path in files.items():
        found, median = audit(path), float(np.median(times[name]))
        ratio = median / float(np.median(times[PUBLISHED]))
        p10 = float(np.quantile(times[name], 0.1))
        rows.append(
            {
                "detector": name,
                "median_ms": round(median, 2),
                "p10_ms": round(p10, 2),
                "ratio": round(ratio, 3),
                "p10_ratio": round(p10 / float(np.quantile(times[PUBLISHED], 0.1)), 3),
                "madds": found.madds,
                "size_bytes": found.size_bytes,
                "partitions": found.partitions,
            }
        )
        print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    main()
