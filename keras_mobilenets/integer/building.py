"""Builds the Keras model that computes a file's graph of integers."""

from __future__ import annotations

from typing import Any

import keras

from keras_mobilenets.integer.layer import IntegerInput, IntegerOutput, Quantization
from keras_mobilenets.integer.steps import MAKERS, Place, Step, quantization_of
from keras_mobilenets.tflite.file import Graph, Operator, Tensor


class Builder:
    """Walks a graph's operators in the order in which they run, and makes a layer of each.

    Args:
        graph: of a full-integer file.
        kernels: see `integer_model`.
        logits: whether to end before the softmax.
    """

    def __init__(self, graph: Graph, kernels: str, logits: bool = False):
        self.graph = graph
        self.kernels = kernels
        self.logits = logits
        self.values: dict[int, Any] = {}
        self.ranges: dict[int, int] = {}  # the largest magnitude that a tensor's integers can have

    def build(self) -> keras.Model:
        """The model."""
        inputs = [self._input(self.graph.tensors[index]) for index in self.graph.inputs]
        before: dict[int, int] = {}  # of each softmax, and of what comes behind it, the tensor in front of it
        for operator in self.graph.operators:
            source, result = operator.inputs[0], operator.outputs[0]
            if self.logits and (operator.name == "SOFTMAX" or source in before):
                before[result] = before.get(source, source)
            else:
                self._add(operator)
        outputs = [before.get(index, index) for index in self.graph.outputs]
        results = [self._output(self.graph.tensors[index]) for index in outputs]
        return keras.Model(_one_or_all(inputs), _one_or_all(results))

    def _input(self, tensor: Tensor) -> Any:
        quantization = quantization_of(tensor)
        inputs = keras.Input(tensor.shape[1:], dtype=quantization.dtype)
        layer = IntegerInput(inputs=[], output=vars(quantization), name=f"input_{tensor.index}")
        self._set(tensor.index, layer(inputs), quantization)
        return inputs

    def _output(self, tensor: Tensor) -> Any:
        layer = IntegerOutput(inputs=[], output=vars(quantization_of(tensor)), name=f"output_{tensor.index}")
        return layer(self.values[tensor.index])

    def _set(self, index: int, value: Any, quantization: Quantization, activation: str = "NONE") -> None:
        self.values[index] = value
        self.ranges[index] = max(abs(end) for end in quantization.clamp(activation))

    def _add(self, operator: Operator) -> None:
        for number, (tensor, step) in enumerate(steps_of(self.graph, operator, self.kernels, self.ranges)):
            name = f"op_{operator.index}" + (f"_{number}" if number else "")
            layer = step.cls(**step.config, name=name)
            sources = [self.values[source.index] for source in step.sources]
            value = layer(_one_or_all(sources))
            if step.weights:
                layer.set_arrays(**step.weights)
            self._set(tensor.index, value, layer.output_quantization, layer.activation)


def steps_of(graph: Graph, operator: Operator, kernels: str, ranges: dict[int, int]) -> list[tuple[Tensor, Step]]:
    """What computes each of an operator's outputs.

    Raises:
        ValueError: there is no arithmetic for it.
    """
    make = MAKERS.get(operator.name)
    if make is None:
        raise ValueError(
            f"There is no integer arithmetic for operation {operator.index}, {operator.name}. "
            f"Known: {', '.join(sorted(MAKERS))}."
        )
    place = Place(operator, graph.operands(operator), graph.results(operator), kernels, ranges)
    steps = make(place)
    return list(zip(place.results, steps if isinstance(steps, list) else [steps], strict=True))


def _one_or_all(tensors: list[Any]) -> Any:
    return tensors if len(tensors) > 1 else tensors[0]
