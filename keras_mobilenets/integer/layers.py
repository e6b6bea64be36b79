"""The integer arithmetic of the TFLite runtime, as Keras layers.

Between the layers of this module flow the stored integers less their zero point, as float32: every such number is
below 2**24 and therefore exact, a padded zero is the real zero, and convolutions run at the speed of float ones.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mobilenets.integer import fixed_point

EXACT = 2**24  # integers up to here, and sums of them in any order, are exact in float32

KERNELS = ("xnnpack", "reference")


@dataclass(frozen=True)
class Quantization:
    """How a tensor's integers stand for real numbers: real = scale * (stored - zero point)."""

    scale: float
    zero_point: int
    dtype: str

    def clamp(self, activation: str = "NONE") -> tuple[int, int]:
        """The range that the stored integers less their zero point can have behind a fused activation."""
        info = np.iinfo(self.dtype)
        low, high = int(info.min) - self.zero_point, int(info.max) - self.zero_point
        if activation in ("RELU", "RELU6"):
            low = max(low, 0)
        if activation == "RELU6":
            high = min(high, int(np.rint(np.float32(6) / np.float32(self.scale))))
        return low, high


class IntegerOperation(keras.layers.Layer):
    """An operation of the runtime: integers in, integers out.

    Args:
        inputs: the quantization of its inputs.
        output: the quantization of its output.
        activation: what the file fuses into it: "NONE", "RELU" or "RELU6".
        kernels: whose rounding: "xnnpack" multiplies by a float32 scale and rounds half to even, "reference" is the
            fixed-point arithmetic of the runtime's own kernels.
    """

    def __init__(
        self,
        *,
        inputs: list[dict[str, Any]],
        output: dict[str, Any],
        activation: str = "NONE",
        kernels: str = "xnnpack",
        **kwargs: Any,
    ):
        super().__init__(**{**kwargs, "dtype": "float32", "trainable": False})
        self.inputs_quantization = [Quantization(**one) for one in inputs]
        self.output_quantization = Quantization(**output)
        self.activation = activation
        self.kernels = kernels

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "inputs": [asdict(one) for one in self.inputs_quantization],
            "output": asdict(self.output_quantization),
            "activation": self.activation,
            "kernels": self.kernels,
        }

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def multiplier_to_output(self, *factors: Any) -> Any:
        """The product of scales over the output's scale, in the precision and the form in which `kernels` hold it."""
        kind = np.float64 if self.kernels == "reference" else np.float32
        product: Any = kind(1)
        for factor in factors:
            product = product * np.asarray(factor, kind)
        real = product / kind(self.output_quantization.scale)
        return fixed_point.quantize_multiplier(real) if self.kernels == "reference" else real

    def clamp(self, values: Any) -> Any:
        """Saturates at the ends of the output's type, and at the fused activation's."""
        return ops.clip(values, *(float(end) for end in self.output_quantization.clamp(self.activation)))

    def requantize(self, accumulator: Any, multiplier: Any, roundings: int = 2) -> Any:
        """Rounds `accumulator * multiplier` as the runtime does; the accumulator holds integers in float32 or int32.

        The multiplier is a float32 number for XNNPACK, a mantissa and a shift for the reference kernels.
        """
        if self.kernels == "reference":
            return self.clamp(fixed_point.multiply(accumulator, *multiplier, roundings=roundings))
        return self.clamp(ops.round(ops.cast(accumulator, "float32") * multiplier))


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class IntegerInput(IntegerOperation):
    """Takes the zero point off what the caller feeds."""

    def call(self, inputs):
        return ops.cast(inputs, "float32") - float(self.output_quantization.zero_point)


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class IntegerOutput(IntegerOperation):
    """Puts the zero point back on, and gives the integer type of the file."""

    def call(self, inputs):
        quantization = self.output_quantization
        return ops.cast(inputs + float(quantization.zero_point), quantization.dtype)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, dtype=self.output_quantization.dtype)


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class IntegerConvolution(IntegerOperation):
    """A convolution, a depthwise convolution or a matrix product with its bias.

    Args:
        kernel_shape: (height, width, input channels, output channels), of a depthwise convolution
            (height, width, channels, multiplier).
        depthwise: whether it is depthwise.
        strides, dilation_rate, padding: as in `keras.ops.conv`.
        splits: bounds of the groups of input channels within which no sum can leave float32's exact integers.
        wide: whether the whole sum can, so that it must be kept in int32.
        roundings: of the reference kernels: 2, but 1 for a matrix product.
        **kwargs: of `IntegerOperation`.
    """

    def __init__(
        self,
        *,
        kernel_shape: list[int],
        depthwise: bool,
        strides: list[int],
        dilation_rate: list[int],
        padding: str,
        splits: list[int],
        wide: bool,
        roundings: int = 2,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.kernel_shape = tuple(kernel_shape)
        self.depthwise = depthwise
        self.strides = tuple(strides)
        self.dilation_rate = tuple(dilation_rate)
        self.padding = padding
        self.splits = list(splits)
        self.wide = wide
        self.roundings = roundings
        channels = kernel_shape[2] * kernel_shape[3] if depthwise else kernel_shape[3]
        self.kernel = self.add_weight(name="kernel", shape=self.kernel_shape, initializer="zeros")
        self.bias = self.add_weight(name="bias", shape=(channels,), dtype="int32", initializer="zeros")
        if self.kernels == "reference":
            self.multiplier = [
                self.add_weight(name=name, shape=(channels,), dtype="int32", initializer="zeros")
                for name in ("mantissa", "shift")
            ]
        else:
            self.multiplier = self.add_weight(name="multiplier", shape=(channels,), initializer="ones")
        self.built = True

    def call(self, inputs):
        window = {"strides": self.strides, "padding": self.padding, "dilation_rate": self.dilation_rate}
        window["data_format"] = "channels_last"
        if self.depthwise:
            total = ops.depthwise_conv(inputs, self.kernel, **window)
        else:
            parts = [
                ops.conv(inputs[..., first:last], self.kernel[:, :, first:last], **window)
                for first, last in zip(self.splits, self.splits[1:], strict=False)
            ]
            total = parts[0] if len(parts) == 1 else sum(ops.cast(part, "int32") for part in parts)
        if self.wide:
            total = ops.cast(total, "int32") + self.bias
        else:
            total = ops.cast(total, "float32") + ops.cast(self.bias, "float32")
        return self.requantize(total, self.multiplier, self.roundings)

    def compute_output_shape(self, input_shape):
        batch, *size, _ = input_shape
        height, width, channels, outputs = self.kernel_shape
        spans = [(k - 1) * d + 1 for k, d in zip((height, width), self.dilation_rate, strict=True)]
        lost = [0, 0] if self.padding == "same" else [span - 1 for span in spans]
        size = [None if n is None else -(-(n - cut) // s) for n, cut, s in zip(size, lost, self.strides, strict=True)]
        return (batch, *size, channels * outputs if self.depthwise else outputs)

    def get_config(self) -> dict[str, Any]:
        names = ("kernel_shape", "depthwise", "strides", "dilation_rate", "padding", "splits", "wide", "roundings")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


class IntegerBinary(IntegerOperation):
    """An operation of two tensors, each of its own scale, or of a tensor and a constant.

    Args:
        constant: the second operand less its zero point, as nested lists; None where both are tensors.
        **kwargs: of `IntegerOperation`; `inputs` in the order of the operands.
    """

    def __init__(self, *, constant: Any = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.constant = constant

    def operands(self, inputs: Any) -> tuple[Any, Any]:
        """Both operands."""
        return tuple(inputs) if self.constant is None else (inputs, np.asarray(self.constant, "float32"))

    @property
    def scales(self) -> list[float]:
        """Of both operands."""
        return [one.scale for one in self.inputs_quantization]

    def compute_output_spec(self, inputs):
        left, right = self.operands(inputs)
        return keras.KerasTensor(_broadcast(left.shape, right.shape), dtype="float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "constant": self.constant}


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class IntegerAdd(IntegerBinary):
    """The sum."""

    def call(self, inputs):
        left, right = self.operands(inputs)
        add = fixed_point.add if self.kernels == "reference" else fixed_point.xnnpack_add
        first, second = self.scales
        return self.clamp(add(left, right, first, second, self.output_quantization.scale))


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class IntegerMultiply(IntegerBinary):
    """The product."""

    def call(self, inputs):
        left, right = self.operands(inputs)
        # In int32, through which TensorFlow's graph optimizer cannot move the multiplier to one of the factors.
        return self.requantize(ops.cast(left * right, "int32"), self.multiplier_to_output(*self.scales))


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class IntegerMean(IntegerOperation):
    """The mean over height and width."""

    def __init__(self, *, keepdims: bool, count: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.keepdims = keepdims
        self.count = count

    def call(self, inputs):
        total = ops.sum(inputs, axis=(1, 2), keepdims=self.keepdims)
        source, result = self.inputs_quantization[0], self.output_quantization
        if self.kernels == "reference":
            return self.requantize(total, self.multiplier_to_output(source.scale, 1 / self.count))
        # XNNPACK sums what is stored, and takes both zero points into one float32: some sums in ten thousand are
        # rounded to another integer than the exact mean would be.
        multiplier = np.float32(source.scale) / np.float32(result.scale) * (np.float32(1) / np.float32(self.count))
        stored = source.zero_point * self.count
        offset = np.float32(result.zero_point) - np.float32(stored) * multiplier
        return self.clamp(ops.round((total + float(stored)) * multiplier + offset) - float(result.zero_point))

    def compute_output_shape(self, input_shape):
        batch, _, _, channels = input_shape
        return (batch, 1, 1, channels) if self.keepdims else (batch, channels)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "keepdims": self.keepdims, "count": self.count}


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class IntegerTable(IntegerOperation):
    """A function of one 8-bit number, looked up: hard-swish and requantization to another scale.

    Args:
        table: the result for each of the 256 inputs less its zero point, from the smallest on.
        **kwargs: of `IntegerOperation`.
    """

    def __init__(self, *, table: list[int], **kwargs: Any):
        super().__init__(**kwargs)
        self.table = list(table)

    def call(self, inputs):
        first = self.inputs_quantization[0].clamp()[0]
        return ops.take(np.asarray(self.table, "float32"), ops.cast(inputs, "int32") - first)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "table": self.table}


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class IntegerSoftmax(IntegerOperation):
    """Softmax over the last axis, from a table of 256 exponentials, as the runtime computes it."""

    def __init__(self, *, beta: float = 1.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.beta = beta

    def call(self, inputs):
        step = np.float32(-self.inputs_quantization[0].scale * self.beta)
        table = np.exp(step * np.arange(256, dtype="float32"), dtype="float32")
        below = ops.max(inputs, axis=-1, keepdims=True) - inputs
        powers = ops.take(table, ops.cast(below, "int32"))
        # The runtime adds one after the other; a running sum does too.
        total = ops.cumsum(powers, axis=-1)[..., -1:]
        shares = powers * (1.0 / (total * np.float32(self.output_quantization.scale)))
        return self.clamp(ops.floor(shares + 0.5))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "beta": self.beta}


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class IntegerReshape(IntegerOperation):
    """The same integers in another shape; the batch stays in front."""

    def __init__(self, *, target_shape: list[int], **kwargs: Any):
        super().__init__(**kwargs)
        self.target_shape = list(target_shape)

    def call(self, inputs):
        return ops.reshape(inputs, (-1, *self.target_shape))

    def compute_output_shape(self, input_shape):
        return (input_shape[0], *self.target_shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "target_shape": self.target_shape}


def _broadcast(left: tuple, right: tuple) -> tuple:
    """The shape of a sum; unknown sizes stay unknown."""
    rank = max(len(left), len(right))
    left, right = (1,) * (rank - len(left)) + tuple(left), (1,) * (rank - len(right)) + tuple(right)
    return tuple(b if a == 1 else a for a, b in zip(left, right, strict=True))
