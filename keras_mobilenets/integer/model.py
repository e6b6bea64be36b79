"""What a phone will answer, computed in Keras, bit for bit."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_mobilenets.export import conversion
from keras_mobilenets.integer.layers import (
    EXACT,
    KERNELS,
    IntegerAdd,
    IntegerConvolution,
    IntegerInput,
    IntegerMean,
    IntegerMultiply,
    IntegerOutput,
    IntegerReshape,
    IntegerSoftmax,
    IntegerTable,
    Quantization,
)
from keras_mobilenets.quantization import deployable, is_quantized
from keras_mobilenets.tflite.edit.pixels import with_plain_border
from keras_mobilenets.tflite.file import Graph, Operator, Tensor, read_tflite


def integer_model(
    source: keras.Model | str | os.PathLike[str] | bytes, *, kernels: str = "xnnpack", logits: bool = False
) -> keras.Model:
    """Gives the Keras model that computes what the TFLite runtime computes, to the last bit.

    Integer inputs and kernels, int32 biases, exact sums, the runtime's own rounding, saturation and tables. It takes
    batches and runs at about the speed of a float model, so that the accuracy of the deployed file is measured as fast
    as any other, and a wrong phone is told from a wrong model.

    Args:
        source: a quantized model, which is exported first, or a full-integer `.tflite` file, as a path or bytes.
        kernels: "xnnpack", the runtime's default on x86 and ARM: products with a float32 scale, rounded half to even;
            or "reference", the fixed-point arithmetic of the kernels that run without XNNPACK, for instance on
            microcontrollers (TensorFlow backend only: it needs 64-bit integers).
        logits: whether to end before the softmax, where nothing is hidden by its flatness.

    Returns:
        A model from the file's integers (batch, height, width, channels), for instance raw uint8 pixels, to the
        file's output integers. Each operation is a layer named by its place: `op_12`.

    Raises:
        ValueError: the file is not full-integer, or has an operation that this model has no arithmetic for.

    Example:

    >>> model = integer_model("model.tflite")                                         # doctest: +SKIP
    >>> model.predict(images).argmax(-1)                                              # doctest: +SKIP
    """
    if kernels not in KERNELS:
        raise ValueError(f"`kernels` must be one of {KERNELS}. Received: kernels={kernels!r}")
    graph = with_plain_border(read_tflite(_exported(source)).graph)
    return _Builder(graph, kernels).build(logits)


def _exported(source: Any) -> Any:
    if not isinstance(source, keras.Model):
        return source
    if not is_quantized(source):
        raise ValueError("`source` must be a quantized model (see `quantize_model`) or a .tflite file.")
    shape = conversion.image_shape(source, None)
    return conversion.convert(deployable(source), shape, scheme="int8", input_dtype="uint8")


def split_channels(kernel: np.ndarray, largest_input: int) -> list[int]:
    """Bounds of the groups of input channels in which no sum of products can pass float32's exact integers.

    Args:
        kernel: (height, width, input channels, output channels), integers.
        largest_input: the largest magnitude of an input.

    Returns:
        The bounds, from 0 to the number of input channels.

    Example:

    >>> split_channels(np.full((1, 1, 1024, 1), 127), 255)
    [0, 518, 1024]
    """
    costs = np.abs(kernel).sum((0, 1)) * largest_input  # (input channels, output channels)
    bounds, total = [0], np.zeros(costs.shape[-1])
    for channel, cost in enumerate(costs):
        if ((total + cost) > EXACT).any():
            bounds.append(channel)
            total = np.zeros_like(total)
        total = total + cost
    return [*bounds, len(costs)]


class _Builder:
    """Walks a graph's operators in the order in which they run, and makes a layer of each."""

    def __init__(self, graph: Graph, kernels: str):
        self.graph = graph
        self.kernels = kernels
        self.values: dict[int, Any] = {}
        self.largest: dict[int, int] = {}  # the largest magnitude that a tensor's integers can have

    def build(self, logits: bool) -> keras.Model:
        inputs = [self._input(self.graph.tensors[index]) for index in self.graph.inputs]
        for operator in self.graph.operators:
            if logits and operator.name == "SOFTMAX":
                self.values[operator.outputs[0]] = self.values[operator.inputs[0]]
                tensor = self.graph.tensors[operator.inputs[0]]
                return keras.Model(_one_or_all(inputs), self._output(tensor))
            self._add(operator)
        outputs = [self._output(self.graph.tensors[index]) for index in self.graph.outputs]
        return keras.Model(_one_or_all(inputs), _one_or_all(outputs))

    def _input(self, tensor: Tensor) -> Any:
        quantization = _quantization(tensor)
        inputs = keras.Input(tensor.shape[1:], dtype=quantization.dtype)
        layer = IntegerInput(inputs=[], output=vars(quantization), name=f"input_{tensor.index}")
        self._set(tensor.index, layer(inputs), quantization)
        return inputs

    def _output(self, tensor: Tensor) -> Any:
        layer = IntegerOutput(inputs=[], output=vars(_quantization(tensor)), name=f"output_{tensor.index}")
        return layer(self.values[tensor.index])

    def _set(self, index: int, value: Any, quantization: Quantization, activation: str = "NONE") -> None:
        self.values[index] = value
        self.largest[index] = max(abs(end) for end in quantization.clamp(activation))

    def _add(self, operator: Operator) -> None:
        make: Callable[..., Any] | None = _MAKERS.get(operator.name)
        if make is None:
            raise ValueError(
                f"There is no integer arithmetic for operation {operator.index}, {operator.name}. "
                f"Known: {', '.join(sorted(_MAKERS))}."
            )
        operands = [tensor for tensor in self.graph.operands(operator) if tensor is not None]
        output = self.graph.results(operator)[0]
        activation = operator.options.get("fused_activation_function", "NONE")
        if activation not in ("NONE", "RELU", "RELU6"):
            raise ValueError(
                f"Operation {operator.index}, {operator.name}, has a fused {activation}, which is not known."
            )
        quantized = [tensor for tensor in operands if len(tensor.scales) and tensor.dtype != "int32"]
        common = {
            "inputs": [vars(_quantization(tensor)) for tensor in quantized if len(tensor.scales) == 1],
            "output": vars(_quantization(output)),
            "activation": activation,
            "kernels": self.kernels,
            "name": f"op_{operator.index}",
        }
        value = make(self, operator, operands, output, common)
        self._set(output.index, value, _quantization(output), activation)

    def value(self, tensor: Tensor) -> Any:
        """What a tensor holds less its zero point: computed, or a constant."""
        if tensor.data is None:
            return self.values[tensor.index]
        return _centered(tensor)

    def convolution(self, operator: Operator, operands: list[Tensor], output: Tensor, common: dict) -> Any:
        """CONV_2D, DEPTHWISE_CONV_2D and FULLY_CONNECTED."""
        source, weights = operands[:2]
        depthwise, dense = operator.name.startswith("DEPTHWISE"), operator.name == "FULLY_CONNECTED"
        kernel = _centered(weights)
        if dense:
            kernel = kernel.T[None, None]
        elif depthwise:  # (1, height, width, channels * multiplier), channels outermost
            channels = source.shape[-1]
            kernel = kernel[0].reshape(*kernel.shape[1:3], channels, -1)
        else:
            kernel = kernel.transpose(1, 2, 3, 0)
        outputs = output.shape[-1]
        bias = np.asarray(operands[2].data if len(operands) > 2 else np.zeros(outputs), "int32")
        options = operator.options
        bounds = [0, 0] if depthwise else split_channels(kernel, self.largest[source.index])
        sums = np.abs(kernel).reshape(-1, outputs).sum(0) * self.largest[source.index] + np.abs(bias.astype("float64"))
        layer = IntegerConvolution(
            **{**common, "inputs": common["inputs"][:1]},
            kernel_shape=list(kernel.shape),
            depthwise=depthwise,
            strides=[options.get("stride_h", 1), options.get("stride_w", 1)],
            dilation_rate=[options.get("dilation_h_factor", 1), options.get("dilation_w_factor", 1)],
            padding=options.get("padding", "VALID").lower(),
            splits=bounds,
            wide=bool(sums.max() >= EXACT),
            roundings=1 if dense else 2,
        )
        multiplier = layer.multiplier_to_output(source.scales, weights.scales)
        multiplier = multiplier if isinstance(multiplier, tuple) else (multiplier,)
        layer.set_weights([kernel, bias, *(np.broadcast_to(part, outputs) for part in multiplier)])
        value = self.value(source)
        if not dense:
            return layer(value)
        shape = (1, 1, kernel.shape[2])
        result = layer(keras.layers.Reshape(shape, name=f"op_{operator.index}_map")(value))
        return keras.layers.Reshape((outputs,), name=f"op_{operator.index}_row")(result)

    def binary(self, operator: Operator, operands: list[Tensor], output: Tensor, common: dict) -> Any:
        make = {"ADD": IntegerAdd, "MUL": IntegerMultiply}[operator.name]
        constants = [tensor for tensor in operands if tensor.is_constant]
        if not constants:
            return make(**common)([self.value(tensor) for tensor in operands])
        if operands[0].is_constant:  # both operations commute
            operands, common = operands[::-1], {**common, "inputs": common["inputs"][::-1]}
        return make(**common, constant=self.value(constants[0]).tolist())(self.value(operands[0]))

    def mean(self, operator: Operator, operands: list[Tensor], output: Tensor, common: dict) -> Any:
        source, axes = operands
        if sorted(np.atleast_1d(np.asarray(axes.data)) % len(source.shape)) != [1, 2]:
            raise ValueError(f"Operation {operator.index}, MEAN, is not over height and width.")
        return self._mean(source, output, common)

    def average_pool(self, operator: Operator, operands: list[Tensor], output: Tensor, common: dict) -> Any:
        source = operands[0]
        window = [operator.options["filter_height"], operator.options["filter_width"]]
        if window != list(source.shape[1:3]) or output.shape[1:3] != (1, 1):
            raise ValueError(f"Operation {operator.index}, AVERAGE_POOL_2D, is not over the whole map.")
        return self._mean(source, output, common)

    def _mean(self, source: Tensor, output: Tensor, common: dict) -> Any:
        count = source.shape[1] * source.shape[2]
        return IntegerMean(**common, keepdims=len(output.shape) == 4, count=count)(self.value(source))

    def reshape(self, operator: Operator, operands: list[Tensor], output: Tensor, common: dict) -> Any:
        return IntegerReshape(**common, target_shape=list(output.shape[1:]))(self.value(operands[0]))

    def softmax(self, operator: Operator, operands: list[Tensor], output: Tensor, common: dict) -> Any:
        return IntegerSoftmax(**common, beta=operator.options.get("beta", 1.0))(self.value(operands[0]))

    def quantize(self, operator: Operator, operands: list[Tensor], output: Tensor, common: dict) -> Any:
        source, target = _quantization(operands[0]), _quantization(output)
        low, high = source.clamp()
        stored = np.arange(low, high + 1, dtype="float32")
        table = np.clip(np.rint(stored * (np.float32(source.scale) / np.float32(target.scale))), *target.clamp())
        return IntegerTable(**common, table=[int(entry) for entry in table])(self.value(operands[0]))


