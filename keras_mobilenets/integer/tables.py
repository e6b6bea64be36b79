"""Functions of one 8-bit number, as tables of 256 entries."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mobilenets.integer import fixed_point
from keras_mobilenets.integer.layer import IntegerOperation, Quantization


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class IntegerTable(IntegerOperation):
    """A function of one 8-bit number, looked up.

    Args:
        function: the runtime's operation: "HARD_SWISH", "LOGISTIC", "QUANTIZE", ...
        alpha: slope of "LEAKY_RELU", below 0.
        **kwargs: of `IntegerOperation`.
    """

    arguments = ("function", "alpha")

    def numbers(self):
        source, result = self.inputs_quantization[0], self.output_quantization
        first, last = source.limits
        values = np.arange(first, last + 1)
        reference = self.is_reference or (source.dtype, result.dtype) == ("uint8", "int8")
        if self.function in _REAL:
            table = _rounded(_REAL[self.function], values, source, result, reference)
        elif self.function == "HARD_SWISH":
            table = _hard_swish(values, source, result)
        else:
            slope = self.alpha if self.function == "LEAKY_RELU" else 1.0
            ratios = [source.scale / result.scale * factor for factor in (1.0, slope)]
            # XNNPACK leaves other operations and other factors to the runtime's own kernels.
            own = reference or self.function.startswith("RELU") or not all(2**-8 <= abs(one) <= 128 for one in ratios)
            table = (_scaled if own else _scaled_by_8_bits)(values, source, result, slope)
        activation = self.function if self.function.startswith("RELU") else self.activation
        return {"table": np.float32(np.clip(table, *result.clamp(activation))), "first": np.int64(first)}

    def call(self, inputs):
        return ops.take(self.number["table"], ops.cast(inputs, "int32") - self.number["first"])

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, dtype="float32")


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class IntegerConcatenation(IntegerOperation):
    """Parts on several grids, which the runtime rounds to one as it joins them.

    Args:
        axis: along which.
        target_shape: of the output, without the batch.
        **kwargs: of `IntegerOperation`.
    """

    arguments = ("axis", "target_shape")

    def numbers(self):
        result, found = self.output_quantization, dict[str, Any]()
        for place, source in enumerate(self.inputs_quantization):
            first, last = source.limits
            stored = np.float32(np.arange(first, last + 1) + source.zero_point)
            scale = np.float32(source.scale) * (np.float32(1) / np.float32(result.scale))
            real = stored * scale + np.float32(-source.zero_point) * scale
            rounded = np.trunc(real + np.copysign(np.float32(0.5), real))  # half away from 0
            same = source == result
            found[f"table_{place}"] = np.float32(np.arange(first, last + 1) if same else rounded.clip(*result.limits))
            found[f"first_{place}"] = np.asarray(first)
        return found

    def call(self, inputs):
        number = self.number
        parts = [
            ops.take(number[f"table_{place}"], ops.cast(part, "int32") - number[f"first_{place}"])
            for place, part in enumerate(inputs)
        ]
        return ops.concatenate(parts, axis=self.axis)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor((inputs[0].shape[0], *self.target_shape), dtype="float32")


def _rounded(
    function: Callable[[Any], Any], values: np.ndarray, source: Quantization, result: Quantization, reference: bool
) -> np.ndarray:
    """A function of real numbers in float32, on the output's grid."""
    real = function(np.float32(source.scale) * values.astype("float32")).astype("float32")
    real = real * (np.float32(1) / np.float32(result.scale))
    # The runtime's own kernels round halves away from 0, XNNPACK to even.
    return np.trunc(real + np.copysign(np.float32(0.5), real)) if reference else np.rint(real)


def _gelu(x: Any) -> Any:
    return x * 0.5 * (1.0 + np.vectorize(math.erf)(x * np.float32(math.sqrt(0.5))))


_REAL: dict[str, Callable[[Any], Any]] = {
    "LOGISTIC": lambda x: np.float32(1) / (np.float32(1) + np.exp(-x)),
    "TANH": np.tanh,
    "ELU": lambda x: np.where(x < 0, np.expm1(np.minimum(x, 0)), x),
    "GELU": _gelu,
    "EXP": np.exp,
}

FUNCTIONS = (*_REAL, "HARD_SWISH", "LEAKY_RELU", "QUANTIZE", "RELU", "RELU6", "RELU_N1_TO_1")


def _scaled(values: np.ndarray, source: Quantization, result: Quantization, slope: float) -> np.ndarray:
    """The reference kernels' change of scale, with another factor below 0."""

    def times(factor: float) -> np.ndarray:
        mantissa, shift = (int(part) for part in fixed_point.quantize_multiplier(abs(factor) or 1.0))
        moved = np.sign(factor).astype(int) * values * 2 ** max(shift, 0)
        return fixed_point.rounded_shift(fixed_point.rounded_high_product(moved, mantissa, 31), max(-shift, 0))

    ratio = source.scale / result.scale
    return np.where(values >= 0, times(ratio), times(ratio * float(np.float32(slope))))


def _scaled_by_8_bits(values: np.ndarray, source: Quantization, result: Quantization, slope: float) -> np.ndarray:
    """XNNPACK's change of scale: a factor with 8 bits below the point, rounded half up."""
    ratio = np.float32(source.scale) / np.float32(result.scale)
    above, below = (int(np.rint(ratio * np.float32(factor) * np.float32(256))) for factor in (1.0, slope))
    return (values * np.where(values >= 0, above, below) + 128) >> 8


def _hard_swish(values: np.ndarray, source: Quantization, result: Quantization) -> np.ndarray:
    """Of TFLite's reference kernel, on numbers of 16 bits."""
    fine = np.float32(1 / 128) * np.float32(source.scale)
    (out, out_shift), (gate, gate_shift) = (
        _multiplier_16(float(fine / np.float32(scale))) for scale in (result.scale, 3.0 / 32768.0)
    )
    inputs = values * 128
    scaled = fixed_point.rounded_high_product(inputs, out, 15)
    gates = inputs if gate_shift <= 0 else _saturated(inputs << (gate_shift - 1))
    gates = fixed_point.rounded_high_product(gates, gate, 15)
    gates = _saturated(gates << 1) if gate_shift > 0 else fixed_point.rounded_shift(gates, -gate_shift)
    gates = (gates + 2**15) >> 1
    product = gates * scaled
    return fixed_point.rounded_shift(np.sign(product) * (np.abs(product) >> 15), -out_shift)


def _multiplier_16(real: float) -> tuple[int, int]:
    mantissa, shift = (int(part) for part in fixed_point.quantize_multiplier(real))
    return (32767 if mantissa >= 32767 << 16 else (mantissa + 2**15) >> 16), shift


def _saturated(values: np.ndarray) -> np.ndarray:
    return np.clip(values, -(2**15), 2**15 - 1)
