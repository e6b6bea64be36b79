"""Boxes and the anchors that they are found from. One form throughout: `rel_yxyx`, as Keras calls it.

That is (top, left, bottom, right) in shares of the image's height and width, what TFLite's kernel gives. Anchors and
what a network says of them are centres and sizes, (y, x, height, width), likewise in shares.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np

from keras_mobilenets.arguments import check_integers, check_numbers

TOGETHER = 128  # boxes that are compared with each other at once
LARGEST = 0.95  # scale of the last map's anchors
SCALES = (10.0, 10.0, 5.0, 5.0)
"""What encodings of y, x, height and width are multiplied by: the box coder of the papers and of TFLite's kernel."""


@dataclasses.dataclass(frozen=True)
class Anchors:
    """The boxes of usual sizes and shapes that lie around each pixel of each feature map.

    Args:
        aspect_ratios: of each map, the width over the height of each anchor of a pixel.
        scales: likewise, the geometric mean of its height and width.
        longest: what heights and widths are cut to; None for not at all.
        rows: all anchors of an image themselves, as (y, x, height, width), where a file has them.

    Reference:
        SSD, arXiv:1512.02325, section 2.2.

    Example:

    >>> ssd_anchors().around([(19, 19), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)]).shape
    (1917, 4)
    """

    aspect_ratios: tuple[tuple[float, ...], ...]
    scales: tuple[tuple[float, ...], ...]
    longest: float | None = None
    rows: tuple[tuple[float, ...], ...] = ()

    @property
    def per_pixel(self) -> tuple[int, ...]:
        """How many there are around a pixel of each map."""
        return tuple(map(len, self.scales))

    def around(self, map_sizes: Sequence[tuple[int, int]]) -> np.ndarray:
        """All anchors of maps of (height, width), row by row: (anchors, 4) as (y, x, height, width), float32."""
        if len(map_sizes) != len(self.scales):
            raise ValueError(f"`map_sizes` must have {len(self.scales)} entries. Received: {list(map_sizes)}")
        if self.rows:
            return np.array(self.rows, np.float32)
        found = []
        for (rows, columns), ratios, scales in zip(map_sizes, self.aspect_ratios, self.scales, strict=True):
            y, x = np.mgrid[:rows, :columns] + 0.5
            centers = np.stack([y / rows, x / columns], -1)[:, :, np.newaxis]
            root, scale = np.sqrt(ratios), np.asarray(scales)
            sizes = np.stack([scale / root, scale * root], -1)
            if self.longest is not None:
                sizes = sizes.clip(max=self.longest)
            shape = (rows, columns, len(scales), 2)
            both = np.concatenate([np.broadcast_to(centers, shape), np.broadcast_to(sizes, shape)], -1)
            found.append(both.reshape(-1, 4))
        return np.concatenate(found).astype(np.float32)


def ssd_anchors(maps: int = 6, smallest: float = 0.2, largest: float = LARGEST) -> Anchors:
    """The anchors of TensorFlow's detection API: three around a pixel of the first map, six around others'.

    Args:
        maps: how many feature maps.
        smallest, largest: scales of the first map and of the last, in shares of the image; between them they are evenly
            spread. One anchor of the first map is half as large as its others.

    Reference:
        tensorflow/models, research/object_detection, ssdlite_mobilenet_v3_large_320x320_coco.config.

    Example:

    >>> ssd_anchors().per_pixel
    (3, 6, 6, 6, 6, 6)
    """
    _check_scales(maps, smallest, largest)
    scales = [*np.linspace(smallest, largest, maps).tolist(), 1.0]
    ratios = (1.0, 2.0, 0.5, 3.0, 0.3333, 1.0)
    between = [(scale,) * 5 + (math.sqrt(scale * following),) for scale, following in itertools.pairwise(scales)]
    return Anchors(((1.0, 2.0, 0.5), *[ratios] * (maps - 1)), ((smallest / 2, smallest, smallest), *between[1:]))


