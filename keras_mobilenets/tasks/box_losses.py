"""What a detector is trained with. Each loss finds the anchors that a box belongs to, in the graph, on any backend."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mobilenets.tasks.boxes import SCALES

PADDING, CROWD = -1, -2
"""Labels of rows that are no box, and of boxes around many things, near which nothing is right or wrong."""
BELONGS = 0.5
"""Intersection over union from which an anchor belongs to a box; the best anchor of a box always does."""


class Matched:
    """A batch of boxes, matched with the anchors.

    Args:
        table: (batch, boxes, 5): `rel_yxyx` and the label; rows of `PADDING` and `CROWD` are no boxes.
        anchors: (anchors, 4) as (y, x, height, width).

    Attributes:
        table: the table's row for each anchor, (batch, anchors, 5).
        positive: (batch, anchors), 1 where an anchor belongs to a box, else 0.
        ignored: likewise, 1 where half of it or more lies in a crowd and it belongs to no box.
    """

    def __init__(self, table: Any, anchors: np.ndarray):
        centers, sizes = anchors[:, :2], anchors[:, 2:]
        corners = np.concatenate([centers - sizes / 2, centers + sizes / 2], -1)
        labels = table[..., 4]
        is_box = ops.cast(labels >= 0, "float32")
        shared, covered = _overlaps(table[..., :4], ops.convert_to_tensor(corners, dtype="float32"))
        on_boxes = shared * is_box[..., None] - (1 - is_box[..., None])  # -1 for what is no box
        best_box, best_overlap = ops.argmax(on_boxes, 1), ops.max(on_boxes, 1)
        # The best anchor of each box is the box's own, whatever else lies there: of two such boxes the last one has it.
        own = ops.one_hot(ops.argmax(on_boxes, 2), len(anchors)) * is_box[..., None]
        count = table.shape[1]
        number = ops.max(own * (1.0 + ops.arange(count, dtype="float32"))[:, None], 1)
        best_box = ops.where(number > 0, ops.cast(number, "int32") - 1, ops.cast(best_box, "int32"))
        self.table = ops.take_along_axis(table, best_box[..., None], 1)
        self.positive = ops.cast((best_overlap >= BELONGS) | (number > 0), "float32")
        crowd = ops.cast(labels == CROWD, "float32")[..., None]
        self.ignored = ops.cast(ops.max(covered * crowd, 1) >= BELONGS, "float32") * (1 - self.positive)

    def share(self, values: Any) -> Any:
        """(batch, anchors) summed for each image, so that their mean is the sum over the batch for each positive."""
        count = ops.maximum(ops.sum(self.positive), 1.0)  # a batch may be without a box
        return ops.sum(values, 1) * ops.cast(ops.shape(values)[0], "float32") / count


def _overlaps(boxes: Any, anchors: Any) -> tuple[Any, Any]:
    """Intersection of (batch, boxes, 4) with (anchors, 4) over their union, and over the anchor alone.

    Both are (batch, boxes, anchors).
    """
    boxes = boxes[:, :, None]
    low, high = ops.maximum(boxes[..., :2], anchors[:, :2]), ops.minimum(boxes[..., 2:], anchors[:, 2:])
    shared = ops.prod(ops.maximum(high - low, 0.0), -1)
    area, areas = (ops.prod(one[..., 2:] - one[..., :2], -1) for one in (boxes, anchors))
    return shared / ops.maximum(area + areas - shared, 1e-9), shared / areas


class _AnchorLoss(keras.losses.Loss):
    """What both losses keep: the anchors."""

    def __init__(self, anchors: Any, **kwargs: Any):
        super().__init__(**kwargs)
        self.anchors = np.asarray(anchors, "float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "anchors": self.anchors.tolist()}


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class BoxLoss(_AnchorLoss):
    """Smooth L1 between the encodings of the anchors that belong to a box and what they should be.

    Args:
        anchors: (anchors, 4) as (y, x, height, width).
        **kwargs: of `keras.losses.Loss`.

    Reference:
        Fast R-CNN, arXiv:1504.08083, equation 3; summed over the batch and divided by the number of such anchors, as in
        SSD, arXiv:1512.02325, equation 1.
    """

    def call(self, y_true, y_pred):
        matched = Matched(y_true, self.anchors)
        centers, sizes = self.anchors[:, :2], self.anchors[:, 2:]
        low, high = matched.table[..., :2], matched.table[..., 2:4]
        shifts = ((low + high) / 2 - centers) / sizes
        # Where nothing belongs to an anchor the row is anything; its loss is multiplied by 0, and must be finite.
        growth = ops.log(ops.maximum(high - low, 1e-6) / sizes)
        wanted = ops.concatenate([shifts, growth], -1) * np.array(SCALES, "float32")
        difference = ops.abs(y_pred - wanted)
        smooth = ops.where(difference < 1, 0.5 * difference**2, difference - 0.5)
        return matched.share(ops.sum(smooth, -1) * matched.positive)


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class ScoreLoss(_AnchorLoss):
    """Focal loss of sigmoids; of a softmax with background the crossentropy, of the hardest negatives only.

    Args:
        anchors: (anchors, 4) as (y, x, height, width).
        background: whether the first column says that an anchor shows nothing.
        alpha, gamma: of the focal loss.
        negatives: hard negatives for each anchor that belongs to a box; `fewest` in an image without boxes.
        fewest: see there.
        **kwargs: of `keras.losses.Loss`.

    Reference:
        Lin et al., Focal Loss, arXiv:1708.02002; hard negatives, 3 to 1: SSD, arXiv:1512.02325, section 2.2.
    """

    def __init__(
        self,
        anchors: Any,
        background: bool = False,
        alpha: float = 0.75,
        gamma: float = 2.0,
        negatives: int = 3,
        fewest: int = 3,
        **kwargs: Any,
    ):
        super().__init__(anchors, **kwargs)
        self.background = background
        self.alpha = alpha
        self.gamma = gamma
        self.negatives = negatives
        self.fewest = fewest

    def call(self, y_true, y_pred):
        matched = Matched(y_true, self.anchors)
        label = ops.cast(ops.maximum(matched.table[..., 4], 0.0), "int32")
        slots = y_pred.shape[-1]
        if self.background:
            right = ops.where(matched.positive > 0, label + 1, 0)
            loss = -ops.log(ops.maximum(ops.sum(ops.one_hot(right, slots) * y_pred, -1), 1e-7))
            return matched.share(loss * (matched.positive + self._hard(loss, matched)))
        right = ops.one_hot(label, slots) * matched.positive[..., None]
        of_right = ops.clip(ops.where(right > 0, y_pred, 1 - y_pred), 1e-7, 1.0)
        weight = ops.where(right > 0, self.alpha, 1 - self.alpha) * (1 - of_right) ** self.gamma
        loss = ops.sum(-weight * ops.log(of_right), -1)
        return matched.share(loss * (1 - matched.ignored))

    def _hard(self, loss: Any, matched: Matched) -> Any:
        """(batch, anchors), 1 for the negatives with the highest loss."""
        negative = (1 - matched.positive) * (1 - matched.ignored)
        rank = ops.argsort(ops.argsort(-ops.stop_gradient(loss) * negative, -1), -1)
        wanted = ops.maximum(self.negatives * ops.sum(matched.positive, -1, keepdims=True), float(self.fewest))
        return negative * ops.cast(ops.cast(rank, "float32") < wanted, "float32")

    def get_config(self) -> dict[str, Any]:
        own = ("background", "alpha", "gamma", "negatives", "fewest")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}
