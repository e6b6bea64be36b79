"""A quantized model as a model on integers, which takes over weights and ranges as they change."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_mobilenets.graph import Graph as KerasGraph
from keras_mobilenets.graph import Node
from keras_mobilenets.integer.building import Builder, steps_of
from keras_mobilenets.integer.layer import IntegerEntry, IntegerExit
from keras_mobilenets.integer.steps import quantization_of
from keras_mobilenets.layers import inline
from keras_mobilenets.quantization.integers import IntegerDeployment
from keras_mobilenets.quantization.quantizers import InputQuant, Quantizer
from keras_mobilenets.quantization.roles import Role, role_of
from keras_mobilenets.tflite.edit.endings import in_front_of_softmax
from keras_mobilenets.tflite.file import Graph


class IntegerView:
    """The function of a quantized model in the runtime's arithmetic, on the model's own inputs.

    Args:
        model: the quantized model.

    Attributes:
        model: the same function as a Keras model; its numbers are variables, which `refresh` sets.
        logits: the same without the softmax of its outputs; None where it has none.

    Raises:
        NotInteger: the quantized model has no ranges yet, or computes something that has no integer form.
    """

    def __init__(self, model: keras.Model):
        self.deployment = IntegerDeployment.of(model, KerasGraph.of(inline(model)))
        graph = self.deployment.run()
        self.steps = _steps(graph)
        self.builder = Builder(graph)
        self.borders: list[tuple[Any, int, dict[str, Any]]] = []  # layers where integers begin or end, and where
        self.model, self.logits = self._build(graph)

    @property
    def variables(self) -> list[Any]:
        """The numbers of all operations."""
        layers = [*self.builder.layers, *(layer for layer, _, _ in self.borders)]
        return [variable for layer in layers for variable in layer.variables]

    def refresh(self) -> bool:
        """Takes over weights and ranges as they are now; False where these need other operations."""
        graph = self.deployment.run()
        steps = _steps(graph)
        if list(map(_structure, steps)) != list(map(_structure, self.steps)):
            return False
        for layer, step in zip(self.builder.layers, steps, strict=True):
            layer.adopt(**step.config)
            if step.weights:
                layer.set_arrays(**step.weights)
        for layer, index, own in self.borders:
            layer.adopt([], **_border(graph, index), **own)
        return True

    def _build(self, graph: Graph) -> tuple[keras.Model, keras.Model | None]:
        twin, front = self.deployment.graph, self.deployment.front
        inputs: dict[Node, Any] = {}
        values: dict[Node, Any] = {}
        starts = iter(graph.inputs)
        for node in twin.nodes:
            if node.is_input:
                values[node] = inputs[node] = keras.Input(
                    batch_shape=node.tensor.shape, dtype=node.tensor.dtype, name=node.name
                )
            elif node in front:
                args, kwargs = node.substitute(values.__getitem__)
                values[node] = args[0] if role_of(node.layer) is Role.TRAINING else node.layer(*args, **kwargs)
            elif isinstance(node.layer, Quantizer) and node.inputs[0] in values:
                index, (source, pixels) = next(starts), self._picture(node)
                own = {"pixels": pixels}
                self.builder.values[index] = self._border(IntegerEntry, graph, index, own)(values[source])
        inputs, ends = keras.tree.map_structure(inputs.__getitem__, twin.inputs), self.builder.run()
        before = in_front_of_softmax(graph)
        logits = [before.get(index, index) for index in ends]
        outputs = keras.tree.pack_sequence_as(twin.outputs, self._real(graph, ends))
        return keras.Model(inputs, outputs), keras.Model(inputs, self._real(graph, logits)) if before else None

    def _picture(self, node: Node) -> tuple[Node, tuple[Any, Any] | None]:
        """What a quantizer's integers are rounded from, and (factor, offset) that make pixels of it.

        As a file does, from the picture itself, unless that is brought to size: half a pixel, which resized pictures
        are full of, would fall to either side once it has been scaled.
        """
        source, layer = node.inputs[0], node.layer
        if not isinstance(layer, InputQuant):
            return source, None
        scale, offset = 1.0, 0.0
        front = next((one for one in self.deployment.fronts.values() if one.end is source), None)
        if front is not None and not front.sizing:
            source, (scale, offset) = front.start, front.affine
        return source, tuple((np.asarray(one) / layer.scale).tolist() for one in (scale, offset - layer.low))

    def _real(self, graph: Graph, indices: list[int]) -> list[Any]:
        return [
            self._border(IntegerExit, graph, index, {}, len(self.borders))(self.builder.values[index])
            for index in indices
        ]

    def _border(self, cls: type, graph: Graph, index: int, own: dict[str, Any], number: int = 0) -> Any:
        layer = cls(inputs=[], **_border(graph, index), **own, name=f"{cls.__name__.lower()}_{index}_{number}")
        self.borders.append((layer, index, own))
        return layer


def _border(graph: Graph, index: int) -> dict[str, Any]:
    return {"output": vars(quantization_of(graph.tensors[index]))}


def _steps(graph: Graph) -> list[Any]:
    return [step for operator in graph.operators for _, step in steps_of(graph, operator, "xnnpack")]


def _structure(step: Any) -> tuple[Any, ...]:
    """What of a step is compiled."""
    numbers = ("inputs", "output", "kernel_scales")
    return step.cls, {key: value for key, value in step.config.items() if key not in numbers}
