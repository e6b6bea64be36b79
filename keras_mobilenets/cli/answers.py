"""`predict` and `evaluate`: a saved model asked about pictures; for a `.tflite` file without TensorFlow."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

from keras_mobilenets.cli.errors import errors
from keras_mobilenets.cli.evaluation import compare, read_batches
from keras_mobilenets.cli.models import PictureModel, check_classes, open_model
from keras_mobilenets.data.images import BrokenImage, printable, read_pixels
from keras_mobilenets.loaders import LOADERS
from keras_mobilenets.pixels import PixelScale
from keras_mobilenets.tasks.task import class_name
from keras_mobilenets.utils import atomic_path

console = Console(highlight=False)


def predict(
    model: Path, images: list[Path], *, top: int, as_json: bool, pixels: PixelScale | None, draw: Path | None = None
) -> None:
    """Prints what is in each picture; broken ones are named, and make the command fail at its end."""
    opened = open_model(model, pixels)
    width = max(len(printable(path)) for path in images)
    broken = 0
    for number, path in enumerate(images):
        try:
            answer = opened.predict(opened.read(path)[np.newaxis])[0]
            if draw is not None:
                _draw(opened.task.show(read_pixels(path), answer), draw / f"{number:03}-{path.stem}.png")
        except BrokenImage as error:
            errors.print(str(error), markup=False, soft_wrap=True)
            broken += 1
            continue
        best = opened.best(answer, top)
        if as_json:
            print(json.dumps({"image": str(path), opened.task.found: best}))
        else:
            print(f"{printable(path):{width}}  " + "  ".join(map(_said, best)))
    if broken:
        raise typer.Exit(1)


def _said(one: dict[str, Any]) -> str:
    return f"{one['name']} {one['score']:.1%}" if "score" in one else one["name"]


def _draw(picture: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary, "PNG")


def evaluate(
    model: Path,
    data: str | None,
    *,
    everything: bool,
    seed: int,
    strict: bool,
    as_json: bool,
    pixels: PixelScale | None,
) -> None:
    """Prints how well a model does on pictures whose answer is known."""
    opened = open_model(model, pixels)
    loader = LOADERS[opened.task.name]
    data = data or loader.bundled
    held_out = _folder if loader.is_folder(data) else _data_set
    batches, names, broken = held_out(opened, data, everything=everything, seed=seed, strict=strict)
    found = compare({"model": opened}, batches)
    for line in broken:
        errors.print(f"left out: {line}", markup=False, soft_wrap=True)
    figures = found.score("model")
    result = {
        "model": str(model),
        "data": data,
        "pictures": len(found.truth),
        "left_out": len(broken),
        **figures,
        "classes": {
            class_name(label, names): counts
            for label, counts in found.task.by_class(found.answers["model"], found.truth).items()
        },
    }
    print(json.dumps(result)) if as_json else console.print(_table(result, figures))


Asked = tuple[Iterable[tuple[Any, Any]], Sequence[str], Sequence[str]]  # batches, class names, what was left out


def _folder(model: PictureModel, data: str, *, everything: bool, seed: int, strict: bool) -> Asked:
    on_error = "raise" if strict else "skip"
    folder = LOADERS[model.task.name].scanned(data, seed=seed, on_error=on_error, class_names=model.labels)
    check_classes(model.task, folder.class_names, data)
    splits = [folder.train, folder.val] if everything else [folder.val]
    return (batch for split in splits for batch in read_batches(split, model)), folder.class_names, folder.broken


def _data_set(model: PictureModel, data: str, *, everything: bool, seed: int, strict: bool) -> Asked:
    pictures = LOADERS[model.task.name].loaded(data, image_size=model.image_size, seed=seed)
    names = list(pictures.class_names)
    if model.labels is not None and model.labels != names:
        raise ValueError(f"The model's classes are not those of {data}: {model.labels[:5]}... and {names[:5]}...")
    check_classes(model.task, names, data)
    return pictures.val.as_numpy_iterator(), names, ()


def _table(result: dict, figures: dict[str, float | None]) -> Table:
    table = Table(
        title=f"{result['model']} on {result['pictures']:,} pictures of {result['data']}", title_justify="left"
    )
    columns: dict[str, float] = next(iter(result["classes"].values()), {})
    for name in ("class", *columns):
        table.add_column(name, justify="left" if name == "class" else "right")
    for name, counts in result["classes"].items():
        table.add_row(name, *(f"{value:,}" if isinstance(value, int) else f"{value:.1%}" for value in counts.values()))
    table.add_section()
    for name, value in figures.items():
        if value is not None:
            table.add_row(name.replace("_", " "), *[""] * (len(columns) - 1), f"[bold]{value:.2%}[/]")
    return table
