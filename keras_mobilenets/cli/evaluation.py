"""Classifiers run on the same held-out pictures, one beside the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from keras_mobilenets.cli.models import Classifier
from keras_mobilenets.data.images import read_image

BATCH_SIZE = 64


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What classifiers said.

    Attributes:
        labels: (pictures,) the true classes.
        scores: by name of the classifier, (pictures, classes).
        kept: indices of the pictures that were kept.
        pictures: these, uint8.
    """

    labels: np.ndarray
    scores: dict[str, np.ndarray]
    kept: np.ndarray
    pictures: np.ndarray

    def accuracy(self, name: str, top: int = 1) -> float:
        """Share of pictures whose true class is among the `top` likeliest."""
        best = np.argsort(-self.scores[name], axis=-1, kind="stable")[:, :top]
        return float(np.mean(np.any(best == self.labels[:, np.newaxis], axis=-1)))

    def agreement(self, one: str, other: str) -> float:
        """Share of pictures on which two classifiers have the same first choice."""
        return float(np.mean(self.scores[one].argmax(-1) == self.scores[other].argmax(-1)))

    def class_accuracy(self, name: str) -> dict[int, tuple[int, int]]:
        """For each class that occurs: how many pictures were right, and how many there are."""
        right = self.scores[name].argmax(-1) == self.labels
        return {
            int(label): (int(right[self.labels == label].sum()), int((self.labels == label).sum()))
            for label in np.unique(self.labels)
        }


def compare(
    classifiers: dict[str, Classifier],
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    keep: Collection[int] = (),
    progress: Callable[[int], None] = lambda done: None,
) -> Comparison:
    """Asks all classifiers about all pictures.

    Args:
        classifiers: by name.
        batches: of uint8 pictures and their classes.
        keep: indices of pictures to keep, to show them.
        progress: called with the number of pictures done.
    """
    scores: dict[str, list[np.ndarray]] = {name: [] for name in classifiers}
    labels: list[np.ndarray] = []
    pictures: list[tuple[int, np.ndarray]] = []
    done = 0
    for images, classes in batches:
        images = np.asarray(images)
        for name, classifier in classifiers.items():
            scores[name].append(classifier.predict(images))
        labels.append(np.asarray(classes))
        pictures.extend((done + index, image) for index, image in enumerate(images) if done + index in keep)
        done += len(images)
        progress(done)
    return Comparison(
        np.concatenate(labels),
        {name: np.concatenate(parts) for name, parts in scores.items()},
        np.array([index for index, _ in pictures], int),
        np.array([image for _, image in pictures], np.uint8),
    )


def read_batches(
    paths: list[str] | list[Path], labels: np.ndarray, image_size: tuple[int, int]
) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Batches of pictures out of files, without TensorFlow."""
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), BATCH_SIZE):
            chosen = slice(start, start + BATCH_SIZE)
            images = pool.map(lambda path: read_image(path, image_size), paths[chosen])
            yield np.stack(list(images)), labels[chosen]
