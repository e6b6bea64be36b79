"""The universal inverted bottleneck, the block of MobileNetV4."""

from __future__ import annotations

from typing import Any

import keras

from keras_mobilenets.arguments import check_numbers, check_sizes
from keras_mobilenets.layers.inverted_residual import InvertedResidual
from keras_mobilenets.layers.layer_scale import LayerScale


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class UniversalInvertedBottleneck(InvertedResidual):
    """An inverted residual block with a depthwise convolution before the expansion, in its middle, at both, or none.

    `[start depthwise, normalization] -> expand -> [middle depthwise] -> linear projection -> [layer scale] (+ x)`.
    The four blocks that it unites, by their kernels (start, middle):

    | (start, middle) | block |
    |---|---|
    | (None, k) | inverted bottleneck, as in MobileNetV2 |
    | (k, None) | ConvNeXt's block |
    | (k, k) | "extra depthwise" |
    | (None, None) | the feed-forward network of a transformer |

    Args:
        filters: number of output channels, > 0.
        expansion: channels inside the block as a multiple of the input's, rounded by `make_divisible`; > 0.
        start_kernel_size: of the depthwise convolution before the expansion, an integer or a pair; None for none.
        kernel_size: of the one in the middle; None for none.
        strides: of the middle depthwise convolution, of the starting one where there is no other. An integer.
        layer_scale: what the factor of each output channel begins with; None leaves the factors out.
        **kwargs: of `InvertedResidual`: dilation_rate (of the depthwise convolutions), se_ratio, drop_path, residual;
            activation is "relu" by default.

    Input shape: (batch, height, width, channels), any range.
    Output shape: (batch, ceil(height / strides), ceil(width / strides), filters).

    Sub-layers of a layer `block_1`: `block_1_start_depthwise`, `block_1_layer_scale`, and those of
    `InvertedResidual`.

    Raises:
        ValueError: an argument is out of its range, or there are strides without a depthwise convolution.

    Reference:
        MobileNetV4, arXiv:2404.10518, section 3.1 and Figure 4.

    Example:

    >>> layer = UniversalInvertedBottleneck(24, start_kernel_size=5, kernel_size=3, strides=2)
    >>> layer(np.zeros((1, 32, 32, 16), "float32")).shape
    TensorShape([1, 16, 16, 24])
    """

    def __init__(
        self,
        filters: int,
        expansion: float = 4,
        start_kernel_size: int | tuple[int, int] | None = None,
        kernel_size: int | tuple[int, int] | None = 3,
        strides: int = 1,
        layer_scale: float | None = None,
        **kwargs: Any,
    ):
        super().__init__(filters, expansion, kernel_size, strides, **{"activation": "relu", **kwargs})
        if start_kernel_size is not None:
            check_sizes(start_kernel_size=start_kernel_size)
        check_numbers("(-inf, inf)", optional=True, layer_scale=layer_scale)
        if strides != 1 and start_kernel_size is None and kernel_size is None:
            raise ValueError(f"`strides` must be 1 without a depthwise convolution. Received: strides={strides}")
        self.start_kernel_size = start_kernel_size
        self.layer_scale = layer_scale

    def start(self) -> list[keras.layers.Layer]:
        if self.start_kernel_size is None:
            return []
        return self.depthwise(
            f"{self.name}_start_depthwise",
            None,
            kernel_size=self.start_kernel_size,
            strides=1 if self.kernel_size is not None else self.strides,
            dilation_rate=self.dilation_rate,
        )

    def end(self) -> list[keras.layers.Layer]:
        if self.layer_scale is None:
            return []
        name = f"{self.name}_layer_scale"
        return [LayerScale(self.layer_scale, name=name, trainable=self.trainable, dtype=self.dtype_policy)]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "start_kernel_size": self.start_kernel_size,
            "layer_scale": self.layer_scale,
        }
