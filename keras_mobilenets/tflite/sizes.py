"""Where the bytes of a `.tflite` file go."""

from __future__ import annotations

from typing import Any

from keras_mobilenets.tflite.file import Graph, TFLiteFile, schema

USES = ("weights", "biases", "constants", "scales", "zero points", "names", "metadata", "structure")
KERNEL_OPERATIONS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")

# Offsets of fields in a flatbuffer's table: 4 + 2 * the number of the field in schema.fbs.
BUFFER_DATA, TENSOR_NAME, SCALE, ZERO_POINT = 4, 10, 8, 10


def bytes_by_use(file: TFLiteFile) -> dict[str, int]:
    """Accounts for each byte of a file.

    Bytes that several tensors share are counted once. What is left after everything that has a use of its own is
    structure: tables, offsets, alignment.

    Args:
        file: as `read_tflite` gives it.

    Returns:
        Bytes for each of `USES`; their sum is the size of the file.
    """
    model = schema.Model.GetRootAs(file.content, 0)
    spans: dict[int, tuple[str, int]] = {}  # where bytes begin -> what they are for, how many
    metadata = {model.Metadata(number).Buffer() for number in range(model.MetadataLength())}
    for number, graph in enumerate(file.graphs):
        roles = _roles(graph)
        for tensor in graph.tensors:
            table = model.Subgraphs(number).Tensors(tensor.index)
            _note(spans, table, TENSOR_NAME, 1, "names")
            _note(spans, table.Quantization(), SCALE, 4, "scales")
            _note(spans, table.Quantization(), ZERO_POINT, 8, "zero points")
            role = roles.get(tensor.index, "constants")
            _note(spans, model.Buffers(tensor.buffer), BUFFER_DATA, 1, role, default_only=role == "constants")
    for number in metadata:
        _note(spans, model.Buffers(number), BUFFER_DATA, 1, "metadata")
    uses = dict.fromkeys(USES, 0)
    for use, size in spans.values():
        uses[use] += size
    uses["names"] += sum(
        len(name) + sum(len(entry) for side in signature.values() for entry in side)
        for name, signature in file.signatures.items()
    )
    uses["metadata"] += file.attached_bytes
    uses["structure"] = file.size_bytes - sum(uses.values())
    return uses


def _roles(graph: Graph) -> dict[int, str]:
    """What each tensor is to the operation that reads it, seen through the DEQUANTIZE of a float16 file."""
    roles: dict[int, str] = {}
    for operator in graph.operators:
        if operator.name in KERNEL_OPERATIONS:
            for index, role in zip(operator.inputs[1:3], ("weights", "biases"), strict=False):
                made_by = graph.producers.get(index)
                roles[made_by.inputs[0] if made_by is not None else index] = role
    return roles


def _note(spans: dict, table: Any, field: int, item_bytes: int, use: str, *, default_only: bool = False) -> None:
    """Notes the vector in a field of a table, if it has one."""
    offset = table._tab.Offset(field) if table is not None else 0
    if not offset:
        return
    start = table._tab.Vector(offset)
    if start not in spans or not default_only:
        spans[start] = use, table._tab.VectorLen(offset) * item_bytes
