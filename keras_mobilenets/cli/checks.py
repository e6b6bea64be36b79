"""What can be said of a command's arguments before any work: the callbacks of the options."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import typer

from keras_mobilenets.applications.variants import check_builder
from keras_mobilenets.loaders import LOADERS, USUAL_TASK

MODEL_SUFFIXES = (".tflite", ".keras")


def model(value: str) -> str:
    """A builder's name."""
    try:
        return check_builder(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def task(value: str) -> str:
    """The name of a task."""
    if value not in LOADERS:
        raise typer.BadParameter(f"must be one of {', '.join(LOADERS)}")
    return value


def parts(path: Path) -> list[Path]:
    """What Beam wrote in parts of a .parquet file, by the whole's name."""
    return sorted(path.parent.glob(f"{path.stem}-*-of-*.parquet")) if path.suffix == ".parquet" else []


def positive(value: float | None) -> float | None:
    """A finite number, where one is given."""
    if value is not None and not 0 < value < float("inf"):
        raise typer.BadParameter(f"must be > 0, not {value:g}")
    return value


def data(context: typer.Context, value: str | None) -> str | None:
    """A folder or the name of a data set: of `--task`, of which the bundled one is the default, else of any task."""
    known = context.params.get("task")
    if value is None:
        return LOADERS[known].bundled if known else None
    files = tuple(ending for one in LOADERS.values() for ending in one.files)
    try:
        LOADERS[known].check(value) if known else LOADERS[USUAL_TASK].is_folder(value, files)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return value


def augment(context: typer.Context, value: list[str]) -> list[str]:
    """Names of augmentations of `--task`."""
    try:
        return LOADERS[context.params["task"]].augmented(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def anchors(context: typer.Context, value: str | None) -> str | None:
    """A word for the anchors of a detector."""
    from keras_mobilenets.tasks.boxes import named_anchors

    if value is not None and context.params["task"] != "detection":
        raise typer.BadParameter(f"is for detection, not {context.params['task']}")
    try:
        named_anchors(value or "ssd")
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return value


def weights(value: str | None) -> str | None:
    """A weight file, or "imagenet"."""
    if value not in (None, "imagenet") and not os.path.isfile(value):
        raise typer.BadParameter(f"must be 'imagenet' or a weight file; there is no file {value}")
    return value


def recipe(value: str | None) -> str | None:
    """A recipe that begins in float."""
    from keras_mobilenets.training.recipes import RECIPES, recipe

    try:
        if value is None or recipe(value).quantize:
            return value
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    known = ", ".join(name for name, one in RECIPES.items() if one.quantize)
    raise typer.BadParameter(f"{value} is for models that are trained already; begin with one of {known}")


def devices(value: str | None) -> int | str | None:
    """A number of devices, or "all"."""
    if value in (None, "all"):
        return value
    if not str(value).isdecimal() or not int(str(value)):
        raise typer.BadParameter(f"must be a number or 'all', not {value}")
    return int(str(value))


def teacher(value: Path | None) -> str | None:
    """A Keras model that was saved."""
    return None if value is None else str(keras_file(value))


def model_file(value: Path) -> Path:
    """A model that was saved."""
    if not value.exists():
        raise typer.BadParameter(f"there is no file {value}")
    if value.suffix not in MODEL_SUFFIXES:
        raise typer.BadParameter(f"must end in {' or '.join(MODEL_SUFFIXES)}, not {value.name}")
    return value


def existing(value: Path) -> Path:
    """A file that is there."""
    if not value.is_file():
        raise typer.BadParameter(f"there is no file {value}")
    return value


def keras_file(value: Path) -> Path:
    """A Keras model that was saved."""
    if value.suffix != ".keras":
        raise typer.BadParameter(f"must end in .keras, not {value.name}")
    return model_file(value)


def pixels(value: str | None) -> Any:
    """A `PixelScale`: of the values of black and white, or of mean and std in (pixel - mean) / std."""
    if value is None:
        return None
    from keras_mobilenets.pixels import PixelScale

    try:
        if "/" in value:
            return PixelScale.standardizing(*([float(one) for one in part.split(",")] for part in value.split("/")))
        return PixelScale.between(*(float(one) for one in value.split(",")))
    except (ValueError, TypeError):
        raise typer.BadParameter(
            "must be BLACK,WHITE such as 0,1, or MEAN/STD by channel of pixels in [0, 255], such as "
            f"124,116,104/58,57,57, not {value!r}"
        ) from None


def deployed_file(value: Path) -> Path:
    """A .tflite file that is there."""
    if value.suffix != ".tflite":
        raise typer.BadParameter(f"must end in .tflite, not {value.name}")
    return model_file(value)


def tflite_path(value: Path | None) -> Path | None:
    """Where a .tflite file shall be written."""
    if value is not None and value.suffix != ".tflite":
        raise typer.BadParameter(f"must end in .tflite, not {value.name}")
    return value


def exported(value: str) -> str:
    """What `export` can read: a builder's name, or a Keras model that was saved."""
    path = Path(value)
    return str(keras_file(path)) if path.suffix or path.exists() else model(value)


def exported_path(value: Path | None) -> Path | None:
    """Where `export` shall write."""
    if value is not None and value.suffix not in (".tflite", ".onnx", ""):
        raise typer.BadParameter(f"must end in .tflite or .onnx, or be a folder without an ending, not {value.name}")
    return value


def pictures(values: list[str]) -> list[Path]:
    """Files with pictures, of which missing ones are named at once."""
    strange = [value for value in values if value.startswith("-")]
    if strange:
        raise typer.BadParameter(f"there is no option {strange[0]}; options of Beam need --runner")
    missing = [value for value in values if not os.path.isfile(value)]
    if missing:
        raise typer.BadParameter(f"there is no file {', '.join(missing[:5])}", param_hint="'IMAGES...'")
    return [Path(value) for value in values]


def batch(
    model: Path,
    values: list[str],
    output: str | None,
    endings: tuple[str, ...] = (".jsonl", ".parquet"),
    option: str = "--output",
) -> tuple[list[str], list[str]]:
    """For a job on Beam: the globs of the pictures, and Beam's options, which are everything from the first on."""
    if model.suffix != ".tflite":
        raise typer.BadParameter(f"with --runner it must be a .tflite file, not {model.name}", param_hint="'MODEL'")
    if output is None or not output.endswith(endings):
        raise typer.BadParameter(
            f"with --runner it must be given, and end in {' or '.join(endings)}", param_hint=option
        )
    first = next((index for index, value in enumerate(values) if value.startswith("-")), len(values))
    if not first:
        raise typer.BadParameter(f"write the pictures before {values[0]}", param_hint="'IMAGES...'")
    return values[:first], values[first:]


def profiled(value: str) -> str:
    """A builder's name, or a model file."""
    path = Path(value)
    return str(model_file(path)) if path.suffix in MODEL_SUFFIXES else model(value)


def png_path(value: Path | None) -> Path | None:
    """Where a picture shall be drawn."""
    if value is not None and value.suffix != ".png":
        raise typer.BadParameter(f"must end in .png, not {value.name}")
    return value


def calibration(value: str | None) -> str | None:
    """A variant and the milliseconds that it takes."""
    if value is None:
        return None
    from keras_mobilenets.analysis.choice import device_scale

    name, _, milliseconds = value.partition("=")
    try:
        device_scale(name, float(milliseconds))
    except ValueError as error:
        raise typer.BadParameter(f"must be VARIANT=MILLISECONDS, not {value!r}. {error}") from None
    return value