def torchvision_anchors(maps: int = 6, smallest: float = 0.2, largest: float = LARGEST) -> Anchors:
    """The anchors of torchvision's `ssdlite320_mobilenet_v3_large`: six around each pixel, none longer than the image.

    Example:

    >>> torchvision_anchors().around([(20, 20), (10, 10), (5, 5), (3, 3), (2, 2), (1, 1)]).shape
    (3234, 4)
    """
    _check_scales(maps, smallest, largest)
    scales = [smallest + (largest - smallest) * index / (maps - 1) for index in range(maps)] + [1.0]
    ratios = (1.0, 1.0, 2.0, 0.5, 3.0, 1 / 3)
    each = tuple(
        (scale, math.sqrt(scale * following), *4 * (scale,)) for scale, following in itertools.pairwise(scales)
    )
    return Anchors((ratios,) * maps, each, longest=1.0)


def named_anchors(word: str) -> Anchors:
    """The anchors that a word on the command line means: "ssd", "torchvision", or the smallest scale of `ssd_anchors`.

    Raises:
        ValueError: it means none.

    Example:

    >>> named_anchors("0.1") == ssd_anchors(smallest=0.1)
    True
    """
    known = {"ssd": ssd_anchors, "torchvision": torchvision_anchors}
    if word in known:
        return known[word]()
    try:
        smallest = float(word)
    except ValueError:
        smallest = 0.0
    if not 0 < smallest < LARGEST:
        raise ValueError(f"must be {', '.join(known)} or a scale between 0 and {LARGEST:g}, not {word!r}")
    return ssd_anchors(smallest=smallest)


def _check_scales(maps: int, smallest: float, largest: float) -> None:
    check_integers("[2, inf)", maps=maps)
    check_numbers("(0, 1]", smallest=smallest, largest=largest)


