"""What the layers of integer arithmetic share.

Between the layers flow the stored integers less their zero point, as float32: every such number is below 2**24 and
therefore exact, a padded zero is the real zero, and convolutions run at the speed of float ones.
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


class NotInteger(ValueError):
    """Something has no form in the runtime's integer arithmetic, for good or until it has ranges."""


@dataclass(frozen=True)
class Quantization:
    """How a tensor's integers stand for real numbers: real = scale * (stored - zero point)."""

    scale: float
    zero_point: int
    dtype: str

    @property
    def limits(self) -> tuple[int, int]:
        """The lowest and the highest integer less the zero point."""
        info = np.iinfo(self.dtype)
        return int(info.min) - self.zero_point, int(info.max) - self.zero_point

    def clamp(self, activation: str = "NONE") -> tuple[int, int]:
        """The range that the stored integers less their zero point can have behind a fused activation."""
        low, high = self.limits
        if activation in ("RELU", "RELU6"):
            low = max(low, 0)
        if activation == "RELU_N1_TO_1":
            low = max(low, int(np.rint(np.float32(-1) / np.float32(self.scale))))
        if activation in ("RELU6", "RELU_N1_TO_1"):
            end = np.float32(6 if activation == "RELU6" else 1)
            high = min(high, int(np.rint(end / np.float32(self.scale))))
        return low, high


class IntegerOperation(keras.layers.Layer):
    """An operation of the runtime: integers in, integers out.

    Its numbers (multipliers, tables, ends of ranges) follow from the quantization of its inputs and its output. They
    are weights, so that a compiled model goes on with other ones: see `adopt`.

    Args:
        inputs: the quantization of its inputs.
        output: the quantization of its output.
        activation: what the file fuses into it: "NONE", "RELU", "RELU6" or "RELU_N1_TO_1".
        kernels: whose rounding: "xnnpack" multiplies by a float32 scale and rounds half to even, "reference" is the
            fixed-point arithmetic of the runtime's own kernels.
        **kwargs: the layer's own `arguments`, and those of `keras.layers.Layer`.
    """

    arguments: tuple[str, ...] = ()
    """Names of the layer's own arguments, which become attributes."""

    def __init__(
        self,
        *,
        inputs: list[dict[str, Any]],
        output: dict[str, Any],
        activation: str = "NONE",
        kernels: str = "xnnpack",
        **kwargs: Any,
    ):
        for name in self.arguments:
            kwargs[name] = kwargs.get(name)
        own = {name: kwargs.pop(name) for name in self.arguments}
        super().__init__(**{**kwargs, "dtype": "float32", "trainable": False})
        for name, value in own.items():
            setattr(self, name, value)
        self.inputs_quantization = [Quantization(**one) for one in inputs]
        self.output_quantization = Quantization(**output)
        self.activation = activation
        self.kernels = kernels
        if self.is_reference and not _has_int64():
            raise RuntimeError(
                f"{self.name}: the reference kernels' arithmetic needs integers of 64 bits, which JAX has with "
                "jax.config.update('jax_enable_x64', True) only."
            )
        self.held: dict[str, Any] = {}
        for name, value in self.numbers().items():
            # Made here, not in `build`, so that the layer is whole without an input.
            self.held[name] = self.fixed_weight(name, np.shape(value), _kind(value))
            self.held[name].assign(value)
        self.built = True

    def fixed_weight(self, name: str, shape: Any, dtype: str = "float32") -> Any:
        """A weight that no optimizer sees."""
        return self.add_weight(name=name, shape=tuple(shape), dtype=dtype, initializer="zeros", trainable=False)

    def numbers(self) -> dict[str, Any]:
        """What the operation computes with, by name: integers become int32, all else float32."""
        low, high = self.output_quantization.clamp(self.activation)
        return {"low": np.float32(low), "high": np.float32(high)}

    def adopt(self, inputs: list[dict[str, Any]], output: dict[str, Any], **arguments: Any) -> None:
        """Goes on with another quantization of the same tensors: only numbers change, what is compiled stays."""
        self.inputs_quantization = [Quantization(**one) for one in inputs]
        self.output_quantization = Quantization(**output)
        for name in self.arguments:
            if getattr(self, name) != arguments.get(name):
                setattr(self, name, arguments.get(name))
        for name, value in self.numbers().items():
            self.held[name].assign(value)

    @property
    def number(self) -> dict[str, Any]:
        """The numbers that it holds, as tensors."""
        return {name: ops.convert_to_tensor(variable) for name, variable in self.held.items()}

    @property
    def is_reference(self) -> bool:
        """Whether it computes as the reference kernels do."""
        return self.kernels == "reference"

    def multiplier(self, *factors: Any, name: str = "multiplier") -> dict[str, Any]:
        """The product of scales over the output's, as the numbers from which `requantize` multiplies."""
        kind = np.float64 if self.is_reference else np.float32
        product: Any = kind(1)
        for factor in factors:
            product = product * np.asarray(factor, kind)
        return self.real_multiplier(product / kind(self.output_quantization.scale), name)

    def real_multiplier(self, real: Any, name: str = "multiplier") -> dict[str, Any]:
        """A real factor in the form in which the kernels hold it."""
        if not self.is_reference:
            return {name: np.asarray(real, "float32")}
        mantissa, shift = fixed_point.quantize_multiplier(real)
        return {f"{name}_mantissa": mantissa, f"{name}_shift": shift}

    def scaled(self, values: Any, roundings: int = 2, name: str = "multiplier") -> Any:
        """Rounds `values * multiplier` as the kernels do; the values are integers in float32 or int32."""
        if self.is_reference:
            parts = self.number[f"{name}_mantissa"], self.number[f"{name}_shift"]
            return ops.cast(fixed_point.multiply(values, *parts, roundings=roundings), "float32")
        return ops.round(ops.cast(values, "float32") * self.number[name])

    def clamp(self, values: Any) -> Any:
        """Saturates at the ends of the output's type, and at the fused activation's."""
        return ops.clip(values, self.number["low"], self.number["high"])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in self.arguments},
            "inputs": [asdict(one) for one in self.inputs_quantization],
            "output": asdict(self.output_quantization),
            "activation": self.activation,
            "kernels": self.kernels,
        }


