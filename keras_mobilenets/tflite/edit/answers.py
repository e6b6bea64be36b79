"""What makes answers of a network's outputs as operations inside the file: chosen boxes, the class of each pixel.

TFLite_Detection_PostProcess is in every runtime. Its options and the order of its outputs:
tensorflow/lite/kernels/detection_postprocess.cc. It reads floats, so that integers are dequantized in front of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from flatbuffers import flexbuffers

from keras_mobilenets.tflite.edit.adding import add_buffer, add_tensor, operation
from keras_mobilenets.tflite.file import schema, text

POSTPROCESS = "TFLite_Detection_PostProcess"
RESULTS = ("boxes", "labels", "scores", "count")
"""What the operation writes, in its order, each float32: (1, most, 4) `rel_yxyx`; (1, most) twice; (1,)."""


def add_postprocess(model: Any, names: Sequence[str], anchors: np.ndarray, options: Mapping[str, Any]) -> None:
    """Puts the operation behind a graph's outputs, in a flatbuffer object tree, and makes its results the outputs.

    Args:
        model: of a detector that gives encoded boxes (1, anchors, 4) and scores (1, anchors, classes).
        names: of boxes and of scores in the signature.
        anchors: (anchors, 4) as (y, x, height, width) in shares of the image.
        options: of the operation, by its own names.
    """
    graph, floats = model.subgraphs[0], schema.TensorType.FLOAT32
    read = [_as_float(model, graph, _output(model, name)) for name in names]
    read.append(
        add_tensor(graph, anchors.shape, floats, name="anchors", buffer=add_buffer(model, anchors.astype("<f4")))
    )
    most = options["max_detections"]
    shapes = ((1, most, 4), (1, most), (1, most), (1,))
    written = [add_tensor(graph, shape, floats, name=name) for name, shape in zip(RESULTS, shapes, strict=True)]
    choice = operation(model, "CUSTOM", read, written, custom=POSTPROCESS)
    choice.customOptions = np.frombuffer(flexbuffers.Dumps(dict(options)), np.uint8)
    graph.operators.append(choice)
    _set_outputs(model, dict(zip(RESULTS, written, strict=True)))


def drop_first_column(model: Any, name: str) -> None:
    """Leaves the background out of the scores that a signature knows by a name, for those who read classes only."""
    graph, index = model.subgraphs[0], _output(model, name)
    tensor = graph.tensors[index]
    shape = [int(size) for size in tensor.shape]
    shape[-1] -= 1
    begin = np.array([0] * (len(shape) - 1) + [1], "<i4")
    ends = [
        add_tensor(graph, begin.shape, schema.TensorType.INT32, buffer=add_buffer(model, values))
        for values in (begin, np.array(shape, "<i4"))
    ]
    result = add_tensor(graph, shape, tensor.type, name=name, quantization=tensor.quantization)
    tensor.name = f"{name}_and_background"
    graph.operators.append(
        operation(model, "SLICE", [index, *ends], [result], version=2, options=schema.SliceOptionsT())
    )
    outputs = {text(one.name): one.tensorIndex for one in model.signatureDefs[0].outputs}
    _set_outputs(model, outputs | {name: result})


def add_argmax(model: Any, name: str) -> None:
    """Puts the number of the largest entry of the last axis in place of the output that a signature knows by a name."""
    graph, index = model.subgraphs[0], _output(model, name)
    tensor, kinds = graph.tensors[index], schema.TensorType
    axis = add_tensor(graph, [], kinds.INT32, buffer=add_buffer(model, np.array(len(tensor.shape) - 1, "<i4")))
    numbers = add_tensor(graph, tensor.shape[:-1], kinds.INT32, name=name)
    tensor.name = f"{name}_scores"
    options = schema.ArgMaxOptionsT(kinds.INT32)
    graph.operators.append(operation(model, "ARG_MAX", [index, axis], [numbers], version=2, options=options))
    _set_outputs(model, {name: numbers})


def _output(model: Any, name: str) -> int:
    found = {text(one.name): one.tensorIndex for one in model.signatureDefs[0].outputs}
    return int(found[name])


def _set_outputs(model: Any, outputs: Mapping[str, int]) -> None:
    """By name, in the order of the graph's."""
    model.subgraphs[0].outputs = np.array(list(outputs.values()), np.int32)
    model.signatureDefs[0].outputs = [schema.TensorMapT(name, index) for name, index in outputs.items()]


def _as_float(model: Any, graph: Any, index: int) -> int:
    tensor = graph.tensors[index]
    if tensor.type == schema.TensorType.FLOAT32:
        return index
    result = add_tensor(graph, tensor.shape, schema.TensorType.FLOAT32, name=f"{text(tensor.name)}_float")
    graph.operators.append(operation(model, "DEQUANTIZE", [index], [result], version=2))
    return result
