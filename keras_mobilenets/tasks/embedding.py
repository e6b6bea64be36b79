"""Embedding: a vector for an image, near those of the same identity. Importing it needs no Keras."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from keras_mobilenets.arguments import check_integers, check_numbers
from keras_mobilenets.tasks.similarity import accepts, known_by_one, nearest, true_accepts, unit
from keras_mobilenets.tasks.task import Answers, Curve, Spec, class_name, named
from keras_mobilenets.tflite.metadata import InFile, TensorInfo

NEIGHBOURS = 5
LEAST_FAR = 1e-4  # that a diagram shows


@dataclasses.dataclass(frozen=True)
class Embedding:
    """A vector of an image by which identities are told apart, those of nobody's training too.

    An answer is a vector of length 1, (dimension,), so that the product of two is their cosine. The model itself gives
    vectors of any length: a norm in the graph takes two float tensors in an integer file, and here it costs nothing.
    The truth is a number for each identity; below 0 nobody knows it, as of pictures that a teacher's embedding is
    learned from.

    Args:
        dimension: numbers in a vector, at least 2.
        temperature: of the softmax over cosines that it is trained with, > 0.
        outputs: the name of the one output, by which a model or a file says that it gives an embedding.

    Raises:
        ValueError: an argument is out of its range.

    Reference:
        MobileNets, arXiv:1704.04861, section 4.7; Khosla et al., arXiv:2004.11362.

    Example:

    >>> task = Embedding(2)
    >>> answers = task.decode(np.array([[2.0, 0.1], [1.0, 0.0], [0.1, 3.0], [0.0, 2.0]]))
    >>> task.score(answers, [7, 7, 8, 8])["recall_at_1"]
    1.0
    """

    dimension: int = 128
    temperature: float = 0.1
    outputs: tuple[str, ...] = ("embedding",)
    name = "embedding"
    headline = "recall_at_1"
    found = "embedding"
    crops = False
    trunk: ClassVar[Mapping[str, Any]] = {"pooling": "avg"}
    recipes = ("scratch", "finetune")

    def __post_init__(self) -> None:
        check_integers("[2, inf)", dimension=self.dimension)
        check_numbers("(0, inf)", temperature=self.temperature)

    @classmethod
    def of(cls, data: Any, recipe: Any, alpha: float = 1.0) -> Embedding:
        return cls()

    @property
    def targets(self) -> Mapping[str, Spec]:
        return {"label": Spec((), "int32")}

    def head(self, maps: Any) -> Any:
        """Pooling and a linear layer."""
        from keras import layers

        features = list(maps.values())[-1] if isinstance(maps, Mapping) else maps
        if len(features.shape) == 4:
            features = layers.GlobalAveragePooling2D(name="pool")(features)
        return layers.Dense(self.dimension, name=self.outputs[0])(features)

    def encode(self, targets: Any) -> Any:
        """As they are."""
        return targets

    def losses(self, recipe: Any) -> dict[str, Any]:
        """Of known identities; a teacher's embedding is learned by `distiller` instead."""
        from keras_mobilenets.tasks.contrastive import ContrastiveLoss

        return {"loss": ContrastiveLoss(self.temperature)}

    def decode(self, outputs: Any, image_size: tuple[int, int] | None = None) -> np.ndarray:
        vectors = named(outputs, self.outputs)[self.outputs[0]].astype(np.float32)
        return unit(vectors.reshape(len(vectors), -1))

    def hits(self, answers: Answers, truth: Answers) -> np.ndarray:
        """Whether the nearest other picture is of the same identity; where none is, nothing can be wrong."""
        vectors, labels, asked = _known(answers, truth)
        right = np.ones(len(asked))
        right[asked] = nearest(vectors, labels, 1)[asked[np.asarray(truth) >= 0], 0]
        return right

    def score(self, answers: Answers, truth: Answers) -> dict[str, float | None]:
        """How often the nearest other picture is of the same identity, or one of the five nearest; how often an
        identity is told that is known by one picture; and of pairs, see `similarity.true_accepts`.

        Pictures that nobody can find are not asked for: those of which there is no other.
        """
        vectors, labels, asked = _known(answers, truth)
        asked = asked[np.asarray(truth) >= 0]
        near = nearest(vectors, labels, NEIGHBOURS)[asked] if asked.any() else None
        return {
            "recall_at_1": None if near is None else float(near[:, 0].mean()),
            f"recall_at_{NEIGHBOURS}": None if near is None else float(near.any(1).mean()),
            "known_by_one": known_by_one(vectors, labels),
            "tar_at_far_0.001": true_accepts(vectors, labels),
        }

    def nearest(
        self, answers: Answers, asked: Any, count: int, but: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The places of the answers that are nearest to one, the nearest first, and their cosines.

        Args:
            answers: those to look among, (images, dimension).
            asked: one answer.
            count: how many, at least.
            but: the place of one that is left out.
        """
        cosines = unit(np.asarray(answers, np.float32)) @ unit(np.asarray(asked, np.float32))
        order = np.argsort(-cosines, kind="stable")
        order = order[order != but][:count]
        return order, cosines[order]

    def by_class(self, answers: Answers, truth: Answers) -> dict[int, dict[str, float]]:
        """How many pictures of an identity are nearest to another of it, and how many there are."""
        right, labels = self.hits(answers, truth), np.asarray(truth)
        shown = {int(label): right[labels == label] for label in np.unique(labels[labels >= 0])}
        return {
            label: {"right": int(one.sum()), "pictures": len(one), "recall_at_1": float(one.mean())}
            for label, one in shown.items()
        }

    def agreement(self, one: Answers, other: Answers) -> np.ndarray:
        """The cosine of the two vectors of an image, 0 where it is negative."""
        return np.clip((unit(np.asarray(one)) * unit(np.asarray(other))).sum(-1), 0.0, 1.0)

    def in_file(self, labels: Sequence[str] = (), decoded: bool | None = None) -> InFile:
        """No names: identities are not the numbers of a vector."""
        return InFile((TensorInfo(self.outputs[0]),))

    def describe(self, answer: Any, labels: Sequence[str] | None, top: int = 3) -> list[dict[str, Any]]:
        """The vector."""
        return [{"name": f"{len(answer)} numbers", "vector": [float(one) for one in answer]}]

    def caption(self, answer: Any, truth: Any, labels: Sequence[str] | None) -> str:
        return "unknown" if int(truth) < 0 else class_name(int(truth), labels)

    def show(self, image: np.ndarray, answer: Any = None, truth: Any = None) -> np.ndarray:
        """The image as it is: a vector has no place in it."""
        return image

    def examine(self, truth: Answers) -> list[str]:
        """Nothing."""
        return []

    def curves(self, answers: Answers, truth: Answers, labels: Sequence[str]) -> list[Curve]:
        """True over false accepts of all pairs, where there are pairs of both kinds."""
        vectors, numbers, _ = _known(answers, truth)
        false, true = accepts(vectors, numbers)
        axes = "pairs of two identities that are accepted", "pairs of one identity that are accepted"
        return [Curve("Verification, at all thresholds", axes, {"": (false, true)}, LEAST_FAR)] if len(false) else []


def _known(answers: Answers, truth: Answers) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors and numbers of known identities, and of all pictures which have another of their identity."""
    labels = np.asarray(truth).reshape(-1).astype(int)
    known = labels >= 0
    _, places, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return unit(np.asarray(answers, np.float32)[known]), labels[known], known & (counts[places] > 1)
