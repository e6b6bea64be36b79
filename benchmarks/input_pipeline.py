"""How fast pictures come, against Keras' plain pipeline and against what training asks for.

    python -m benchmarks.input_pipeline TESTDATA      # some minutes; writes benchmarks/input_pipeline.csv

TESTDATA/data/flowers holds the photographs. Each peer gives float images of 160 x 160, randomly cropped and mirrored:

- `plain`: `keras.utils.image_dataset_from_directory`, which decodes and resizes the whole picture, and a `map` over
  single pictures that crops an Inception box, resizes it and mirrors it. It decodes to the model's side / 0.875.
- `keras_mobilenets`: `load`, which decodes only the part that is kept.
- the same with each further augmentation.
- both again on photographs as a phone takes them: some of the same ones, enlarged to twelve megapixels.

Peers take turns, a stretch of batches each, begun anew, so that none works on while another is measured; what counts
are the ratios of the medians. CPU-seconds are the whole process', all its threads. `training step` is what the step
of a network takes in on this machine: a pipeline is no bottleneck while it gives more pictures per second.
"""

from __future__ import annotations

import argparse
import csv
import functools
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

import keras_mobilenets as km
from keras_mobilenets.data import load
from keras_mobilenets.data.names import PHOTO_AREA, STRETCH
from keras_mobilenets.utils import atomic_path

SIZE, BATCH = 160, 32
STORED = round(SIZE / 0.875)
AUGMENTATIONS = ("rand_augment", "random_erasing", "mix_up", "cut_mix")
LARGE, LARGE_PICTURES, LARGE_STRETCH = (4000, 3000), 64, 3
STEPS = {"MobileNetV3Small 1.0": ("MobileNetV3Small", 1.0), "MobileNetV2 0.35": ("MobileNetV2", 0.35)}
CSV = Path(__file__).with_suffix(".csv")
HEADER = ["peer", "images_per_s", "images_per_cpu_s", "ratio to plain", "cpu ratio to plain", "cpus", "turns"]


def plain(folder: Path) -> tf.data.Dataset:
    """What a Keras user writes first."""
    pictures = keras.utils.image_dataset_from_directory(
        folder, image_size=(STORED, STORED), crop_to_aspect_ratio=True, batch_size=None, seed=0, verbose=False
    )

    def augmented(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.shape(image),
            tf.zeros((1, 0, 4)),
            area_range=(PHOTO_AREA, 1.0),
            aspect_ratio_range=(1 / STRETCH, STRETCH),
            use_image_if_no_bounding_boxes=True,
        )
        image = tf.image.resize(tf.slice(image, begin, size), (SIZE, SIZE), antialias=True)
        return tf.image.random_flip_left_right(image), label

    batches = pictures.repeat().map(augmented, tf.data.AUTOTUNE).batch(BATCH, drop_remainder=True)
    return batches.prefetch(tf.data.AUTOTUNE)


def ours(folder: Path, *more: str) -> tf.data.Dataset:
    """This package's pipeline."""
    return load(folder, image_size=SIZE, batch_size=BATCH, augment=("crop_flip", *more)).train_from(0)


def step(builder: str, alpha: float) -> Callable[[], Iterator]:
    """Training steps on one batch."""
    model = getattr(km, builder)(alpha=alpha, input_shape=(SIZE, SIZE, 3), weights=None, classes=5)
    model.compile("sgd", "sparse_categorical_crossentropy", jit_compile=False)
    images, labels = np.random.default_rng(0).uniform(0, 255, (BATCH, SIZE, SIZE, 3)), np.zeros(BATCH, "int64")
    tensors = tf.constant(images, tf.float32), tf.constant(labels)
    return lambda: (model.train_on_batch(*tensors) for _ in itertools.count())


def enlarge(pictures: Path, folder: Path) -> None:
    """Writes some of the pictures in the size that phones take."""
    for path in sorted(pictures.glob("*/*.jpg"))[:: len(list(pictures.glob("*/*.jpg"))) // LARGE_PICTURES]:
        (folder / path.parent.name).mkdir(exist_ok=True)
        Image.open(path).resize(LARGE, Image.Resampling.BICUBIC).save(folder / path.parent.name / path.name, quality=90)


def measure(peers: dict[str, Callable[[], Iterator]], turns: int, stretch: int) -> dict[str, list[float]]:
    """Median pictures per second and per CPU-second of stretches of batches, all peers in turn."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in peers}
    for turn, (name, begin) in itertools.product(range(turns + 1), peers.items()):  # the first to warm up
        batches = begin()
        next(batches)  # threads and buffers are there, and as full at the end as now
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(stretch):
            next(batches)
        if turn:
            pictures = stretch * BATCH
            found[name].append((pictures / (time.perf_counter() - wall), pictures / (time.process_time() - cpu)))
        del batches
    return {name: [statistics.median(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}


def table(found: dict[str, list[float]], plain: str, turns: int) -> list[list]:
    """Rows of the CSV, with ratios to the peer `plain`."""
    rows = []
    for name, values in found.items():
        ratios = [f"{mine / other:.2f}" for mine, other in zip(values, found[plain], strict=True)]
        rows.append([name, *(f"{value:.1f}" for value in values), *ratios, os.cpu_count(), turns])
        print(*rows[-1], sep="\t", flush=True)
    return rows


def main() -> None:
    """Measures, prints and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("testdata", type=Path)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--stretch", type=int, default=20, help="batches of a peer in a turn")
    parser.add_argument("--output", type=Path, default=CSV)
    options = parser.parse_args()
    folder = options.testdata / "data" / "flowers"
    pipelines = {"plain": plain(folder / "train"), "keras_mobilenets": ours(folder)}
    pipelines |= {f"keras_mobilenets, {name}": ours(folder, name) for name in AUGMENTATIONS}
    peers: dict[str, Callable[[], Iterator]] = {name: functools.partial(iter, one) for name, one in pipelines.items()}
    peers |= {f"training step, {name}": step(*arguments) for name, arguments in STEPS.items()}
    rows = table(measure(peers, options.turns, options.stretch), "plain", options.turns)
    with tempfile.TemporaryDirectory() as large:
        enlarge(folder / "train", Path(large))
        pipelines = {"plain, 12 megapixels": plain(Path(large)), "keras_mobilenets, 12 megapixels": ours(Path(large))}
        peers = {name: functools.partial(iter, one) for name, one in pipelines.items()}
        rows += table(measure(peers, options.turns, LARGE_STRETCH), "plain, 12 megapixels", options.turns)
    with atomic_path(options.output) as temporary, temporary.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([HEADER, *rows])


if __name__ == "__main__":
    main()
