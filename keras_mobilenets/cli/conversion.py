"""`quantize` and `export`: the library's functions on files."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np

from keras_mobilenets import applications
from keras_mobilenets.cli import progress
from keras_mobilenets.cli.errors import errors
from keras_mobilenets.cli.models import built, check_classes, form_of, load_keras, pixel_scale, saved_labels
from keras_mobilenets.cli.request import Request
from keras_mobilenets.data.images import GREY, BrokenImage, read_image
from keras_mobilenets.diagnosis import quantization_report
from keras_mobilenets.export import export_onnx, export_saved_model, export_tflite
from keras_mobilenets.export.conversion import require_tensorflow
from keras_mobilenets.export.samples import CALIBRATION_IMAGES, VERIFICATION_IMAGES, take_images
from keras_mobilenets.export.signature import Signature
from keras_mobilenets.export.sizing import Sizing
from keras_mobilenets.loaders import LOADERS
from keras_mobilenets.pixels import PixelScale
from keras_mobilenets.quantization import is_quantized, post_training_quantize, quantize_model
from keras_mobilenets.tasks import task_of
from keras_mobilenets.tasks.saved import saved_task
from keras_mobilenets.training import quantize_aware

REPORT_IMAGES = 256  # of so many a point of accuracy is 2.6


def quantize(
    model: Path,
    output: Path,
    *,
    data: str | None,
    epochs: int,
    batch_size: int | None,
    seed: int,
    report: bool = False,
    pixels: PixelScale | None = None,
) -> None:
    """Calibrates a float model, trains it quantization-aware if asked to, and writes the integer file."""
    require_tensorflow()
    keras.utils.set_random_seed(seed)
    given = load_keras(model)
    if is_quantized(given):
        raise ValueError(f"{model} is quantized already: `keras-mobilenets export` writes it")
    form, scale = form_of(given, saved_task(model)), pixel_scale(given, pixels)
    loader = LOADERS[form.task.name]
    data, batch_size = data or loader.bundled, batch_size or loader.batch_size
    pictures = loader.loaded(
        data,
        image_size=form.image_size,
        batch_size=batch_size,
        seed=seed,
        preprocess=lambda images: scale(images if form.channels == 3 else images @ GREY),
    )
    check_classes(form.task, pictures.class_names, data)
    if epochs and getattr(form.task, "multi_label", False):
        raise ValueError(f"{model} gives any number of classes; {data} has one for each picture: leave out --epochs")
    if epochs:
        with progress.epochs("quantized", pictures.batch_size, form.task.headline) as callback:
            twin = quantize_model(given, input_range=scale.ends)
            quantized = quantize_aware(twin, pictures, task=form.task, epochs=epochs, callbacks=[callback])
    else:
        images = take_images(pictures.train, CALIBRATION_IMAGES)
        quantized = post_training_quantize(given, images, input_range=scale.ends)
    options = {"task": form.task, "labels": pictures.class_names, "normalization": (scale.mean, scale.std)}
    export_tflite(quantized, output, verify=pictures.val, **options)
    if report:
        held_out = pictures.val.unbatch().take(REPORT_IMAGES).batch(batch_size)
        found = quantization_report(given, quantized, held_out, task=form.task)
        progress.console.print(found, f"Look at {found.save(output.with_suffix('.html'))}", sep="\n")


def export(request: Request) -> None:
    """Writes a model in the format that the ending of the path asks for."""
    require_tensorflow()
    model = _model(request)
    size = request.image_size
    given = None if size is None else (size, size, model.input_shape[-1])
    shape = Signature.of(model, given, Sizing(model).shapes).image.example
    task = saved_task(request.model) or task_of(model)
    crop = task is None or task.crops
    verify = _images(model, shape, request.verify, VERIFICATION_IMAGES, request.pixels, crop)
    if request.output.suffix == ".onnx":
        export_onnx(model, request.output, input_shape=given, verify=verify)
        return
    pixels = request.pixels
    normalization = "auto" if pixels is None else (pixels.mean, pixels.std)
    if request.output.suffix != ".tflite":
        export_saved_model(model, request.output, input_shape=given, normalization=normalization, verify=verify)
        return
    quantize = None if request.quantize == "float32" else request.quantize
    if quantize == "auto" and request.calibration and not is_quantized(model):
        quantize = "int8"
    export_tflite(
        model,
        request.output,
        quantize=quantize,
        input_shape=given,
        task=task,
        labels=_labels(request),
        calibration=_images(model, shape, request.calibration, CALIBRATION_IMAGES, request.pixels, crop),
        verify=verify,
        normalization=normalization,
        **request.options,
    )


def _model(request: Request) -> keras.Model:
    if request.model.endswith(".keras"):
        return load_keras(Path(request.model))
    if request.weights is None:
        progress.console.print("Without --weights they are random: the file shows size and speed, and knows nothing.")
    return built(
        request.model,
        request.image_size,
        alpha=request.alpha,
        minimalistic=request.minimalistic,
        weights=request.weights,
    )


def _labels(request: Request) -> Path | list[str] | None:
    """The class names as given, or those that belong to the model; None where nobody wrote them down."""
    if request.labels is not None:
        return request.labels
    if request.weights != "imagenet":
        return saved_labels(Path(request.weights or request.model))
    try:
        named = applications.mobilenet.decode_predictions(np.eye(1000), top=1)
    except ConnectionError as error:
        reason = str(error).splitlines()[0]
        errors.print(f"There will be no class names in the file; --labels gives them. {reason}", soft_wrap=True)
        return None
    return [name for ((_, name, _),) in named]


def _images(
    model: keras.Model,
    shape: tuple[int, ...],
    paths: Sequence[Path],
    limit: int,
    pixels: PixelScale | None,
    crop: bool,
) -> np.ndarray | None:
    """Some of the pictures, evenly spread, as the model takes them; broken ones are named and left out."""
    if not paths:
        return None
    chosen = [paths[index] for index in np.linspace(0, len(paths) - 1, min(limit, len(paths))).astype(int)]

    def read(path: Path) -> np.ndarray | BrokenImage:
        try:
            return read_image(path, (shape[0], shape[1]), channels=shape[2], crop=crop)
        except BrokenImage as error:
            return error

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(read, chosen))
    for one in found:
        if isinstance(one, BrokenImage):
            errors.print(f"left out: {one}", markup=False, soft_wrap=True)
    pictures = [one for one in found if not isinstance(one, BrokenImage)]
    if not pictures:
        raise ValueError(f"None of {len(chosen)} pictures could be read, the first is {chosen[0]}")
    return pixel_scale(model, pixels)(np.stack(pictures))
