"""Rewrites the converter's file: short names, nothing that no runtime reads, and a batch that can be resized.

The converter names each tensor after every TensorFlow node that went into it; on a small model the names are a tenth
of the file. It also keeps the ranges from which scales were made, and bakes the batch size into reshapes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np

from keras_mobilenets.tflite.edit.constants import set_constant
from keras_mobilenets.tflite.edit.pixels import quicken
from keras_mobilenets.tflite.edit.repairs import float_depthwise, pools_of_one, wide_biases
from keras_mobilenets.tflite.file import IDENTIFIER, ORIGIN, schema, unpack

SIGNATURE = "serving_default"
ALIGNMENT = 16  # schema.fbs asks for it (force_align), and microcontrollers read weights where they lie


class SharingBuilder(flatbuffers.Builder):
    """Writes equal vectors and names once; a flatbuffer may refer to the same bytes from many places.

    Most of it is per-channel zero points: eight bytes of zero for each channel of each kernel and each bias, which in
    MobileNetV2 1.0 are 7 % of the file.
    """

    def __init__(self, size: int):
        super().__init__(size)
        self._written: dict[tuple[str, bytes, int], int] = {}

    def CreateNumpyVector(self, x: np.ndarray, alignment: int = 1) -> int:
        key = (x.dtype.str, x.tobytes(), alignment)
        if key not in self._written:
            self.Prep(alignment, x.nbytes)
            self._written[key] = super().CreateNumpyVector(x)
        return self._written[key]

    def CreateString(self, s: str | bytes, encoding: str = "utf-8", errors: str = "strict") -> int:
        key = ("text", s.encode(encoding, errors) if isinstance(s, str) else s, 1)
        if key not in self._written:
            self._written[key] = super().CreateString(key[1])
        return self._written[key]


class AlignedBuffer(schema.BufferT):
    """A constant whose bytes begin at a multiple of 16; Python's flatbuffers ignore `force_align`."""

    def Pack(self, builder: SharingBuilder) -> int:
        data = builder.CreateNumpyVector(self.data, ALIGNMENT) if self.data is not None else 0
        schema.BufferStart(builder)
        if self.data is not None:
            schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


def slim(
    content: bytes,
    *,
    layer_names: Collection[str] = (),
    input_names: Sequence[str] = (),
    output_names: Sequence[str] = (),
    dynamic_batch: bool = False,
    fast_pixels: bool = False,
    origin: Mapping[str, tuple[str, float]] | None = None,
    metadata: Mapping[str, bytes] | None = None,
    add_operations: Callable[[Any], None] | None = None,
) -> bytes:
    """The same model in fewer bytes.

    Args:
        content: a `.tflite` file as the converter makes it, with a batch of one.
        layer_names: of the Keras model; a computed tensor keeps the name of the layer that made it.
        input_names: what the signature calls the inputs, whose names in `content` end in their numbers from 0.
        output_names: likewise for the outputs.
        dynamic_batch: whether the file says that its batch may change. It may be resized either way.
        fast_pixels: replace a QUANTIZE of uint8 pixels by what XNNPACK computes faster.
        origin: by the name of a tensor's layer, the operation of the quantized model that made it and how many times
            larger than in the model it is; `TFLiteFile.origin` gives it back by tensor.
        metadata: entries to add, by name.
        add_operations: puts more behind the outputs, in the object tree.

    Returns:
        The content of the new file.
    """
    model = unpack(content)
    float_depthwise(model)
    wide_biases(model)
    pools_of_one(model)
    if fast_pixels:
        quicken(model)
    known = set(layer_names)
    for graph in model.subgraphs:
        constant = {index for index, tensor in enumerate(graph.tensors) if _data(model, tensor) is not None}
        for index, tensor in enumerate(graph.tensors):
            tensor.name = None if index in constant else _short_name(tensor.name, known)
            if tensor.quantization is not None:
                tensor.quantization.min = tensor.quantization.max = None
        _free_batch(model, graph, constant, dynamic_batch)
    entries = dict(metadata or {})
    if origin:
        entries[ORIGIN] = _origin(model.subgraphs[0], origin)
    _sign(model, input_names, output_names)
    if add_operations is not None:
        add_operations(model)
    for name, entry in entries.items():
        _add_metadata(model, name, entry)
    _share_buffers(model)
    return pack(model)


def _origin(graph: Any, origin: Mapping[str, tuple[str, float]]) -> bytes:
    """Of each operation the first tensor that has its name: the same value in another dtype comes behind it."""
    found: dict[str, int] = {}
    for operator in graph.operators:
        for index in map(int, operator.outputs):
            name = graph.tensors[index].name
            if name in origin:
                found.setdefault(name, index)
    return json.dumps({index: origin[name] for name, index in found.items()}, separators=(",", ":")).encode()


def pack(model: Any) -> bytes:
    """The bytes of a flatbuffer object tree."""
    model.buffers = [AlignedBuffer(one.data) for one in model.buffers]
    builder = SharingBuilder(sum(one.data.nbytes for one in model.buffers if one.data is not None) + 65536)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


