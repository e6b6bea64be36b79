"""Fixed-point arithmetic as the TFLite runtime and XNNPACK compute it, on integers held in float32 or int32 tensors.

Reference: `MultiplyByQuantizedMultiplier` of TFLite's reference kernels (Jacob et al., arXiv:1712.05877, section 2.2,
with gemmlowp's two roundings), and XNNPACK's `qs8-vadd`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import ops

PARTS = ("mantissa", "shift")


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
    """`values * mantissa * 2**(shift - 31)`, in int64.

    The reference kernels round twice: at the product's high half, then at the shift. Their matrix product rounds once,
    half up.
    """
    mantissa, shift, values = (ops.cast(part, "int64") for part in (mantissa, shift, values))
    if roundings == 1:
        half = ops.left_shift(ops.ones_like(shift), 30 - shift)
        return ops.right_shift(values * mantissa + half, 31 - shift)
    values = ops.left_shift(values, ops.maximum(shift, 0))
    return _round_shift(_high_product(values, mantissa), ops.maximum(-shift, 0))


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


def rounded_high_product(values: np.ndarray, mantissa: int, bits: int) -> np.ndarray:
    """`values * mantissa / 2**bits`, rounded half away from zero, but -1/2 to 0; of NumPy's integers."""
    nudged = values.astype(np.int64) * mantissa
    nudged = nudged + np.where(nudged >= 0, 1 << (bits - 1), 1 - (1 << (bits - 1)))
    return np.sign(nudged) * (np.abs(nudged) >> bits)


def rounded_shift(values: np.ndarray, exponent: int) -> np.ndarray:
    """`values / 2**exponent`, rounded half away from zero; of NumPy's integers."""
    half = (1 << exponent) >> 1
    return np.sign(values) * ((np.abs(values) + half) >> exponent)


def add_numbers(left_scale: float, right_scale: float, output_scale: float) -> dict[str, np.ndarray]:
    """The multipliers of `add`."""
    twice_largest = 2.0 * max(left_scale, right_scale)
    factors = {
        "left": left_scale / twice_largest,
        "right": right_scale / twice_largest,
        "sum": twice_largest / (2.0**20 * output_scale),
    }
    numbers = {name: quantize_multiplier(factor) for name, factor in factors.items()}
    return {
        f"{name}_{part}": number for name, pair in numbers.items() for part, number in zip(PARTS, pair, strict=True)
    }


def add(left: Any, right: Any, sign: int, numbers: dict[str, Any]) -> Any:
    """The sum of the reference kernels: both terms on a common scale with 20 bits below the point."""
    first, second = (
        multiply(ops.cast(values, "int64") * 2**20, *(numbers[f"{name}_{part}"] for part in PARTS))
        for values, name in ((left, "left"), (right, "right"))
    )
    return ops.cast(multiply(first + sign * second, *(numbers[f"sum_{part}"] for part in PARTS)), "float32")


def xnnpack_add_numbers(left_scale: float, right_scale: float, output_scale: float) -> dict[str, np.ndarray]:
    """The multipliers of `xnnpack_add`, of 20 bits."""
    ratios = [float(np.float32(scale) / np.float32(output_scale)) for scale in (left_scale, right_scale)]
    shift = 20 - math.floor(math.log2(max(ratios)))
    first, second = (round(ratio * 2.0**shift) for ratio in ratios)
    numbers = {"left": first, "right": second, "half": 1 << (shift - 1), "shift": shift}
    return {name: np.asarray(number, "int64") for name, number in numbers.items()}


def xnnpack_add(left: Any, right: Any, sign: int, numbers: dict[str, Any]) -> Any:
    """The sum of XNNPACK: one rounding, half up."""
    # 8-bit values times multipliers of at most 21 bits: the sum stays inside int32.
    total = ops.cast(left, "int32") * numbers["left"] + ops.cast(right, "int32") * (sign * numbers["right"])
    return ops.cast(ops.right_shift(total + numbers["half"], numbers["shift"]), "float32")


def mean_multiplier(ratio: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The multiplier of the reference kernels' mean, which divides the mantissa by the number of values."""
    mantissa, shift = quantize_multiplier(ratio)
    room = min(count.bit_length() - 1, 32, 31 + int(shift))
    return np.asarray((int(mantissa) << room) // count), shift - room
