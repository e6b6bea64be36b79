"""A learned factor for each channel of a block's branch."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_mobilenets.arguments import check_numbers


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class LayerScale(keras.layers.Layer):
    """Multiplies each channel by a learned factor: `gamma * x`.

    Behind a convolution it costs nothing when deployed: it is folded into the kernel.

    Args:
        initial: what each factor begins with; near 0, so that a deep network begins as its shortcuts. A number.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: `initial` is no number.

    Input shape: (..., channels), any range. Output shape: the same.

    Reference:
        Touvron et al., arXiv:2103.17239, section 2; in MobileNetV4's hybrids, arXiv:2404.10518.

    Example:

    >>> LayerScale(0.5)(np.ones((1, 2), "float32")).numpy()
    array([[0.5, 0.5]], dtype=float32)
    """

    def __init__(self, initial: float = 1e-5, **kwargs: Any):
        super().__init__(**kwargs)
        check_numbers("(-inf, inf)", initial=initial)
        self.initial: float = float(initial)
        self.supports_masking = True

    def build(self, input_shape):
        initializer = keras.initializers.Constant(self.initial)
        self.gamma = self.add_weight(shape=(input_shape[-1],), initializer=initializer, name="gamma")

    def call(self, inputs):
        return inputs * ops.cast(self.gamma, inputs.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "initial": self.initial}
