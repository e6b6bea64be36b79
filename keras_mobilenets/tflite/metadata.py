"""The labels and the normalization inside a `.tflite` file, where MediaPipe Tasks and Android's tools look for them.

Two parts: a flatbuffer in the model's metadata entry `TFLITE_METADATA`, and the label list in a zip archive that is
appended to the file. The package `tflite_support` writes the same, but cannot be installed on current Pythons. Fields
and their numbers: metadata_schema.fbs (https://github.com/google-ai-edge/mediapipe, mediapipe/tasks/metadata).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from flatbuffers import number_types
from flatbuffers.table import Table

from keras_mobilenets.pixels import PixelScale
from keras_mobilenets.tflite.labels import parse_labels, write_labels

ENTRY = "TFLITE_METADATA"
LABELS_FILE = "labels.txt"
IDENTIFIER = b"M001"
PARSER_VERSION = "1.0.0"  # the oldest parser that knows every field written here

# The schema's numbers. Of its enums and unions:
FEATURE, IMAGE, NORMALIZATION, AXIS_LABELS, VALUE_LABELS, RGB, GRAYSCALE = 1, 2, 1, 2, 3, 1, 2
# Of its tables' fields, in the order of their declaration; a union takes two: its type, then its value.
MODEL = {"name": 0, "subgraphs": 3, "min_parser_version": 7}
SUBGRAPH = {"inputs": 2, "outputs": 3}
TENSOR = {"name": 0, "content": 3, "process_units": 4, "stats": 5, "files": 6}
FILE = {"name": 0, "description": 1, "type": 2}
STATS = {"max": 0, "min": 1}
NORMALIZATION_FIELDS = {"mean": 0, "std": 1}


@dataclass(frozen=True)
class TensorInfo:
    """What the metadata say of one input or output.

    Attributes:
        name: by which Keras and the signature know it.
        shape: without the batch.
        scale: of an image, what the input takes for a pixel; None where it is none or nobody knows.
        labels: of an output, names for the entries of its last axis; two for a single entry are those of 0 and of 1.
    """

    name: str
    shape: tuple[int, ...] = ()
    scale: PixelScale | None = None
    labels: tuple[str, ...] = ()

    @property
    def is_image(self) -> bool:
        """Whether it is (height, width, channels) of colours or greys."""
        return len(self.shape) == 3 and self.shape[-1] in (1, 3)


def describe(name: str, inputs: Sequence[TensorInfo], outputs: Sequence[TensorInfo]) -> bytes:
    """The content of the entry TFLITE_METADATA.

    Args:
        name: of the model.
        inputs: in the order of the graph's.
        outputs: likewise.

    Returns:
        A flatbuffer.
    """
    files = labels_files(outputs)
    subgraph = {
        SUBGRAPH["inputs"]: [_input(one) for one in inputs],
        SUBGRAPH["outputs"]: [_output(one, files.get(one.name)) for one in outputs],
    }
    builder = flatbuffers.Builder(1024)
    model = {MODEL["name"]: name, MODEL["subgraphs"]: [subgraph], MODEL["min_parser_version"]: PARSER_VERSION}
    builder.Finish(_write(builder, model), IDENTIFIER)
    return bytes(builder.Output())


def labels_files(outputs: Sequence[TensorInfo]) -> dict[str, str]:
    """By the name of each output with labels the name of the file that holds them."""
    named = [one.name for one in outputs if one.labels]
    return {name: f"{name}-{LABELS_FILE}" if number else LABELS_FILE for number, name in enumerate(named)}


def _output(info: TensorInfo, file: str | None) -> dict[int, Any]:
    tensor = _tensor(info.name, {0: np.uint8(FEATURE), 1: {}})
    if file is not None:
        of_values = len(info.labels) > info.shape[-1]
        description = "One a line: for the value 0 and for 1." if of_values else "One a line, in the order of scores."
        kind = np.int8(VALUE_LABELS if of_values else AXIS_LABELS)
        tensor[TENSOR["files"]] = [{FILE["name"]: file, FILE["description"]: description, FILE["type"]: kind}]
    return tensor


def _input(info: TensorInfo) -> dict[int, Any]:
    if not info.is_image:
        return _tensor(info.name, {0: np.uint8(FEATURE), 1: {}})
    height, width, channels = info.shape
    size = {0: np.uint32(width), 1: np.uint32(height)}
    properties = {0: np.int8(GRAYSCALE if channels == 1 else RGB), 1: size}
    tensor = _tensor(info.name, {0: np.uint8(IMAGE), 1: properties})
    if info.scale is not None:
        mean, std = (np.asarray(one, np.float32) for one in (info.scale.mean, info.scale.std))
        options = {NORMALIZATION_FIELDS["mean"]: mean, NORMALIZATION_FIELDS["std"]: std}
        tensor[TENSOR["process_units"]] = [{0: np.uint8(NORMALIZATION), 1: options}]
        tensor[TENSOR["stats"]] = {STATS["max"]: (255 - mean) / std, STATS["min"]: (0 - mean) / std}
    return tensor


def _tensor(name: str, content: dict[int, Any]) -> dict[int, Any]:
    return {TENSOR["name"]: name, TENSOR["content"]: content}


def _write(builder: flatbuffers.Builder, fields: dict[int, Any]) -> int:
    """Writes a table, its children first: text, numbers as NumPy scalars, arrays, tables as dicts, lists of tables."""
    written = {}
    for slot, value in fields.items():
        if isinstance(value, str):
            written[slot] = builder.CreateString(value)
        elif isinstance(value, dict):
            written[slot] = _write(builder, value)
        elif isinstance(value, np.ndarray):
            written[slot] = builder.CreateNumpyVector(value)
        elif isinstance(value, list):
            children = [_write(builder, one) for one in value]
            builder.StartVector(4, len(children), 4)
            for child in reversed(children):
                builder.PrependUOffsetTRelative(child)
            written[slot] = builder.EndVector()
    builder.StartObject(max(fields, default=-1) + 1)
    scalars: dict[type, Any] = {
        np.uint8: builder.PrependUint8Slot,
        np.int8: builder.PrependInt8Slot,
        np.uint32: builder.PrependUint32Slot,
    }
    for slot, value in fields.items():
        if slot in written:
            builder.PrependUOffsetTRelativeSlot(slot, written[slot], 0)
        else:
            scalars[type(value)](slot, int(value), 0)
    return builder.EndObject()


def append_labels(content: bytes, outputs: Sequence[TensorInfo]) -> bytes:
    """The file with the label lists of its outputs appended, one label a line, as an uncompressed zip archive."""
    stream, files = io.BytesIO(content), labels_files(outputs)
    if not files:
        return content
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as archive:
        for one in outputs:
            if one.labels:  # a fixed date: the same model gives the same bytes
                entry = zipfile.ZipInfo(files[one.name], (1980, 1, 1, 0, 0, 0))
                archive.writestr(entry, write_labels(one.labels))
    return stream.getvalue()


def attached_bytes(content: bytes) -> int:
    """How many bytes of a file are the archive appended to it."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return 0
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return len(content) - min((entry.header_offset for entry in archive.infolist()), default=len(content))


