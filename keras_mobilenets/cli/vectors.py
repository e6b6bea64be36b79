"""`keras-mobilenets embed` and `search`: vectors of pictures, and which pictures are near to one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from keras_mobilenets.cli import checks
from keras_mobilenets.cli.errors import command
from keras_mobilenets.cli.options import ModelFile, Pixels, Runner
from keras_mobilenets.utils import quiet, require

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
    """A folder of pictures, or a file that `embed` has written, whole or in parts."""
    if value.is_dir() or not value.suffix:
        return folder(value)
    return written(value if checks.parts(value) else checks.existing(value))


@app.command(rich_help_panel=USE, context_settings={"ignore_unknown_options": True})
@command
def embed(
    model: ModelFile,
    pictures: Annotated[str, typer.Argument(metavar="FOLDER", help="Pictures, in any layout.")],
    output: Annotated[str, typer.Argument(help="A .npz file or, with pyarrow, a .parquet file.")],
    flags: Annotated[list[str] | None, typer.Argument(metavar="[BEAM]", help="With --runner Beam's options.")] = None,
    runner: Runner = None,
    pixels: Pixels = None,
) -> None:
    """Write the vector of each picture in a folder, by a model of `train --task embedding`.

    OUTPUT holds "image", the path, and "embedding", of length 1, so that products are cosines. With --runner a .parquet
    file is written in parts, which `search` knows by the whole's name; broken pictures are in NAME.broken-*.jsonl:

        keras-mobilenets embed model.tflite gs://mine/faces gs://mine/vectors.parquet --runner DataflowRunner
        --project mine --region europe-west1
    """
    if runner is None:
        checks.pictures(flags or [])
        source, target = folder(Path(pictures)), written(Path(output))
        with quiet():
            from keras_mobilenets.cli import embedding

        embedding.embed(model, source, target, pixels=pixels)
        return
    checks.batch(model, [pictures], output, endings=(".parquet",), option="'OUTPUT'")
    require("apache_beam", "beam")
    from keras_mobilenets.cli import beam

    pattern = f"{pictures.rstrip('/')}/**"
    beam.embed(model, pattern, runner=runner, output=output, flags=flags or [], pixels=pixels)


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
