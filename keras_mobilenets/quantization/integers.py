"""The graph of integers that a quantized model deploys to, from its own weights and ranges, without a converter.

Each number is computed as TensorFlow's converter computes it: scales and zero points of feature maps and kernels in
float64, integers rounded half away from zero, biases in units of the product of both scales.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from keras_mobilenets.graph import Graph as KerasGraph
from keras_mobilenets.graph import Item, Node
from keras_mobilenets.integer.layer import NotInteger
from keras_mobilenets.layers import inline
from keras_mobilenets.quantization.counterparts import form_of, moved
from keras_mobilenets.quantization.deploy import ConstantFakeQuant, Deployment, check
from keras_mobilenets.quantization.settings import UNFUSED_HARD_SWISH
from keras_mobilenets.quantization.twin import settings_of, target_for
from keras_mobilenets.tflite.file import Graph, Operator, Tensor

LARGEST_BIAS = (2**31 - 1) // 2
"""In units of the accumulator; where a bias is larger, the converter widens the kernel's grid until it is not."""
SMALLEST_SPAN = 1e-6
"""Of a kernel's range, to the converter."""


@dataclass
class Value:
    """What stands for a tensor on the way: on a grid already, or computed by an operation that waits for its grid.

    Args:
        shape: with a batch of one.
        tensor: the tensor, once it is on a grid.
        name: of the operation that waits.
        sources: its operands, tensors or arrays.
        options: its options.
        weights: kernel and bias of a convolution.
        rounded: the kernel on a grid of its own before anything is folded into it, and the grid's step or steps; None
            where the grid follows from the kernel.
    """

    shape: tuple[int, ...]
    tensor: Tensor | None = None
    name: str = ""
    sources: list[Any] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    weights: list[np.ndarray] = field(default_factory=list)
    rounded: tuple[np.ndarray, Any] | None = None

    dtype = "float32"

    def grid(self) -> Tensor:
        """The tensor."""
        if self.tensor is None:
            raise NotInteger(f"{self.name or 'an input'} is read before it is rounded")
        return self.tensor

    def __add__(self, number: float) -> Value:
        return Value(self.shape, name="ADD", sources=[self.grid(), np.float32(number)])

    def __mul__(self, number: float) -> Value:
        return Value(self.shape, name="MUL", sources=[self.grid(), np.float32(number)])


def integer_graph(model: keras.Model) -> Graph:
    """The operations and integers of a quantized model's file, with uint8 at both ends: see `ExactInference`."""
    return _with_uint8_ends(IntegerDeployment.of(model, KerasGraph.of(inline(model))).run())


def _with_uint8_ends(graph: Graph) -> Graph:
    tensors, ends = list(graph.tensors), {}
    first, last = [], []
    for index in dict.fromkeys((*graph.inputs, *graph.outputs)):
        tensor = tensors[index]
        if tensor.dtype == "uint8":
            ends[index] = index
            continue
        ends[index] = len(tensors)
        tensors.append(replace(tensor, index=ends[index], dtype="uint8", zero_points=tensor.zero_points + 128))
        number = len(graph.operators) + len(ends)
        if index in graph.inputs:
            first.append(Operator(number, "QUANTIZE", 1, (ends[index],), (index,), {}))
        else:
            last.append(Operator(number, "QUANTIZE", 1, (index,), (ends[index],), {}))
    inputs, outputs = (tuple(ends[index] for index in indices) for indices in (graph.inputs, graph.outputs))
    return Graph(tuple(tensors), (*first, *graph.operators, *last), inputs, outputs)


