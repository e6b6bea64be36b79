"""`keras-mobilenets adapt`: a trained classifier, cut to a latency."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from keras_mobilenets.cli import checks
from keras_mobilenets.cli.errors import command
from keras_mobilenets.cli.options import BatchSize, Data, KerasFile, Pixels, Seed
from keras_mobilenets.utils import quiet

app = typer.Typer()


def share(value: float) -> float:
    """What is greater than 0 and less than 1."""
    if not 0 < value < 1:
        raise typer.BadParameter(f"must be in (0, 1), not {value:g}")
    return value


@app.command(rich_help_panel="From pictures to a .tflite")
@command
def adapt(
    model: KerasFile,
    latency_ms: Annotated[
        float, typer.Option(callback=checks.positive, help="For one picture, in 8 bits, on one thread; see the table.")
    ],
    data: Data = None,
    output: Annotated[
        Path | None,
        typer.Option(show_default="MODEL-adapted", help="Run folder; given again, the run in it goes on."),
    ] = None,
    cut: Annotated[float, typer.Option(callback=share, help="Share of the latency that a step saves at least.")] = 0.01,
    steps: Annotated[int, typer.Option(min=1, help="Batches in which a proposal is fine-tuned.")] = 50,
    finalists: Annotated[int, typer.Option(min=1, help="Proposals that are fine-tuned in a step.")] = 4,
    epochs: Annotated[int, typer.Option(min=0, help="Of the fine-tuning at the end.")] = 6,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV", show_default="latency.csv in the run folder", help="Latencies; what lacks is added."
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            show_default="this machine", help="Name of a device far away: writes the files that it has to time."
        ),
    ] = None,
    command_line: Annotated[
        str | None,
        typer.Option("--command", help="What has the device time them, {folder} in it their folder."),
    ] = None,
    pixels: Pixels = None,
) -> None:
    """Cut a trained classifier to a latency, by MobileNetV3's NetAdapt on measured integer blocks.

    Leaves adapted.keras, adapted.tflite, the page netadapt.html and the network as rows of its builder's table.
    """
    if device is not None and table is None:
        raise typer.BadParameter(
            "with --device it must be given: the files to time are written beside it", param_hint="--table"
        )
    with quiet():
        from keras_mobilenets.cli import netadapting

    options: dict[str, Any] = {"cut": cut, "steps": steps, "finalists": finalists, "epochs": epochs}
    measured = {"path": table, "device": device, "command": command_line}
    folder = output or model.with_name(f"{model.stem}-adapted")
    given: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "pixels": pixels, "measured": measured}
    netadapting.adapt(model, data, folder, latency_ms=latency_ms, **given, **options)
