"""Options that several commands share, and the words that some take."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from keras_mobilenets.cli import checks
from keras_mobilenets.loaders import LOADERS
from keras_mobilenets.utils import user_path

if TYPE_CHECKING:
    from keras_mobilenets.pixels import PixelScale

    Pixels = PixelScale | None  # what the callback makes of the text
else:
    Pixels = Annotated[
        str | None,
        typer.Option(
            metavar="BLACK,WHITE",
            callback=checks.pixels,
            show_default="what the model says",
            help="What the model takes for pixels: 0,255, 0,1 or -1,1, or MEAN/STD, by channel, of pixels in [0, 255].",
        ),
    ]


class Commands(typer.core.TyperGroup):
    """All commands: `~` in an argument or behind `=` is the home folder, as a shell leaves it to be."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [re.sub(r"^(--[\w-]+=)?(~.*)", _at_home, one) for one in args])


def _at_home(argument: re.Match[str]) -> str:
    return (argument[1] or "") + str(user_path(argument[2]))


Builder = Annotated[
    str,
    typer.Option("--model", callback=checks.model, help="MobileNet, MobileNetV2, MobileNetV3Small, MobileNetV3Large."),
]
TaskName = Annotated[
    str,
    # Eager: which data and augmentations there are depends on it.
    typer.Option(callback=checks.task, is_eager=True, metavar="NAME", help=f"What it is for: {', '.join(LOADERS)}."),
]
Data = Annotated[
    str | None,
    typer.Option(
        callback=checks.data,
        show_default=f"the bundled {' or '.join(dict.fromkeys(one.bundled for one in LOADERS.values()))}",
        help=f"A folder ({'; '.join(one.folder for one in LOADERS.values())}), or a TFDS name.",
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        show_default="; ".join(f"{name} {one.batch_size}" for name, one in LOADERS.items()),
        help="Pictures in a training step.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Of everything random.")]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse broken pictures instead of leaving them out.")]
Runner = Annotated[
    str | None,
    typer.Option(
        show_default="this process",
        help="For millions of pictures: beam (this machine) or Beam's DataflowRunner, FlinkRunner, SparkRunner.",
    ),
]
KerasFile = Annotated[Path, typer.Argument(callback=checks.keras_file, help="A .keras file.")]
ModelFile = Annotated[Path, typer.Argument(callback=checks.model_file, help="A .tflite or .keras file.")]

BUILDER = "Options of a builder"


class Listing(str, Enum):
    """What `list` can list."""

    variants = "variants"
    models = "models"
    datasets = "datasets"
    recipes = "recipes"


class Split(str, Enum):
    """Which pictures `evaluate` uses."""

    held_out = "held-out"
    all = "all"
