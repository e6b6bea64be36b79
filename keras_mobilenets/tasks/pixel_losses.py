"""What a segmentation network is trained with: crossentropy of its pixels, without those that nobody labelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mobilenets.tasks.segmentation import bilinear


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class PixelCrossentropy(keras.losses.Loss):
    """Crossentropy of the pixels that have a class, from logits.

    `sum(w[class] * crossentropy) / sum(w[class])` over the labelled pixels of a batch; 0 of a batch without any.

    Args:
        ignore: label of pixels that are neither right nor wrong.
        class_weights: one for each class; None weighs all alike.
        label_smoothing: in [0, 1).
        corners: how logits that are smaller than the labels are resized, see `tasks.Segmentation`.
        **kwargs: of `keras.losses.Loss`.
    """

    def __init__(
        self,
        ignore: int = 255,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        corners: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**{"name": "pixel_crossentropy", **kwargs})
        self.ignore = ignore
        self.class_weights = None if class_weights is None else [float(one) for one in class_weights]
        self.label_smoothing = label_smoothing
        self.corners = corners

    def call(self, y_true, y_pred):
        labelled = ops.not_equal(y_true, self.ignore)
        labels = ops.cast(ops.where(labelled, y_true, 0), "int32")
        weights = ops.cast(labelled, "float32")
        if self.class_weights is not None:
            weights = weights * ops.take(ops.convert_to_tensor(self.class_weights, "float32"), labels)
        logits = ops.log_softmax(as_large(y_pred, y_true, self.corners), -1)
        loss = -ops.squeeze(ops.take_along_axis(logits, labels[..., None], -1), -1)
        if self.label_smoothing:
            loss = (1 - self.label_smoothing) * loss - self.label_smoothing * ops.mean(logits, -1)
        # For each image, so that the mean over the batch is the sum over all pixels for each labelled one.
        pictures = ops.cast(ops.shape(weights)[0], "float32")
        return ops.sum(loss * weights, (1, 2)) * pictures / ops.maximum(ops.sum(weights), 1e-6)

    def get_config(self) -> dict[str, Any]:
        own = ("ignore", "class_weights", "label_smoothing", "corners")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class PixelIoU(keras.metrics.MeanIoU):
    """The mean intersection over union of logits, as `tasks.Segmentation.score` counts it.

    Args:
        num_classes: of the logits.
        ignore: label of pixels that are neither right nor wrong.
        corners: how logits that are smaller than the labels are resized, see `tasks.Segmentation`.
        name, dtype: of the metric.
    """

    def __init__(self, num_classes: int, ignore: int = 255, corners: bool = False, name: Any = None, dtype: Any = None):
        super().__init__(num_classes, name=name, dtype=dtype, ignore_class=ignore, sparse_y_pred=False)
        self.ignore = ignore
        self.corners = corners

    def update_state(self, y_true, y_pred, sample_weight=None):
        return super().update_state(y_true, as_large(y_pred, y_true, self.corners), sample_weight)

    def get_config(self) -> dict[str, Any]:
        own = ("num_classes", "ignore", "corners", "name", "dtype")
        return {name: getattr(self, name) for name in own}


def as_large(logits: Any, labels: Any, corners: bool) -> Any:
    """Logits at the size of the labels, float32."""
    return bilinear(ops.cast(logits, "float32"), labels.shape[1:3], corners=corners, take=ops.take)
