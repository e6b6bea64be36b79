"""What a segmentation network is trained with: crossentropy of its pixels, without those that nobody labelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class PixelCrossentropy(keras.losses.Loss):
    """Crossentropy of the pixels that have a class, from logits.

    `sum(w[class] * crossentropy) / sum(w[class])` over the labelled pixels of a batch; 0 of a batch without any.

    Args:
        ignore: label of pixels that are neither right nor wrong.
        class_weights: one for each class; None weighs all alike.
        label_smoothing: in [0, 1).
        **kwargs: of `keras.losses.Loss`.
    """

    def __init__(
        self,
        ignore: int = 255,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**{"name": "pixel_crossentropy", **kwargs})
        self.ignore = ignore
        self.class_weights = None if class_weights is None else [float(one) for one in class_weights]
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        labelled = ops.not_equal(y_true, self.ignore)
        labels = ops.cast(ops.where(labelled, y_true, 0), "int32")
        weights = ops.cast(labelled, "float32")
        if self.class_weights is not None:
            weights = weights * ops.take(ops.convert_to_tensor(self.class_weights, "float32"), labels)
        logits = ops.log_softmax(ops.cast(y_pred, "float32"), -1)
        loss = -ops.squeeze(ops.take_along_axis(logits, labels[..., None], -1), -1)
        if self.label_smoothing:
            loss = (1 - self.label_smoothing) * loss - self.label_smoothing * ops.mean(logits, -1)
        # For each image, so that the mean over the batch is the sum over all pixels for each labelled one.
        pictures = ops.cast(ops.shape(weights)[0], "float32")
        return ops.sum(loss * weights, (1, 2)) * pictures / ops.maximum(ops.sum(weights), 1e-6)

    def get_config(self) -> dict[str, Any]:
        own = ("ignore", "class_weights", "label_smoothing")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


def mean_iou(classes: int, ignore: int) -> keras.metrics.Metric:
    """The mean intersection over union of a batch's logits, as `Segmentation.score` counts it."""
    return keras.metrics.MeanIoU(classes, name="mIoU", ignore_class=ignore, sparse_y_pred=False)
