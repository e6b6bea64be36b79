"""Where the converter's file does not run, or not well: each repair works on a flatbuffer object tree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_mobilenets.tflite.edit.constants import set_constant
from keras_mobilenets.tflite.file import schema


def float_depthwise(model: Any) -> None:
    """Gives the 8-bit depthwise kernels of a "dynamic" file back in float32.

    XNNPACK has no depthwise convolution of floats with 8-bit kernels: each one would cut its graph in two and run in a
    slow kernel. Measured on ai-edge-litert 2.3, x86-64, one thread: MobileNetV2 1.0/224 takes 0.25x the time in 1.04x
    the bytes.
    """
    for graph, operator, operation, tensors in _operations(model):
        if operation != schema.BuiltinOperator.DEPTHWISE_CONV_2D:
            continue
        inputs, kernel = tensors[:2]
        if (inputs.type, kernel.type) == (schema.TensorType.FLOAT32, schema.TensorType.INT8):
            integers = np.asarray(model.buffers[kernel.buffer].data).view(np.int8).reshape(kernel.shape)
            scale = np.asarray(kernel.quantization.scale, np.float32)  # of the channels, which are the last axis
            values = (integers * scale).astype("<f4")
            set_constant(model, graph, operator, 1, values, schema.TensorType.FLOAT32).quantization = None


def wide_biases(model: Any) -> None:
    """Stores the biases of 16-bit convolutions as int64, which TFLite's kernels ask for.

    From fake quantization of 16 bits the converter makes them int32, and the file does not load.
    """
    for graph, operator, _, tensors in _operations(model):
        if len(tensors) < 3 or tensors[2] is None:
            continue
        inputs, bias = tensors[0], tensors[2]
        if (inputs.type, bias.type) == (schema.TensorType.INT16, schema.TensorType.INT32):
            integers = np.asarray(model.buffers[bias.buffer].data).view("<i4")
            set_constant(model, graph, operator, 2, integers.astype("<i8"), schema.TensorType.INT64)


def pools_of_one(model: Any) -> None:
    """Drops the pools of one pixel that deployment puts between two quantizers, which converters take for one."""
    for graph, operator, operation, _ in list(_operations(model)):
        if operation != schema.BuiltinOperator.MAX_POOL_2D or operator.outputs[0] in graph.outputs:
            continue
        options = operator.builtinOptions
        sides = {options.filterHeight, options.filterWidth, options.strideH, options.strideW}
        if sides == {1} and not options.fusedActivationFunction:
            for other in graph.operators:
                read = np.asarray(other.inputs, np.int32)
                other.inputs = np.where(read == operator.outputs[0], operator.inputs[0], read).astype(np.int32)
            graph.operators.remove(operator)


def _operations(model: Any) -> Iterator[tuple[Any, Any, int, list[Any]]]:
    """Each operation with its graph, its number and the tensors that it reads."""
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            tensors = [graph.tensors[index] if index >= 0 else None for index in operator.inputs]
            yield graph, operator, max(code.builtinCode, code.deprecatedBuiltinCode), tensors
