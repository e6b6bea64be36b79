"""The block of MobileNetV1."""

from __future__ import annotations

from typing import Any

import keras

from keras_mobilenets.arguments import check_integers, check_sizes
from keras_mobilenets.layers.composite import CompositeLayer, build_chain, known_channels, run


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class DepthwiseSeparableConv(CompositeLayer):
    """A standard convolution factored in two: a depthwise one that filters, a 1x1 one that combines.

    `activation(BN(pointwise(activation(BN(depthwise(x))))))`. It costs `1/filters + 1/kernel_size**2` of the standard
    convolution.

    Args:
        filters: number of output channels, > 0.
        kernel_size: of the depthwise convolution, an integer or a pair.
        strides: of the depthwise convolution, an integer.
        dilation_rate: of the depthwise convolution, an integer; with strides 1 only.
        depth_multiplier: depthwise outputs for each input channel, > 0.
        quantization_friendly: leaves out the normalization and the activation between the two convolutions, and
            takes ReLU in place of ReLU6: what is left survives 8-bit arithmetic with one range per tensor
            (arXiv:1803.08607). That paper also puts L2 regularization on the depthwise kernel.
        **kwargs: of `CompositeLayer`: activation, normalization, momentum, epsilon, initializers, regularizers, name.

    Input shape: (batch, height, width, channels), any range.
    Output shape: (batch, ceil(height / strides), ceil(width / strides), filters).

    Sub-layers of a layer `conv_3` are named as in keras.applications: `conv_dw_3`, `conv_dw_3_bn`, `conv_dw_3_relu`,
    `conv_pw_3`, `conv_pw_3_bn`, `conv_pw_3_relu`.

    Raises:
        ValueError: an argument is out of its range.

    Reference:
        MobileNets, arXiv:1704.04861, section 3.1 and Figure 3.

    Example:

    >>> DepthwiseSeparableConv(64, strides=2)(np.zeros((1, 32, 32, 16), "float32")).shape
    TensorShape([1, 16, 16, 64])
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int] = 3,
        strides: int = 1,
        dilation_rate: int = 1,
        depth_multiplier: int = 1,
        quantization_friendly: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_integers("(0, inf)", filters=filters, strides=strides, dilation_rate=dilation_rate)
        check_integers("(0, inf)", depth_multiplier=depth_multiplier)
        check_sizes(kernel_size=kernel_size)
        self.filters = filters
        self.kernel_size = kernel_size
        self.strides = strides
        self.dilation_rate = dilation_rate
        self.depth_multiplier = depth_multiplier
        self.quantization_friendly = quantization_friendly

        activation = "relu" if quantization_friendly and self.activation == "relu6" else self.activation
        stem, _, index = self.name.rpartition("_")
        dw, pw = (f"{stem}_{part}_{index}" if index.isdigit() else f"{self.name}_{part}" for part in ("dw", "pw"))
        self.stages = [
            *self.depthwise(
                dw,
                activation,
                bare=quantization_friendly,
                kernel_size=kernel_size,
                strides=strides,
                dilation_rate=dilation_rate,
                depth_multiplier=depth_multiplier,
            ),
            *self.pointwise(filters, pw, activation),
        ]

    def build(self, input_shape):
        known_channels(self, input_shape)
        build_chain(self.stages, input_shape)

    def call(self, inputs, training=None):
        return run(self.stages, inputs, training)

    def compute_output_shape(self, input_shape):
        for layer in self.stages:
            input_shape = layer.compute_output_shape(input_shape)
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "dilation_rate": self.dilation_rate,
            "depth_multiplier": self.depth_multiplier,
            "quantization_friendly": self.quantization_friendly,
        }