def read_tensors(entry: bytes | None, content: bytes) -> tuple[list[TensorInfo], list[TensorInfo]]:
    """What is said of inputs and of outputs; nothing where there is no metadata.

    Args:
        entry: the content of TFLITE_METADATA.
        content: of the whole file, which the label lists are appended to.

    Raises:
        ValueError: a label list that the metadata speak of is missing.
    """
    lists = _label_lists(content)
    if not entry:
        labels = lists.get(LABELS_FILE) or next(iter(lists.values()), ())
        return [], [TensorInfo("", labels=labels)] if labels else []
    root = Table(entry, int(flatbuffers.encode.Get(flatbuffers.packer.uoffset, entry, 0)))
    graphs = _children(root, MODEL["subgraphs"])
    inputs, outputs = (_children(graphs[0], SUBGRAPH[side]) if graphs else [] for side in ("inputs", "outputs"))
    return (
        [TensorInfo(_text(one, TENSOR["name"]), scale=_scale(one)) for one in inputs],
        [TensorInfo(_text(one, TENSOR["name"]), labels=_labels(one, lists)) for one in outputs],
    )


def _label_lists(content: bytes) -> dict[str, tuple[str, ...]]:
    """The text files in the archive appended to a file, ours or anyone's."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        texts = [name for name in archive.namelist() if name.endswith(".txt")]
        return {name: tuple(parse_labels(archive.read(name))) for name in texts}


def _labels(tensor: Table, lists: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    names = [_text(file, FILE["name"]) for file in _children(tensor, TENSOR["files"])]
    if names and not lists:
        raise ValueError("the label list that its metadata speaks of is missing from its end")
    found = [lists[name] for name in names if name in lists]
    return found[0] if found else ()


def _scale(tensor: Table) -> PixelScale | None:
    for unit in _children(tensor, TENSOR["process_units"]):
        kind = unit.Offset(4)
        if kind and unit.Get(number_types.Uint8Flags, unit.Pos + kind) == NORMALIZATION:
            options = Table(unit.Bytes, unit.Indirect(unit.Pos + unit.Offset(6)))
            mean, std = (_floats(options, NORMALIZATION_FIELDS[name]) for name in ("mean", "std"))
            return PixelScale.standardizing(mean, std) if mean and std else None
    return None


def _text(table: Table, slot: int) -> str:
    offset = table.Offset(4 + 2 * slot)
    return table.String(table.Pos + offset).decode("utf-8", "replace") if offset else ""


def _children(table: Table, slot: int) -> list[Table]:
    """The tables in a field that is a list of tables."""
    offset = table.Offset(4 + 2 * slot)
    if not offset:
        return []
    start = table.Vector(offset)
    return [Table(table.Bytes, table.Indirect(start + 4 * number)) for number in range(table.VectorLen(offset))]


def _floats(table: Table, slot: int) -> tuple[float, ...]:
    offset = table.Offset(4 + 2 * slot)
    return tuple(table.GetVectorAsNumpy(number_types.Float32Flags, offset).tolist()) if offset else ()
