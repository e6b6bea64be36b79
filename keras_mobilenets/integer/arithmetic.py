"""Sums, products, means and softmax on integers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mobilenets.integer import fixed_point
from keras_mobilenets.integer.layer import EXACT, IntegerOperation, Quantization


class IntegerBinary(IntegerOperation):
    """An operation of two tensors, each of its own scale, or of a tensor and a constant.

    Args:
        constant: an operand less its zero point, as nested lists; None where both are tensors.
        place: of the constant among the operands.
        **kwargs: of `IntegerOperation`; `inputs` in the order of the operands.
    """

    arguments: tuple[str, ...] = ("constant", "place")

    def operands(self, inputs: Any) -> tuple[Any, Any]:
        """Both operands."""
        if self.constant is None:
            return tuple(inputs)
        constant = np.asarray(self.constant, "float32")
        return (constant, inputs) if self.place == 0 else (inputs, constant)

    @property
    def scales(self) -> list[float]:
        """Of both operands."""
        return [one.scale for one in self.inputs_quantization]

    def compute_output_spec(self, inputs):
        left, right = self.operands(inputs)
        return keras.KerasTensor(_broadcast(left.shape, right.shape), dtype="float32")


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class IntegerAdd(IntegerBinary):
    """The sum, or the difference.

    Args:
        sign: of the second operand.
    """

    arguments = (*IntegerBinary.arguments, "sign")

    def numbers(self):
        add = fixed_point.add_numbers if self.is_reference else fixed_point.xnnpack_add_numbers
        left, right = self.scales
        return {**super().numbers(), **add(left, right, self.output_quantization.scale)}

    def call(self, inputs):
        left, right = self.operands(inputs)
        add = fixed_point.add if self.is_reference else fixed_point.xnnpack_add
        return self.clamp(add(left, right, self.sign, self.number))


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class IntegerAddNumber(IntegerAdd):
    """The sum, or the difference, of a tensor and one number, where `number_line` gives a line for it."""

    def numbers(self):
        return {**IntegerOperation.numbers(self), **(number_line(self.get_config()) or {})}

    def call(self, inputs):
        return self.clamp(ops.floor(inputs * self.number["ratio"] + self.number["offset"]))


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class IntegerMultiply(IntegerBinary):
    """The product."""

    def numbers(self):
        common, multiplier = super().numbers(), self.multiplier(*self.scales)
        if self.is_reference:
            return {**common, **multiplier}
        # Cut off before it is scaled, which gives the same: else TensorFlow's optimizer scales one of the factors.
        return {**{name: end / multiplier["multiplier"] for name, end in common.items()}, **multiplier}

    def call(self, inputs):
        left, right = self.operands(inputs)
        if self.is_reference:
            return self.clamp(self.scaled(left * right))
        return self.scaled(self.clamp(left * right))


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class IntegerMatmul(IntegerOperation):
    """The product of two matrices of feature maps.

    Args:
        transposed: for each operand whether its last two axes change places first.
    """

    arguments = ("transposed",)

    @property
    def is_reference(self):
        # XNNPACK leaves those to the runtime's own kernel whose second operand has a zero point.
        return super().is_reference or self.inputs_quantization[1].zero_point != 0

    def numbers(self):
        return {**super().numbers(), **self.multiplier(*(one.scale for one in self.inputs_quantization))}

    def call(self, inputs):
        left, right = self.operands(inputs)
        largest = [max(map(abs, one.limits)) for one in self.inputs_quantization]
        size, depth = EXACT // (largest[0] * largest[1]), left.shape[-1]
        parts = [(left[..., i : i + size], right[..., i : i + size, :]) for i in range(0, depth, size)]
        totals = [ops.matmul(*part) for part in parts]
        return self.clamp(self.scaled(totals[0] if len(totals) == 1 else sum(ops.cast(one, "int32") for one in totals)))

    def operands(self, inputs: Any) -> list[Any]:
        """Both operands as they are multiplied."""
        return [ops.swapaxes(one, -1, -2) if swap else one for one, swap in zip(inputs, self.transposed, strict=True)]

    def compute_output_spec(self, inputs):
        shapes = [tuple(one.shape) for one in inputs]
        (*batch, rows, depth), (*_, first, last) = shapes
        return keras.KerasTensor(
            (*batch, depth if self.transposed[0] else rows, first if self.transposed[1] else last), dtype="float32"
        )


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class IntegerExtremum(IntegerBinary):
    """The larger or the smaller of two stored integers, all on one grid.

    Args:
        largest: whether the larger.
    """

    arguments = (*IntegerBinary.arguments, "largest")

    def call(self, inputs):
        return (ops.maximum if self.largest else ops.minimum)(*self.operands(inputs))


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class IntegerPRelu(IntegerBinary):
    """ReLU with a slope for each channel below 0; the second operand holds the slopes."""

    def numbers(self):
        below = self.multiplier(*self.scales, name="below")
        return {**super().numbers(), **self.multiplier(self.scales[0], name="above"), **below}

    def call(self, inputs):
        values, slopes = self.operands(inputs)
        above, below = self.scaled(values, name="above"), self.scaled(values * slopes, name="below")
        return self.clamp(ops.where(values >= 0, above, below))

    @property
    def is_reference(self):
        return True  # XNNPACK has none of 8 bits


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class IntegerMean(IntegerOperation):
    """The mean over some axes.

    Args:
        axes: which.
        count: how many values are averaged.
        target_shape: of the output, without the batch.
        **kwargs: of `IntegerOperation`.
    """

    arguments = ("axes", "count", "target_shape")

    def numbers(self):
        source, result = self.inputs_quantization[0], self.output_quantization
        common = super().numbers()
        if self.is_reference:
            mantissa, shift = fixed_point.mean_multiplier(source.scale / result.scale, self.count)
            return {**common, "multiplier_mantissa": mantissa, "multiplier_shift": shift}
        # XNNPACK sums what is stored, and takes both zero points into one float32: some sums in ten thousand are
        # rounded to another integer than the exact mean would be.
        ratio = np.float32(source.scale) / np.float32(result.scale)
        multiplier = ratio * (np.float32(1) / np.float32(self.count))
        stored, zero_point = np.float32(source.zero_point * self.count), np.float32(result.zero_point)
        offset = zero_point - stored * multiplier
        return {**common, "multiplier": multiplier, "stored": stored, "offset": offset, "zero_point": zero_point}

    def call(self, inputs):
        total = ops.reshape(ops.sum(inputs, axis=tuple(self.axes)), (-1, *self.target_shape))
        if self.is_reference:
            return self.clamp(self.scaled(total))
        number = self.number
        shifted = (total + number["stored"]) * number["multiplier"] + number["offset"]
        return self.clamp(ops.round(shifted) - number["zero_point"])

    def compute_output_spec(self, inputs):
        return keras.KerasTensor((inputs.shape[0], *self.target_shape), dtype="float32")


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class IntegerSoftmax(IntegerOperation):
    """Softmax over the last axis, from a table of 256 exponentials, as the runtime computes it.

    Args:
        beta: factor of the inputs.
    """

    arguments = ("beta",)

    def numbers(self):
        step = np.float32(-self.inputs_quantization[0].scale * self.beta)
        table = np.exp(step * np.arange(256, dtype="float32"), dtype="float32")
        return {**super().numbers(), "table": table, "scale": np.float32(self.output_quantization.scale)}

    def call(self, inputs):
        below = ops.max(inputs, axis=-1, keepdims=True) - inputs
        powers = ops.take(self.number["table"], ops.cast(below, "int32"))
        # The runtime adds one after the other; a running sum does too.
        total = ops.cumsum(powers, axis=-1)[..., -1:]
        shares = powers * (1.0 / (total * self.number["scale"]))
        return self.clamp(ops.floor(shares + 0.5))

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, dtype="float32")


def number_line(config: dict[str, Any]) -> dict[str, Any] | None:
    """A straight line in float32 which, rounded down and cut off, is XNNPACK's sum of a tensor and one number.

    A tensor of 8 bits has 256 values to look at. The offset is in the middle of those with which all come out right.

    Args:
        config: of an `IntegerAdd`.

    Returns:
        `ratio` and `offset`; None where there is no line, or no such sum.
    """
    constant, place = config["constant"], config["place"]
    if config["kernels"] != "xnnpack" or constant is None or np.size(constant) > 1:
        return None
    inputs, output = [Quantization(**one) for one in config["inputs"]], Quantization(**config["output"])
    left, right = (one.scale for one in inputs)
    numbers = fixed_point.xnnpack_add_numbers(left, right, output.scale)
    first, last = inputs[1 - place].limits
    low, high = output.clamp(config["activation"])
    values, number = np.arange(first, last + 1), np.ravel(constant).astype(int)
    factors = np.array([numbers["left"], config["sign"] * numbers["right"]])
    sums = values * factors[1 - place] + number * factors[place] + numbers["half"]
    wanted = (sums >> numbers["shift"]).clip(low, high)
    ratio = np.float32(factors[1 - place] / 2.0 ** numbers["shift"])
    products = np.float32(values) * ratio
    least = (wanted - products).max(where=wanted > low, initial=-EXACT)
    offset = np.float32((least + (wanted + 1 - products).min(where=wanted < high, initial=EXACT)) / 2)
    in_one = np.float32(np.float64(values) * ratio + offset)  # some processors round the product and the sum at once
    is_right = all(np.array_equal(np.floor(found).clip(low, high), wanted) for found in (products + offset, in_one))
    return {"ratio": ratio, "offset": offset} if is_right else None


def _broadcast(left: tuple, right: tuple) -> tuple:
    """The shape of a sum; unknown sizes stay unknown."""
    rank = max(len(left), len(right))
    left, right = (1,) * (rank - len(left)) + tuple(left), (1,) * (rank - len(right)) + tuple(right)
    return tuple(b if a == 1 else a for a, b in zip(left, right, strict=True))
