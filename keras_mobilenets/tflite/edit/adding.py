"""Tensors, constants and operations that are added to a flatbuffer object tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_mobilenets.tflite.file import schema


def add_buffer(model: Any, values: np.ndarray) -> int:
    """Stores a constant; its number."""
    model.buffers.append(schema.BufferT(np.frombuffer(values.tobytes(), np.uint8)))
    return len(model.buffers) - 1


def add_tensor(
    graph: Any,
    shape: Sequence[int],
    kind: int,
    *,
    name: str | None = None,
    buffer: int = 0,
    quantization: Any = None,
) -> int:
    """Adds a tensor of a kind of the schema's `TensorType`; its number."""
    tensor = schema.TensorT(np.array(shape, np.int32), kind, buffer, name, quantization=quantization)
    tensor.hasRank = True
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def grid(scale: float, zero_point: int) -> Any:
    """The quantization of a whole tensor."""
    return schema.QuantizationParametersT(
        scale=np.array([scale], np.float32), zeroPoint=np.array([zero_point], np.int64)
    )


def operation(
    model: Any,
    name: str,
    read: Sequence[int],
    written: Sequence[int],
    *,
    version: int = 1,
    custom: str | None = None,
    options: Any = None,
) -> Any:
    """An operation that belongs to no graph yet.

    Args:
        model: whose list of operations it is added to if need be.
        name: of the schema's `BuiltinOperator`.
        read, written: numbers of tensors.
        version: the first that takes what it reads.
        custom: of CUSTOM its name.
        options: of the schema's, for instance `AddOptionsT`.
    """
    made = schema.OperatorT(_code(model, name, version, custom), np.array(read, np.int32), np.array(written, np.int32))
    if options is not None:
        made.builtinOptions = options
        made.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
    return made


def _code(model: Any, name: str, version: int, custom: str | None) -> int:
    number, wanted = getattr(schema.BuiltinOperator, name), custom and custom.encode()
    for index, code in enumerate(model.operatorCodes):
        same = max(code.builtinCode, code.deprecatedBuiltinCode) == number and code.customCode == wanted
        if same and code.version >= version:
            return index
    deprecated = min(number, schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES)
    model.operatorCodes.append(schema.OperatorCodeT(deprecated, wanted, version, number))
    return len(model.operatorCodes) - 1
