"""Pooling and bilinear interpolation on integers."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from keras_mobilenets.integer.layer import IntegerOperation


class IntegerWindow(IntegerOperation):
    """An operation on windows of a map.

    Args:
        target_shape: of the output, without the batch.
        **kwargs: of `IntegerOperation`.
    """

    arguments: tuple[str, ...] = ("target_shape",)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor((inputs.shape[0], *self.target_shape), dtype="float32")


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class IntegerMaxPool(IntegerWindow):
    """The largest integer of each window.

    Args:
        pool_size, strides, padding: as in `keras.ops.max_pool`.
    """

    arguments = ("target_shape", "pool_size", "strides", "padding")

    def call(self, inputs):
        size, strides = tuple(self.pool_size), tuple(self.strides)
        return self.clamp(ops.max_pool(inputs, size, strides, self.padding, data_format="channels_last"))


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class IntegerAveragePool(IntegerWindow):
    """The average of each window's stored integers, those in the padding left out; halves away from 0.

    Args:
        pool_size, strides, padding: as in `keras.ops.average_pool`.
    """

    arguments = ("target_shape", "pool_size", "strides", "padding")

    def numbers(self):
        return {**super().numbers(), "zero_point": np.float32(self.output_quantization.zero_point)}

    def call(self, inputs):
        _, height, width, channels = inputs.shape
        counts = np.multiply.outer(*(self._counts(axis, size) for axis, size in enumerate((height, width))))[..., None]
        if tuple(self.pool_size) == (height, width) and self.padding == "valid":
            total = ops.sum(inputs, axis=(1, 2), keepdims=True)
        else:
            ones = np.ones((*self.pool_size, channels, 1), "float32")
            window = {"strides": tuple(self.strides), "padding": self.padding, "data_format": "channels_last"}
            total = ops.depthwise_conv(inputs, ones, **window)
        zero_point = self.number["zero_point"]
        stored = total + zero_point * counts
        # An integer and a half over the number is never beside an integer, so that float32 divides safely.
        size = ops.floor((ops.abs(stored) + np.floor(counts / 2) + 0.5) * (1.0 / counts).astype("float32"))
        return self.clamp(ops.sign(stored) * size - zero_point)

    def _counts(self, axis: int, size: int) -> np.ndarray:
        """How many values each window has along an axis."""
        window, stride, outputs = self.pool_size[axis], self.strides[axis], self.target_shape[axis]
        before = max((outputs - 1) * stride + window - size, 0) // 2 if self.padding == "same" else 0
        first = np.arange(outputs) * stride - before
        return (np.minimum(first + window, size) - np.maximum(first, 0)).astype("float32")


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class IntegerResize(IntegerWindow):
    """Bilinear interpolation, with weights of 11 bits by XNNPACK, of 10 bits by the reference kernels.

    Args:
        align_corners, half_pixel: where the pixels lie, as TFLite calls it.
    """

    arguments = ("target_shape", "align_corners", "half_pixel")

    def numbers(self):
        return {"zero_point": np.int64(self.output_quantization.zero_point)}

    def call(self, inputs):
        if self.is_reference:
            inputs = inputs + ops.cast(self.number["zero_point"], "float32")
        values = ops.cast(inputs, "int32")
        for axis in (2, 1):
            lower, upper, below, above = self._weights(axis, inputs.shape[axis])
            shape = (-1, 1) if axis == 2 else (-1, 1, 1)
            values = ops.take(values, lower, axis) * below.reshape(shape) + ops.take(values, upper, axis) * (
                above.reshape(shape)
            )
        bits = 20 if self.is_reference else 22
        if not self.is_reference:
            return ops.cast(ops.right_shift(values + 2 ** (bits - 1), bits), "float32")
        size = ops.right_shift(ops.abs(values) + 2 ** (bits - 1), bits)
        return ops.cast(ops.sign(values) * size - self.number["zero_point"], "float32")

    def _weights(self, axis: int, size: int) -> tuple[np.ndarray, ...]:
        """For each output the places of its two sources, and their weights."""
        outputs = self.target_shape[axis - 1]
        corners = self.align_corners and outputs > 1
        if self.is_reference:
            span, length = (size - 1, outputs - 1) if corners else (size, outputs)
            scale = (1024 * span + length // 2) // length
            place = np.arange(outputs) * scale + (scale // 2 - 512 if self.half_pixel else 0)
            lower = np.maximum(np.trunc(place / 1024), 0).astype(int)
            upper = np.minimum(np.trunc((place + 1023) / 1024), size - 1).astype(int)
            above = place - 1024 * lower
            return tuple(part.astype("int32") for part in (lower, upper, 1024 - above, above))
        scale = np.float32(size - 1) / np.float32(outputs - 1) if corners else np.float32(size) / np.float32(outputs)
        place = np.arange(outputs, dtype="float32") * scale
        if self.half_pixel:
            place = (np.arange(outputs, dtype="float32") + np.float32(0.5)) * scale - np.float32(0.5)
        place = np.clip(place, 0, np.float32(size - 1)).astype("float32")
        lower = np.floor(place).astype("int32")
        above = np.rint((place - lower) * np.float32(2048)).astype("int32")
        return lower, np.minimum(lower + 1, size - 1).astype("int32"), (2048 - above).astype("int32"), above
