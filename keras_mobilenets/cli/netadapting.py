"""What `adapt` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras

from keras_mobilenets.cli import progress
from keras_mobilenets.cli.models import check_classes, form_of, load_keras, pixel_scale
from keras_mobilenets.data.images import GREY
from keras_mobilenets.export import export_tflite
from keras_mobilenets.loaders import LOADERS
from keras_mobilenets.pixels import PixelScale
from keras_mobilenets.search import LatencyTable, netadapt, table_rows
from keras_mobilenets.search.netadapt import PAGE_FILE
from keras_mobilenets.tasks.saved import saved_task

FILE = "adapted.tflite"


def adapt(
    model: Path,
    data: str | None,
    folder: Path,
    *,
    latency_ms: float,
    batch_size: int | None,
    seed: int,
    pixels: PixelScale | None,
    measured: dict[str, Any],
    **options: Any,
) -> None:
    """Adapts, writes the integer file, and prints the table."""
    keras.utils.set_random_seed(seed)
    given = load_keras(model)
    form, scale = form_of(given, saved_task(model)), pixel_scale(given, pixels)
    loader = LOADERS[form.task.name]
    pictures = loader.loaded(
        data or loader.bundled,
        image_size=form.image_size,
        batch_size=batch_size or loader.batch_size,
        seed=seed,
        preprocess=lambda images: scale(images if form.channels == 3 else images @ GREY),
    )
    check_classes(form.task, pictures.class_names, data or loader.bundled)
    table = LatencyTable(**measured) if measured["path"] else None
    tell = progress.console.print
    adapted = netadapt(given, pictures, target_latency_ms=latency_ms, folder=folder, table=table, tell=tell, **options)
    images = {"calibration": pictures.train, "verify": pictures.val, "labels": pictures.class_names}
    normalization = (scale.mean, scale.std)
    export_tflite(adapted, folder / FILE, quantize="int8", normalization=normalization, **images)
    tell(table_rows(adapted), f"\nLook at {folder / PAGE_FILE}", sep="\n", markup=False)
