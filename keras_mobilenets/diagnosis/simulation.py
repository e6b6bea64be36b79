"""A quantized model with a switch at each place that rounds: to see what each of them costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mobilenets.graph import Graph, Node
from keras_mobilenets.layers import inline
from keras_mobilenets.quantization import FakeQuant, InputQuant, QuantWeights, fake_quant, strip_quantization
from keras_mobilenets.quantization.grid import grid_around
from keras_mobilenets.quantization.layers import QuantHardSigmoid, QuantHardSwish, QuantKernel
from keras_mobilenets.quantization.operations import Operation, operations_of

FLOAT_ERROR = 1e-12  # of the signal's energy: float32 has 24 bits, which are 144 dB
Values = MutableMapping[Node, Any]


@dataclass
class Noise:
    """A sum of squares beside that of the errors, per channel or as a whole."""

    signal: Any = 0.0
    error: Any = 0.0

    def add(self, true: np.ndarray, found: np.ndarray) -> None:
        axes = tuple(range(true.ndim - 1))
        difference = true - found.reshape(true.shape)
        self.signal = self.signal + np.square(true, dtype="float64").sum(axes)
        self.error = self.error + np.square(difference, dtype="float64").sum(axes)

    @property
    def decibels(self) -> float | None:
        """The signal-to-quantization-noise ratio; None where there is no signal, or no noise at all."""
        return decibels(float(np.sum(self.signal)), float(np.sum(self.error)))


def decibels(signal: float, error: float) -> float | None:
    """10 log10(signal / error); None where there is no signal, or no error but float32's own."""
    return float(10.0 * np.log10(signal / error)) if signal > 0 and error > FLOAT_ERROR * signal else None


@dataclass(frozen=True)
class Grid:
    """The values that a feature map is rounded to.

    Attributes:
        low, high: the ends.
        bits: width of the integers.
        pixels: for an image, the layer that rounds it to pixels.
    """

    low: float
    high: float
    bits: int
    pixels: InputQuant | None = None

    @property
    def step(self) -> float:
        return (self.high - self.low) / (2**self.bits - 1)

    def round(self, values: Any) -> Any:
        if self.pixels is not None:
            return self.pixels(values) + self.pixels.shift
        rounded = fake_quant(ops.cast(values, "float32"), self.low, self.high, self.bits)
        return ops.cast(rounded, values.dtype)


