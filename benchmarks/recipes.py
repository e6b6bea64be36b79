"""What the recipes bring on real pictures, against plain Adam: three seeds each, mean and spread.

    python -m benchmarks.recipes DATA       # about two hours on two cores; writes benchmarks/recipes.csv

DATA holds `data/flowers/{train,val}/CLASS/*.jpg` and the ImageNet weights in `weights/`. Of the flowers, 1,000 pictures
are trained on and all held-out ones evaluated, at 96 pixels from weights and at 64 from scratch; digits are the bundled
ones. All recipes of a row's model have the same number of epochs. Pictures are decoded once. Every finished training
is in the CSV at once; started again, the program does those that are missing.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import itertools
import os
import statistics
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from keras_mobilenets.data import load
from keras_mobilenets.data.folder import Photos, scan_folder
from keras_mobilenets.data.images import read_image
from keras_mobilenets.training import RECIPES, Recipe, build_classifier, fine_tune, fit
from keras_mobilenets.utils import atomic_path

CSV = Path(__file__).with_suffix(".csv")
SEEDS = (0, 1, 2)
HEADER = ["case", "model", "recipe", "epochs", "mean", "spread", *(f"seed {seed}" for seed in SEEDS)]
TRAINED_ON = 1000
MARGIN = 1 / 6  # flowers are decoded larger by this share, for random crops
BATCH_SIZE = 32
EMA = 0.9999  # published; in runs this short it looks back over a tenth of the steps


@dataclasses.dataclass(frozen=True)
class Model:
    """What is trained on what.

    Attributes:
        data: "flowers" or "digits".
        builder, alpha, size: of the model.
        weights: file of the ImageNet weights, or None.
        recipes: as in `RECIPES`; with "+ EMA", averaged; with "+ teacher", distilled.
        epochs: of each.
        teacher: key in MODELS of the model that was trained by its best recipe, to learn from.
    """

    data: str
    builder: str
    alpha: float
    size: int
    weights: str | None
    recipes: tuple[str, ...]
    epochs: int
    teacher: str | None = None


SCRATCH = ("adam", "v3-paper", "scratch", "scratch + EMA", "scratch + teacher")
V2_WEIGHTS = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5"
TUNED = ("finetune", "finetune + EMA")
MODELS = {
    "digits, V3 Small": Model("digits", "MobileNetV3Small", 0.5, 16, None, SCRATCH, 12, "digits, teacher"),
    "flowers, V3 Small": Model("flowers", "MobileNetV3Small", 0.5, 64, None, SCRATCH, 20, "flowers, V2 at 64"),
    "flowers, V1": Model(
        "flowers",
        "MobileNet",
        0.5,
        96,
        "mobilenet_5_0_160_tf.h5",
        ("adam", "v1-paper", *TUNED, "finetune + teacher"),
        6,
        "flowers, V2",
    ),
    "flowers, V2": Model("flowers", "MobileNetV2", 1.0, 96, V2_WEIGHTS, ("adam", "v2-paper", *TUNED), 6),
}
TEACHERS = {  # trained for others, by the first recipe
    "digits, teacher": Model("digits", "MobileNetV3Small", 1.0, 16, None, ("scratch",), 12),
    "flowers, V2 at 64": Model("flowers", "MobileNetV2", 1.0, 64, V2_WEIGHTS, ("finetune",), 6),
    "flowers, V2": dataclasses.replace(MODELS["flowers, V2"], recipes=("finetune",)),
}


class Pictures:
    """`TrainingData` out of decoded pictures: random crops, mirrored where they may be."""

    batch_size = BATCH_SIZE

    def __init__(self, train: tuple[np.ndarray, np.ndarray], val: tuple[np.ndarray, np.ndarray], size: int, flip: bool):
        self.train, self.size, self.flip = train, size, flip
        self.val = tf.data.Dataset.from_tensor_slices(val).batch(2 * BATCH_SIZE)
        self.val_count = len(val[1])
        self.classes = int(val[1].max()) + 1
        self.seed = 0

    @property
    def steps_per_epoch(self) -> int:
        return len(self.train[0]) // self.batch_size

    def train_from(self, epoch: int, step: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        images, labels = self.train
        for number in itertools.count(epoch):
            order = np.random.default_rng((self.seed, number)).permutation(len(images))
            for start in range(step, self.steps_per_epoch):
                some = order[start * self.batch_size : (start + 1) * self.batch_size]
                rng = np.random.default_rng((self.seed, number, start))
                yield np.stack([self._crop(images[index], rng) for index in some]), labels[some]
            step = 0

    def _crop(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        top, left = rng.integers(0, image.shape[0] - self.size + 1, 2)
        image = image[top : top + self.size, left : left + self.size]
        return image[:, ::-1] if self.flip and rng.integers(2) else image


def pictures(name: str, size: int, root: Path) -> Pictures:
    """Decoded once; those to train on with a margin."""
    if name == "digits":
        data = load("digits", image_size=size, augment="none")
        train, val = (
            tuple(np.concatenate(part) for part in zip(*batches.as_numpy_iterator(), strict=True))
            for batches in (data.train, data.val)
        )
        margin = round(size * MARGIN / 4)  # thumbnails are cut close
        padding = ((0, 0), (margin, margin), (margin, margin), (0, 0))
        return Pictures((np.pad(train[0], padding).astype("uint8"), train[1]), val, size, flip=False)
    folder = scan_folder(root / "data" / "flowers")
    chosen = np.random.default_rng(0).permutation(len(folder.train))[:TRAINED_ON]
    return Pictures(
        _decoded(folder.train.take(chosen), round(size * (1 + MARGIN))),
        _decoded(folder.val, size),
        size,
        flip=True,
    )


def _decoded(photos: Photos, size: int) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([read_image(path, size) for path in photos.paths]), photos.labels


def train(one: Model, recipe_name: str, seed: int, data: Pictures, root: Path, teacher: keras.Model | None):
    """A trained model and its accuracy on the held-out pictures."""
    keras.utils.set_random_seed(seed)
    data.seed = seed
    name, _, option = recipe_name.partition(" + ")
    recipe: Recipe = RECIPES[name]
    if option == "EMA":
        recipe = dataclasses.replace(recipe, ema=EMA)
    steps = one.epochs * data.steps_per_epoch
    average = recipe.batch_norm_momentum
    model = build_classifier(
        one.builder,
        classes=data.classes,
        image_size=one.size,
        alpha=one.alpha,
        weights=one.weights and root / "weights" / one.weights,
        dropout=recipe.dropout,
        momentum=average and recipe.momentum(average, batch_size=BATCH_SIZE, steps=steps),
    )
    function = fine_tune if recipe.stages else fit
    learned = teacher if option == "teacher" else None
    history = function(model, data, recipe=recipe, epochs=one.epochs, teacher=learned)
    return model, history.history["val_accuracy"][-1]


def read() -> dict[tuple[str, ...], dict[str, str]]:
    """The rows of the CSV that were measured before."""
    if not CSV.exists():
        return {}
    with CSV.open() as file:
        return {(row["case"], row["model"], row["recipe"]): row for row in csv.DictReader(file)}


def write(rows: dict[tuple[str, ...], dict[str, str]]) -> None:
    """All rows, with mean and spread of the seeds so far."""
    for row in rows.values():
        values = [float(row[f"seed {seed}"]) for seed in SEEDS if row.get(f"seed {seed}")]
        row["mean"] = f"{statistics.mean(values):.4f}"
        row["spread"] = f"{statistics.stdev(values):.4f}" if len(values) > 1 else ""
    with atomic_path(CSV) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, HEADER, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.values())


def main() -> None:
    """Trains what the CSV lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    root = parser.parse_args().data
    rows = read()
    loaded: dict[tuple[str, int], Pictures] = {}
    teachers: dict[str, keras.Model] = {}

    def data_of(one: Model) -> Pictures:
        key = one.data, one.size
        if key not in loaded:
            loaded[key] = pictures(*key, root)
        return loaded[key]

    runs = [
        (key, one, recipe, seed) for seed in SEEDS for key, one in MODELS.items() for recipe in one.recipes
    ]  # one seed of everything first
    for done, (key, one, recipe, seed) in enumerate(runs, 1):
        label = (key, f"{one.builder} {one.alpha:g}/{one.size}" + (", ImageNet" if one.weights else ""), recipe)
        row = rows.setdefault(label, dict(zip(HEADER, [*label, str(one.epochs)], strict=False)))
        if row.get(f"seed {seed}"):
            continue
        if recipe.endswith("teacher") and one.teacher not in teachers:
            other = TEACHERS[one.teacher]
            teachers[one.teacher], accuracy = train(other, other.recipes[0], 0, data_of(other), root, None)
            print(f"teacher {one.teacher}: {accuracy:.2%}", flush=True)
        _, accuracy = train(one, recipe, seed, data_of(one), root, teachers.get(one.teacher or ""))
        row[f"seed {seed}"] = f"{accuracy:.4f}"
        write({label: row for label, row in rows.items() if any(row.get(f"seed {seed}") for seed in SEEDS)})
        print(f"{done}/{len(runs)}  {key}, {recipe}, seed {seed}: {accuracy:.2%}", flush=True)


if __name__ == "__main__":
    main()
