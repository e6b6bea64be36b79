"""Detection: where in an image things are, and of which class. Importing it needs no Keras."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

from keras_mobilenets.arguments import check_integers, check_numbers, check_sizes
from keras_mobilenets.tasks.boxes import SCALES, Anchors, Suppression, anchor_coverage, decode, overlap, ssd_anchors
from keras_mobilenets.tasks.task import Answers, Curve, Spec, check_labels, class_name, named
from keras_mobilenets.tflite.mediapipe import DETECTOR, detector_options
from keras_mobilenets.tflite.metadata import InFile, TensorInfo

SURE = 0.3
"""Score from which a box counts where boxes are counted, drawn or described."""
SAME = 0.5
"""Intersection over union from which two boxes are the same."""
LOST, MANY = 0.3, 0.05
"""Intersection over union with its best anchor below which a box is hardly found; share of boxes that are not the same
as any anchor from which other anchors are tried."""
SMALLEST = (0.2, 0.15, 0.1, 0.07, 0.05)
"""Smallest scales that are tried then."""
TRUE_COLOR, FOUND_COLOR = "#2e9e4f", "#d9482b"
LINES = 10
LINE = 0.008
"""Width of a drawn line, as a share of the picture's short side."""


@dataclasses.dataclass(frozen=True)
class Detection:
    """Boxes around things of some classes, found by an SSD.

    An answer is "boxes" (found, 4) as `rel_yxyx` (top, left, bottom, right in shares of the image), "labels" (found,)
    and "scores" (found,), best first. The truth is "boxes" and "labels", padded with labels of -1; a label of -2 marks
    a crowd, in which nothing is right or wrong.

    Args:
        classes: number of classes, > 0.
        image_size: (height, width) that the model takes.
        background: whether scores are a softmax with a first column for nothing, else a sigmoid for each class.
        anchors: around the pixels of each map.
        suppression: how boxes are chosen.
        lite: whether the head is SSDLite's, else SSD's.
        alpha: width multiplier of the head.
        outputs: names of encoded boxes and scores.

    Raises:
        ValueError: `classes` is not positive.

    Example:

    >>> Detection(3, image_size=(96, 96)).anchors_of_image().shape
    (204, 4)
    """

    classes: int
    image_size: tuple[int, int] = (320, 320)
    background: bool = False
    anchors: Anchors = dataclasses.field(default_factory=ssd_anchors)
    suppression: Suppression = dataclasses.field(default_factory=Suppression)
    lite: bool = True
    alpha: float = 1.0
    outputs: tuple[str, ...] = ("boxes", "scores")
    name = "detection"
    headline = "mAP"
    found = "boxes"
    crops = False
    trunk: ClassVar[Mapping[str, Any]] = {"stem_stride": 4}
    recipes = ("detection", "detection-finetune")

    def __post_init__(self) -> None:
        check_integers("[1, inf)", classes=self.classes)
        check_numbers("(0, inf)", alpha=self.alpha)
        check_sizes(image_size=self.image_size)

    @classmethod
    def of(cls, data: Any, recipe: Any, alpha: float = 1.0) -> Detection:
        return cls(len(data.class_names), image_size=data.image_size, alpha=alpha)

    @property
    def targets(self) -> Mapping[str, Spec]:
        return {"boxes": Spec((None, 4), "float32"), "labels": Spec((None,), "int32")}

    def anchors_of_image(self) -> np.ndarray:
        """All anchors of an image: (anchors, 4) as (y, x, height, width), in shares of it."""
        height, width = self.image_size
        strides = [16 * 2**index for index in range(len(self.anchors.scales))]
        return self.anchors.around([(-(-height // stride), -(-width // stride)) for stride in strides])

    def head(self, maps: Any) -> Any:
        from keras_mobilenets.applications.ssd import ssd_head

        return ssd_head(
            maps,
            classes=self.classes,
            alpha=self.alpha,
            background=self.background,
            anchors=self.anchors.per_pixel,
            separable=self.lite,
        )

    def encode(self, targets: Mapping[str, Any]) -> dict[str, Any]:
        """One table (batch, boxes, 5) of boxes and labels for each output: which anchors are meant, the losses find."""
        from keras import ops

        labels = ops.cast(targets["labels"], "float32")[..., None]
        table = ops.concatenate([ops.cast(targets["boxes"], "float32"), labels], -1)
        return dict.fromkeys(self.outputs, table)

    def losses(self, recipe: Any) -> dict[str, Any]:
        from keras_mobilenets.tasks.box_losses import BoxLoss, ScoreLoss

        anchors = self.anchors_of_image()
        boxes, scores = self.outputs
        return {"loss": {boxes: BoxLoss(anchors), scores: ScoreLoss(anchors, self.background)}}

    def decode(self, outputs: Any, image_size: tuple[int, int] | None = None) -> Sequence[dict[str, np.ndarray]]:
        """Of the network's outputs, with the background or without; what a file has chosen itself stays so."""
        if isinstance(outputs, Mapping) and "count" in outputs:
            return _chosen(outputs)
        boxes, scores = (np.asarray(one, np.float32) for one in named(outputs, self.outputs).values())
        scores = scores[..., scores.shape[-1] - self.classes :]
        return [self.suppression(*one) for one in zip(decode(boxes, self.anchors_of_image()), scores, strict=True)]

    def hits(self, answers: Answers, truth: Answers) -> np.ndarray:
        """How well the boxes of an image are found: F1 of those that score at least .3, at an overlap of .5."""
        return np.array([self._f1(_sure(one), _real(other)) for one, other in zip(answers, truth, strict=True)])

    def score(self, answers: Answers, truth: Answers) -> dict[str, float | None]:
        """COCO's mean average precision, at overlaps of .5 and .75 alone, and by size in pixels of `image_size`."""
        from keras_mobilenets.tasks.average_precision import evaluate

        return evaluate(answers, truth, self.image_size, self.classes)[0]

    def by_class(self, answers: Answers, truth: Answers) -> dict[int, dict[str, float]]:
        """Average precision of each class, and how many boxes there are."""
        from keras_mobilenets.tasks.average_precision import evaluate

        _, each = evaluate(answers, truth, self.image_size, self.classes)
        labels = np.concatenate([_real(one)["labels"] for one in truth]).astype(int)
        counts = np.bincount(labels, minlength=self.classes)
        return {label: {"mAP": float(each[label]), "boxes": int(n)} for label, n in enumerate(counts) if n}

    def agreement(self, one: Answers, other: Answers) -> np.ndarray:
        """F1 of the one's boxes as if the other's were true, of those that score at least .3."""
        return np.array([self._f1(_sure(first), _sure(second)) for first, second in zip(one, other, strict=True)])

    def in_file(self, labels: Sequence[str] = (), decoded: bool | None = None) -> InFile:
        """Decoded, the file ends in TFLite_Detection_PostProcess; else MediaPipe finds the anchors in its metadata.

        The names of the outputs in the metadata are those by which MediaPipe tells them apart.
        """
        from keras_mobilenets.tflite.edit.answers import add_postprocess, drop_first_column

        names, anchors = check_labels(labels, self.classes), self.anchors_of_image()
        location = TensorInfo("location", is_boxes=True)
        if decoded is not False:
            choice = self.suppression.options(self.classes)
            category = TensorInfo("category", labels=names, labels_of_values=True)
            described = (location, category, TensorInfo("score"), TensorInfo("number of detections"))
            add = partial(add_postprocess, names=self.outputs, anchors=anchors, options=choice)
            return InFile(described, add_operations=add, decodes=True)
        options = {DETECTOR: detector_options(anchors, self.classes, SCALES)}
        drop = partial(drop_first_column, name=self.outputs[1]) if self.background else None
        return InFile((location, TensorInfo("score", labels=names)), options, drop)

    def describe(self, answer: Any, labels: Sequence[str] | None, top: int = 3) -> list[dict[str, Any]]:
        """The boxes that score at least .3, all of them."""
        sure = _sure(answer)
        return [
            {"name": class_name(int(label), labels), "score": float(score), "box": [float(side) for side in box]}
            for box, label, score in zip(sure["boxes"], sure["labels"], sure["scores"], strict=True)
        ]

    def caption(self, answer: Any, truth: Any, labels: Sequence[str] | None) -> str:
        true, found = _real(truth), _sure(answer)
        return f"{len(true['labels'])} there, {len(found['labels'])} found"

    def show(self, image: np.ndarray, answer: Any = None, truth: Any = None) -> np.ndarray:
        """The image with true boxes in green and found ones in red."""
        from PIL import Image, ImageDraw

        picture = Image.fromarray(np.asarray(image, np.uint8))
        draw, scale = ImageDraw.Draw(picture), np.tile(np.array(image.shape[1::-1], float), 2)
        line = max(round(min(picture.size) * LINE), 1)
        drawn = [] if truth is None else [(_real(truth)["boxes"], TRUE_COLOR)]
        drawn += [] if answer is None else [(_sure(answer)["boxes"], FOUND_COLOR)]
        for boxes, color in drawn:
            for top, left, bottom, right in np.asarray(boxes):
                draw.rectangle((np.array([left, top, right, bottom]) * scale).tolist(), outline=color, width=line)
        return np.asarray(picture)

    def examine(self, truth: Answers) -> list[str]:
        """How many boxes there are, and how the anchors cover them."""
        boxes = np.concatenate([_real(one)["boxes"] for one in truth])
        empty = sum(not len(_real(one)["labels"]) for one in truth)
        lines = [f"{len(boxes):,} boxes, {empty:,} pictures without any"]
        if not len(boxes):
            return lines
        found, text = self._covered(boxes)
        lines.append(f"anchors overlap {text}")
        if found >= 1 - MANY:
            return lines
        others = {scale: dataclasses.replace(self, anchors=ssd_anchors(smallest=scale)) for scale in SMALLEST}
        best, (better, text) = max(
            ((scale, other._covered(boxes)) for scale, other in others.items()), key=lambda one: one[1][0]
        )
        if better > found:
            lines.append(f"anchors from {best:g} on (--anchors {best:g}) would overlap {text}")
        return lines

    def _covered(self, boxes: np.ndarray) -> tuple[float, str]:
        """Which share of boxes the anchors overlap by .5 and more, and a sentence of it."""
        shares = anchor_coverage(boxes, self.anchors_of_image())
        found, lost = float((shares >= SAME).mean()), (shares < LOST).mean()
        text = f"{found:.1%} of them by {SAME:g} and more; {lost:.1%}, hardly found, by less than {LOST:g}"
        return found, text

    def curves(self, answers: Answers, truth: Answers, labels: Sequence[str]) -> list[Curve]:
        """Precision over recall at an overlap of .5, of the ten classes with the most boxes."""
        from keras_mobilenets.tasks.average_precision import precision_at_recall

        recall, precision = precision_at_recall(answers, truth, self.image_size, self.classes)
        counts = {label: row["boxes"] for label, row in self.by_class(answers, truth).items()}
        common = sorted(sorted(counts, key=counts.__getitem__)[-LINES:])
        lines = {class_name(label, labels): (recall, precision[:, label]) for label in common}
        return [Curve("Precision over recall, at an overlap of .5", ("recall", "precision"), lines)]

    def _f1(self, one: Any, other: Any) -> float:
        """2 * shared / (both), each box of the one with the box of its class in the other that it covers best."""
        free, shared = np.ones(len(other["labels"]), bool), 0
        for box, label in zip(one["boxes"], one["labels"], strict=True):
            shares = np.where(free & (other["labels"] == label), overlap(box, other["boxes"]), 0.0)
            if shares.size and shares.max() >= SAME:
                free[shares.argmax()], shared = False, shared + 1
        count = len(one["labels"]) + len(other["labels"])
        return 2 * shared / count if count else 1.0


def _chosen(outputs: Mapping[str, Any]) -> list[dict[str, np.ndarray]]:
    """What TFLite_Detection_PostProcess gives: of its rows only the first `count` mean something."""
    kinds = {"boxes": np.float32, "labels": int, "scores": np.float32}
    counts = np.asarray(outputs["count"]).reshape(-1).astype(int)
    return [
        {name: np.asarray(outputs[name][image][:count], kind) for name, kind in kinds.items()}
        for image, count in enumerate(counts)
    ]


def _sure(answer: Any) -> dict[str, np.ndarray]:
    kept = np.asarray(answer["scores"]) >= SURE
    return {name: np.asarray(values)[kept] for name, values in answer.items()}


def _real(truth: Any) -> dict[str, np.ndarray]:
    """Without padding and crowds."""
    kept = np.asarray(truth["labels"]) >= 0
    return {name: np.asarray(truth[name], np.float32)[kept] for name in ("boxes", "labels")}
