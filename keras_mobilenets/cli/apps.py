"""`keras-mobilenets app`: programs around a `.tflite` file, ready to run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from keras_mobilenets.cli import checks
from keras_mobilenets.cli.errors import command
from keras_mobilenets.utils import quiet

app = typer.Typer(
    no_args_is_help=True, help="Write a program that runs a .tflite file: a page, a service, the start of an app."
)

ModelFile = Annotated[Path, typer.Argument(callback=checks.deployed_file, help="A .tflite file.")]
Output = Annotated[Path, typer.Argument(help="A folder, new or empty.")]
Name = Annotated[str | None, typer.Option(show_default="the file's", help="What to call the model.")]
Pixels = Annotated[
    str | None,
    typer.Option(
        metavar="BLACK,WHITE", callback=checks.pixels, show_default="what the file says", help="As of `predict`."
    ),
]


@app.command()
@command
def web(
    model: ModelFile,
    output: Output,
    runtime: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            metavar="FOLDER",
            show_default="from npm's registry",
            help="Where `npm install @litertjs/core` was run, or another such page: needs no network.",
        ),
    ] = None,
    name: Name = None,
    pixels: Pixels = None,
) -> None:
    """A static page that runs the file in the browser, on pictures and on the camera; for any host, and offline.

    keras-mobilenets app web model.tflite page

    python3 -m http.server -d page
    """
    from keras_mobilenets.apps.web import write_web

    write_web(deployed(model, name, pixels), output, runtime=runtime)
    print(f"{output}: look at it with python3 -m http.server -d {output}")


@app.command()
@command
def pi(model: ModelFile, output: Output, name: Name = None, pixels: Pixels = None) -> None:
    """A service for a Raspberry Pi, or any Linux machine: HTTP, the camera if there is one, a systemd unit.

    keras-mobilenets app pi model.tflite service
    """
    from keras_mobilenets.apps.pi import write_pi

    write_pi(deployed(model, name, pixels), output)
    print(f"{output}: README.md says how to install it")


@app.command()
@command
def android(model: ModelFile, output: Output, name: Name = None) -> None:
    """The start of an Android app around a classifier: Kotlin, CameraX, MediaPipe Tasks. Not tried on a phone."""
    _phone(model, output, name, "android")


@app.command()
@command
def ios(model: ModelFile, output: Output, name: Name = None) -> None:
    """The start of an iOS app around a classifier: SwiftUI, MediaPipe Tasks. Not tried on a phone."""
    _phone(model, output, name, "ios")


def _phone(model: Path, output: Path, name: str | None, platform: str) -> None:
    from keras_mobilenets.apps.phones import write_phone

    write_phone(deployed(model, name, None), output, platform)
    print(f"{output}: README.md says how to build it, and what was not tried")


def deployed(path: Path, name: str | None, pixels: Any) -> Any:
    """A file that runs here, takes pictures, and has as many labels as classes."""
    with quiet():
        from keras_mobilenets.apps.about import Deployed
        from keras_mobilenets.cli.models import saved_labels, tflite_model
        from keras_mobilenets.tflite import read_tflite

        file = read_tflite(path)
        found = tflite_model(path, saved_labels(path), pixels=pixels)
    return Deployed(file, found.task, name or path.stem, found.labels, pixels)