class IntegerDeployment(Deployment):
    """Walks the graph as deployment does, and writes operations on integers instead of making float layers."""

    graph: KerasGraph
    shift = 0
    """What the integers of feature maps have more than int8."""

    @classmethod
    def of(cls, model: keras.Model, graph: KerasGraph) -> IntegerDeployment:
        """Of a quantized model, whose flat view has the graph.

        Raises:
            NotInteger: it has no ranges yet, or not 8 bits.
        """
        bits = check(graph)
        if bits != 8:
            raise NotInteger(f"its feature maps have {bits} bits")
        deployment = cls(graph, bits, fused_hard_swish=target_for(model) not in UNFUSED_HARD_SWISH)
        deployment.graph, deployment.shift = graph, 128 * settings_of(model).unsigned
        return deployment

    def run(self) -> Graph:
        """The graph of integers, with the weights and ranges as they are now, as a `.tflite` file holds it."""
        graph = self.graph
        self.names.clear()
        self.tensors: list[Tensor] = []
        self.operators: list[Operator] = []
        self.starts: list[Tensor] = []
        self.steps: dict[int, float] = {}  # the scales of feature maps in float64
        values: dict[Node, Any] = {}
        for node in graph.nodes:
            self.node = node
            if node.is_input:
                if node in self.fronts and self.fronts[node].is_idle:
                    raise NotInteger(f"{node.name} is cropped in training only, to other sizes than at inference")
                values[node] = Value((1, *self.input_shape(node)), name=node.name)
            else:
                values[node] = self.call(node, *node.substitute(values.__getitem__))
        outputs = [values[node].grid().index for node in keras.tree.flatten(graph.outputs)]
        inputs = tuple(tensor.index for tensor in self.starts)
        return Graph(tuple(self.tensors), tuple(self.operators), inputs, tuple(outputs))

    def kernel(self, node: Node, value: Any) -> Any:
        result = super().kernel(node, value)
        if getattr(node.layer, "kernel_range", None) is not None:
            result.rounded = np.asarray(node.layer.quantized_kernel(), "float64"), node.layer.kernel_step
        return result

    def make(self, cls: Any, name: str, value: Any, weights: Any = None, **config: Any) -> Any:
        if cls is ConstantFakeQuant:
            return self.round(value, config["low"], config["high"])
        return self.compute(cls.from_config({**config, "name": name}), value, weights or [])

    def plain(self, node: Node, args: tuple, kwargs: dict[str, Any]) -> Any:
        layer = node.layer
        if isinstance(layer, Item):
            return args[0][layer.index]
        form = form_of(layer, args, _shape(node)) if isinstance(node.tensor, keras.KerasTensor) else None
        if form is None and (move := moved(layer, args, kwargs)) is not None:
            return self.move(args, move)
        weights = layer.get_weights() if isinstance(layer, keras.layers.Layer) else []
        return self.write(layer, form, args, weights)

    def move(self, args: tuple, function: Any) -> Any:
        """What only moves values is computed as it is, on integers: a value, or one for each output."""
        (source,) = (one.grid() for one in args if isinstance(one, Value))
        grid = self.grid_of(source)
        outputs = keras.tree.flatten(self.node.tensor)
        values = [
            self.finish(
                Value((1, *one.shape[1:]), None, "MOVE", [source], {"layer": replace(function, output=n)}), grid
            )
            for n, one in enumerate(outputs)
        ]
        return values[0] if isinstance(self.node.tensor, keras.KerasTensor) else values

    def enter_float(self, node: Node, value: Any) -> Any:
        raise NotInteger(f"{node.name} leads to layers that stay in float")

    def round(self, value: Value, low: float, high: float) -> Value:
        """Puts a value on the grid of a range."""
        grid = activation_grid(low, high)
        if value.tensor is None:
            return self.finish(value, grid)
        if np.float32(grid[0]) == value.tensor.scales[0] and grid[1] == self.grid_of(value.tensor)[1]:
            return value
        return self.finish(Value(value.shape, name="QUANTIZE", sources=[value.tensor]), grid)

    def grid_of(self, tensor: Tensor) -> tuple[float, int]:
        """Scale, in float64, and zero point of a feature map, as if it were int8."""
        return self.steps[tensor.index], int(tensor.zero_points[0]) - self.shift

    def finish(self, value: Value, grid: tuple[float, int]) -> Value:
        """Writes the operation that waits, now that the grid of its output is known."""
        tensor = self.add(value.shape, grid[0], grid[1] + self.shift, "uint8" if self.shift else "int8")
        self.steps[tensor.index] = grid[0]
        if not value.sources:
            self.starts.append(tensor)
        else:
            sources = self.operands(value)
            indices = tuple(source.index for source in sources)
            number = len(self.operators)
            self.operators.append(Operator(number, value.name, 1, indices, (tensor.index,), value.options))
        return Value(value.shape, tensor)

    def operands(self, value: Value) -> list[Tensor]:
        """The tensors that the operation which waits reads, in the order of the file."""
        sources = [one if isinstance(one, Tensor) else self.constant(one) for one in value.sources]
        if value.name == "PRELU":
            return [*sources, self.constant(value.weights[0], symmetric=True)]
        if not value.weights:
            return sources
        kernel, bias = self.kernel_and_bias(sources[0], value)
        return (
            [*sources[1:], kernel, sources[0], bias] if value.name == "TRANSPOSE_CONV" else [sources[0], kernel, bias]
        )

    def add(
        self, shape: Any, scales: Any, zero_points: Any, dtype: str = "int8", data: Any = None, axis: int = 0
    ) -> Tensor:
        """One more tensor."""
        scales, zero_points = np.atleast_1d(scales), np.atleast_1d(zero_points)
        index, shape = len(self.tensors), tuple(shape)
        tensor = Tensor(
            index, self.node.name, dtype, shape, shape, np.asarray(scales, "float32"), zero_points, axis, data, 0
        )
        self.tensors.append(tensor)
        return tensor

    def constant(self, value: Any, symmetric: bool = False) -> Tensor:
        """A constant operand: real numbers on the grid of their range, integers (shapes, axes) as they are."""
        value = np.asarray(value)
        if value.dtype.kind == "i":
            return self.add(value.shape, [], [], "int32", value.astype("int32"))
        scale, zero_point = float(np.abs(value).max()) / 127.0 or 1.0, 0
        if not symmetric:
            scale, zero_point = activation_grid(min(float(value.min()), 0.0), max(float(value.max()), 0.0))
        dtype = "uint8" if self.shift else "int8"
        data = self.shift + np.clip(half_away(value / scale) + zero_point, -128, 127)
        return self.add(value.shape, scale, zero_point + self.shift, dtype, data.astype(dtype))

    def kernel_and_bias(self, source: Tensor, value: Value) -> list[Tensor]:
        """The kernel's integers, one grid for each output channel, and the bias in units of the accumulator."""
        name, (kernel, bias) = value.name, value.weights
        axis = 3 if name == "DEPTHWISE_CONV_2D" else 0

        def in_file(values: np.ndarray) -> np.ndarray:
            if name == "DEPTHWISE_CONV_2D":
                return values.reshape(1, *values.shape[:2], -1)
            return np.moveaxis(values, 2 if name == "TRANSPOSE_CONV" else -1, 0)

        step = self.steps[source.index]  # the converter rounds neither factor to the float32 that it writes
        kernel = in_file(kernel)
        scales = kernel_scales(kernel, axis, bias, step)
        shape = [-1 if number == axis else 1 for number in range(kernel.ndim)]
        data = np.clip(half_away(kernel / scales.reshape(shape)), -127, 127).astype("int8")
        if value.rounded is not None:
            own = folded_grid(kernel, axis, in_file(value.rounded[0]), value.rounded[1])
            if not (np.array_equal(np.float32(own[0]), np.float32(scales)) and np.array_equal(own[1], data)):
                scales, data = own  # which no converter would come to
        steps = np.clip(half_away(bias.astype("float64") / (scales * step)), -(2**31), 2**31 - 1).astype("int32")
        zeros = np.zeros(len(scales), "int64")
        return [
            self.add(kernel.shape, scales, zeros, str(data.dtype), data, axis),
            self.add(bias.shape, scales * step, zeros, "int32", steps),
        ]

    def compute(self, layer: Any, value: Any, weights: list) -> Value:
        """What a layer of the deployed model computes."""
        return self.write(layer, form_of(layer, (value,), _shape(self.node)), (value,), weights)

    def write(self, layer: Any, form: Any, args: tuple, weights: list) -> Value:
        """An operation that waits for its grid, or one that keeps the grid of what it reads."""
        if form is None:
            raise NotInteger(f"{layer.name} ({type(layer).__name__}) has no integer form")
        name, options, constants, keeps_grid = form
        value = args[0]
        if name in ("RELU", "RELU6") and value.tensor is None:
            value.options = {**value.options, "fused_activation_function": name}
            return value
        sources = [one.grid() for one in keras.tree.flatten(args) if isinstance(one, Value)]
        if keeps_grid and len({(one.scales[0], one.zero_points[0]) for one in sources}) > 1:
            raise NotInteger(f"{layer.name} joins different grids")
        waiting = Value(_shape(self.node), None, name, [*sources, *constants], options, list(map(np.asarray, weights)))
        if not keeps_grid:
            return waiting
        return self.finish(waiting, self.grid_of(sources[0]))


