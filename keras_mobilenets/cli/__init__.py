"""`keras-mobilenets`: the whole way from pictures to an integer `.tflite` on the command line.

TensorFlow and Keras are imported only when there is work for them: help and mistakes are answered at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from keras_mobilenets.cli import adapting, apps, checks, vectors
from keras_mobilenets.cli.errors import command
from keras_mobilenets.cli.options import (
    BUILDER,
    BatchSize,
    Builder,
    Commands,
    Data,
    KerasFile,
    Listing,
    ModelFile,
    Pixels,
    Runner,
    Seed,
    Split,
    Strict,
    TaskName,
)
from keras_mobilenets.cli.request import InputDtype, Quantize, Request, Target, check_builder
from keras_mobilenets.loaders import LOADERS, USUAL_TASK
from keras_mobilenets.utils import quiet, require

app = typer.Typer(
    cls=Commands,
    name="keras-mobilenets",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="MobileNets from pictures to a full-integer .tflite. `keras-mobilenets train` alone shows the whole way.",
)
app.add_typer(apps.app, name="app", rich_help_panel="Use a model")
app.add_typer(vectors.app)
app.add_typer(adapting.app)


@app.command(rich_help_panel="From pictures to a .tflite")
@command
def train(
    context: typer.Context,
    task: TaskName = USUAL_TASK,
    data: Data = None,
    model: Builder = "MobileNetV3Small",
    alpha: Annotated[
        float | None,
        typer.Option(callback=checks.positive, show_default="0.5; with weights 1", help="Width multiplier."),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(min=8, show_default="32 for thumbnails, else 160", help="Side of the square it sees, in pixels."),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(callback=checks.weights, help="'imagenet' or a weight file to start from.")
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(callback=checks.recipe, show_default="the task's", help="One of `list recipes`."),
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(callback=checks.teacher, help="A .keras model to learn from, too.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, show_default="the recipe's", help="In float.")] = None,
    quantize_epochs: Annotated[
        int | None, typer.Option(min=1, show_default="the recipe's", help="Quantization-aware.")
    ] = None,
    batch_size: BatchSize = None,
    output: Annotated[Path | None, typer.Option(show_default="runs/DATA-1, -2, ...", help="Run folder.")] = None,
    seed: Seed = 0,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the run in --output, or begin it; without, with the last unfinished one."
        ),
    ] = False,
    augment: Annotated[
        list[str],
        typer.Option(callback=checks.augment, help="; ".join(f"{name}: {one.words}" for name, one in LOADERS.items())),
    ] = ["auto"],  # noqa: B006
    anchors: Annotated[
        str | None,
        typer.Option(
            metavar="WORD",
            callback=checks.anchors,
            show_default="ssd",
            help="Of detection: ssd, torchvision, or ssd's from a smaller scale on, such as 0.1; see --dry-run.",
        ),
    ] = None,
    strict: Strict = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only read the data, and say what is in them and how anchors cover boxes.")
    ] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write logs for it, too.")] = False,
    page: Annotated[
        str | None,
        typer.Option(
            metavar="npm|FOLDER",
            show_default="none",
            help="Write a page, too, that runs the file in the browser, with its runtime from there; see `app web`.",
        ),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(metavar="N|all", callback=checks.devices, show_default="one", help="GPUs to train on together."),
    ] = None,
) -> None:
    """Train a MobileNet, fine-tune it quantization-aware, convert it to integers and compare all three.

    Without any option it does so on the bundled pictures of handwritten digits. Leaves a run folder with float.keras,
    qat.keras, model.tflite, labels.txt, metrics.json, curves.png and report.html.
    """
    given = {name: context.params[name] for name in context.params if name not in ("output", "resume", "dry_run")}
    typed = [name for name in given if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"]
    from keras_mobilenets.cli.settings import start

    folder, settings = start(output, given, typed, resume=resume)
    with quiet():
        from keras_mobilenets.cli import job

    (job.look if dry_run else job.train)(folder, settings)


@app.command(rich_help_panel="From pictures to a .tflite")
@command
def quantize(
    model: KerasFile,
    output: Annotated[Path, typer.Argument(callback=checks.tflite_path, help="The .tflite file to write.")],
    data: Data = None,
    epochs: Annotated[int, typer.Option(min=0, help="Quantization-aware; 0 only calibrates.")] = 0,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    report: Annotated[
        bool, typer.Option("--report", help="Measure layer by layer which one hurts: a page beside OUTPUT, as .html.")
    ] = False,
    pixels: Pixels = None,
) -> None:
    """Turn a float .keras model into a full-integer .tflite, with pictures it was trained on."""
    with quiet():
        from keras_mobilenets.cli.conversion import quantize

    options: dict[str, Any] = {"data": data, "epochs": epochs, "batch_size": batch_size, "seed": seed}
    quantize(model, output, **options, report=report, pixels=pixels)


@app.command(rich_help_panel="From pictures to a .tflite")
@command
def export(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            callback=checks.exported,
            help="MobileNet, MobileNetV2, MobileNetV3Small, MobileNetV3Large, or a .keras file.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Argument(
            callback=checks.exported_path,
            show_default="MODEL.tflite",
            help="A .tflite or, in float32, an .onnx file or a folder for a SavedModel.",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            callback=checks.weights, show_default="random", help="'imagenet' or a weight file.", rich_help_panel=BUILDER
        ),
    ] = None,
    alpha: Annotated[
        float | None,
        typer.Option(callback=checks.positive, show_default="1", help="Width multiplier.", rich_help_panel=BUILDER),
    ] = None,
    minimalistic: Annotated[
        bool, typer.Option("--minimalistic", help="Of MobileNetV3.", rich_help_panel=BUILDER)
    ] = False,
    image_size: Annotated[
        int | None, typer.Option(min=1, show_default="224, or the .keras file's", help="Side of its square input.")
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Pictures, in any layout: from 256 of them a float model gets its integer ranges."
        ),
    ] = None,
    quantize: Annotated[
        Quantize,
        typer.Option(
            metavar="KIND",
            help="int8, int16x8, float16, dynamic (8-bit kernels, computes in float) or float32; auto is int8 for a "
            "quantized model and with --calibration, else float32.",
        ),
    ] = Quantize.auto,
    target: Annotated[
        Target | None,
        typer.Option(
            metavar="KIND",
            help="What runs an int8 file: xnnpack (CPUs of phones and computers), edgetpu, tflite-micro or npu; by "
            "default what a quantized model was quantized for, else xnnpack.",
        ),
    ] = None,
    input_dtype: Annotated[
        InputDtype,
        typer.Option(
            metavar="KIND",
            help="What an int8 file takes: uint8 (pixels), int8 (pixels less 128) or float32 (normalized).",
        ),
    ] = InputDtype.uint8,
    labels: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            show_default="ImageNet's, or labels.txt beside the model",
            help="Class names, one a line; they go into the file.",
        ),
    ] = None,
    verify: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", show_default="those of --calibration", help="Pictures to compare file and model on."
        ),
    ] = None,
    pixels: Pixels = None,
    decoded: Annotated[
        bool | None,
        typer.Option(
            "--decoded/--encoded",
            show_default="as the task has it",
            help="Whether the file itself chooses a detector's boxes and a segmentation's classes.",
        ),
    ] = None,
    dynamic_batch: Annotated[bool, typer.Option("--dynamic-batch", help="Declare the batch as variable.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail, and write nothing, if anything inside is not integer.")
    ] = False,
) -> None:
    """Write a model as a file to deploy, run beside the model before it is called done.

    With ImageNet weights and some pictures of your own, an integer file in one line:

        keras-mobilenets export MobileNetV2 --weights imagenet --calibration PICTURES
    """
    request = Request.decide(context)
    with quiet():
        from keras_mobilenets.cli.conversion import export

    export(request)


@app.command(rich_help_panel="Use a model", context_settings={"ignore_unknown_options": True})
@command
def predict(
    model: ModelFile,
    images: Annotated[list[str], typer.Argument(help="Pictures; with --runner globs of them, then Beam's options.")],
    top: Annotated[int, typer.Option(min=1, help="How many to show, where each class has a score.")] = 3,
    draw: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the pictures with what was found drawn into them.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON per picture.")] = False,
    runner: Runner = None,
    output: Annotated[
        str | None, typer.Option(metavar="PATH", help="With --runner: NAME.jsonl or NAME.parquet, written in parts.")
    ] = None,
    pixels: Pixels = None,
) -> None:
    """Say what is in pictures.

    A job of any size, with the names of broken pictures in NAME.broken-*.jsonl; what follows the globs goes to Beam:

        keras-mobilenets predict model.tflite 'gs://mine/*.jpg' --runner DataflowRunner --output gs://mine/answers.jsonl
        --project mine --region europe-west1
    """
    if runner is None:
        paths = checks.pictures(images)
        with quiet():
            from keras_mobilenets.cli.answers import predict

        predict(model, paths, top=top, draw=draw, as_json=as_json, pixels=pixels)
        return
    patterns, flags = checks.batch(model, images, output)
    require("apache_beam", "beam")
    from keras_mobilenets.cli import beam

    beam.predict(model, patterns, top=top, runner=runner, output=str(output), flags=flags, pixels=pixels)


@app.command(rich_help_panel="Use a model")
@command
def evaluate(
    model: ModelFile,
    data: Data = None,
    split: Annotated[
        Split, typer.Option(help="The pictures that `train` holds out, or all in a folder.")
    ] = Split.held_out,
    seed: Annotated[int, typer.Option(min=0, help="That `train` had; draws the same held-out pictures.")] = 0,
    strict: Strict = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
    pixels: Pixels = None,
) -> None:
    """Measure how well a model does on pictures whose answer is known."""
    with quiet():
        from keras_mobilenets.cli.answers import evaluate

    evaluate(model, data, everything=split is Split.all, seed=seed, strict=strict, as_json=as_json, pixels=pixels)


@app.command(rich_help_panel="Look around")
@command
def profile(
    context: typer.Context,
    model: Annotated[
        str, typer.Argument(callback=checks.profiled, help="A builder's name, or a .keras or .tflite file.")
    ],
    alpha: Annotated[float, typer.Option(callback=checks.positive, help="Width multiplier.")] = 1.0,
    image_size: Annotated[int, typer.Option(min=32, help="Side of the square that a builder is asked for.")] = 224,
    minimalistic: Annotated[bool, typer.Option("--minimalistic", help="Of MobileNetV3.")] = False,
    plot: Annotated[Path | None, typer.Option(callback=checks.png_path, help="A .png file to draw.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """Show parameters, multiply-adds and bytes of each layer."""
    check_builder(context)
    from keras_mobilenets.cli.looking import profile

    profile(model, alpha=alpha, image_size=image_size, minimalistic=minimalistic, plot=plot, as_json=as_json)


@app.command(rich_help_panel="Look around")
@command
def choose(
    max_latency_ms: Annotated[float | None, typer.Option(help="For one picture, on one thread.")] = None,
    max_size_mb: Annotated[float | None, typer.Option(help="Of the int8 file, in millions of bytes.")] = None,
    image_size: Annotated[int | None, typer.Option(help="Side of the pictures, in pixels.")] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            callback=checks.calibration,
            metavar="VARIANT=MS",
            help="What one variant takes on your device; all others are scaled by it.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of a table.")] = False,
) -> None:
    """Recommend a published variant within limits, by what its int8 file was measured to cost."""
    from keras_mobilenets.cli.looking import choose

    choose(
        max_latency_ms=max_latency_ms,
        max_size_mb=max_size_mb,
        image_size=image_size,
        calibrate=calibrate,
        as_json=as_json,
    )


@app.command(name="list", rich_help_panel="Look around")
@command
def list_(what: Annotated[Listing, typer.Argument(help="What to list.")] = Listing.variants) -> None:
    """List the published variants, the models, the known data sets or the training recipes."""
    from keras_mobilenets.cli import looking

    getattr(looking, what.value)()


def main() -> None:
    """The command `keras-mobilenets`."""
    app()