def _has_int64() -> bool:
    return keras.backend.standardize_dtype(ops.zeros((1,), "int64").dtype) == "int64"


def _kind(value: Any) -> str:
    return "int32" if np.asarray(value).dtype.kind == "i" else "float32"


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class IntegerInput(IntegerOperation):
    """Takes the zero point off what the caller feeds."""

    def numbers(self):
        return {"zero_point": np.float32(self.output_quantization.zero_point)}

    def call(self, inputs):
        return ops.cast(inputs, "float32") - self.number["zero_point"]

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, dtype="float32")


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class IntegerEntry(IntegerOperation):
    """Rounds real numbers to integers less their zero point.

    Args:
        pixels: (factor, offset) that make pixels of the numbers, of which 0 is the lowest integer; None where the
            numbers are on the grid as they are.
        **kwargs: of `IntegerOperation`.
    """

    arguments = ("pixels",)

    def numbers(self):
        lowest, highest = self.output_quantization.limits
        inverse = np.float32(1) / np.float32(self.output_quantization.scale)
        factor, offset = (inverse, 0.0) if self.pixels is None else self.pixels
        return {
            "factor": np.float32(factor),
            "offset": np.float32(offset),
            "start": np.float32(0 if self.pixels is None else lowest),
            "low": np.float32(lowest),
            "high": np.float32(highest),
        }

    def call(self, inputs):
        number = self.number  # in the order of `PixelScale.pixels` and of the runtime, so that ties fall to one side
        values = ops.round(ops.cast(inputs, "float32") * number["factor"] + number["offset"])
        return self.clamp(values + number["start"])

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, dtype="float32")


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class IntegerExit(IntegerOperation):
    """The real numbers that integers less their zero point stand for."""

    def numbers(self):
        return {"scale": np.float32(self.output_quantization.scale)}

    def call(self, inputs):
        return inputs * self.number["scale"]

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, dtype="float32")


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class IntegerOutput(IntegerOperation):
    """Puts the zero point back on, and gives the integer type of the file."""

    def numbers(self):
        return {"zero_point": np.float32(self.output_quantization.zero_point)}

    def call(self, inputs):
        return ops.cast(inputs + self.number["zero_point"], self.output_quantization.dtype)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, dtype=self.output_quantization.dtype)
