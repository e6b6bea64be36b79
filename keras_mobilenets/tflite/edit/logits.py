"""Ends a file in front of its softmax, whose flatness hides what differs."""

from __future__ import annotations

from typing import Any

from keras_mobilenets.tflite.edit.slim import pack
from keras_mobilenets.tflite.file import Graph, Source, read_tflite, unpack


def in_front_of_softmax(graph: Graph) -> dict[int, int]:
    """For each tensor that a softmax gives, and for each that is made of it, the tensor that the softmax reads."""
    before: dict[int, int] = {}
    for operator in graph.operators:
        source = operator.inputs[0]
        if operator.name == "SOFTMAX" or source in before:
            before.update(dict.fromkeys(operator.outputs, before.get(source, source)))
    return before


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
