"""Reads a `.tflite` file into plain dataclasses, without TensorFlow.

The audit, the size account, `from_tflite` and the integer model all look at files through this one door. The
flatbuffer's own classes (https://github.com/google-ai-edge/LiteRT, schema.fbs) do not leave this module.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from flatbuffers import flexbuffers

from keras_mobilenets.pixels import PixelScale
from keras_mobilenets.tflite import metadata as tflite_metadata
from keras_mobilenets.utils import user_path

try:
    from ai_edge_litert import schema_py_generated as schema
except ImportError:  # the same generated classes, at the price of importing TensorFlow
    from tensorflow.lite.python import schema_py_generated as schema

IDENTIFIER = b"TFL3"
ORIGIN = "keras_mobilenets.origin"  # the metadata entry that says which layer made which tensor


def _names(enum: type) -> dict[int, str]:
    return {value: name for name, value in vars(enum).items() if isinstance(value, int)}


OPERATIONS = _names(schema.BuiltinOperator)
DTYPES = {value: name.lower() for value, name in _names(schema.TensorType).items()}
ACTIVATIONS = _names(schema.ActivationFunctionType)
OPAQUE = ("int4", "uint4", "int2", "string", "resource", "variant")  # packed, or no numbers: their bytes are kept
PADDINGS = _names(schema.Padding)


@dataclass(frozen=True)
class Tensor:
    """One tensor of a graph.

    Attributes:
        index: its number in the graph, by which operators refer to it.
        name: as the file has it; "" when the name was stripped.
        dtype: "int8", "uint8", "int32", "float32", ...
        shape: as it is without resizing.
        signature: like `shape`, with -1 for a size that may change.
        scales, zero_points: real = scale * (stored - zero point); empty when the tensor is not quantized, one entry
            per tensor, or one per channel along `quantized_dimension`.
        data: the constant it holds (read-only), None for what is computed.
        buffer: number of the buffer that holds the constant; tensors may share one.
    """

    index: int
    name: str
    dtype: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    scales: np.ndarray = field(repr=False)
    zero_points: np.ndarray = field(repr=False)
    quantized_dimension: int
    data: np.ndarray | None = field(repr=False)
    buffer: int

    @property
    def is_constant(self) -> bool:
        return self.data is not None

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def size_bytes(self) -> int:
        return self.data.nbytes if self.data is not None else self.size * _item_bytes(self.dtype)

    @property
    def is_float(self) -> bool:
        return self.dtype in ("float16", "float32", "float64", "bfloat16")

    def dequantized(self) -> np.ndarray:
        """The constant's real values, as float32."""
        if self.data is None:
            raise ValueError(f"tensor {self.index} ({self.name}) holds no constant")
        if not len(self.scales):
            return self.data.astype(np.float32)
        broadcast = [1] * len(self.shape)
        if len(self.scales) > 1:
            broadcast[self.quantized_dimension] = -1
        scale, zero = self.scales.reshape(broadcast or -1), self.zero_points.reshape(broadcast or -1)
        return (self.data.astype(np.float32) - zero.astype(np.float32)) * scale.astype(np.float32)


