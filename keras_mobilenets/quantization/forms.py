"""Layers that stand in a quantized model for what was written otherwise, in a form that integer runtimes have."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class Scaling(keras.layers.Rescaling):
    """`x * scale` or `x + offset` within a model, where `Rescaling` is the normalization in front of one.

    Args:
        scale, offset: as of `keras.layers.Rescaling`; one of them does nothing.

    Input shape: any. Output shape: the same.

    Example:

    >>> Scaling(0.5)(np.ones((1, 2), "float32")).numpy()
    array([[0.5, 0.5]], dtype=float32)
    """

    def call(self, inputs):
        scale, offset = (ops.cast(number, inputs.dtype) for number in (self.scale, self.offset))
        return inputs + offset if isinstance(self.scale, float | int) and self.scale == 1 else inputs * scale


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class Join(keras.layers.Concatenate):
    """A concatenation of parts that each have a grid of their own, and which rounds them to one.

    Converters of today round the parts before they are joined; those that wrote uint8 files let the runtime do it.

    Args:
        axis: along which.

    Input shape: several of the same shape but for the axis. Output shape: that of the whole.

    Example:

    >>> Join()([np.zeros((1, 2), "float32"), np.ones((1, 1), "float32")]).numpy()
    array([[0., 0., 1.]], dtype=float32)
    """


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class Clip(keras.layers.Layer):
    """`min(max(x, low), high)`.

    Args:
        low, high: the limits; None for none.

    Input shape: any. Output shape: the same.

    Example:

    >>> Clip(0.0, 1.0)(np.array([-1.0, 0.5, 2.0], "float32")).numpy()
    array([0. , 0.5, 1. ], dtype=float32)
    """

    def __init__(self, low: float | None = None, high: float | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.low = low
        self.high = high
        self.supports_masking = True

    def call(self, inputs):
        if self.low is not None:
            inputs = ops.relu(inputs) if self.low == 0 else ops.maximum(inputs, self.low)
        return inputs if self.high is None else ops.minimum(inputs, self.high)

    def get_config(self):
        return {**super().get_config(), "low": self.low, "high": self.high}


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class ArgMax(keras.layers.Layer):
    """Index of the highest value along an axis, in the one operation that runtimes have for it.

    Args:
        axis: along which; None takes the values as a whole.
        keepdims: whether the axis stays, with one value.
        lowest: whether the index of the lowest value is asked for.

    Input shape: any. Output shape: without `axis`, int32.

    Example:

    >>> ArgMax()(np.array([[0.1, 0.7, 0.2]], "float32")).numpy()
    array([1], dtype=int32)
    """

    def __init__(self, axis: int | None = -1, keepdims: bool = False, lowest: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.axis = axis
        self.keepdims = keepdims
        self.lowest = lowest

    def call(self, inputs):
        if keras.backend.backend() != "tensorflow" or self.axis is None:
            find = ops.argmin if self.lowest else ops.argmax
            return find(inputs, self.axis, keepdims=self.keepdims)
        import tensorflow as tf  # Keras' own looks at the bits of the numbers for -0.0, which no converter knows

        index = (tf.argmin if self.lowest else tf.argmax)(inputs, self.axis, tf.int32)
        return tf.expand_dims(index, self.axis) if self.keepdims else index

    def compute_output_spec(self, inputs):
        shape = list(inputs.shape)
        if self.axis is None:
            shape = [1] * len(shape) if self.keepdims else []
        elif self.keepdims:
            shape[self.axis] = 1
        else:
            del shape[self.axis]
        return keras.KerasTensor(tuple(shape), "int32")

    def get_config(self):
        return {**super().get_config(), "axis": self.axis, "keepdims": self.keepdims, "lowest": self.lowest}
