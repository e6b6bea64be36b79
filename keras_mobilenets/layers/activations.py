"""The activations of MobileNetV3, and how an activation's name becomes a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

Activation = str | Callable[[Any], Any] | None
"""What `activation=` takes: a name that Keras knows, a function of a tensor, or None (linear)."""


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class HardSigmoid(keras.layers.Layer):
    """A sigmoid of straight lines: `relu6(x + 3) / 6`.

    Input shape: any, any range. Output shape: the same, in [0, 1].

    Reference:
        MobileNetV3, arXiv:1905.02244, section 5.2.

    Example:

    >>> HardSigmoid()(np.array([-4.0, 0.0, 1.5, 4.0], "float32")).numpy()
    array([0.  , 0.5 , 0.75, 1.  ], dtype=float32)
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs):
        # In this order, and not x / 6 + 0.5, so that the result equals keras.applications' MobileNetV3 to the bit.
        return ops.relu6(inputs + 3.0) * (1.0 / 6.0)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config()  # the automatic one refuses a dtype policy that is an object


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class HardSwish(keras.layers.Layer):
    """A swish of straight lines: `x * relu6(x + 3) / 6`.

    Input shape: any, any range. Output shape: the same, in [-3/8, inf).

    Reference:
        MobileNetV3, arXiv:1905.02244, section 5.2.

    Example:

    >>> HardSwish()(np.array([-4.0, -1.5, 0.0, 3.0], "float32")).numpy()
    array([-0.   , -0.375,  0.   ,  3.   ], dtype=float32)
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs):
        return keras.activations.hard_swish(inputs)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config()  # the automatic one refuses a dtype policy that is an object


# Layers rather than functions where the integer graph needs to see them; the suffixes are keras.applications'.
_LAYERS: dict[str, tuple[str, Callable[..., keras.layers.Layer]]] = {
    "relu": ("relu", keras.layers.ReLU),
    "relu6": ("relu", lambda **kwargs: keras.layers.ReLU(6.0, **kwargs)),
    "hard_swish": ("hard_swish", HardSwish),
    "hard_silu": ("hard_swish", HardSwish),
    "hard_sigmoid": ("hard_sigmoid", HardSigmoid),
}


def activation_layer(activation: Activation, prefix: str, dtype: Any = None) -> keras.layers.Layer | None:
    """Makes the layer that applies an activation, named `{prefix}_relu`, `{prefix}_hard_swish`, ...

    Args:
        activation: a name that Keras knows, a function of a tensor, or None.
        prefix: first part of the layer's name.
        dtype: the layer's dtype or dtype policy.

    Returns:
        The layer; None where the activation is linear.

    Raises:
        ValueError: an unknown name.

    Example:

    >>> activation_layer("hard_swish", "block_1_expand").name
    'block_1_expand_hard_swish'
    """
    if activation is None or activation == "linear":
        return None
    if isinstance(activation, str) and activation in _LAYERS:
        suffix, layer = _LAYERS[activation]
        return layer(name=f"{prefix}_{suffix}", dtype=dtype)
    return keras.layers.Activation(activation, name=f"{prefix}_activation", dtype=dtype)