class Simulation:
    """The float model of a quantized one, in which any choice of the roundings can be switched on.

    Args:
        quantized: a model from `quantize_model`.

    Attributes:
        graph: of the quantized model, flat.
        sites: its operations, in order.
        kernels: for each node with a quantized kernel, the variables of the float layer with their rounded values.
        grids: for each node that rounds a feature map, what it rounds to; None where that is not known.
        per_tensor: the nodes whose kernel has one grid for all channels.
        missing: names of the operations that were looked for in a file and not found.
    """

    def __init__(self, quantized: keras.Model):
        self.graph = Graph.of(inline(quantized))
        self.floats = {layer.name: layer for layer in strip_quantization(quantized).layers}
        self.consumers = self.graph.consumers()
        self.kernels = {node: self._rounded(node) for node in self.graph.nodes if has_kernel(node)}
        self.grids = {node: _grid(node.layer) for node in self.graph.nodes if _rounds_values(node)}
        self.per_tensor: set[Node] = set()
        self.missing: tuple[str, ...] = ()
        self.sites = [one for one in operations_of(self.graph) if self._rounds(one)]
        self.dying = self._last_reads()

    def run(self, node: Node, values: Values, on: Collection[Node]) -> Any:
        """The value of a node from those that it reads; it rounds if it is in `on`."""
        args, kwargs = node.substitute(values.__getitem__)
        if isinstance(node.layer, FakeQuant | InputQuant):
            grid = self.grids[node] if node in on else None
            return args[0] if grid is None else grid.round(args[0])
        if not isinstance(node.layer, keras.layers.Layer):
            return node.layer(*args, **kwargs)
        if node in on and node in self.grids:  # a gate, which rounds inside
            return node.layer(*args, **kwargs)
        layer = self.floats.get(node.name, node.layer)  # what marks the edge of a part in float is stripped
        if node in on and node in self.kernels:
            with keras.StatelessScope(self.kernels[node]):
                return layer(*args, **kwargs)
        return layer(*args, **kwargs)

    def inputs(self, given: Any) -> dict[Node, Any]:
        """The values of the model's inputs."""
        nodes = keras.tree.flatten(self.graph.inputs)
        arrays = [given[node.name] for node in nodes] if isinstance(given, dict) else keras.tree.flatten(given)
        return {
            node: ops.convert_to_tensor(np.asarray(array), node.tensor.dtype)
            for node, array in zip(nodes, arrays, strict=True)
        }

    def walk(self, values: Values, run: Callable[[Node, Values], Any] | None = None) -> Iterator[tuple[Node, Values]]:
        """Computes node by node; gives each with the values that are still to be read, its own among them.

        Args:
            values: of the model's inputs.
            run: computes a node; in float by default.
        """
        for node, dying in zip(self.graph.nodes, self.dying, strict=True):
            if not node.is_input:
                values[node] = run(node, values) if run else self.run(node, values, ())
            yield node, values
            for dead in dying:
                del values[dead]

    def outputs(self, given: Any, on: Collection[Node]) -> list[np.ndarray]:
        """The model's outputs with some roundings on."""
        values = self.inputs(given)
        for _ in self.walk(values, lambda node, values: self.run(node, values, on)):
            pass
        return self.results(values)

    def results(self, values: Values) -> list[np.ndarray]:
        """The model's outputs among the values of all nodes."""
        return [as_array(values[node]) for node in keras.tree.flatten(self.graph.outputs)]

    def measure(self, given: Any) -> tuple[list[np.ndarray], dict[Operation, np.ndarray]]:
        """What the quantized model computes: its outputs, and the value of each operation."""
        ends = {site.end: site for site in self.sites}
        found, values = {}, self.inputs(given)
        for node, live in self.walk(values, _as_quantized):
            if node in ends:
                shift = node.layer.shift if isinstance(node.layer, InputQuant) else 0.0
                found[ends[node]] = as_array(live[node]) + np.float32(shift)
        return self.results(values), found

    def switches(self, nodes: Iterable[Node]) -> set[Node]:
        """Those of the nodes that round."""
        return {node for node in nodes if node in self.kernels or self.grids.get(node) is not None}

    def kind(self, site: Operation) -> str:
        """The class of the layer that an operation is named after."""
        name = site.name.split(" (")[0]
        return "Input" if name not in self.floats else type(self.floats[name]).__name__.replace("InputLayer", "Input")

    def kernel_noise(self, site: Operation) -> tuple[float | None, list[float | None]]:
        """Signal-to-noise ratio of an operation's weights in dB, and that of each output channel of a kernel."""
        noise, channels = Noise(), list[float | None]()
        if site.kernel is None:
            return None, []
        for variable, rounded in self.kernels.get(site.kernel, ()):
            true, found = (as_array(values) for values in (variable, rounded))
            noise.add(true.reshape(-1, 1), found.reshape(-1, 1))
            if isinstance(site.kernel.layer, QuantKernel):
                shape = (math.prod(true.shape[axis] for axis in site.kernel.layer.kernel_axes), -1)
                one = Noise()
                one.add(true.reshape(shape), found.reshape(shape))
                channels = [decibels(*pair) for pair in zip(one.signal, one.error, strict=True)]
        return noise.decibels, channels

    def _rounds(self, operation: Operation) -> bool:
        return any(node in self.grids or node in self.kernels for node in operation.nodes)

    def _rounded(self, node: Node) -> list[tuple[Any, Any]]:
        new = self.floats[node.name]
        if isinstance(node.layer, QuantKernel):
            return [(new.kernel, node.layer.quantized_kernel())]
        return [(getattr(new, name), value) for name, value in node.layer.quantized_weights().items()]

    def _last_reads(self) -> list[list[Node]]:
        """The nodes that nothing reads any more after each place; an operation reads its sources until its end."""
        last: dict[Node, int] = {}
        ends = {site.end: site.sources for site in self.sites}
        for place, node in enumerate(self.graph.nodes):
            last.update(dict.fromkeys([node, *node.inputs, *ends.get(node, ())], place))
        kept = self.graph.output_nodes()
        dying: list[list[Node]] = [[] for _ in self.graph.nodes]
        for node, place in last.items():
            if node not in kept:
                dying[place].append(node)
        return dying


def _as_quantized(node: Node, values: Values) -> Any:
    args, kwargs = node.substitute(values.__getitem__)
    return node.layer(*args, **kwargs)


def has_kernel(node: Node) -> bool:
    """Whether the node rounds weights."""
    return isinstance(node.layer, QuantKernel | QuantWeights)


def as_array(values: Any) -> np.ndarray:
    """Values of a tensor in float32."""
    return np.asarray(ops.convert_to_numpy(ops.cast(values, "float32")))


def _rounds_values(node: Node) -> bool:
    return isinstance(node.layer, FakeQuant | InputQuant | QuantHardSigmoid | QuantHardSwish)


def _grid(layer: Any) -> Grid | None:
    if isinstance(layer, InputQuant):
        return Grid(layer.low, layer.high, 8, layer)
    if isinstance(layer, FakeQuant):
        return Grid(*layer.range, layer.bits) if layer.range else None
    return Grid(*grid_around(0.0, 1.0, layer.bits), layer.bits)
