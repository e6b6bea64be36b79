"""A model in the operations of its file, where another converter than this package's wrote them otherwise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_mobilenets.graph import Graph as KerasGraph
from keras_mobilenets.graph import Node
from keras_mobilenets.interop.from_tflite_steps import SIX, Step
from keras_mobilenets.interop.from_tflite_weights import (
    Pairs,
    entry_of,
    fronts_of,
    own_weights,
    pixels_of,
    reads_pixels,
    takes_floats,
)
from keras_mobilenets.layers import inline
from keras_mobilenets.quantization.config import QuantizeConfig
from keras_mobilenets.quantization.forms import Join, Scaling
from keras_mobilenets.tflite.file import Graph, Tensor


class Written:
    """A float model that is computed operation by operation as a file is, so that its twin can round as the file does.

    Images come in on the file's own grid of pixels, a mean is a pooling where the file pools, a gate or hard-swish that
    the file has in several operations is one of several layers, a ReLU clips where the file does.

    Args:
        file: the graph of the file.
        model: the model that matches it, with its weights. It shares its layers.
        pairs: of both.

    Attributes:
        model: the rewritten one.
        steps: for each layer's name the step of the file whose value it has.
        configs: for `quantize_model`, of values that have a grid of their own in the file.
        input_range: for `quantize_model`.
    """

    def __init__(self, file: Graph, model: keras.Model, pairs: Pairs):
        self.file = file
        self.steps: dict[str, Step] = {name: found for found, step in pairs for name in step.names}
        self.configs: dict[str | type, QuantizeConfig] = {}
        self.input_range: Any = (-1.0, 1.0)
        self._readers, self._partners = _readers(pairs), dict(pairs)
        self._nodes: dict[Step, Node] = {}
        self._graph = KerasGraph.of(inline(model))
        for node in list(self._graph.nodes):
            if node.name in self.steps:
                self._rewrite(node, self.steps[node.name])
        self._take_pixels(pairs)
        self.model = self._graph.build(lambda node, args, kwargs: node.layer(*args, **kwargs))

    def _rewrite(self, node: Node, found: Step) -> None:
        layer = node.layer
        if self._is_apart(found):
            self._take_apart(node, found)
            return
        if isinstance(layer, keras.layers.GlobalAveragePooling2D) and found.operator.name == "AVERAGE_POOL_2D":
            node = self._pool(node)
        elif isinstance(layer, keras.layers.ReLU):
            node.layer = _clamp(found, layer.name)
        elif isinstance(layer, keras.layers.Concatenate):
            self._join(node, found)
        self._nodes[found] = node

    def _pool(self, node: Node) -> Node:
        """A pooling over the whole map, which keeps the grid."""
        layer, source = node.layer, node.inputs[0].tensor
        shape = (source.shape[0], 1, 1, source.shape[-1])
        node.layer = keras.layers.AveragePooling2D(source.shape[1:3], name=f"{layer.name}_pool")
        self.steps[node.name] = self.steps[layer.name]
        flat, node.tensor = node.tensor, keras.KerasTensor(shape, source.dtype)
        if flat.shape == shape:
            return node
        moved = Node(keras.layers.Reshape(flat.shape[1:], name=layer.name), (node,), tensor=flat)
        self._graph.insert_after(node, moved)
        return moved

    def _is_apart(self, found: Step) -> bool:
        """Whether the file has several operations for a gate or a hard-swish, which come to its true size."""
        if found.kind == "hard_swish":
            return bool(found.written) and (found.factor == 1.0 or self._scaled(found) is not None)
        return found.kind == "hard_sigmoid" and self._scaled(found) is not None

    def _scaled(self, found: Step) -> Step | None:
        """The factor that alone reads a step, and brings it to its true size."""
        readers = self._readers.get(found, [])
        return readers[0] if readers and all(one.kind == "scale" and one.factor == 1.0 for one in readers) else None

    def _take_apart(self, node: Node, found: Step) -> None:
        """Puts the operations of the file in place of one layer."""
        end = self._write(found, node.name)
        if (scaled := self._scaled(found)) is not None:
            end = self._write(scaled, node.name)
        self._graph.redirect(node, end)
        self._graph.nodes.remove(node)

    def _write(self, step: Step, name: str) -> Node:
        """The node that computes a step."""
        if step in self._nodes:
            return self._nodes[step]
        sources = [self._write(one, name) for one in step.written or step.sources if one is not None]
        layers: list[Any] = [keras.layers.Multiply(name=f"{name}_product")]
        if step.kind == "hard_sigmoid":
            layers = [_clamp(step, f"{name}_relu6")]
            if step.constant:
                layers.insert(0, Scaling(1.0, step.constant, name=f"{name}_sum"))
            else:  # the convolution adds it
                gate = step.sources[0]
                assert gate is not None
                layer, norm = self._own_layers(self._partners[gate])
                bias = norm.beta if norm is not None else layer.bias
                bias.assign(bias + gate.offset)
        elif step.kind == "scale":
            layers = [Scaling(step.constant, name=f"{name}_times_{step.operator.index}")]
        node = self._insert(layers, sources)
        self._nodes[step], self.steps[node.name] = node, replace(step, factor=1.0)
        return node

    def _insert(self, layers: list[Any], sources: list[Node]) -> Node:
        """Adds layers one behind the other, behind all sources; gives the last node."""
        given: Any = sources if len(sources) > 1 else sources[0]
        place = max(map(self._graph.nodes.index, sources))
        for number, layer in enumerate(layers, 1):
            given = Node(layer, (given,), tensor=sources[0].tensor)
            self._graph.nodes.insert(place + number, given)
        return given

    def _join(self, node: Node, found: Step) -> None:
        """A concatenation that rounds its parts, or parts that have been rounded before."""
        whole, parts = _grid(found.tensor), self.file.operands(found.operator)
        if any(part is not None and _grid(part) != whole for part in parts):
            node.layer = Join.from_config(node.layer.get_config())
            return
        for source, part in zip(found.sources, node.inputs, strict=True):
            if source is not None and source.tensor is not None and _grid(source.tensor) != whole:
                self.configs[part.name] = QuantizeConfig(observer="moving_average")

    def _take_pixels(self, pairs: Pairs) -> None:
        """Lets images in on the grid of the file's pixels, and gives the first kernel its own size for them."""
        found, step = next(pair for pair in pairs if reads_pixels(pair[0]))
        start = next(node for node in self._graph.nodes if node.is_input)
        layers: list[Any] = [keras.layers.Rescaling(*pixels_of(self.file, found), name=f"{start.name}_pixels")]
        if takes_floats(self.file):
            self.input_range = {start.name: None}
            self.steps[layers[0].name] = Step("front", [], tensor=entry_of(self.file, found))
        for one in fronts_of(found):
            numbers = (one.constant, 0.0) if one.operator.name == "MUL" else (1.0, one.constant)
            layers.append(Scaling(*numbers, name=f"{start.name}_{one.operator.index}"))
            self.steps[layers[-1].name] = one
        readers = self._graph.consumers()[start]
        end = self._insert(layers, [start])
        for reader in readers:
            reader.args, reader.kwargs = reader.substitute(lambda one: end if one is start else one)
        kernel, bias = own_weights(self.file, found)
        layer, norm = self._own_layers(step)
        if norm is not None:
            norm.beta.assign(bias + np.asarray(norm.moving_mean))
        weights = [kernel.reshape(layer.kernel.shape)]
        layer.set_weights([*weights, bias] if layer.use_bias else weights)

    def _own_layers(self, step: Step) -> tuple[Any, Any]:
        """The kernel's layer and its normalization in this model, which may be a copy of the one that matched."""
        layers = {node.name: node.layer for node in self._graph.nodes}
        return layers[step.layer.name], step.norm and layers[step.norm.name]


def _clamp(found: Step, name: str) -> keras.layers.ReLU:
    """A ReLU that clips where the file does: at 6 if that is written, or if the range of the result ends there."""
    high = found.range[1] * found.factor
    ends_before = round(SIX / float(found.tensor.scales[0])) >= round(high / float(found.tensor.scales[0]))
    return keras.layers.ReLU(SIX if found.activation == "RELU6" or ends_before else None, name=name)


def _grid(tensor: Tensor) -> tuple[float, int, str]:
    return float(tensor.scales[0]), int(tensor.zero_points[0]), tensor.dtype


def _readers(pairs: Pairs) -> dict[Step, list[Step]]:
    """The steps of a file that read each of its steps."""
    readers: dict[Step, list[Step]] = {}
    waiting, seen = [found for found, _ in pairs], set[Step]()
    while waiting:
        step = waiting.pop()
        if step in seen:
            continue
        seen.add(step)
        for source in step.written or step.sources:
            if source is not None:
                readers.setdefault(source, []).append(step)
                waiting.append(source)
    return readers
