"""Classifiers run on the same held-out pictures, one beside the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from keras_mobilenets.cli.models import Classifier
from keras_mobilenets.data.images import read_image
from keras_mobilenets.tasks.classification import Classification
from keras_mobilenets.tasks.task import Answers, Task, each

BATCH_SIZE = 64


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What classifiers said.

    Attributes:
        task: which knows what is right.
        labels: for each picture what is right.
        scores: by name of the classifier, its answers, one for each picture.
        kept: indices of the pictures that were kept.
        pictures: these, uint8.
    """

    task: Task
    labels: Answers
    scores: Mapping[str, Answers]
    kept: np.ndarray
    pictures: np.ndarray

    def score(self, name: str) -> dict[str, float | None]:
        """The task's figures of a classifier."""
        return self.task.score(self.scores[name], self.labels)

    def agreement(self, one: str, other: str) -> float:
        """How much two classifiers answer alike, over all pictures."""
        return float(np.mean(self.task.agreement(self.scores[one], self.scores[other])))


def compare(
    classifiers: dict[str, Classifier],
    batches: Iterable[tuple[np.ndarray, Any]],
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
    scores: dict[str, list[Any]] = {name: [] for name in classifiers}
    labels: list[Any] = []
    pictures: list[tuple[int, np.ndarray]] = []
    done = 0
    for images, classes in batches:
        images = np.asarray(images)
        for name, classifier in classifiers.items():
            scores[name].extend(classifier.predict(images))
        labels.extend(each(classes))
        pictures.extend((done + index, image) for index, image in enumerate(images) if done + index in keep)
        done += len(images)
        progress(done)
    return Comparison(
        _single(next(iter(classifiers.values())).task),
        labels,
        scores,
        np.array([index for index, _ in pictures], int),
        np.array([image for _, image in pictures], np.uint8),
    )


def _single(task: Task) -> Task:
    """The task where each picture has one class, whatever else the model could say: the likeliest one counts."""
    return dataclasses.replace(task, multi_label=False) if isinstance(task, Classification) else task


def read_batches(
    paths: list[str] | list[Path], labels: np.ndarray, image_size: tuple[int, int]
) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Batches of pictures out of files, without TensorFlow."""
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), BATCH_SIZE):
            chosen = slice(start, start + BATCH_SIZE)
            images = pool.map(lambda path: read_image(path, image_size), paths[chosen])
            yield np.stack(list(images)), labels[chosen]