_MAKERS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"), _Builder.convolution),
    **dict.fromkeys(("ADD", "MUL"), _Builder.binary),
    "MEAN": _Builder.mean,
    "AVERAGE_POOL_2D": _Builder.average_pool,
    "RESHAPE": _Builder.reshape,
    "SOFTMAX": _Builder.softmax,
    "QUANTIZE": _Builder.quantize,
}


def _one_or_all(tensors: list[Any]) -> Any:
    return tensors if len(tensors) > 1 else tensors[0]


def _quantization(tensor: Tensor) -> Quantization:
    if len(tensor.scales) != 1 or tensor.dtype not in ("int8", "uint8", "int16"):
        raise ValueError(
            f"The file is not full-integer: tensor {tensor.index} ({tensor.name or 'unnamed'}) is {tensor.dtype}"
            + ("." if tensor.is_float else f" with {len(tensor.scales)} scales.")
        )
    return Quantization(float(tensor.scales[0]), int(tensor.zero_points[0]), tensor.dtype)


def _centered(weights: Tensor) -> np.ndarray:
    """A constant's integers less their zero points."""
    zero_points = weights.zero_points
    if len(zero_points) > 1:
        shape = [1] * len(weights.shape)
        shape[weights.quantized_dimension] = -1
        zero_points = zero_points.reshape(shape)
    return np.asarray(weights.data, "float32") - zero_points.astype("float32")
