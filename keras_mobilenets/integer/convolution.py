"""Convolutions and matrix products on integers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mobilenets.integer.layer import EXACT, IntegerOperation


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class IntegerConvolution(IntegerOperation):
    """A convolution, a depthwise or transposed one, or a matrix product, with its bias.

    Args:
        kind: "conv", "depthwise", "transpose" or "dense".
        kernel_shape: (height, width, input channels, output channels), of a depthwise convolution
            (height, width, channels, multiplier).
        kernel_scales: of each output channel, or one for all.
        strides, dilation_rate, padding: as in `keras.ops.conv`.
        target_shape: of the output, without the batch.
        splits: bounds of the groups of input channels within which no sum can leave float32's exact integers.
        wide: whether the whole sum can, so that it must be kept in int32.
        **kwargs: of `IntegerOperation`.
    """

    arguments = (
        *("kind", "kernel_shape", "kernel_scales", "strides", "dilation_rate", "padding", "target_shape"),
        *("splits", "wide"),
    )

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.kernel = self.fixed_weight("kernel", self.kernel_shape)
        self.bias = self.fixed_weight("bias", (self.channels,), "int32" if self.wide else "float32")

    def set_arrays(self, kernel: np.ndarray, bias: np.ndarray) -> None:
        """Sets the integers of kernel and bias."""
        self.kernel.assign(kernel)
        self.bias.assign(bias)

    @property
    def channels(self) -> int:
        """Of the output."""
        *_, inputs, outputs = self.kernel_shape
        return inputs * outputs if self.kind == "depthwise" else outputs

    def numbers(self):
        multiplier = self.multiplier(self.inputs_quantization[0].scale, self.kernel_scales)
        return {**super().numbers(), **{k: np.broadcast_to(v, (self.channels,)) for k, v in multiplier.items()}}

    def call(self, inputs):
        total, roundings = self.bounded(inputs) + self.bias, 1 if self.kind == "dense" else 2
        if self.activation not in ("RELU", "RELU6"):
            return self.clamp(self.scaled(total, roundings))
        # Cut off at 0 here, TensorFlow computes it with the convolution: each pass over a map takes time.
        return ops.minimum(self.scaled(ops.relu(total), roundings), self.number["high"])

    def bounded(self, inputs: Any) -> Any:
        """The sum of products, in int32 where it is `wide`."""
        kernel = ops.convert_to_tensor(self.kernel)
        bounds = list(zip(self.splits, self.splits[1:], strict=False))
        if len(bounds) == 1:
            total = self.linear(inputs, kernel)
            return ops.cast(total, "int32") if self.wide else total
        parts = [self.linear(inputs[..., first:last], kernel[:, :, first:last]) for first, last in bounds]
        return sum(ops.cast(part, "int32") if self.wide else part for part in parts)

    def linear(self, inputs: Any, kernel: Any) -> Any:
        """The operation in float32."""
        if self.kind == "dense":
            rows = ops.reshape(inputs, (-1, kernel.shape[2]))
            return ops.reshape(ops.matmul(rows, kernel[0, 0]), (-1, *self.target_shape))
        if self.kind == "transpose":
            return self._transposed(inputs, kernel)
        convolve = ops.depthwise_conv if self.kind == "depthwise" else ops.conv
        strides, dilation = tuple(self.strides), tuple(self.dilation_rate)
        return convolve(inputs, kernel, strides, self.padding, data_format="channels_last", dilation_rate=dilation)

    def _transposed(self, inputs: Any, kernel: Any) -> Any:
        """In the whole, and then cut to the window that the file's padding leaves."""
        flipped = ops.transpose(kernel, (0, 1, 3, 2))
        whole = ops.conv_transpose(inputs, flipped, tuple(self.strides), "valid", data_format="channels_last")
        window, missing = [], []
        for axis, size in enumerate(self.target_shape[:2]):
            stride, span = self.strides[axis], self.kernel_shape[axis]
            cut = max((-(-size // stride) - 1) * stride + span - size, 0) // 2 if self.padding == "same" else 0
            window.append(slice(cut, cut + size))
            missing.append(max(cut + size - whole.shape[axis + 1], 0))
        if any(missing):
            whole = ops.pad(whole, ((0, 0), *((0, size) for size in missing), (0, 0)))
        return whole[(slice(None), *window)]

    def compute_output_spec(self, inputs):
        return keras.KerasTensor((inputs.shape[0], *self.target_shape), dtype="float32")


def largest_sums(kernel: np.ndarray, limits: tuple[int, int]) -> np.ndarray:
    """How far sums of products can get from 0, above it and below it, whichever of them are added.

    Args:
        kernel: (height, width, input channels, output channels), integers.
        limits: the lowest and the highest input, with 0 between them.

    Returns:
        (input channels, 2, output channels).

    Example:

    >>> largest_sums(np.array([[[[1], [-2]]]]), (-10, 100)).tolist()
    [[[100], [10]], [[20], [200]]]
    """
    (low, high), (above, below) = limits, (np.maximum(part, 0).sum((0, 1)) for part in (kernel, -kernel))
    return np.stack([above * high - below * low, below * high - above * low], axis=1)


def split_channels(sums: np.ndarray) -> list[int]:
    """Bounds of the groups of input channels in which no sum of products can pass float32's exact integers.

    Args:
        sums: as `largest_sums` gives them.

    Returns:
        The bounds, from 0 to the number of input channels.

    Example:

    >>> split_channels(largest_sums(np.full((1, 1, 1024, 1), 127), (0, 255)))
    [0, 518, 1024]
    """
    bounds, total = [0], np.zeros(sums.shape[1:])
    for channel, cost in enumerate(sums):
        if ((total + cost) > EXACT).any():
            bounds.append(channel)
            total = np.zeros_like(total)
        total = total + cost
    return [*bounds, len(sums)]
