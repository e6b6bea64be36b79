"""`digits`, the bundled data set: real handwritten digits out of scikit-learn, as a TensorFlow Datasets builder."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

TEST_FRACTION = 0.2
SPLIT_SEED = 0  # the split belongs to the data set: the same images are held out whatever a run's own seed is


class Digits(tfds.core.GeneratorBasedBuilder):
    """1,797 handwritten digits of 8 x 8 pixels from 43 people; needs no network and takes seconds to prepare.

    The images are the test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin, C. Kaynak, UCI), as
    scikit-learn ships them. A fifth of each class, drawn with a fixed seed, is the `test` split. People write in
    both splits: an accuracy measured here says that a pipeline works, not how it does on strangers' handwriting.

    Example:

    >>> import tensorflow_datasets as tfds
    >>> import keras_mobilenets.data
    >>> train = tfds.load("digits", split="train")  # doctest: +SKIP
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(8, 8, 1), dtype=np.uint8),
                "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
            }
        )
        return self.dataset_info_from_configs(
            features=features,
            supervised_keys=("image", "label"),
            homepage="https://archive.ics.uci.edu/dataset/80",
            description=self.__doc__,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        images, labels = read_digits()
        test = held_out(labels)
        return {
            "train": self._generate_examples(images, labels, ~test),
            "test": self._generate_examples(images, labels, test),
        }

    def _generate_examples(self, images: np.ndarray, labels: np.ndarray, chosen: np.ndarray) -> Iterator:
        for index in np.flatnonzero(chosen):
            yield int(index), {"image": images[index], "label": int(labels[index])}


def read_digits() -> tuple[np.ndarray, np.ndarray]:
    """All images, (count, 8, 8, 1) uint8, and their labels."""
    from sklearn.datasets import load_digits  # slow to import, and needed only once in a machine's life

    digits = load_digits()
    return np.round(digits.images * (255 / 16)).astype(np.uint8)[..., np.newaxis], digits.target  # 17 levels of grey


def held_out(labels: np.ndarray) -> np.ndarray:
    """A mask of the examples of the test split: the same share of each class."""
    random = np.random.default_rng(SPLIT_SEED)
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        indices = random.permutation(np.flatnonzero(labels == label))
        mask[indices[: round(len(indices) * TEST_FRACTION)]] = True
    return mask
