"""The labels and the normalization inside a `.tflite` file, where MediaPipe Tasks and Android's tools look for them.

Two parts: a flatbuffer in the model's metadata entry `TFLITE_METADATA`, and the label list in a zip archive that is
appended to the file. The package `tflite_support` writes the same, but cannot be installed on current Pythons. Fields
and their numbers: metadata_schema.fbs (https://github.com/google-ai-edge/mediapipe, mediapipe/tasks/metadata).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from flatbuffers import number_types
from flatbuffers.table import Table

from keras_mobilenets.pixels import PixelScale

ENTRY = "TFLITE_METADATA"
LABELS_FILE = "labels.txt"
IDENTIFIER = b"M001"
PARSER_VERSION = "1.0.0"  # the oldest parser that knows every field written here

# The schema's numbers. Of its enums and unions:
FEATURE, IMAGE, NORMALIZATION, AXIS_LABELS, RGB, GRAYSCALE = 1, 2, 1, 2, 1, 2
# Of its tables' fields, in the order of their declaration; a union takes two: its type, then its value.
MODEL = {"name": 0, "subgraphs": 3, "min_parser_version": 7}
SUBGRAPH = {"inputs": 2, "outputs": 3}
TENSOR = {"name": 0, "content": 3, "process_units": 4, "stats": 5, "files": 6}
FILE = {"name": 0, "description": 1, "type": 2}
STATS = {"max": 0, "min": 1}
NORMALIZATION_FIELDS = {"mean": 0, "std": 1}


def describe(
    *,
    name: str,
    image_shape: Sequence[int],
    normalization: PixelScale | None,
    output_names: Sequence[str],
    labels: bool,
) -> bytes:
    """The content of the entry TFLITE_METADATA, for a model whose one input is an image.

    Args:
        name: of the model.
        image_shape: (height, width, channels).
        normalization: from pixels to what the model takes; None where there is none to tell.
        output_names: in the order of the graph's outputs.
        labels: whether `labels.txt` names the entries of the first output.

    Returns:
        A flatbuffer.
    """
    outputs = [_tensor(one, {0: np.uint8(FEATURE), 1: {}}) for one in output_names]
    if labels:
        description = "The classes, one a line, in the order of the scores."
        file = {FILE["name"]: LABELS_FILE, FILE["description"]: description, FILE["type"]: np.int8(AXIS_LABELS)}
        outputs[0][TENSOR["files"]] = [file]
    subgraph = {SUBGRAPH["inputs"]: [_image(image_shape, normalization)], SUBGRAPH["outputs"]: outputs}
    builder = flatbuffers.Builder(1024)
    model = {MODEL["name"]: name, MODEL["subgraphs"]: [subgraph], MODEL["min_parser_version"]: PARSER_VERSION}
    builder.Finish(_write(builder, model), IDENTIFIER)
    return bytes(builder.Output())


def _image(shape: Sequence[int], normalization: PixelScale | None) -> dict[int, Any]:
    height, width, channels = shape
    size = {0: np.uint32(width), 1: np.uint32(height)}
    properties = {0: np.int8(GRAYSCALE if channels == 1 else RGB), 1: size}
    tensor = _tensor("image", {0: np.uint8(IMAGE), 1: properties})
    if normalization is not None:
        mean, std = (np.asarray(one, np.float32) for one in (normalization.mean, normalization.std))
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


def append_labels(content: bytes, labels: Sequence[str]) -> bytes:
    """The file with its label list appended, one label a line, as an uncompressed zip archive."""
    stream = io.BytesIO(content)
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_STORED) as archive:
        # A fixed date: the same model gives the same bytes.
        archive.writestr(zipfile.ZipInfo(LABELS_FILE, (1980, 1, 1, 0, 0, 0)), "\n".join(labels) + "\n")
    return stream.getvalue()


def attached_bytes(content: bytes) -> int:
    """How many bytes of a file are the archive appended to it."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return 0
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return len(content) - min((entry.header_offset for entry in archive.infolist()), default=len(content))


def read_labels(content: bytes) -> list[str] | None:
    """The label list in a file's bytes, ours or anyone's; None when there is none."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return None
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        texts = [name for name in archive.namelist() if name.endswith(".txt")]
        if not texts:
            return None
        return archive.read(LABELS_FILE if LABELS_FILE in texts else texts[0]).decode("utf-8").splitlines()


def read_normalization(entry: bytes) -> PixelScale | None:
    """The normalization of the first input, from the content of TFLITE_METADATA; None when it has none."""
    for unit in _children(_first_tensor(entry, "inputs"), TENSOR["process_units"]):
        kind = unit.Offset(4)
        if kind and unit.Get(number_types.Uint8Flags, unit.Pos + kind) == NORMALIZATION:
            options = Table(unit.Bytes, unit.Indirect(unit.Pos + unit.Offset(6)))
            mean, std = (_floats(options, NORMALIZATION_FIELDS[name]) for name in ("mean", "std"))
            return PixelScale.standardizing(mean, std) if mean and std else None
    return None


def promises_labels(entry: bytes) -> bool:
    """Whether the metadata speaks of an attached file, which a cut-off file has lost."""
    return bool(_children(_first_tensor(entry, "outputs"), TENSOR["files"]))


def _first_tensor(entry: bytes, side: str) -> Table | None:
    root = Table(entry, int(flatbuffers.encode.Get(flatbuffers.packer.uoffset, entry, 0)))
    subgraphs = _children(root, MODEL["subgraphs"])
    tensors = _children(subgraphs[0], SUBGRAPH[side]) if subgraphs else []
    return tensors[0] if tensors else None


def _children(table: Table | None, slot: int) -> list[Table]:
    """The tables in a field that is a list of tables."""
    offset = table.Offset(4 + 2 * slot) if table is not None else 0
    if table is None or not offset:
        return []
    start = table.Vector(offset)
    return [Table(table.Bytes, table.Indirect(start + 4 * number)) for number in range(table.VectorLen(offset))]


def _floats(table: Table, slot: int) -> tuple[float, ...]:
    offset = table.Offset(4 + 2 * slot)
    return tuple(table.GetVectorAsNumpy(number_types.Float32Flags, offset).tolist()) if offset else ()