def _data(model: Any, tensor: Any) -> np.ndarray | None:
    data = model.buffers[tensor.buffer].data
    return data if data is not None and len(data) else None


def _short_name(name: bytes | None, layer_names: set[str]) -> str | None:
    """`"conv_1/Relu6;conv_bn_1/..."` -> `"conv"`: every scope gets a number, so that of a layer conv_1 is conv_1_2."""
    first = (name or b"").decode("utf-8", "replace").split(";")[0]
    for part in first.split("/"):
        for candidate in (re.sub(r"_\d+$", "", part), part):
            if candidate in layer_names:
                return candidate
    return first.split("/")[0][:40] or None


def _free_batch(model: Any, graph: Any, constant: set[int], dynamic_batch: bool) -> None:
    """Lets reshapes follow the batch, and marks it as variable if that was asked for.

    A RESHAPE to [1, n] stops a resized batch; to [-1, n] it does not, and XNNPACK takes it as well. Keras' own dynamic
    batch would cost SHAPE, STRIDED_SLICE and PACK instead, which no delegate takes.
    """
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        source, target = graph.tensors[operator.inputs[0]], graph.tensors[operator.outputs[0]]
        if max(code.builtinCode, code.deprecatedBuiltinCode) != schema.BuiltinOperator.RESHAPE:
            continue
        same_batch = len(source.shape) and len(target.shape) and source.shape[0] == target.shape[0] == 1
        if same_batch and len(operator.inputs) > 1 and operator.inputs[1] in constant:
            shape = np.array([-1, *target.shape[1:]], np.int32)
            set_constant(model, graph, operator, 1, shape, schema.TensorType.INT32)
            if operator.builtinOptions is not None:
                operator.builtinOptions.newShape = None  # a second copy of the shape, which would disagree
    if not dynamic_batch:
        return
    for tensor in graph.tensors:
        if _data(model, tensor) is None and len(tensor.shape) > 1 and tensor.shape[0] == 1:
            tensor.shapeSignature = np.array([-1, *tensor.shape[1:]], np.int32)
            tensor.hasRank = True


def _add_metadata(model: Any, name: str, content: bytes) -> None:
    model.buffers.append(schema.BufferT(np.frombuffer(content, np.uint8)))
    entry = schema.MetadataT(name=name, buffer=len(model.buffers) - 1)
    model.metadata = [one for one in model.metadata or () if one.name != name.encode()] + [entry]


def _sign(model: Any, input_names: Sequence[str], output_names: Sequence[str]) -> None:
    """Names inputs and outputs, in the tensors and in the one signature that is used, and puts them in order.

    `Interpreter.get_signature_runner()` finds them by these names. The converter calls outputs output_0, output_1, ...
    and sorts them as text, which puts output_10 before output_2; inputs it calls by the names of the function's.
    """
    graph = model.subgraphs[0]
    made = {one.tensorIndex: one.name.decode() for signature in model.signatureDefs or () for one in signature.outputs}
    graph.outputs = _named(graph, graph.outputs, lambda index: made.get(index, ""), output_names, "output")
    graph.inputs = _named(graph, graph.inputs, lambda index: graph.tensors[index].name or "", input_names, "input")
    inputs, outputs = (
        [schema.TensorMapT(graph.tensors[index].name, index) for index in map(int, side)]
        for side in (graph.inputs, graph.outputs)
    )
    model.signatureDefs = [schema.SignatureDefT(inputs, outputs, SIGNATURE, 0)]


def _named(graph: Any, indices: Any, made_name: Callable[[int], str], names: Sequence[str], default: str) -> np.ndarray:
    """Tensors in the order of the numbers in their names, under new names."""
    plain = {int(index): re.sub(r"^serving_default_|:\d+$", "", made_name(int(index))) for index in indices}
    ordered = sorted(plain, key=lambda index: _trailing_number(plain[index]))
    if len(names) != len(ordered):
        names = [plain[index] if default == "input" else f"{default}_{number}" for number, index in enumerate(ordered)]
    for name, index in zip(names, ordered, strict=True):
        graph.tensors[index].name = name
    return np.array(ordered, np.int32)


def _trailing_number(name: str) -> int:
    digits = re.search(r"\d+$", name)
    return int(digits.group()) if digits else 0


def _share_buffers(model: Any) -> None:
    """Keeps each distinct constant once, and drops those that nothing refers to. Buffer 0 must stay empty."""
    kept: list[Any] = [model.buffers[0]]
    numbers: dict[bytes, int] = {}

    def renumber(old: int) -> int:
        data = model.buffers[old].data
        key = b"" if data is None else bytes(data)
        if not key:
            return 0
        if key not in numbers:
            numbers[key] = len(kept)
            kept.append(model.buffers[old])
        return numbers[key]

    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.buffer = renumber(tensor.buffer)
    for entry in model.metadata or ():
        entry.buffer = renumber(entry.buffer)
    model.metadataBuffer = None  # the schema's deprecated list of the same numbers
    model.buffers = kept
