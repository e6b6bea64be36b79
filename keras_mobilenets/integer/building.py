"""Builds the Keras model that computes a file's graph of integers."""

from __future__ import annotations

from typing import Any

import keras

from keras_mobilenets.integer.layer import IntegerInput, IntegerOutput, NotInteger
from keras_mobilenets.integer.steps import MAKERS, Place, Step, quantization_of
from keras_mobilenets.tflite.edit.endings import in_front_of_softmax
from keras_mobilenets.tflite.file import Graph, Operator, Tensor


class Builder:
    """Walks a graph's operators in the order in which they run, and makes a layer of each.

    Args:
        graph: of a full-integer file.
        kernels: see `integer_model`.
        logits: whether to end before the softmax.

    Attributes:
        layers: of each operator's outputs, in order.
    """

    def __init__(self, graph: Graph, kernels: str = "xnnpack", logits: bool = False):
        self.graph = graph
        self.kernels = kernels
        self.logits = logits
        self.values: dict[int, Any] = {}
        self.layers: list[Any] = []

    def model(self) -> keras.Model:
        """The model from the file's integers to the file's integers."""
        inputs = []
        for index in self.graph.inputs:
            quantization = quantization_of(self.graph.tensors[index])
            inputs.append(keras.Input(self.graph.tensors[index].shape[1:], dtype=quantization.dtype))
            self.values[index] = self.border(IntegerInput, "input", index)(inputs[-1])
        results = [self.border(IntegerOutput, "output", index)(self.values[index]) for index in self.run()]
        return keras.Model(_one_or_all(inputs), _one_or_all(results))

    def border(self, cls: type, name: str, index: int, **config: Any) -> Any:
        """A layer where integers begin or end."""
        output = vars(quantization_of(self.graph.tensors[index]))
        return cls(inputs=[], output=output, name=f"{name}_{index}", **config)

    def run(self) -> list[int]:
        """Computes all operators from the `values` of the inputs; gives the indices of the outputs."""
        before = in_front_of_softmax(self.graph) if self.logits else {}
        for operator in self.graph.operators:
            if operator.outputs[0] not in before:
                self._add(operator)
        return [before.get(index, index) for index in self.graph.outputs]

    def _add(self, operator: Operator) -> None:
        for number, (tensor, step) in enumerate(steps_of(self.graph, operator, self.kernels)):
            name = f"op_{operator.index}" + (f"_{number}" if number else "")
            layer = step.cls(**step.config, name=name)
            self.layers.append(layer)
            self.values[tensor.index] = layer(_one_or_all([self.values[source.index] for source in step.sources]))
            if step.weights:
                layer.set_arrays(**step.weights)


def steps_of(graph: Graph, operator: Operator, kernels: str) -> list[tuple[Tensor, Step]]:
    """What computes each of an operator's outputs.

    Raises:
        NotInteger: there is no arithmetic for it.
    """
    make = MAKERS.get(operator.name)
    if make is None:
        raise NotInteger(
            f"There is no integer arithmetic for operation {operator.index}, {operator.name}. "
            f"Known: {', '.join(sorted(MAKERS))}."
        )
    place = Place(operator, graph.operands(operator), graph.results(operator), kernels)
    steps = make(place)
    return list(zip(place.results, steps if isinstance(steps, list) else [steps], strict=True))


def _one_or_all(tensors: list[Any]) -> Any:
    return tensors if len(tensors) > 1 else tensors[0]
