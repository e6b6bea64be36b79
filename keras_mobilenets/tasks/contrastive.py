"""What an embedding is trained with where identities are known."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class ContrastiveLoss(keras.losses.Loss):
    """A softmax over the cosines of a picture with all others of its batch, in which those of its identity are right.

    `-mean over p of log(exp(cos(i, p) / T) / sum over a != i of exp(cos(i, a) / T))` of picture i, where p are the
    others of its identity and a all others. It has no weights of its own, so that there may be any number of
    identities; of a batch only those say something that occur twice in it. Numbers below 0 are of unknown identity.

    Args:
        temperature: T, > 0.
        **kwargs: of `keras.losses.Loss`.

    Reference:
        Khosla et al., Supervised Contrastive Learning, arXiv:2004.11362, equation 2.
    """

    def __init__(self, temperature: float = 0.1, **kwargs: Any):
        super().__init__(**{"name": "contrastive", **kwargs})
        self.temperature = temperature

    def call(self, y_true, y_pred):
        labels = ops.cast(ops.reshape(y_true, (-1,)), "int32")
        vectors = ops.normalize(ops.cast(y_pred, "float32"), axis=-1)
        places = ops.arange(ops.shape(labels)[0])
        itself = places[:, None] == places
        cosines = ops.where(itself, -1e9, ops.matmul(vectors, ops.transpose(vectors)) / self.temperature)
        chances = cosines - ops.logsumexp(cosines, axis=-1, keepdims=True)
        same = (labels[:, None] == labels) & ~itself & (labels >= 0)
        count = ops.sum(ops.cast(same, "float32"), -1)
        return -ops.sum(ops.where(same, chances, 0.0), -1) / ops.maximum(count, 1.0)

    def get_config(self):
        return {**super().get_config(), "temperature": self.temperature}