@dataclass(frozen=True)
class Operator:
    """One operation: `options` are the schema's, in snake_case, with padding and activation as words."""

    index: int
    name: str
    version: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Graph:
    """One subgraph: tensors, and operators in the order in which they run."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def operands(self, operator: Operator) -> list[Tensor | None]:
        """The tensors an operator reads; None for an optional one that it does without."""
        return [self.tensors[index] if index >= 0 else None for index in operator.inputs]

    def operand(self, operator: Operator, place: int) -> Tensor:
        """The tensor that an operator reads at a place where it must read one."""
        return self.tensors[operator.inputs[place]]

    def results(self, operator: Operator) -> list[Tensor]:
        """The tensors an operator writes."""
        return [self.tensors[index] for index in operator.outputs]

    @cached_property
    def producers(self) -> dict[int, Operator]:
        """Which operator computes a tensor, by tensor index."""
        return {index: operator for operator in self.operators for index in operator.outputs}

    @cached_property
    def consumers(self) -> dict[int, list[Operator]]:
        """Which operators read a tensor, by tensor index."""
        found: dict[int, list[Operator]] = {}
        for operator in self.operators:
            for index in operator.inputs:
                found.setdefault(index, []).append(operator)
        return found


@dataclass(frozen=True)
class TFLiteFile:
    """What a `.tflite` file holds.

    Attributes:
        graphs: its subgraphs; the first is the one that runs, others serve control flow.
        description: what its maker wrote.
        signatures: name -> {"inputs" | "outputs" -> {name: tensor index}}.
        metadata: the named entries, as bytes.
        inputs, outputs: what its metadata say of them, in the order of the graph's: names, pixels, labels.
        task_options: the flatbuffers that MediaPipe's tasks look for in the metadata, by name.
        attached_bytes: of the archive appended to the model, which holds the labels.
        content: the whole file.
        source: what to call it in a message.
    """

    graphs: tuple[Graph, ...]
    description: str
    signatures: dict[str, dict[str, dict[str, int]]]
    metadata: dict[str, bytes] = field(repr=False)
    inputs: tuple[tflite_metadata.TensorInfo, ...] = field(repr=False)
    outputs: tuple[tflite_metadata.TensorInfo, ...] = field(repr=False)
    task_options: dict[str, bytes] = field(repr=False)
    attached_bytes: int
    content: bytes = field(repr=False)
    source: str

    @property
    def graph(self) -> Graph:
        return self.graphs[0]

    @property
    def labels(self) -> list[str] | None:
        """The class names of the first output that has some, None when none has."""
        return next((list(one.labels) for one in self.outputs if one.labels), None)

    @property
    def normalization(self) -> PixelScale | None:
        """From pixels to the first input that says it, None when none does."""
        return next((one.scale for one in self.inputs if one.scale is not None), None)

    @property
    def origin(self) -> dict[int, tuple[str, float]]:
        """By tensor, the operation of the quantized model that made it, and how many times larger than there it is.

        Empty where the file was not written by `export_tflite` from a quantized model.
        """
        entries = json.loads(self.metadata.get(ORIGIN, b"{}"))
        return {int(index): (name, float(factor)) for index, (name, factor) in entries.items()}

    @property
    def size_bytes(self) -> int:
        return len(self.content)


def read_bytes(source: str | os.PathLike[str] | bytes) -> bytes:
    """The content of a file, or `source` itself if it is bytes, once it is known to begin as a `.tflite` does."""
    if not isinstance(source, bytes | str | os.PathLike):
        raise ValueError(f"`source` must be the path of a .tflite file or its bytes. Received: source={source!r}")
    if isinstance(source, bytes):
        content, name = source, "these bytes"
    elif not user_path(source).is_file():
        raise FileNotFoundError(f"No such .tflite file: {source}")
    else:
        content, name = user_path(source).read_bytes(), str(source)
    if len(content) < 8 or content[4:8] != IDENTIFIER:
        raise ValueError(f"{name}: not a .tflite file ({len(content)} bytes that do not carry its mark, 'TFL3').")
    return content


Source = str | os.PathLike[str] | bytes | TFLiteFile


def unpack(content: bytes, name: str = "these bytes") -> Any:
    """The flatbuffer's own mutable object tree, for those who write files."""
    try:
        return schema.ModelT.InitFromPackedBuf(content, 0)
    except Exception as error:  # flatbuffers checks nothing: a cut file shows as any of half a dozen exceptions
        raise ValueError(f"{name}: a .tflite file that is truncated or damaged ({error}).") from error


def read_tflite(source: Source) -> TFLiteFile:
    """Reads a `.tflite` file, or its bytes.

    Args:
        source: path of the file, or its content; a file that was read already is given back as it is.

    Returns:
        The file as plain data.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a `.tflite` file, or it is truncated or damaged.

    Example:

    >>> layers = [keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 8), keras.layers.Flatten(), keras.layers.Softmax()]
    >>> model = keras.Sequential(layers, name="cat_or_dog")
    >>> _ = export_tflite(model, "model.tflite", verbose=False)
    >>> [operator.name for operator in read_tflite("model.tflite").graph.operators]
    ['CONV_2D', 'RESHAPE', 'SOFTMAX']
    """
    if isinstance(source, TFLiteFile):
        return source
    content = read_bytes(source)
    name = "these bytes" if isinstance(source, bytes) else str(source)
    model = unpack(content, name)
    try:
        return _plain_file(model, content, name)
    except Exception as error:  # as `unpack` has it, and what is appended is somebody's archive
        raise ValueError(f"{name}: a .tflite file that is truncated or damaged ({error}).") from error


