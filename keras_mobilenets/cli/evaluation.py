"""Models run on the same held-out pictures, one beside the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from keras_mobilenets.cli.models import PictureModel
from keras_mobilenets.tasks.task import Answers, Task, each

BATCH_SIZE = 64


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What models said.

    Attributes:
        task: which knows what is right.
        truth: for each picture what is right.
        answers: by name of the model, its answers, one for each picture.
        kept: indices of the pictures that were kept.
        pictures: these, uint8.
    """

    task: Task
    truth: Answers
    answers: Mapping[str, Answers]
    kept: np.ndarray
    pictures: np.ndarray

    def score(self, name: str) -> dict[str, float | None]:
        """The task's figures of a model."""
        return self.task.score(self.answers[name], self.truth)

    def agreement(self, one: str, other: str) -> float:
        """How much two models answer alike, over all pictures."""
        return float(np.mean(self.task.agreement(self.answers[one], self.answers[other])))


def compare(
    models: dict[str, PictureModel],
    batches: Iterable[tuple[np.ndarray, Any]],
    *,
    keep: Collection[int] = (),
    progress: Callable[[int], None] = lambda done: None,
) -> Comparison:
    """Asks all models about all pictures.

    Args:
        models: by name, of one task.
        batches: of uint8 pictures and what is right.
        keep: indices of pictures to keep, to show them.
        progress: called with the number of pictures done.
    """
    answers: dict[str, list[Any]] = {name: [] for name in models}
    truth: list[Any] = []
    pictures: list[tuple[int, np.ndarray]] = []
    done = 0
    for images, targets in batches:
        images = np.asarray(images)
        for name, model in models.items():
            answers[name].extend(model.predict(images))
        truth.extend(each(targets))
        pictures.extend((done + index, image) for index, image in enumerate(images) if done + index in keep)
        done += len(images)
        progress(done)
    return Comparison(
        next(iter(models.values())).task,
        truth,
        answers,
        np.array([index for index, _ in pictures], int),
        np.array([image for _, image in pictures], np.uint8),
    )


def read_batches(photos: Any, model: PictureModel) -> Iterable[tuple[np.ndarray, Any]]:
    """Batches of one split of a folder, without TensorFlow."""
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(photos), BATCH_SIZE):
            chosen = photos.take(np.arange(start, min(start + BATCH_SIZE, len(photos))))
            yield np.stack(list(pool.map(model.read, chosen.paths))), chosen.targets
