"""`predict` and `evaluate`: a saved model asked about pictures; for a `.tflite` file without TensorFlow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from keras_mobilenets.cli.errors import errors
from keras_mobilenets.cli.evaluation import Comparison, compare, read_batches
from keras_mobilenets.cli.models import Classifier, check_classes, open_classifier
from keras_mobilenets.data.folder import scan_folder
from keras_mobilenets.data.images import BrokenImage, printable, read_image
from keras_mobilenets.data.names import is_folder
from keras_mobilenets.pixels import PixelScale
from keras_mobilenets.tasks.classification import class_name

console = Console(highlight=False)


def predict(model: Path, images: list[Path], *, top: int, as_json: bool, pixels: PixelScale | None) -> None:
    """Prints the likeliest classes of each picture; broken ones are named, and make the command fail at its end."""
    classifier = open_classifier(model, pixels)
    width = max(len(printable(path)) for path in images)
    broken = 0
    for path in images:
        try:
            image = read_image(path, classifier.image_size)
        except BrokenImage as error:
            errors.print(str(error), markup=False, soft_wrap=True)
            broken += 1
            continue
        best = classifier.best(classifier.predict(image[np.newaxis])[0], top)
        if as_json:
            print(json.dumps({"image": str(path), "classes": best}))
        else:
            print(f"{printable(path):{width}}  " + "  ".join(f"{one['name']} {one['score']:.1%}" for one in best))
    if broken:
        raise typer.Exit(1)


def evaluate(
    model: Path, data: str, *, everything: bool, seed: int, strict: bool, as_json: bool, pixels: PixelScale | None
) -> None:
    """Prints how well a model does on pictures whose answer is known."""
    classifier = open_classifier(model, pixels)
    if is_folder(data):
        found, names, broken = _folder(classifier, data, everything, seed, strict)
    else:
        found, names, broken = *_data_set(classifier, data, seed), ()
    for line in broken:
        errors.print(f"left out: {line}", markup=False, soft_wrap=True)
    figures = found.score("model")
    result = {
        "model": str(model),
        "data": data,
        "pictures": len(found.labels),
        "left_out": len(broken),
        **figures,
        "classes": {
            class_name(label, names): counts
            for label, counts in found.task.by_class(found.scores["model"], found.labels).items()
        },
    }
    print(json.dumps(result)) if as_json else console.print(_table(result, figures))


def _folder(
    classifier: Classifier, data: str, everything: bool, seed: int, strict: bool
) -> tuple[Comparison, Sequence[str], tuple[str, ...]]:
    on_error = "raise" if strict else "skip"
    folder = scan_folder(data, seed=seed, on_error=on_error, class_names=classifier.labels)
    check_classes(classifier.task, folder.class_names, data)
    paths, labels = list(folder.val.paths), folder.val.labels
    if everything:
        paths, labels = [*folder.train.paths, *paths], np.concatenate([folder.train.labels, labels])
    found = compare({"model": classifier}, read_batches(paths, labels, classifier.image_size))
    return found, folder.class_names, folder.broken


def _data_set(classifier: Classifier, data: str, seed: int) -> tuple[Comparison, Sequence[str]]:
    from keras_mobilenets.data import load

    pictures = load(data, image_size=classifier.image_size, seed=seed)
    names = list(pictures.class_names)
    if classifier.labels is not None and classifier.labels != names:
        raise ValueError(f"The model's classes are not those of {data}: {classifier.labels[:5]}... and {names[:5]}...")
    check_classes(classifier.task, names, data)
    return compare({"model": classifier}, pictures.val.as_numpy_iterator()), names


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
