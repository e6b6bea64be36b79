"""The choice of boxes as an operation inside the file: TFLite_Detection_PostProcess, which every runtime has.

Its options and the order of its outputs: tensorflow/lite/kernels/detection_postprocess.cc. It reads floats, so that
integers are dequantized in front of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from flatbuffers import flexbuffers

from keras_mobilenets.tflite.file import schema

OPERATION = "TFLite_Detection_PostProcess"
RESULTS = ("boxes", "labels", "scores", "count")
"""Its outputs, in its order, each float32: (1, most, 4) `rel_yxyx`; (1, most) twice; (1,)."""


def add_postprocess(model: Any, outputs: Mapping[str, int], anchors: np.ndarray, options: Mapping[str, Any]) -> None:
    """Puts the operation behind a graph's outputs, in a flatbuffer object tree, and makes its results the outputs.

    Args:
        model: of a detector that gives encoded boxes (1, anchors, 4) and scores (1, anchors, classes).
        outputs: "boxes" and "scores": their places among the graph's outputs.
        anchors: (anchors, 4) as (y, x, height, width) in shares of the image.
        options: of the operation, by its own names.
    """
    graph = model.subgraphs[0]
    read = [_as_float(model, graph, graph.outputs[outputs[name]]) for name in ("boxes", "scores")]
    read.append(_add_tensor(graph, "anchors", anchors.shape, _add_buffer(model, anchors.astype("<f4"))))
    most = options["max_detections"]
    shapes = ((1, most, 4), (1, most), (1, most), (1,))
    written = [_add_tensor(graph, name, shape) for name, shape in zip(RESULTS, shapes, strict=True)]
    custom = schema.BuiltinOperator.CUSTOM
    operator = _add_operator(model, graph, custom, read, written, OPERATION)
    operator.customOptions = np.frombuffer(flexbuffers.Dumps(dict(options)), np.uint8)
    graph.outputs = np.array(written, np.int32)
    for signature in model.signatureDefs or ():
        signature.outputs = []
        for name, index in zip(RESULTS, written, strict=True):
            entry = schema.TensorMapT()
            entry.name, entry.tensorIndex = name, index
            signature.outputs.append(entry)


def _as_float(model: Any, graph: Any, index: int) -> int:
    tensor = graph.tensors[index]
    if tensor.type == schema.TensorType.FLOAT32:
        return index
    result = _add_tensor(graph, f"{_text(tensor.name)}_float", tensor.shape)
    _add_operator(model, graph, schema.BuiltinOperator.DEQUANTIZE, [index], [result], version=2)
    return result


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else name or ""


def _add_buffer(model: Any, values: np.ndarray) -> int:
    model.buffers.append(schema.BufferT(np.frombuffer(values.tobytes(), np.uint8)))
    return len(model.buffers) - 1


def _add_tensor(graph: Any, name: str, shape: Any, buffer: int = 0) -> int:
    tensor = schema.TensorT(np.array(shape, np.int32), schema.TensorType.FLOAT32, buffer, name)
    tensor.hasRank = True
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _add_operator(
    model: Any,
    graph: Any,
    number: int,
    read: list[int],
    written: list[int],
    custom: str | None = None,
    version: int = 1,
) -> Any:
    deprecated = min(number, schema.BuiltinOperator.PLACEHOLDER_FOR_GREATER_OP_CODES)
    model.operatorCodes.append(schema.OperatorCodeT(deprecated, custom, version, number))
    inputs, outputs = (np.array(indices, np.int32) for indices in (read, written))
    graph.operators.append(schema.OperatorT(len(model.operatorCodes) - 1, inputs, outputs))
    return graph.operators[-1]
