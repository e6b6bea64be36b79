"""Squeeze-and-excite, as MobileNetV3 has it."""

from __future__ import annotations

from typing import Any

import keras

from keras_mobilenets.arguments import check_numbers
from keras_mobilenets.layers.activations import Activation, activation_layer
from keras_mobilenets.layers.composite import CompositeLayer, build_chain, known_channels, run
from keras_mobilenets.layers.divisible import make_divisible


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class SqueezeExcite(CompositeLayer):
    """Weighs each channel by what the whole feature map holds.

    `x * gate(conv(activation(conv(mean(x)))))`, with the mean over height and width and 1x1 convolutions with bias.

    Args:
        ratio: channels between the two convolutions as a share of the input's, rounded by `make_divisible`; > 0.
        activation: between the two convolutions.
        gate: after the second one; hard-sigmoid in MobileNetV3, sigmoid in the first paper.
        normalization: None as published, or "batch".
        **kwargs: of `CompositeLayer`: momentum, epsilon, initializers, regularizers, name.

    Input shape: (batch, height, width, channels), any range. Output shape: the same.

    Raises:
        ValueError: an argument is out of its range.

    Reference:
        Hu et al., arXiv:1709.01507; in MobileNetV3, arXiv:1905.02244, section 5.3.

    Example:

    >>> SqueezeExcite()(np.ones((2, 7, 7, 64), "float32")).shape
    TensorShape([2, 7, 7, 64])
    """

    def __init__(
        self,
        ratio: float = 0.25,
        activation: Activation = "relu",
        gate: Activation = "hard_sigmoid",
        normalization: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(activation=activation, normalization=normalization, **kwargs)
        check_numbers("(0, inf)", ratio=ratio)
        self.ratio = ratio
        self.gate = gate if isinstance(gate, str) or gate is None else keras.activations.get(gate)
        activation_layer(self.gate, self.name)
        self.supports_masking = True

    def build(self, input_shape):
        channels = known_channels(self, input_shape)
        prefix, policy = self.name, self.dtype_policy
        self.excite = [
            keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{prefix}_avg_pool", dtype=policy),
            *self.pointwise(make_divisible(channels * self.ratio), f"{prefix}_conv"),
            activation_layer(self.activation, prefix, policy),
            *self.pointwise(channels, f"{prefix}_conv_1"),
            activation_layer(self.gate, f"{prefix}_gate" if self.gate == self.activation else prefix, policy),
        ]
        self.excite = [layer for layer in self.excite if layer is not None]
        self.multiply = keras.layers.Multiply(name=f"{prefix}_mul", dtype=policy)
        gate_shape = build_chain(self.excite, input_shape)
        self.multiply.build([input_shape, gate_shape])

    def call(self, inputs, training=None):
        return self.multiply([inputs, run(self.excite, inputs, training)])

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        gate = keras.activations.serialize(self.gate) if callable(self.gate) else self.gate
        return {**super().get_config(), "ratio": self.ratio, "gate": gate}