def decode(encodings: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """The boxes that a network's answers stand for, as TFLite's kernel computes them.

    Args:
        encodings: (..., anchors, 4), of y, x, height and width.
        anchors: (anchors, 4), as (y, x, height, width).

    Returns:
        (..., anchors, 4) as `rel_yxyx`, float32, not cut to the image.
    """
    given = np.asarray(encodings, np.float64) / SCALES
    anchors = np.asarray(anchors, np.float64)
    centers = (given[..., :2] * anchors[:, 2:] + anchors[:, :2]).astype(np.float32)
    halves = (0.5 * np.exp(given[..., 2:]) * anchors[:, 2:]).astype(np.float32)
    return np.concatenate([centers - halves, centers + halves], -1)


def overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (..., 4) with others that they broadcast to; 0 where one has no area."""
    low, high = np.maximum(box[..., :2], others[..., :2]), np.minimum(box[..., 2:], others[..., 2:])
    shared = _product(np.maximum(high - low, np.float32(0)))
    area, areas = (_product(one[..., 2:] - one[..., :2]) for one in (box, others))
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = shared / (area + areas - shared)
    return np.where((area > 0) & (areas > 0), shares, np.float32(0))


def _product(sides: np.ndarray) -> np.ndarray:
    """Of two sides; a third of the time that `np.prod` takes along so short an axis."""
    return sides[..., 0] * sides[..., 1]


def anchor_coverage(boxes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """How well the anchors can find each box: its largest intersection over union with one of them, in [0, 1].

    Boxes that no anchor overlaps by .5 are trained by their best anchor alone; where many are below .3, other anchors
    are needed, such as `ssd_anchors(smallest=0.1)`: they are the usual reason for a mean average precision of 0.

    Args:
        boxes: (boxes, 4), `rel_yxyx`.
        anchors: (anchors, 4) as (y, x, height, width), in shares of the image.

    Returns:
        (boxes,).

    Example:

    >>> anchor_coverage(np.array([[0.25, 0.25, 0.75, 0.75]]), np.array([[0.5, 0.5, 0.5, 1.0]])).tolist()
    [0.5]
    """
    centers, sizes = anchors[:, :2], anchors[:, 2:]
    corners = np.concatenate([centers - sizes / 2, centers + sizes / 2], -1)
    return np.array([overlap(box, corners).max() for box in np.asarray(boxes).reshape(-1, 4)])


def suppress(boxes: np.ndarray, scores: np.ndarray, most: int, least_score: float, most_overlap: float) -> np.ndarray:
    """The best boxes, best first, without those that lie over a better one.

    Args:
        boxes: (boxes, 4), `rel_yxyx`.
        scores: (boxes,).
        most: how many at most.
        least_score: boxes that score less are left out.
        most_overlap: intersection over union with a better box beyond which a box is left out.

    Returns:
        Their numbers.
    """
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= np.float32(least_score)]
    chosen: list[int] = []
    for start in range(0, len(order), TOGETHER):
        if len(chosen) >= most:
            break
        part = order[start : start + TOGETHER]
        over = overlap(boxes[part, np.newaxis], boxes[part]) > np.float32(most_overlap)
        free: np.ndarray = ~np.any(overlap(boxes[part, np.newaxis], boxes[chosen]) > np.float32(most_overlap), axis=-1)
        for place, number in enumerate(part):
            if free[place] and len(chosen) < most:
                chosen.append(number)
                free &= ~over[place]
    return np.array(chosen, int)


@dataclasses.dataclass(frozen=True)
class Suppression:
    """How boxes are chosen, for one image; the attributes of TFLite_Detection_PostProcess.

    Args:
        most: how many boxes at most.
        least_score: in [0, 1].
        most_overlap: intersection over union, in (0, 1].
        by_class: whether boxes of different classes may lie over each other. Otherwise each anchor is a box of its best
            class only, which is faster.
        most_of_class: by class, how many boxes of one class at most.
    """

    most: int = 100
    least_score: float = 0.01
    most_overlap: float = 0.6
    by_class: bool = True
    most_of_class: int = 100

    def __post_init__(self) -> None:
        check_integers("(0, inf)", most=self.most, most_of_class=self.most_of_class)
        check_numbers("[0, 1]", least_score=self.least_score)
        check_numbers("(0, 1]", most_overlap=self.most_overlap)

    def options(self, classes: int) -> dict[str, float | int | bool]:
        """As TFLite_Detection_PostProcess names them."""
        y, x, height, width = SCALES
        return {
            "max_detections": self.most,
            "max_classes_per_detection": 1,
            "detections_per_class": self.most_of_class,
            "use_regular_nms": self.by_class,
            "nms_score_threshold": self.least_score,
            "nms_iou_threshold": self.most_overlap,
            "num_classes": classes,
            **{"y_scale": y, "x_scale": x, "h_scale": height, "w_scale": width},
        }

    def __call__(self, boxes: np.ndarray, scores: np.ndarray) -> dict[str, np.ndarray]:
        """Chooses among (anchors, 4) boxes by their (anchors, classes) scores.

        Returns:
            "boxes" (found, 4), "labels" (found,) and "scores" (found,), best first.
        """
        limits = self.least_score, self.most_overlap
        if not self.by_class:
            labels = scores.argmax(-1)
            best = scores[np.arange(len(scores)), labels]
            chosen = suppress(boxes, best, self.most, *limits)
            return {"boxes": boxes[chosen], "labels": labels[chosen], "scores": best[chosen]}
        each = [suppress(boxes, column, self.most_of_class, *limits) for column in scores.T]
        labels = np.repeat(np.arange(len(each)), [len(one) for one in each])
        anchors = np.concatenate(each) if each else np.zeros(0, int)
        found = scores[anchors, labels]
        order = np.argsort(-found, kind="stable")[: self.most]
        return {"boxes": boxes[anchors[order]], "labels": labels[order], "scores": found[order]}
