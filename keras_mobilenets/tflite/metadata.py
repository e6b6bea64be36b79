"""The labels and the normalization inside a `.tflite` file, where MediaPipe Tasks and Android's tools look for them.

Two parts: a flatbuffer in the model's metadata entry `TFLITE_METADATA`, and the label list in a zip archive that is
appended to the file. The package `tflite_support` writes the same, but cannot be installed on current Pythons. Fields
and their numbers: metadata_schema.fbs (https://github.com/google-ai-edge/mediapipe, mediapipe/tasks/metadata).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flatbuffers.table import Table

from keras_mobilenets.pixels import PixelScale
from keras_mobilenets.tflite import flat
from keras_mobilenets.tflite.labels import parse_labels, write_labels

ENTRY = "TFLITE_METADATA"
LABELS_FILE = "labels.txt"
IDENTIFIER = b"M001"
PARSER_VERSION, CUSTOM_PARSER_VERSION = "1.0.0", "1.5.0"  # the oldest parser that knows every field written here

# The schema's numbers. Of its enums and unions:
FEATURE, IMAGE, BOXES, NORMALIZATION, AXIS_LABELS, VALUE_LABELS, RGB, GRAYSCALE = 1, 2, 3, 1, 2, 3, 1, 2
BOUNDARIES, RATIO = 1, 0  # boxes by their sides, in shares of the image
# Of its tables' fields, in the order of their declaration; a union takes two: its type, then its value.
MODEL = {"name": 0, "subgraphs": 3, "min_parser_version": 7}
SUBGRAPH = {"inputs": 2, "outputs": 3, "custom": 9}
TENSOR = {"name": 0, "content": 3, "process_units": 4, "stats": 5, "files": 6}
FILE = {"name": 0, "description": 1, "type": 2}
STATS = {"max": 0, "min": 1}
NORMALIZATION_FIELDS = {"mean": 0, "std": 1}
CUSTOM = {"name": 0, "data": 1}
BOX = {"index": 0, "type": 1, "coordinates": 2}
LEFT_TOP_RIGHT_BOTTOM = [1, 0, 3, 2]  # where they are in `rel_yxyx`


@dataclass(frozen=True)
class TensorInfo:
    """What the metadata say of one input or output.

    Attributes:
        name: by which Keras and the signature know it.
        shape: without the batch.
        scale: of an image, what the input takes for a pixel; None where it is none or nobody knows.
        labels: of an output, names for the entries of its last axis, or for its values.
        labels_of_values: whether for its values: class numbers, or 0 and 1.
        is_boxes: whether it is boxes as `rel_yxyx`.
    """

    name: str
    shape: tuple[int, ...] = ()
    scale: PixelScale | None = None
    labels: tuple[str, ...] = ()
    labels_of_values: bool = False
    is_boxes: bool = False

    @property
    def is_image(self) -> bool:
        """Whether it is (height, width, channels) of colours or greys."""
        return len(self.shape) == 3 and self.shape[-1] in (1, 3)


@dataclass(frozen=True)
class InFile:
    """What a task puts into a file beside the network.

    Attributes:
        outputs: what the metadata say of them, in the order of the graph's.
        custom: of the task's own metadata the flatbuffers, by the names under which MediaPipe looks for them.
        add_operations: puts more behind the network, in a flatbuffer object tree whose signature knows the outputs;
            None where the file gives what the network gives.
        decodes: whether these make answers of outputs, of another kind of numbers.
    """

    outputs: tuple[TensorInfo, ...]
    custom: Mapping[str, bytes] = field(default_factory=dict)
    add_operations: Callable[[Any], None] | None = None
    decodes: bool = False


def describe(
    name: str,
    inputs: Sequence[TensorInfo],
    outputs: Sequence[TensorInfo],
    custom: Mapping[str, bytes] | None = None,
) -> bytes:
    """The content of the entry TFLITE_METADATA.

    Args:
        name: of the model.
        inputs: in the order of the graph's.
        outputs: likewise.
        custom: see `InFile`.

    Returns:
        A flatbuffer.
    """
    files = labels_files(outputs)
    subgraph: dict[int, Any] = {
        SUBGRAPH["inputs"]: [_input(one) for one in inputs],
        SUBGRAPH["outputs"]: [_output(one, files.get(one.name)) for one in outputs],
    }
    if custom:
        entries = [{CUSTOM["name"]: key, CUSTOM["data"]: np.frombuffer(one, np.uint8)} for key, one in custom.items()]
        subgraph[SUBGRAPH["custom"]] = entries
    version = CUSTOM_PARSER_VERSION if custom else PARSER_VERSION
    model = {MODEL["name"]: name, MODEL["subgraphs"]: [subgraph], MODEL["min_parser_version"]: version}
    return flat.write(model, IDENTIFIER)


def labels_files(outputs: Sequence[TensorInfo]) -> dict[str, str]:
    """By the name of each output with labels the name of the file that holds them."""
    named = [one.name for one in outputs if one.labels]
    return {name: f"{name}-{LABELS_FILE}" if number else LABELS_FILE for number, name in enumerate(named)}


def _output(info: TensorInfo, file: str | None) -> dict[int, Any]:
    tensor = _tensor(info.name, {0: np.uint8(FEATURE), 1: {}})
    if info.is_boxes:
        index = np.array(LEFT_TOP_RIGHT_BOTTOM, np.uint32)
        properties = {BOX["index"]: index, BOX["type"]: np.int8(BOUNDARIES), BOX["coordinates"]: np.int8(RATIO)}
        tensor = _tensor(info.name, {0: np.uint8(BOXES), 1: properties})
    if file is not None:
        numbers = "values, from 0" if info.labels_of_values else "scores"
        description = f"One a line, in the order of {numbers}."
        kind = np.int8(VALUE_LABELS if info.labels_of_values else AXIS_LABELS)
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


def read_custom(entry: bytes | None) -> dict[str, bytes]:
    """The task's own metadata of the first graph: see `InFile`."""
    graphs = flat.children(flat.root(entry), MODEL["subgraphs"]) if entry else []
    found = flat.children(graphs[0], SUBGRAPH["custom"]) if graphs else []
    return {flat.text(one, CUSTOM["name"]): flat.vector(one, CUSTOM["data"], flat.BYTE).tobytes() for one in found}


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
    graphs = flat.children(flat.root(entry), MODEL["subgraphs"])
    inputs, outputs = (flat.children(graphs[0], SUBGRAPH[side]) if graphs else [] for side in ("inputs", "outputs"))
    return (
        [TensorInfo(flat.text(one, TENSOR["name"]), scale=_scale(one)) for one in inputs],
        [TensorInfo(flat.text(one, TENSOR["name"]), labels=_labels(one, lists)) for one in outputs],
    )


def _label_lists(content: bytes) -> dict[str, tuple[str, ...]]:
    """The text files in the archive appended to a file, ours or anyone's."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        texts = [name for name in archive.namelist() if name.endswith(".txt")]
        return {name: tuple(parse_labels(archive.read(name))) for name in texts}


def _labels(tensor: Table, lists: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    names = [flat.text(file, FILE["name"]) for file in flat.children(tensor, TENSOR["files"])]
    if names and not lists:
        raise ValueError("the label list that its metadata speaks of is missing from its end")
    found = [lists[name] for name in names if name in lists]
    return found[0] if found else ()


def _scale(tensor: Table) -> PixelScale | None:
    for unit in flat.children(tensor, TENSOR["process_units"]):
        options = flat.field(unit, 1)
        if options is not None and flat.scalar(unit, 0, flat.BYTE) == NORMALIZATION:
            mean, std = (flat.vector(options, NORMALIZATION_FIELDS[name], flat.FLOAT) for name in ("mean", "std"))
            return PixelScale.standardizing(mean.tolist(), std.tolist()) if len(mean) and len(std) else None
    return None
