"""Fake quantization as functions: values are rounded to an integer grid, gradients pass straight through."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

_BELOW_SIX = 6.0 * (1.0 - 1e-6)
SMALLEST_RANGE = 1e-6
"""A range never gets narrower than this: a tensor that is always 0 would else have the scale 0."""


def fake_quant(inputs: Any, low: Any, high: Any, bits: int = 8) -> Any:
    """Rounds to a grid of `2**bits` values over [low, high], one of which is 0.

    The scale is `(high - low) / (2**bits - 1)`; the range is shifted by less than a step so that 0 is on the grid.
    Values outside the shifted range are clipped to it and get no gradient, values inside get all of it. Equal to
    `tf.quantization.fake_quant_with_min_max_vars` to the bit, on every backend.

    Args:
        inputs: float32 tensor of any shape.
        low: lower end of the range, scalar, <= 0.
        high: upper end of the range, scalar, >= 0, > low.
        bits: width of the integers, 2 to 16.

    Returns:
        A tensor of the shape and dtype of `inputs`.

    Reference:
        Krishnamoorthi, arXiv:1806.08342, section 3; Jacob et al., arXiv:1712.05877, section 3.

    Example:

    >>> fake_quant(np.array([-0.1, 0.3, 0.9], "float32"), 0.0, 0.75, bits=2).numpy()
    array([0.  , 0.25, 0.75], dtype=float32)
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.quantization.fake_quant_with_min_max_vars(inputs, low, high, num_bits=bits)
    return fake_quant_of_operations(inputs, low, high, bits)


def fake_quant_from_zero(inputs: Any, high: Any, bits: int = 8) -> Any:
    """`fake_quant` over [0, high], which on TensorFlow takes less time for its gradient than that of any range."""
    if keras.backend.backend() != "tensorflow":
        return fake_quant(inputs, 0.0, high, bits)
    import tensorflow as tf

    @tf.custom_gradient
    def rounded(values):
        def gradient(upstream):
            # The gradient of ReLU6, which is one operation, on values that are scaled to [0, 6) where they count.
            return tf.raw_ops.Relu6Grad(gradients=upstream, features=values * (_BELOW_SIX / high))

        return tf.quantization.fake_quant_with_min_max_vars(values, 0.0, high, num_bits=bits), gradient

    return rounded(inputs)


def fake_quant_of_operations(inputs: Any, low: Any, high: Any, bits: int = 8) -> Any:
    """`fake_quant` for backends that have no operation for it; on TensorFlow it takes about three times as long."""
    low, high, scale, inverse, zero_point = nudge(low, high, bits)
    clipped = ops.maximum(ops.minimum(inputs, high), low)
    rounded = ops.floor((clipped - low) * inverse - zero_point + 0.5) * scale
    inside = ops.cast(ops.logical_and(inputs >= low, inputs <= high), inputs.dtype)
    return straight_through(rounded, inputs, inside)


def nudge(low: Any, high: Any, bits: int) -> tuple[Any, Any, Any, Any, Any]:
    """The grid of `fake_quant`: (low, high) shifted so that 0 is on it, scale, 1 / scale, zero point from low."""
    low, high = ops.convert_to_tensor(low, "float32"), ops.convert_to_tensor(high, "float32")
    steps = float(2**bits - 1)
    scale, inverse = (high - low) / steps, steps / (high - low)
    zero_point = ops.clip(ops.floor(0.5 - low / scale), 0.0, steps)
    return -zero_point * scale, (steps - zero_point) * scale, scale, inverse, zero_point


def grid_around(low: float, high: float, bits: int) -> tuple[float, float]:
    """The range of a grid that holds [low, high]: itself, or with more than 8 bits a symmetric one.

    Runtimes know 16-bit integers with a zero point of 0 only.
    """
    return (low, high) if bits <= 8 else symmetric_range(low, high, bits)


def symmetric_range(low: Any, high: Any, bits: int) -> tuple[Any, Any]:
    """The smallest range around [low, high] with 0 in the middle of the integers, -128 to 127 for 8 bits."""
    middle = float(2 ** (bits - 1))
    is_number = isinstance(low, float) and isinstance(high, float)
    largest = max(high, -low) if is_number else ops.maximum(high, -low)
    return -largest * (middle / (middle - 1.0)), largest


def straight_through(rounded: Any, inputs: Any, mask: Any | None = None) -> Any:
    """The value of `rounded` to the bit, with the gradient of `inputs`, where there is a mask of `mask * inputs`."""
    zero = inputs - ops.stop_gradient(inputs)
    return ops.stop_gradient(rounded) + (zero if mask is None else ops.stop_gradient(mask) * zero)


def kernel_scale(kernel: Any, axes: tuple[int, ...], bits: int = 8) -> Any:
    """The step of a symmetric grid on which the largest magnitude over `axes` is the largest integer."""
    largest = ops.max(ops.abs(kernel), axis=axes, keepdims=True)
    # Times the inverse: TensorFlow turns a division by a constant into that when it optimizes a graph, and a kernel
    # value that lies half-way between two integers would be rounded up in one place and down in another.
    return ops.maximum(largest, SMALLEST_RANGE) * (1.0 / (2 ** (bits - 1) - 1))


def fake_quant_kernel(kernel: Any, axes: tuple[int, ...], bits: int = 8) -> Any:
    """Rounds a kernel to a symmetric grid of `2**bits - 1` values, one grid for each output channel.

    Args:
        kernel: float32 tensor.
        axes: the axes that one grid spans: all but those of the output channels.
        bits: width of the integers, 2 to 16.

    Returns:
        A tensor of the shape and dtype of `kernel`; its gradient is that of `kernel`, as nothing is clipped.

    Reference:
        Krishnamoorthi, arXiv:1806.08342, section 3.1.2: per-channel, symmetric.

    Example:

    >>> fake_quant_kernel(np.array([[1.0, -4.0], [0.4, 3.0]], "float32"), axes=(0,), bits=2).numpy()
    array([[ 1., -4.],
           [ 0.,  4.]], dtype=float32)
    """
    scale = ops.stop_gradient(kernel_scale(kernel, axes, bits))
    return straight_through(ops.round(kernel / scale) * scale, kernel)


def rounding(bias: Any, unit: Any) -> Any:
    """What rounding a bias to multiples of `unit` adds to it; 0 where there is no unit."""
    known = unit > 0
    bias, unit = ops.stop_gradient(bias), ops.stop_gradient(ops.where(known, unit, 1.0))
    return ops.where(known, ops.round(bias / unit) * unit - bias, 0.0)


def fake_quant_channels(kernel: Any, low: Any, steps: Any) -> Any:
    """Rounds a kernel to grids of 256 values that begin at `low`, in shapes that broadcast to the kernel's."""
    step, first = np.float32(steps), np.rint(np.float32(low / steps))
    return straight_through(ops.clip(ops.round(kernel / step), first, first + np.float32(255)) * step, kernel)
