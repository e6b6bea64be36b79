"""Segmentation: the class of each pixel of an image. Importing it needs no Keras."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from keras_mobilenets.arguments import check_choice, check_integers
from keras_mobilenets.tasks.task import Answers, Curve, Spec, check_labels, class_name, named
from keras_mobilenets.tflite.mediapipe import SEGMENTER, segmenter_options
from keras_mobilenets.tflite.metadata import InFile, TensorInfo

IGNORE = 255
"""Label of a pixel that is neither right nor wrong."""
DECODERS = ("lraspp", "deeplab", "deeplab_aspp")
OPACITY = 0.55  # of colours over a picture


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """A class for each pixel.

    An answer is a class number for each pixel, (height, width), and so is the truth, in which pixels may have the label
    `ignore` instead.

    Args:
        classes: number of classes, from 2 to 255.
        decoder: the head: "lraspp", or DeepLabV3's with ("deeplab_aspp") or without ("deeplab") atrous pyramid.
        output_stride: ratio of the image to the network's last map: 8 (of DeepLabV3 alone), 16 or 32.
        filters: of the head; None leaves it to the head.
        class_weights: one for each class, by which its pixels count in the loss; None weighs all alike.
        ignore: label of pixels that are neither right nor wrong.
        corners: whether answers that are smaller than the image are resized corner on corner, as DeepLab's of 33 x 33
            for 513 x 513 are; else pixels cover as much of the image as they did.
        outputs: the name of the one output: logits (batch, height, width, classes), of the image's size or smaller, or
            the class numbers themselves (batch, height, width).

    Raises:
        ValueError: an argument is out of its range.

    Example:

    >>> task = Segmentation(2)
    >>> answers = task.decode(np.array([[[[0.1, 0.7], [0.9, 0.3]]]]))
    >>> answers.tolist(), task.score(answers, [[[1, 255]]])["mIoU"]
    ([[[1, 0]]], 1.0)
    """

    classes: int
    decoder: str = "lraspp"
    output_stride: int = 16
    filters: int | None = None
    class_weights: tuple[float, ...] | None = None
    ignore: int = IGNORE
    corners: bool = False
    outputs: tuple[str, ...] = ("mask",)
    name = "segmentation"
    headline = "mIoU"
    found = "areas"
    crops = False
    recipes = ("segmentation", "segmentation-finetune")

    def __post_init__(self) -> None:
        check_integers(f"[2, {IGNORE}]", classes=self.classes)
        check_integers("(0, inf)", output_stride=self.output_stride)
        check_integers("(0, inf)", optional=True, filters=self.filters)
        check_choice(DECODERS, decoder=self.decoder)
        weights = self.class_weights
        if weights is not None and not (isinstance(weights, tuple | list) and len(weights) == self.classes):
            raise ValueError(f"`class_weights` must have {self.classes} entries. Received: class_weights={weights!r}")

    @classmethod
    def of(cls, data: Any, recipe: Any, alpha: float = 1.0) -> Segmentation:
        return cls(len(data.class_names))

    @property
    def targets(self) -> Mapping[str, Spec]:
        return {"mask": Spec((None, None), "uint8")}

    @property
    def trunk(self) -> dict[str, Any]:
        """Options of the builder whose maps `head` takes."""
        return {"output_stride": self.output_stride}

    def head(self, maps: Any) -> Any:
        from keras_mobilenets.applications.deeplab import deeplab_head
        from keras_mobilenets.applications.lraspp import lraspp_head

        options: dict[str, Any] = {} if self.filters is None else {"filters": self.filters}
        if self.decoder == "lraspp":
            return lraspp_head(maps, classes=self.classes, **options)
        return deeplab_head(maps, classes=self.classes, aspp=self.decoder == "deeplab_aspp", **options)

    def encode(self, targets: Any) -> Any:
        return {self.outputs[0]: targets}

    def losses(self, recipe: Any) -> dict[str, Any]:
        from keras_mobilenets.tasks import pixel_losses

        smoothing = getattr(recipe, "label_smoothing", 0.0)
        loss = pixel_losses.PixelCrossentropy(self.ignore, self.class_weights, smoothing, self.corners)
        metric = pixel_losses.PixelIoU(self.classes, ignore=self.ignore, corners=self.corners, name=self.headline)
        return {"loss": {self.outputs[0]: loss}, "metrics": {self.outputs[0]: [metric]}}

    def decode(self, outputs: Any, image_size: tuple[int, int] | None = None) -> np.ndarray:
        """The class with the highest logit, which is made as large as the image first; class numbers: the nearest."""
        values = named(outputs, self.outputs)[self.outputs[0]]
        if values.ndim == 3 or values.shape[-1] != self.classes:  # numbers already
            return _nearest(values.reshape(values.shape[:3]), image_size or values.shape[1:3]).astype(np.uint8)
        size = image_size or values.shape[1:3]
        return bilinear(values.astype(np.float32), size, corners=self.corners).argmax(-1).astype(np.uint8)

    def hits(self, answers: Answers, truth: Answers) -> np.ndarray:
        """The mean intersection over union of the classes that are in an image or are seen there; 1 without any."""
        pairs = zip(answers, truth, strict=True)
        return np.array([np.nan_to_num(_mean(_overlaps(self._counts(*pair))), nan=1.0) for pair in pairs])

    def score(self, answers: Answers, truth: Answers) -> dict[str, float | None]:
        """The mean intersection over union of classes, counted over all images, and the share of right pixels."""
        counts = self._total(answers, truth)
        labelled = counts.sum()
        return {
            "mIoU": _known(_mean(_overlaps(counts))),
            "pixel_accuracy": float(np.trace(counts) / labelled) if labelled else None,
        }

    def by_class(self, answers: Answers, truth: Answers) -> dict[int, dict[str, float]]:
        """Intersection over union of each class, and its share of the labelled pixels, in all images together."""
        counts = self._total(answers, truth)
        shares = counts.sum(1) / max(counts.sum(), 1)
        each = enumerate(zip(_overlaps(counts), shares, strict=True))
        return {label: {"IoU": float(iou), "pixels": float(share)} for label, (iou, share) in each if iou == iou}

    def agreement(self, one: Answers, other: Answers) -> np.ndarray:
        """The share of an image's pixels for which both say the same."""
        return np.array([np.mean(np.equal(*pair)) for pair in zip(one, other, strict=True)])

    def in_file(self, labels: Sequence[str] = (), decoded: bool | None = None) -> InFile:
        """The logits, of which MediaPipe makes probabilities; decoded, the number of each pixel's class instead."""
        from keras_mobilenets.tflite.edit.answers import add_argmax

        (output,), names = self.outputs, check_labels(labels, self.classes)
        if decoded:
            numbers = TensorInfo(output, labels=names, labels_of_values=True)
            return InFile((numbers,), add_operations=partial(add_argmax, name=output), decodes=True)
        return InFile((TensorInfo(output, labels=names),), {SEGMENTER: segmenter_options("softmax")})

    def describe(self, answer: Any, labels: Sequence[str] | None, top: int = 3) -> list[dict[str, Any]]:
        """The classes that take most of the image, with their shares of it."""
        shares = np.bincount(np.ravel(answer), minlength=self.classes) / np.size(answer)
        first = [label for label in np.argsort(-shares, kind="stable")[:top] if shares[label]]
        return [{"name": class_name(int(label), labels), "score": float(shares[label])} for label in first]

    def caption(self, answer: Any, truth: Any, labels: Sequence[str] | None) -> str:
        said = ", ".join(f"{one['name']} {one['score']:.0%}" for one in self.describe(answer, labels))
        return f"{said}; overlap {self.hits([answer], [truth])[0]:.0%}"

    def show(self, image: np.ndarray, answer: Any = None, truth: Any = None) -> np.ndarray:
        """The image under the answer's colours, and to its right under the truth's."""
        masks = [mask for mask in (answer, truth) if mask is not None]
        pictures = [self._coloured(image, np.asarray(mask)) for mask in masks] or [np.asarray(image, np.uint8)]
        return np.concatenate(pictures, 1)

    def examine(self, truth: Answers) -> list[str]:
        """Nothing."""
        return []

    def curves(self, answers: Answers, truth: Answers, labels: Sequence[str]) -> list[Curve]:
        """None."""
        return []

    def _coloured(self, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        mask = _nearest(mask[np.newaxis], image.shape[:2])[0]
        colours = (1 - OPACITY) * image + OPACITY * palette(256)[mask]
        return np.where((mask == self.ignore)[..., np.newaxis], image, np.rint(colours)).astype(np.uint8)

    def _counts(self, answer: Any, truth: Any) -> np.ndarray:
        """(classes, classes): for how many pixels of a class the answer was another, at the answer's size."""
        right = _nearest(np.asarray(truth)[np.newaxis], np.shape(answer)).ravel().astype(np.int64)
        said = np.ravel(answer).astype(np.int64)
        labelled = (right != self.ignore) & (right < self.classes)
        joined = right[labelled] * self.classes + said[labelled]
        return np.bincount(joined, minlength=self.classes**2).reshape(self.classes, self.classes)

    def _total(self, answers: Answers, truth: Answers) -> np.ndarray:
        pairs = zip(answers, truth, strict=True)
        return sum((self._counts(*pair) for pair in pairs), np.zeros((self.classes, self.classes), np.int64))


def palette(classes: int) -> np.ndarray:
    """The colours of Pascal VOC's masks, (classes, 3) uint8: the bits of a number, the lowest to the highest bits.

    Example:

    >>> palette(3).tolist()
    [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    """
    numbers, colours = np.arange(classes), np.zeros((classes, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= ((numbers >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def _overlaps(counts: np.ndarray) -> np.ndarray:
    """Intersection over union of each class; NaN of those that are nowhere."""
    shared = np.diag(counts).astype(float)
    either = counts.sum(0) + counts.sum(1) - shared
    return np.divide(shared, either, out=np.full(len(counts), np.nan), where=either > 0)


def _mean(overlaps: np.ndarray) -> float:
    known = overlaps[~np.isnan(overlaps)]
    return float(known.mean()) if known.size else float("nan")


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def bilinear(values: Any, size: Sequence[int], *, corners: bool, take: Any = np.take) -> Any:
    """(batch, height, width, channels) in another size, float32.

    Args:
        values: an array, or with `keras.ops.take` a tensor.
        size: (height, width).
        corners: whether the outer pixels' centers stay where they are, else the outer edges.
        take: of the same library as the values.
    """
    for axis, wanted in zip((1, 2), size, strict=True):
        given = values.shape[axis]
        if given == wanted:
            continue
        places = (np.arange(wanted) + 0.5) * (given / wanted) - 0.5
        if corners:
            places = np.arange(wanted) * ((given - 1) / max(wanted - 1, 1))
        places = np.clip(places, 0, given - 1)
        low = np.floor(places).astype("int32")
        share = (places - low).astype("float32").reshape([-1 if one == axis else 1 for one in range(4)])
        first, second = (take(values, index, axis) for index in (low, np.minimum(low + 1, given - 1)))
        values = first + share * (second - first)
    return values


def _nearest(values: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """(batch, height, width) in another size."""
    for axis, wanted in zip((1, 2), size, strict=True):
        given = values.shape[axis]
        values = np.take(values, ((np.arange(wanted) + 0.5) * (given / wanted)).astype(int), axis)
    return values
