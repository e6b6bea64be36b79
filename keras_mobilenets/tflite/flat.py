"""Flatbuffers without a compiled schema: tables as dictionaries from a field's number to its value, and back."""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np
from flatbuffers import number_types
from flatbuffers.table import Table

ALIGNMENT = 16  # of bytes that are a flatbuffer themselves (metadata_schema.fbs, force_align)


def write(fields: dict[int, Any], identifier: bytes) -> bytes:
    """A flatbuffer whose root is a table.

    Args:
        fields: by number: text, numbers as NumPy scalars, arrays, tables as dictionaries, lists of tables.
        identifier: the four letters of the schema.
    """
    builder = flatbuffers.Builder(1024)
    builder.Finish(_table(builder, fields), identifier)
    return bytes(builder.Output())


def _table(builder: flatbuffers.Builder, fields: dict[int, Any]) -> int:
    """Writes a table, its children first."""
    written = {}
    for slot, value in fields.items():
        if isinstance(value, str):
            written[slot] = builder.CreateString(value)
        elif isinstance(value, dict):
            written[slot] = _table(builder, value)
        elif isinstance(value, np.ndarray):
            builder.Prep(ALIGNMENT if value.dtype == np.uint8 else value.dtype.itemsize, value.nbytes)
            written[slot] = builder.CreateNumpyVector(value)
        elif isinstance(value, list):
            children = [_table(builder, one) for one in value]
            builder.StartVector(4, len(children), 4)
            for child in reversed(children):
                builder.PrependUOffsetTRelative(child)
            written[slot] = builder.EndVector()
    builder.StartObject(max(fields, default=-1) + 1)
    scalars: dict[type, Any] = {
        np.uint8: builder.PrependUint8Slot,
        np.int8: builder.PrependInt8Slot,
        np.uint32: builder.PrependUint32Slot,
        np.int32: builder.PrependInt32Slot,
        np.float32: builder.PrependFloat32Slot,
        np.bool_: builder.PrependBoolSlot,
    }
    for slot, value in fields.items():
        if slot in written:
            builder.PrependUOffsetTRelativeSlot(slot, written[slot], 0)
        else:
            scalars[type(value)](slot, value.item(), 0)
    return builder.EndObject()


def root(content: bytes) -> Table:
    """The table that a flatbuffer is."""
    return Table(content, int(flatbuffers.encode.Get(flatbuffers.packer.uoffset, content, 0)))


def text(table: Table, slot: int) -> str:
    """Of a field; "" where it is left out."""
    offset = table.Offset(4 + 2 * slot)
    return table.String(table.Pos + offset).decode("utf-8", "replace") if offset else ""


def children(table: Table, slot: int) -> list[Table]:
    """The tables in a field that is a list of tables."""
    offset = table.Offset(4 + 2 * slot)
    if not offset:
        return []
    start = table.Vector(offset)
    return [child(table, start + 4 * number) for number in range(table.VectorLen(offset))]


def child(table: Table, place: int) -> Table:
    """The table that is referred to at a place of the buffer."""
    return Table(table.Bytes, table.Indirect(place))


def field(table: Table, slot: int) -> Table | None:
    """The table in a field; None where it is left out."""
    offset = table.Offset(4 + 2 * slot)
    return child(table, table.Pos + offset) if offset else None


def vector(table: Table, slot: int, kind: Any) -> np.ndarray:
    """The numbers of a field; none where it is left out."""
    offset = table.Offset(4 + 2 * slot)
    return table.GetVectorAsNumpy(kind, offset) if offset else np.zeros(0, kind.name)


def scalar(table: Table, slot: int, kind: Any) -> Any:
    """The number in a field; 0 where it is left out."""
    offset = table.Offset(4 + 2 * slot)
    return table.Get(kind, table.Pos + offset) if offset else kind.py_type(0)


FLOAT, BYTE, INT = number_types.Float32Flags, number_types.Uint8Flags, number_types.Int32Flags
