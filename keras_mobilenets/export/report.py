"""What an export leaves besides the file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from keras_mobilenets.export.parity import Parity
from keras_mobilenets.tflite.audit import Audit, two_columns


@dataclass(frozen=True)
class ExportReport:
    """What `export_tflite` wrote, and how it answers.

    Attributes:
        path: the file.
        quantize: "int8", "int16x8", "float16", "dynamic", or None for float32.
        parity: the file beside the Keras model that it was made from; for post-training quantization beside the
            quantized Keras model.
        float_parity: for post-training quantization, the file beside the float model; else None.
        audit: what is inside the file.
        labels: how many class names it carries.
        warnings: what makes the file worse than its model, a sentence each.
        float_layers: names of the layers that compute in float in an integer file, as `QuantizedModel` has them.
        in_front: what is in front of the model and not in the file, a sentence; None for nothing.
        inexact: why an int8 file is compared with the model's fake-quantized forward, and not for equality; else None.
    """

    path: Path
    quantize: str | None
    parity: Parity
    float_parity: Parity | None
    audit: Audit
    labels: int
    warnings: tuple[str, ...] = ()
    float_layers: tuple[str, ...] = ()
    in_front: str | None = None
    inexact: str | None = None

    @property
    def float_agreement(self) -> float | None:
        """The share of images on which the file and the float model have the same highest score."""
        return None if self.float_parity is None else self.float_parity.agreement

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON takes them."""
        return {
            **dataclasses.asdict(self),
            "path": str(self.path),
            "parity": self.parity.to_dict(),
            "float_parity": self.float_parity and self.float_parity.to_dict(),
            "float_agreement": self.float_agreement,
            "audit": self.audit.to_dict(),
        }

    def __rich__(self) -> Table:
        rows = [("precision", self.quantize or "float32"), ("against Keras", str(self.parity))]
        if self.float_parity is not None:
            rows.append(("against float", str(self.float_parity)))
        if self.inexact:
            rows.append(("not exact", self.inexact))
        rows.extend(("[bold red]warning[/]", one) for one in self.warnings)
        if self.in_front:
            rows.append(("in front", self.in_front))
        if self.float_layers:
            rows.append(("in float", ", ".join(self.float_layers)))
        rows.extend(self.audit.rows())
        if self.labels:
            rows.append(("labels", f"{self.labels} class names inside the file"))
        return two_columns(str(self.path), iter(rows))

    def print(self) -> None:
        """Shows it as a table."""
        Console().print(self)


@dataclass(frozen=True)
class ServingReport:
    """What `export_saved_model` or `export_onnx` wrote, and how it answers.

    Attributes:
        path: the file or folder.
        signatures: what can be called, each with its input.
        parity: beside the Keras model.
        size_bytes: of everything written.
    """

    path: Path
    signatures: dict[str, str]
    parity: Parity
    size_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON takes them."""
        return {**dataclasses.asdict(self), "path": str(self.path), "parity": self.parity.to_dict()}

    def __rich__(self) -> Table:
        rows = [("against Keras", str(self.parity)), *self.signatures.items()]
        return two_columns(str(self.path), iter([*rows, ("size", f"{self.size_bytes:,} bytes")]))

    def print(self) -> None:
        """Shows it as a table."""
        Console().print(self)
