"""Reads a `.tflite` file into steps, without TensorFlow."""

from __future__ import annotations

import os
from pathlib import Path

from keras_mobilenets.analysis.program import (
    CONNECTED,
    POINTWISE,
    POOLING,
    Program,
    Step,
    kind_by_shape,
    with_kinds_of_use,
)
from keras_mobilenets.tflite import read_tflite
from keras_mobilenets.tflite.audit import multiply_adds
from keras_mobilenets.tflite.file import Graph, Operator, Tensor

POOLINGS = ("AVERAGE_POOL_2D", "MAX_POOL_2D", "MEAN", "REDUCE_MAX")
WITH_KERNEL = {
    "CONV_2D": "conv",
    "DEPTHWISE_CONV_2D": "depthwise",
    "TRANSPOSE_CONV": "transposed conv",
    "FULLY_CONNECTED": CONNECTED,
}
UNCOUNTED = ("BATCH_MATMUL", "CONV_3D", "LSTM", "UNIDIRECTIONAL_SEQUENCE_LSTM", "WHILE", "IF")


def tflite_program(source: str | os.PathLike[str] | bytes) -> Program:
    """The steps of a `.tflite` file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a `.tflite` file, or it is truncated or damaged.
    """
    graph = read_tflite(source).graph
    computed = {*graph.inputs, *(index for operator in graph.operators for index in operator.outputs)}
    counted: set[int] = set()
    unpacked = _unpacked_constants(graph)
    steps = [
        _step(graph, operator, computed - unpacked.keys(), unpacked, counted)
        for operator in graph.operators
        if operator.outputs[0] not in unpacked
    ]
    program = Program(
        name="model" if isinstance(source, bytes) else Path(source).name,
        steps=tuple(steps),
        shapes={index: graph.tensors[index].shape[1:] for index in computed},
        inputs=graph.inputs,
        outputs=graph.outputs,
    )
    return with_kinds_of_use(program)


def _unpacked_constants(graph: Graph) -> dict[int, Tensor]:
    """What DEQUANTIZE makes of the 16-bit constants of a float16 file, and those constants."""
    return {
        operator.outputs[0]: graph.operand(operator, 0)
        for operator in graph.operators
        if operator.name == "DEQUANTIZE" and graph.operand(operator, 0).is_constant
    }


def _step(graph: Graph, operator: Operator, computed: set[int], unpacked: dict[int, Tensor], counted: set[int]) -> Step:
    inputs = tuple(index for index in operator.inputs if index in computed)
    weights = []
    for place, index in enumerate(operator.inputs):
        tensor = unpacked.get(index) or (graph.tensors[index] if index >= 0 else None)
        if tensor is not None and _is_weight(tensor) and tensor.buffer not in counted:
            counted.add(tensor.buffer)
            weights.append((tensor.size, _integer_bytes(operator, place, tensor)))
    result = graph.results(operator)[0]
    return Step(
        name=result.name or f"{operator.name.lower()}_{operator.index}",
        operation=operator.name,
        kind=_kind(graph, operator, inputs),
        inputs=inputs,
        outputs=operator.outputs,
        parameters=sum(size for size, _ in weights),
        madds=multiply_adds(graph, operator),
        weight_bytes=(sum(4 * size for size, _ in weights), sum(integer for _, integer in weights)),
        is_counted=operator.name not in UNCOUNTED,
    )


def _is_weight(tensor: Tensor) -> bool:
    """Constants that are numbers to compute with; the others are shapes and axes."""
    return tensor.is_constant and (tensor.is_float or len(tensor.scales) > 0)


def _integer_bytes(operator: Operator, place: int, weight: Tensor) -> int:
    """In an integer file: four for each number of a bias, one elsewhere."""
    return weight.size * (4 if operator.name in WITH_KERNEL and place == 2 else 1)


def _kind(graph: Graph, operator: Operator, inputs: tuple[int, ...]) -> str:
    kind = WITH_KERNEL.get(operator.name)
    if kind is None:
        if operator.name in POOLINGS:
            return POOLING
        return kind_by_shape([graph.tensors[one].shape for one in inputs], graph.results(operator)[0].shape)
    if kind == CONNECTED:
        return kind
    height, width = graph.operand(operator, 1).shape[1:3]
    return POINTWISE if kind == "conv" and (height, width) == (1, 1) else f"{kind} {height}x{width}"
