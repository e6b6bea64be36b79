"""Ends a file in front of its softmax, whose flatness hides what differs."""

from __future__ import annotations

from typing import Any

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
    model: Any = unpack(file.content)
    graph = model.subgraphs[0]
    graph.outputs = [before.get(index, index) for index in file.graph.outputs]
    graph.operators = [one for one in graph.operators if not before.keys() & set(map(int, one.outputs))]
    model.signatureDefs, model.metadata = [], []  # which tell of the outputs
    return pack(model)
