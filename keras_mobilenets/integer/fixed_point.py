"""Fixed-point arithmetic as the TFLite runtime and XNNPACK compute it, on integers held in float32 or int32 tensors.

Reference: `MultiplyByQuantizedMultiplier` of TFLite's reference kernels (Jacob et al., arXiv:1712.05877, section 2.2,
with gemmlowp's two roundings), and XNNPACK's `qs8-vadd`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import ops


def quantize_multiplier(real: Any) -> tuple[np.ndarray, np.ndarray]:
    """Writes a positive number as `mantissa * 2**(shift - 31)` with a mantissa of 31 bits.

    Example:

    >>> mantissa, shift = quantize_multiplier(0.5)
    >>> int(mantissa), int(shift)
    (1073741824, 0)
    """
    fraction, shift = np.frexp(np.asarray(real, np.float64))
    mantissa = np.floor(fraction * 2.0**31 + 0.5).astype(np.int64)
    carried = mantissa == 2**31
    return np.where(carried, mantissa // 2, mantissa), np.where(carried, shift + 1, shift)


def multiply(values: Any, mantissa: Any, shift: Any, *, roundings: int = 2) -> Any:
    """`values * mantissa * 2**(shift - 31)`, an integer in float32.

    The reference kernels round twice: at the product's high half, then at the shift. Their matrix product rounds once,
    half up.
    """
    mantissa, shift = ops.cast(mantissa, "int64"), ops.cast(shift, "int64")
    values = ops.cast(values, "int64")
    if roundings == 1:
        half = ops.left_shift(ops.ones_like(shift), 30 - shift)
        return ops.cast(ops.right_shift(values * mantissa + half, 31 - shift), "float32")
    values = ops.left_shift(values, ops.maximum(shift, 0))
    return ops.cast(_round_shift(_high_product(values, mantissa), ops.maximum(-shift, 0)), "float32")


def _high_product(values: Any, mantissa: Any) -> Any:
    """The product's upper 32 bits, doubled, rounded half away from zero."""
    product = values * mantissa
    nudged = product + 2**30 - ops.cast(product < 0, "int64") * (2**31 - 1)
    return ops.sign(nudged) * ops.right_shift(ops.abs(nudged), 31)  # the runtime's division truncates


def _round_shift(values: Any, exponent: Any) -> Any:
    """Division by a power of two, rounded half away from zero."""
    mask = ops.left_shift(ops.ones_like(exponent), exponent) - 1
    remainder = ops.bitwise_and(values, mask)
    threshold = ops.right_shift(mask, 1) + ops.cast(values < 0, "int64")
    return ops.right_shift(values, exponent) + ops.cast(remainder > threshold, "int64")


def add(left: Any, right: Any, left_scale: float, right_scale: float, output_scale: float) -> Any:
    """The sum of the reference kernels: both terms on a common scale with 20 bits below the point."""
    twice_largest = 2.0 * max(left_scale, right_scale)
    terms = (
        ops.cast(multiply(ops.cast(values, "int64") * 2**20, *quantize_multiplier(scale / twice_largest)), "int64")
        for values, scale in ((left, left_scale), (right, right_scale))
    )
    return multiply(sum(terms), *quantize_multiplier(twice_largest / (2.0**20 * output_scale)))


def xnnpack_add(left: Any, right: Any, left_scale: float, right_scale: float, output_scale: float) -> Any:
    """The sum of XNNPACK: multipliers of 20 bits, one rounding, half up."""
    ratios = [float(np.float32(scale) / np.float32(output_scale)) for scale in (left_scale, right_scale)]
    shift = 20 - math.floor(math.log2(max(ratios)))
    first, second = (round(ratio * 2.0**shift) for ratio in ratios)
    # 8-bit values times multipliers of at most 21 bits: the sum stays inside int32.
    total = ops.cast(left, "int32") * first + ops.cast(right, "int32") * second
    return ops.cast(ops.right_shift(total + (1 << (shift - 1)), shift), "float32")
