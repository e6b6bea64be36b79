"""Ends a graph earlier: in front of a softmax, whose flatness hides what differs, or of the choice of boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from keras_mobilenets.tflite.edit.answers import POSTPROCESS
from keras_mobilenets.tflite.edit.slim import pack
from keras_mobilenets.tflite.file import Graph, Source, read_tflite, unpack
from keras_mobilenets.tflite.sizes import KERNEL_OPERATIONS


def in_front_of_softmax(graph: Graph) -> dict[int, int]:
    """For each tensor between the softmax of an output and the output, the tensor that the softmax reads.

    What is computed of a softmax with kernels or other feature maps is not its answer any more: attention has one, too.
    """
    before: dict[int, int] = {}
    for operator in graph.operators:
        source, *others = (one for one in operator.inputs if one >= 0 and graph.tensors[one].data is None)
        shows = source in before and all(one in before for one in others) and operator.name not in KERNEL_OPERATIONS
        if operator.name == "SOFTMAX" or shows:
            before.update(dict.fromkeys(operator.outputs, before.get(source, source)))
    leading = set(graph.outputs)
    for operator in reversed(graph.operators):
        if leading & before.keys() & set(operator.outputs):
            leading.update(operator.inputs)
    return {index: source for index, source in before.items() if index in leading}


def without_softmax(source: Source) -> bytes | None:
    """The content of the same file without the softmax of its outputs, and without names; None where it has none."""
    file = read_tflite(source)
    before = in_front_of_softmax(file.graph)
    if not any(index in before for index in file.graph.outputs):
        return None
    kept = _ending_at(file.graph, [before.get(index, index) for index in file.graph.outputs])
    model: Any = unpack(file.content)
    graph = model.subgraphs[0]
    graph.outputs = list(kept.outputs)
    graph.operators = [graph.operators[one.index] for one in kept.operators]
    model.signatureDefs, model.metadata = [], []  # which tell of the outputs
    return pack(model)


def without_choice(graph: Graph) -> Graph:
    """The graph up to the choice of boxes, if it has one: boxes and scores are its outputs, integers if they are."""
    choice = next((one for one in graph.operators if one.name == POSTPROCESS), None)
    if choice is None:
        return graph
    integers = {one.outputs[0]: one.inputs[0] for one in graph.operators if one.name == "DEQUANTIZE"}
    return _ending_at(graph, [integers.get(index, index) for index in choice.inputs[:2]])


def _ending_at(graph: Graph, outputs: Sequence[int]) -> Graph:
    """The graph up to these tensors, without operations that only others need."""
    needed, kept = set(outputs), []
    for operator in reversed(graph.operators):
        if needed.intersection(operator.outputs):
            needed.update(operator.inputs)
            kept.append(operator)
    return replace(graph, operators=tuple(reversed(kept)), outputs=tuple(outputs))
