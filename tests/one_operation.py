"""A `.tflite` file of one operation, written straight with the schema: any quantization, no converter."""

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

VERSIONS = {
    **dict.fromkeys(("HARD_SWISH", "ELU", "PRELU", "RESHAPE", "DEPTH_TO_SPACE", "SQUEEZE", "EXPAND_DIMS", "PACK"), 1),
    **dict.fromkeys(
        ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"), 3
    ),
    "FULLY_CONNECTED": 4,
}


def tensor(shape, scale=None, zero_point=0, dtype="int8", data=None):
    """What a tensor of the file is; `scale` may be an array of one scale for each channel of the last axis."""
    return {"shape": shape, "scale": scale, "zero_point": zero_point, "dtype": dtype, "data": data}


def file_of(name, inputs, outputs, options=None, version=None, axis=0):
    """The content of a file with one operation, or with a list of (name, inputs, outputs, options)."""
    model = schema.ModelT(version=3, buffers=[schema.BufferT(data=[])], operatorCodes=[])
    tensors = [_tensor(model, one, axis) for one in (*inputs, *outputs)]
    places = list(range(len(inputs))), list(range(len(inputs), len(tensors)))
    steps = [(name, *places, options or {})] if isinstance(name, str) else name
    operators = []
    for step, ins, outs, given in steps:
        code = getattr(schema.BuiltinOperator, step)
        model.operatorCodes.append(schema.OperatorCodeT(min(code, 127), None, version or VERSIONS.get(step, 2), code))
        operator = schema.OperatorT(len(operators), list(ins), list(outs))
        word = {"AVERAGE_POOL_2D": "Pool2D", "MAX_POOL_2D": "Pool2D", "MEAN": "Reducer", "SUM": "Reducer"}.get(step)
        word = word or {"REDUCE_MAX": "Reducer", "REDUCE_MIN": "Reducer"}.get(step) or _camel(step)
        word = {"Minimum": "MaximumMinimum", "Maximum": "MaximumMinimum"}.get(word, word)
        made = getattr(schema, f"{word}OptionsT", None)
        if made is not None:
            operator.builtinOptions = made(**given)
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, f"{word}Options")
        operators.append(operator)
    constant = {i for i, one in enumerate((*inputs, *outputs)) if one["data"] is not None}
    graph = schema.SubGraphT(tensors, [i for i in places[0] if i not in constant], places[1], operators)
    model.subgraphs = [graph]
    builder = flatbuffers.Builder(0)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _camel(name):
    special = {"CONV_2D": "Conv2D", "DEPTHWISE_CONV_2D": "DepthwiseConv2D", "GELU": "Gelu", "PADV2": "PadV2"}
    return special.get(name) or "".join(word.capitalize() for word in name.split("_"))


def _tensor(model, one, axis):
    made = schema.TensorT(list(one["shape"]), getattr(schema.TensorType, one["dtype"].upper()), hasRank=True)
    if one["scale"] is not None:
        scales = np.atleast_1d(np.asarray(one["scale"], np.float32))
        zeros = np.broadcast_to(np.asarray(one["zero_point"], np.int64), scales.shape)
        made.quantization = schema.QuantizationParametersT(
            scale=scales, zeroPoint=zeros, quantizedDimension=axis if len(scales) > 1 and len(one["shape"]) > 1 else 0
        )
    if one["data"] is not None:
        model.buffers.append(schema.BufferT(np.ascontiguousarray(one["data"], one["dtype"]).reshape(-1).view(np.uint8)))
        made.buffer = len(model.buffers) - 1
    return made


def runtime(content, *inputs, kernels="xnnpack"):
    """What the runtime answers, sample by sample: all outputs of the file."""
    resolver = {"reference": OpResolverType.BUILTIN_REF}.get(kernels, OpResolverType.AUTO)
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    answers = []
    for sample in zip(*inputs, strict=True):
        for detail, value in zip(interpreter.get_input_details(), sample, strict=True):
            interpreter.set_tensor(detail["index"], value[None])
        interpreter.invoke()
        answers.append([interpreter.get_tensor(one["index"])[0].copy() for one in interpreter.get_output_details()])
    answers = [np.stack(parts) for parts in zip(*answers, strict=True)]
    return answers[0] if len(answers) == 1 else answers


def is_delegated(content):
    """Whether XNNPACK takes the whole file."""
    interpreter = Interpreter(model_content=content)
    interpreter.allocate_tensors()
    return [one["op_name"] for one in interpreter._get_ops_details()][-1] == "DELEGATE"