def activation_grid(low: float, high: float) -> tuple[float, int]:
    """Scale and zero point of int8 for a range, as the converter computes them: for uint8, less 128."""
    low, high = float(np.float32(low)), float(np.float32(high))
    scale = (high - low) / 255.0
    if scale <= 0:
        return 1.0, -128
    return scale, int(np.clip(half_away(-low / scale), 0, 255)) - 128


def kernel_scales(kernel: np.ndarray, axis: int, bias: np.ndarray, step: float) -> np.ndarray:
    """The scale of each output channel of a kernel that reads values of a step, as the converter chooses it."""
    others = tuple(number for number in range(kernel.ndim) if number != axis)
    largest = np.abs(kernel.astype("float64")).max(others)
    scales = np.maximum(2 * largest, SMALLEST_SPAN) / 254.0
    bias = np.abs(bias.astype("float64"))
    return np.where(bias < LARGEST_BIAS * scales * step, scales, bias / LARGEST_BIAS / step)


def folded_grid(kernel: np.ndarray, axis: int, rounded: np.ndarray, step: Any) -> tuple[np.ndarray, np.ndarray]:
    """Scales and integers of a kernel that was rounded to a grid and then multiplied by a factor for each channel."""
    others = tuple(number for number in range(kernel.ndim) if number != axis)
    before, after = (np.abs(one.astype("float64")).max(others) for one in (rounded, kernel))
    factors = np.where(before > 0, after / np.where(before > 0, before, 1.0), 1.0)
    integers = rounded / np.reshape(step, [-1 if number == axis else 1 for number in range(kernel.ndim)])
    return factors * step, half_away(integers).astype("int16")


def half_away(values: Any) -> Any:
    """Rounds halves away from zero, as C does."""
    return np.trunc(values + np.copysign(0.5, values))


def _shape(node: Node) -> tuple[int, ...]:
    if not isinstance(node.tensor, keras.KerasTensor):
        raise NotInteger(f"{node.name} has several outputs")
    if None in node.tensor.shape[1:]:
        raise NotInteger(f"{node.name} may have any size, of which averages depend")
    return (1, *node.tensor.shape[1:])
