"""`scattered_digits`, bundled data to detect and to segment: digits on a canvas, as a TensorFlow Datasets builder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from keras_mobilenets.data.digits import held_out, read_digits

CANVAS = 128
DIGITS = 1, 4  # on a canvas
SIDES = 32, 64  # in pixels
TRIALS = 10  # to find a free place for one
PICTURES = {"train": 640, "test": 120}
SEEN = 0.2  # of the ink, from which a pixel belongs to a digit
SEEDS = {"train": 1, "test": 2}  # canvases belong to the data set, whatever a run's own seed is


class ScatteredDigits(tfds.core.GeneratorBasedBuilder):
    """760 canvases of 128 x 128 pixels with one to four handwritten digits each, the box around each of them and
    the class of each pixel: background, or a digit.

    The digits are those of `digits`, of its `train` split on the canvases to train on, of its `test` split on the
    others; 32 to 64 pixels high, in any light colour on any dark one, none over another. Needs no network and takes
    seconds to prepare.

    Example:

    >>> import tensorflow_datasets as tfds
    >>> import keras_mobilenets.data
    >>> train = tfds.load("scattered_digits", split="train")  # doctest: +SKIP
    """

    VERSION = tfds.core.Version("1.2.0")

    def _info(self) -> tfds.core.DatasetInfo:
        digit = {
            "bbox": tfds.features.BBoxFeature(),
            "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
        }
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(CANVAS, CANVAS, 3), dtype=np.uint8),
                "objects": tfds.features.Sequence(digit),
                "mask": tfds.features.LabeledImage(
                    labels=["background", *map(str, range(10))], shape=(CANVAS, CANVAS, 1)
                ),
            }
        )
        return self.dataset_info_from_configs(
            features=features, homepage="https://archive.ics.uci.edu/dataset/80", description=self.__doc__
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in PICTURES}

    def _generate_examples(self, split: str) -> Iterator:
        images, labels = read_digits()
        mine = held_out(labels) == (split == "test")
        images, labels = images[mine][..., 0], labels[mine]
        random = np.random.default_rng(SEEDS[split])
        for number in range(PICTURES[split]):
            yield number, _canvas(images, labels, random)


def _canvas(images: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> dict[str, Any]:
    """One example: digits at random places, each in a square that no other is in."""
    canvas = np.full((CANVAS, CANVAS, 3), random.uniform(0, 80, 3))
    canvas += random.normal(0, 6, canvas.shape)
    free, mask = np.ones((CANVAS, CANVAS), bool), np.zeros((CANVAS, CANVAS, 1), np.uint8)
    objects: list[dict[str, Any]] = []
    wanted = random.integers(DIGITS[0], DIGITS[1] + 1)
    for _ in range(TRIALS * wanted):
        side = int(random.integers(SIDES[0], SIDES[1] + 1))
        top, left = random.integers(0, CANVAS - side + 1, 2)
        place = slice(top, top + side), slice(left, left + side)
        if len(objects) == wanted or not free[place].all():
            continue
        free[place] = False
        which = random.integers(len(images))
        ink = np.asarray(Image.fromarray(images[which]).resize((side, side), Image.Resampling.BICUBIC), float) / 255
        canvas[place] += ink[..., np.newaxis] * (random.uniform(140, 255, 3) - canvas[place])
        rows, columns = (np.flatnonzero(ink.max(axis) > SEEN) for axis in (1, 0))
        mask[place][ink > SEEN] = 1 + labels[which]
        ends = [top + rows[0], left + columns[0], top + rows[-1] + 1, left + columns[-1] + 1]
        objects.append(
            {"bbox": tfds.features.BBox(*(float(end / CANVAS) for end in ends)), "label": int(labels[which])}
        )
    return {"image": np.clip(canvas, 0, 255).astype(np.uint8), "objects": objects, "mask": mask}
