"""What `export` was asked for, checked before TensorFlow is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from keras_mobilenets.applications.variants import FAMILIES
from keras_mobilenets.cli.checks import MODEL_SUFFIXES

if TYPE_CHECKING:
    from keras_mobilenets.pixels import PixelScale

TFLITE_ONLY = ("calibration", "quantize", "target", "input_dtype", "labels", "decoded", "dynamic_batch", "strict")
BUILDER_ONLY = ("weights", "alpha", "minimalistic")


class Quantize(str, Enum):
    """In what the file computes; `quantize` of `export_tflite`."""

    auto = "auto"
    int8 = "int8"
    int16x8 = "int16x8"
    float16 = "float16"
    dynamic = "dynamic"
    float32 = "float32"


class Target(str, Enum):
    """What runs the file; `target` of `export_tflite`."""

    xnnpack = "xnnpack"
    edgetpu = "edgetpu"
    tflite_micro = "tflite-micro"
    npu = "npu"


class InputDtype(str, Enum):
    """Of an int8 file; `input_dtype` of `export_tflite`."""

    uint8 = "uint8"
    int8 = "int8"
    float32 = "float32"


@dataclass(frozen=True)
class Request:
    """A model, and the file that shall be made of it.

    Attributes:
        model: a builder's name, or path of a `.keras` file.
        output: path of the file or folder.
        weights: "imagenet", path of a weight file, or None; for a builder.
        alpha: width multiplier; for a builder.
        image_size: side of the input; None for a file that knows it.
        minimalistic: of MobileNetV3.
        calibration, verify: pictures, or none.
        quantize, labels, pixels: as the command has them.
        options: of `export_tflite`, by name.
    """

    model: str
    output: Path
    weights: str | None
    alpha: float
    image_size: int | None
    minimalistic: bool
    calibration: Sequence[Path]
    verify: Sequence[Path]
    quantize: str
    labels: Path | None
    pixels: PixelScale | None
    options: dict[str, Any]

    @classmethod
    def decide(cls, context: typer.Context) -> Request:
        """Reads the command's arguments, and fills in what the user left open.

        Raises:
            typer.BadParameter: they contradict each other, or a folder holds no picture.
        """
        given, typed = context.params, check_builder(context)
        model, output = given["model"], given["output"]
        from_file = model.endswith(".keras")
        if output is not None and output.suffix != ".tflite":
            _refuse(typed, TFLITE_ONLY, f"a .tflite file, not {output.name}")
        integer = given["quantize"] in (Quantize.int8, Quantize.int16x8)
        if integer and not from_file and given["calibration"] is None:
            raise typer.BadParameter("needs --calibration, pictures to take its ranges from", param_hint="--quantize")
        alpha, size = given["alpha"] or 1.0, given["image_size"]
        return cls(
            model=model,
            output=output or _default_output(model, alpha, size or 224, given),
            weights=given["weights"],
            alpha=alpha,
            image_size=size if from_file else size or 224,
            minimalistic=given["minimalistic"],
            calibration=_pictures("--calibration", given["calibration"]),
            verify=_pictures("--verify", given["verify"]),
            quantize=given["quantize"].value,
            labels=given["labels"],
            pixels=given["pixels"],
            options={
                "target": given["target"] and given["target"].value,
                "input_dtype": given["input_dtype"].value,
                "decoded": given["decoded"],
                "dynamic_batch": given["dynamic_batch"],
                "strict": given["strict"],
            },
        )


def check_builder(context: typer.Context) -> list[str]:
    """Refuses a builder's options where a file is given, and MobileNetV3's for another builder.

    Returns:
        The options that were typed.
    """
    given = context.params
    typed = [name for name in given if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"]
    path = Path(given["model"])
    if path.suffix in MODEL_SUFFIXES:
        _refuse(typed, BUILDER_ONLY, f"a builder's model; {path.name} has its own")
    elif given["minimalistic"] and not (path.name in FAMILIES and FAMILIES[path.name].has_minimalistic):
        raise typer.BadParameter(f"is for MobileNetV3, not {path.name}", param_hint="--minimalistic")
    return typed


def _refuse(typed: Sequence[str], names: Sequence[str], belongs_to: str) -> None:
    for name in typed:
        if name in names:
            raise typer.BadParameter(f"is for {belongs_to}", param_hint=f"--{name.replace('_', '-')}")


def _pictures(option: str, folder: Path | None) -> Sequence[Path]:
    if folder is None:
        return ()
    from keras_mobilenets.data.layout import picture_files

    try:
        return picture_files(folder)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _default_output(model: str, alpha: float, size: int, given: dict[str, Any]) -> Path:
    if model.endswith(".keras"):
        return Path(model).with_suffix(".tflite")
    kind = "_minimalistic" if given["minimalistic"] else ""
    quantize = given["quantize"].value
    if quantize == "auto":
        quantize = "float32" if given["calibration"] is None else "int8"
    return Path(f"{model}{kind}_{alpha}_{size}_{quantize}.tflite")
