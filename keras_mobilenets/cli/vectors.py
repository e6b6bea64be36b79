"""`keras-mobilenets embed` and `search`: vectors of pictures, and which pictures are near to one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from keras_mobilenets.cli import checks
from keras_mobilenets.cli.errors import command
from keras_mobilenets.cli.options import ModelFile, Pixels
from keras_mobilenets.utils import quiet

app = typer.Typer()
USE = "Use a model"


def folder(value: Path) -> Path:
    """A folder with pictures."""
    if not value.is_dir():
        raise typer.BadParameter(f"there is no folder {value}")
    return value


def written(value: Path) -> Path:
    """Where vectors are, or shall be, written."""
    if value.suffix not in (".npz", ".parquet"):
        raise typer.BadParameter(f"must end in .npz or .parquet, not {value.name}")
    return value


def known(value: Path) -> Path:
    """A folder of pictures, or a file that `embed` has written."""
    return folder(value) if value.is_dir() or not value.suffix else written(checks.existing(value))


@app.command(rich_help_panel=USE)
@command
def embed(
    model: ModelFile,
    pictures: Annotated[Path, typer.Argument(metavar="FOLDER", callback=folder, help="Pictures, in any layout.")],
    output: Annotated[Path, typer.Argument(callback=written, help="A .npz file or, with pyarrow, a .parquet file.")],
    pixels: Pixels = None,
) -> None:
    """Write the vector of each picture in a folder, by a model of `train --task embedding`.

    OUTPUT holds "image", the path, and "embedding", of length 1, so that products are cosines. For millions of pictures
    `predict --runner` writes them, by Beam.
    """
    with quiet():
        from keras_mobilenets.cli import embedding

    embedding.embed(model, pictures, output, pixels=pixels)


@app.command(rich_help_panel=USE)
@command
def search(
    model: ModelFile,
    pictures: Annotated[
        Path, typer.Argument(metavar="KNOWN", callback=known, help="A folder of pictures, or what `embed` wrote of it.")
    ],
    images: Annotated[list[str], typer.Argument(help="Pictures that are looked for.")],
    top: Annotated[int, typer.Option(min=1, help="How many of the nearest to show.")] = 5,
    draw: Annotated[
        Path | None,
        typer.Option(callback=checks.png_path, help="A .png file: each picture, and to its right the nearest ones."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON per picture.")] = False,
    pixels: Pixels = None,
) -> None:
    """Find the pictures that are nearest to a picture, by the cosine of their vectors."""
    paths = checks.pictures(images)
    with quiet():
        from keras_mobilenets.cli import embedding

    options: dict[str, Any] = {"top": top, "draw": draw, "as_json": as_json, "pixels": pixels}
    embedding.search(model, pictures, paths, **options)