def _plain_file(model: Any, content: bytes, name: str) -> TFLiteFile:
    graphs = tuple(_plain_graph(model, subgraph) for subgraph in model.subgraphs)
    if not graphs:
        raise ValueError("it has no graph")
    metadata = {
        text(one.name): np.asarray(_items(model.buffers[one.buffer].data), np.uint8).tobytes()
        for one in _items(model.metadata)
    }
    inputs, outputs = tflite_metadata.read_tensors(metadata.get(tflite_metadata.ENTRY), content)
    return TFLiteFile(
        graphs=graphs,
        description=text(model.description),
        signatures={
            text(one.signatureKey): {
                "inputs": {text(entry.name): entry.tensorIndex for entry in _items(one.inputs)},
                "outputs": {text(entry.name): entry.tensorIndex for entry in _items(one.outputs)},
            }
            for one in _items(model.signatureDefs)
        },
        metadata=metadata,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        task_options=tflite_metadata.read_custom(metadata.get(tflite_metadata.ENTRY)),
        attached_bytes=tflite_metadata.attached_bytes(content),
        content=content,
        source=name,
    )


def _plain_graph(model: Any, subgraph: Any) -> Graph:
    tensors = tuple(_plain_tensor(model, index, tensor) for index, tensor in enumerate(_items(subgraph.tensors)))
    operators = tuple(_plain_operator(model, index, one) for index, one in enumerate(_items(subgraph.operators)))
    for operator in operators:
        for index in operator.inputs + operator.outputs:
            if not -1 <= index < len(tensors):
                raise IndexError(f"operator {operator.index} refers to tensor {index} of {len(tensors)}")
    inputs, outputs = _indices(subgraph.inputs), _indices(subgraph.outputs)
    if not inputs or not outputs:
        raise ValueError("its graph has no input or no output")
    return Graph(tensors, operators, inputs, outputs)


def _plain_tensor(model: Any, index: int, tensor: Any) -> Tensor:
    shape = _indices(tensor.shape)
    quantization = tensor.quantization
    scales = _array(quantization.scale if quantization else None, np.float32)
    zero_points = _array(quantization.zeroPoint if quantization else None, np.int64)
    if len(zero_points) != len(scales):  # the schema lets zero points be left out when they are 0
        zero_points = np.resize(zero_points, len(scales)) if len(zero_points) else np.zeros(len(scales), np.int64)
    dtype = DTYPES[tensor.type]
    buffer = model.buffers[tensor.buffer]
    return Tensor(
        index=index,
        name=text(tensor.name),
        dtype=dtype,
        shape=shape,
        signature=_indices(tensor.shapeSignature) or shape,
        scales=scales,
        zero_points=zero_points,
        quantized_dimension=int(quantization.quantizedDimension) if quantization else 0,
        data=_constant(buffer.data, dtype, shape),
        buffer=int(tensor.buffer),
    )


def _plain_operator(model: Any, index: int, operator: Any) -> Operator:
    code = model.operatorCodes[operator.opcodeIndex]
    # Old files have the operation in a byte, new ones in an int; the larger of the two is right (schema.fbs).
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    name = OPERATIONS.get(number, f"BUILTIN_{number}")
    if name == "CUSTOM":
        name = text(code.customCode)
    return Operator(
        index=index,
        name=name,
        version=int(code.version),
        inputs=_indices(operator.inputs),
        outputs=_indices(operator.outputs),
        options=_plain_options(operator.builtinOptions) | _custom_options(operator.customOptions),
    )


def _plain_options(options: Any) -> dict[str, Any]:
    plain = {}
    for key, value in vars(options).items() if options is not None else ():
        key = re.sub(r"(?<!^)(?=[A-Z])", "_", key).lower()
        if key == "padding":
            value = PADDINGS[value]
        elif key == "fused_activation_function":
            value = ACTIVATIONS[value]
        plain[key] = value
    return plain


def _custom_options(options: Any) -> dict[str, Any]:
    """Of an operation that is no part of the schema, where they are a dictionary, as those of TensorFlow's own."""
    if options is None or not len(options):
        return {}
    try:
        found = flexbuffers.Loads(bytes(options))
    except Exception:  # anyone's bytes
        return {}
    return found if isinstance(found, dict) else {}


def _constant(data: Any, dtype: str, shape: tuple[int, ...]) -> np.ndarray | None:
    if data is None or not len(data):
        return None
    content = np.asarray(data, np.uint8)
    if dtype in OPAQUE:
        values = content.view()
    else:
        values = content.view(dtype if dtype != "bfloat16" else np.uint16).reshape(shape)
    values.flags.writeable = False
    return values


def _item_bytes(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else 1 if dtype in OPAQUE else np.dtype(dtype).itemsize


def _array(values: Any, dtype: type) -> np.ndarray:
    return np.asarray(values if values is not None else (), dtype)


def _items(values: Any) -> Any:
    return values if values is not None else ()


def _indices(values: Any) -> tuple[int, ...]:
    return tuple(int(value) for value in _items(values))


def text(value: Any) -> str:
    """What a flatbuffer has as bytes; "" for nothing."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else (value or "")
