"""Classification: which of some classes an image shows. Importing it needs no Keras."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from keras_mobilenets.arguments import check_integers, check_numbers
from keras_mobilenets.tasks.task import Answers, Curve, Spec, check_labels, class_name, named
from keras_mobilenets.tflite.metadata import InFile, TensorInfo

TOP_FROM = 10  # top-5 accuracy says something only among more classes than that


@dataclasses.dataclass(frozen=True)
class Classification:
    """One class of several by a softmax; one of two by a single sigmoid; or any number of them, by a sigmoid each.

    An answer is a score for each class, (classes,): probabilities, also where the model gives logits. A single sigmoid
    is the second class' probability, and answers are of two classes then.

    Args:
        classes: numbers that the model gives for an image; 1 is a single sigmoid.
        multi_label: whether any number of the classes can be right; targets are vectors of 0 and 1 then, else class
            numbers or, of mixed pictures, a share of each class. Where the truth is one class each, the likeliest
            counts.
        from_logits: whether the model gives what softmax or sigmoid take.
        dropout: rate before the classifier.
        outputs: the name of the one output.

    Raises:
        ValueError: `classes` is not positive.

    Example:

    >>> task = Classification(3)
    >>> answers = task.decode(np.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]]))
    >>> task.score(answers, [1, 2])["accuracy"]
    0.5
    """

    classes: int
    multi_label: bool = False
    from_logits: bool = False
    dropout: float = 0.2
    outputs: tuple[str, ...] = ("predictions",)
    name = "classification"
    headline = "accuracy"
    found = "classes"
    crops = True
    trunk: ClassVar[Mapping[str, Any]] = {"pooling": "avg"}
    recipes = ("scratch", "finetune")

    def __post_init__(self) -> None:
        check_integers("[1, inf)", classes=self.classes)
        check_numbers("[0, 1)", dropout=self.dropout)

    @classmethod
    def of(cls, data: Any, recipe: Any, alpha: float = 1.0) -> Classification:
        return cls(len(data.class_names), dropout=recipe.dropout)

    @property
    def activation(self) -> str:
        """What makes probabilities of logits: "softmax" or "sigmoid"."""
        return "sigmoid" if self.multi_label or self.classes == 1 else "softmax"

    @property
    def targets(self) -> Mapping[str, Spec]:
        return {"label": Spec((self.classes,) if self.multi_label else (), "int32")}

    def head(self, maps: Any) -> Any:
        from keras import layers

        features = list(maps.values())[-1] if isinstance(maps, Mapping) else maps
        if len(features.shape) == 4:
            features = layers.GlobalAveragePooling2D(name="pool")(features)
        activation = None if self.from_logits else self.activation
        features = layers.Dropout(self.dropout, name="dropout")(features)
        return layers.Dense(self.classes, activation=activation, name=self.outputs[0])(features)

    def encode(self, targets: Any) -> Any:
        """As they are: the loss understands numbers and vectors."""
        return targets

    def losses(self, recipe: Any) -> dict[str, Any]:
        from keras_mobilenets.tasks import crossentropy

        return {
            "loss": crossentropy.loss(self.activation, self.from_logits, recipe.label_smoothing),
            "metrics": [crossentropy.metric(self.activation, self.from_logits)],
        }

    def decode(self, outputs: Any, image_size: tuple[int, int] | None = None) -> np.ndarray:
        scores = named(outputs, self.outputs)[self.outputs[0]].astype(np.float32)
        if self.from_logits and self.activation == "softmax":
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            scores = scores / scores.sum(-1, keepdims=True)
        elif self.from_logits:
            scores = np.exp(-np.logaddexp(0, -scores))
        return np.concatenate([1 - scores, scores], -1) if self.classes == 1 else scores

    def hits(self, answers: Answers, truth: Answers) -> np.ndarray:
        """Whether the highest score is the label's; of several labels, the share that is told rightly."""
        right = np.asarray(truth)
        if self._several(right):
            return ((np.asarray(answers) > 0.5) == (right > 0.5)).mean(-1)
        return (np.argmax(answers, -1) == self._numbers(right)).astype(float)

    def score(self, answers: Answers, truth: Answers) -> dict[str, float | None]:
        """`accuracy`, and `top_5_accuracy` among more than ten classes."""
        top = None
        if self.classes > TOP_FROM and not self._several(truth):
            best = np.argsort(-np.asarray(answers), axis=-1, kind="stable")[:, :5]
            top = float(np.any(best == self._numbers(np.asarray(truth))[:, np.newaxis], axis=-1).mean())
        return {"accuracy": float(self.hits(answers, truth).mean()), "top_5_accuracy": top}

    def by_class(self, answers: Answers, truth: Answers) -> dict[int, dict[str, float]]:
        """How many pictures of a class were told rightly, and how many there are."""
        right = np.asarray(truth)
        if self._several(right):
            shown = right > 0.5
            told = (np.asarray(answers) > 0.5) & shown
        else:
            shown = np.arange(max(self.classes, 2)) == self._numbers(right)[:, np.newaxis]
            told = shown & (self.hits(answers, truth) > 0)[:, np.newaxis]
        counts = zip(told.sum(0), shown.sum(0), strict=True)
        return {
            label: {"right": int(r), "pictures": int(p), "accuracy": float(r / p)}
            for label, (r, p) in enumerate(counts)
            if p
        }

    def agreement(self, one: Answers, other: Answers) -> np.ndarray:
        """Whether both have the same highest score; of several labels, the share on which they say the same."""
        return self.hits(one, other if self.multi_label else np.argmax(other, -1))

    def in_file(self, labels: Sequence[str] = (), decoded: bool | None = None) -> InFile:
        """Class names belong to the scores; two names for a single one are those of 0 and of 1."""
        names = check_labels(labels, self.classes, max(self.classes, 2))
        return InFile((TensorInfo(self.outputs[0], labels=names, labels_of_values=len(names) > self.classes),))

    def describe(self, answer: Any, labels: Sequence[str] | None, top: int = 3) -> list[dict[str, Any]]:
        """The likeliest classes."""
        first = np.argsort(-np.asarray(answer), kind="stable")[:top]
        return [{"name": class_name(int(index), labels), "score": float(answer[index])} for index in first]

    def caption(self, answer: Any, truth: Any, labels: Sequence[str] | None) -> str:
        if self.multi_label and np.ndim(truth):
            return self._said(truth, labels) + f", taken for {said}" if (said := self._said(answer, labels)) else ""
        right = class_name(int(self._numbers(np.asarray([truth]))[0]), labels)
        said = class_name(int(np.argmax(answer)), labels)
        return right if said == right else f"{right}, taken for {said}"

    def show(self, image: np.ndarray, answer: Any = None, truth: Any = None) -> np.ndarray:
        """The image as it is: a class has no place in it."""
        return image

    def examine(self, truth: Answers) -> list[str]:
        """Nothing."""
        return []

    def curves(self, answers: Answers, truth: Answers, labels: Sequence[str]) -> list[Curve]:
        """None."""
        return []

    def _several(self, truth: Any) -> bool:
        return self.multi_label and np.ndim(truth) > 1

    def _said(self, scores: Any, labels: Sequence[str] | None) -> str:
        return ", ".join(class_name(int(index), labels) for index in np.flatnonzero(np.asarray(scores) > 0.5))

    def _numbers(self, truth: np.ndarray) -> np.ndarray:
        """Class numbers, of one-hot vectors too."""
        vectors = truth.ndim > 1 and truth.shape[-1] > 1
        return truth.argmax(-1) if vectors else truth.reshape(-1).astype(int)
