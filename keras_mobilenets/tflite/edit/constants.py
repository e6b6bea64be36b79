"""Constants of a flatbuffer object tree are shared: who changes one asks who else reads it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from keras_mobilenets.tflite.file import schema


def set_constant(model: Any, graph: Any, operator: Any, place: int, values: np.ndarray, kind: int) -> Any:
    """Gives an operation another constant to read at a place; what all others read stays as it is.

    Args:
        model, graph, operator: of the object tree, `operator` in `graph`, which is in `model`.
        place: among the inputs of `operator`.
        values: of the constant.
        kind: its number in the schema's `TensorType`.

    Returns:
        The tensor, which only `operator` reads.
    """
    index = int(operator.inputs[place])
    readers = sum(int(np.count_nonzero(np.asarray(one.inputs) == index)) for one in graph.operators)
    if readers > 1 or index in graph.outputs:
        graph.tensors.append(copy.deepcopy(graph.tensors[index]))
        index = len(graph.tensors) - 1
        operator.inputs = np.array(operator.inputs, np.int32)
        operator.inputs[place] = index
    tensor = graph.tensors[index]
    model.buffers.append(schema.BufferT(np.frombuffer(values.tobytes(), np.uint8)))  # buffers may be shared, too
    tensor.buffer, tensor.type, tensor.shape = len(model.buffers) - 1, kind, np.array(values.shape, np.int32)
    return tensor
