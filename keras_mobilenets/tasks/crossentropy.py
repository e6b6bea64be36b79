"""What a classifier is trained with: crossentropy and accuracy, of class numbers and of shares alike."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


def loss(activation: str, from_logits: bool, label_smoothing: float) -> keras.losses.Loss:
    """The crossentropy of a softmax, or of sigmoids."""
    if activation == "sigmoid":
        return keras.losses.BinaryCrossentropy(from_logits=from_logits, label_smoothing=label_smoothing)
    return Crossentropy(from_logits=from_logits, label_smoothing=label_smoothing)


def metric(activation: str, from_logits: bool) -> keras.metrics.Metric:
    """The accuracy of a softmax, or of sigmoids."""
    if activation == "sigmoid":
        return keras.metrics.BinaryAccuracy(name="accuracy", threshold=0.0 if from_logits else 0.5)
    return keras.metrics.MeanMetricWrapper(accuracy, name="accuracy")


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class Crossentropy(keras.losses.Loss):
    """Crossentropy with smoothed labels, which may be vectors or integers: Keras smooths vectors only.

    Args:
        from_logits: whether the scores are logits.
        label_smoothing: in [0, 1).
        **kwargs: of `keras.losses.Loss`.
    """

    def __init__(self, from_logits: bool = False, label_smoothing: float = 0.0, **kwargs: Any):
        super().__init__(**{"name": "crossentropy", **kwargs})
        self.from_logits = from_logits
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        if not _are_soft(y_true, y_pred):
            y_true = ops.one_hot(ops.cast(ops.reshape(y_true, (-1,)), "int32"), y_pred.shape[-1])
        return keras.losses.categorical_crossentropy(y_true, y_pred, self.from_logits, self.label_smoothing)

    def get_config(self):
        return {**super().get_config(), "from_logits": self.from_logits, "label_smoothing": self.label_smoothing}


@keras.saving.register_keras_serializable(package="keras_mobilenets")
def accuracy(y_true: Any, y_pred: Any) -> Any:
    """Whether the highest score is the label's; of a mixed picture, the class with the largest share is right."""
    right = ops.argmax(y_true, -1) if _are_soft(y_true, y_pred) else y_true
    return keras.metrics.sparse_categorical_accuracy(right, y_pred)


def _are_soft(labels: Any, scores: Any) -> bool:
    return len(labels.shape) == len(scores.shape) and labels.shape[-1] == scores.shape[-1]
