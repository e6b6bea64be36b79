"""What every stage asks of a task, and the forms in which they hand answers on. Needs no Keras."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from keras_mobilenets.tflite.metadata import InFile

Answers: TypeAlias = Sequence[Any] | np.ndarray
"""An entry for each image: an array where all are of one size."""


class Spec(NamedTuple):
    """The form of one target of one image.

    Attributes:
        shape: without the batch; None where it differs from image to image, and is padded in a batch.
        dtype: name of it.
    """

    shape: tuple[int | None, ...]
    dtype: str


class Curve(NamedTuple):
    """Lines in one diagram.

    Attributes:
        title: above it.
        axes: names of x and y, both in [0, 1].
        lines: (x, y) by name.
        least: where x begins, on a logarithmic axis; 0 of a plain one.
    """

    title: str
    axes: tuple[str, str]
    lines: Mapping[str, tuple[Any, Any]]
    least: float = 0.0


class Task(Protocol):
    """One object that holds all that is particular to what a model is for; frozen.

    Whoever trains, measures, exports or shows a model asks its task, and knows nothing of scores or boxes. Three words:
    *outputs* are what the model gives for a batch, by name; *answers* what they mean, one for each image (an array, or
    a list where answers are of different sizes); *truth* what should have been answered, likewise.

    Everything but `head`, `encode` and `losses` is NumPy, outside of the graph: the same for a `.keras` and a `.tflite`
    file, whose users need no TensorFlow.

    Attributes:
        name: the word of `--task`.
        targets: what the data give beside the image: {"label": Spec}, {"boxes": ..., "labels": ...}, {"mask": ...}.
            A single one is given as it is, several as a dictionary.
        outputs: names of the model's outputs: one set and one order, from the builder to the file.
        headline: the figure of `score` that is monitored in training, printed and reported; higher is better.
        found: the word for what `describe` lists, in the JSON of `predict`.
        crops: whether the model sees the middle of a picture, as classifiers are measured; else all of it, stretched.
        trunk: options of the builder whose maps the head stands on.
        recipes: names of the recipes to train by if nobody says, from random and from pretrained weights.
    """

    @property
    def name(self) -> str: ...
    @property
    def targets(self) -> Mapping[str, Spec]: ...
    @property
    def outputs(self) -> tuple[str, ...]: ...
    @property
    def headline(self) -> str: ...
    @property
    def found(self) -> str: ...
    @property
    def crops(self) -> bool: ...
    @property
    def trunk(self) -> Mapping[str, Any]: ...
    @property
    def recipes(self) -> tuple[str, str]: ...

    @classmethod
    def of(cls, data: Any, recipe: Any, alpha: float = 1.0) -> Task:
        """The task for some data (its `class_names` and `image_size`), trained by a recipe, of a width multiplier."""

    def head(self, maps: Any) -> Any:
        """The outputs on a builder's feature maps (by name, the last one is the smallest) or on one map."""

    def encode(self, targets: Any) -> Any:
        """A batch of targets as the losses take them; `fit` does it in the pipeline, so it is written in keras.ops."""

    def losses(self, recipe: Any) -> dict[str, Any]:
        """`loss`, `metrics` and what else `compile` takes of it. Without a metric of the headline's name, `fit`
        decodes and scores the held-out images after each epoch."""

    def decode(self, outputs: Any, image_size: tuple[int, int] | None = None) -> Answers:
        """The answers that the outputs for a batch stand for, in an image of (height, width)."""

    def hits(self, answers: Answers, truth: Answers) -> np.ndarray:
        """How right each answer is: (images,) in [0, 1]."""

    def score(self, answers: Answers, truth: Answers) -> dict[str, float | None]:
        """Figures over all images, the headline's first; None where one says nothing."""

    def by_class(self, answers: Answers, truth: Answers) -> dict[int, dict[str, float]]:
        """Figures of each class that occurs."""

    def agreement(self, one: Answers, other: Answers) -> np.ndarray:
        """How much two models answer alike: (images,) in [0, 1]."""

    def in_file(self, labels: Sequence[str] = (), decoded: bool | None = None) -> InFile:
        """What a `.tflite` file has beside the network: what it says of its outputs, in the task's order, and names.

        Args:
            labels: class names, or none; an error where there are more or fewer.
            decoded: whether the file makes answers of its outputs, where that can be; None is the task's choice.
        """

    def describe(self, answer: Any, labels: Sequence[str] | None, top: int = 3) -> list[dict[str, Any]]:
        """What one answer says, as JSON takes it: {"name": ..., "score": ...} and more for each thing found."""

    def caption(self, answer: Any, truth: Any, labels: Sequence[str] | None) -> str:
        """Truth and answer in a few words, to stand below a picture."""

    def examine(self, truth: Answers) -> list[str]:
        """What is worth knowing of the targets before training on them, a line each."""

    def show(self, image: np.ndarray, answer: Any = None, truth: Any = None) -> np.ndarray:
        """The image (height, width, 3), uint8, of any size, with what can be drawn of answer and truth."""

    def curves(self, answers: Answers, truth: Answers, labels: Sequence[str]) -> list[Curve]:
        """What a report draws of all answers beside the figures."""


def named(outputs: Any, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The outputs of a model or a file by name, given as one array, as a sequence in order or as a dictionary.

    Raises:
        ValueError: there are others.

    Example:

    >>> named(np.zeros((1, 5)), ["predictions"])["predictions"].shape
    (1, 5)
    """
    if isinstance(outputs, Mapping):
        if missing := [name for name in names if name not in outputs]:
            raise ValueError(f"The model must have the outputs {list(names)}. It lacks {missing}: {list(outputs)}")
        return {name: np.asarray(outputs[name]) for name in names}
    listed = list(outputs) if isinstance(outputs, list | tuple) else [outputs]
    if len(listed) != len(names):
        raise ValueError(f"The model must have the outputs {list(names)}. It has {len(listed)}")
    return {name: np.asarray(one) for name, one in zip(names, listed, strict=True)}


def check_labels(labels: Sequence[str], classes: int, *others: int) -> tuple[str, ...]:
    """Names of so many classes, or none.

    Raises:
        ValueError: there are more or fewer.
    """
    if len(labels) not in {0, classes, *others}:
        raise ValueError(f"`labels` must name the model's {classes} classes. Received: {len(labels)} names")
    return tuple(labels)


def each(batch: Any) -> Answers:
    """A batch of targets image by image: an array as it is, of a dictionary of arrays one for each image.

    Example:

    >>> each({"boxes": np.zeros((2, 7, 4)), "labels": np.zeros((2, 7))})[1]["boxes"].shape
    (7, 4)
    """
    if not isinstance(batch, Mapping):
        return np.asarray(batch)
    arrays = {name: np.asarray(one) for name, one in batch.items()}
    return [dict(zip(arrays, one, strict=True)) for one in zip(*arrays.values(), strict=True)]


def class_name(index: int, labels: Sequence[str] | None) -> str:
    """The name of a class, or its number where nobody wrote names down."""
    return labels[index] if labels and index < len(labels) else f"class {index}"
