"""Convolution that is a matrix product where there is one pixel."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class Conv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D` that multiplies matrices where a 1x1 kernel meets a 1x1 feature map.

    Squeeze-and-excite and the heads of the networks are such convolutions, two of them in each block of MobileNetV3.
    TensorFlow takes two to three times as long for one as for the same matrix product, forward and backward. On other
    backends, with other kernels or larger maps it is Keras' own. Arguments, weights and names are the same: a config
    of one class loads into the other.

    Input shape: (batch, height, width, channels), any range. Output shape: as `keras.layers.Conv2D`.

    Example:

    >>> Conv2D(16, 1)(np.ones((2, 1, 1, 64), "float32")).shape
    TensorShape([2, 1, 1, 16])
    >>> keras.layers.Conv2D.from_config(Conv2D(16, 1).get_config()).filters
    16
    """

    def convolution_op(self, inputs, kernel):
        one_pixel = tuple(inputs.shape[1:3]) == (1, 1) and tuple(kernel.shape[:2]) == (1, 1)
        plain = self.groups == 1 and self.data_format == "channels_last" and keras.backend.backend() == "tensorflow"
        # A single image gains nothing, and has to stay a convolution for TFLite's converter, which is given one.
        if not (one_pixel and plain) or inputs.shape[0] == 1:
            return super().convolution_op(inputs, kernel)
        products = ops.matmul(ops.squeeze(inputs, (1, 2)), ops.squeeze(kernel, (0, 1)))
        return ops.expand_dims(products, (1, 2))


def convolve(layer: keras.layers.Layer, inputs: Any, kernel: Any) -> Any:
    """What a `Conv2D` or `DepthwiseConv2D` computes with another kernel, without bias and activation."""
    if not isinstance(layer, keras.layers.DepthwiseConv2D):
        return layer.convolution_op(inputs, kernel)
    geometry = {name: getattr(layer, name) for name in ("strides", "padding", "data_format", "dilation_rate")}
    return ops.depthwise_conv(inputs, kernel, **geometry)
