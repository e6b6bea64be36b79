"""`export_tflite`: the model as a `.tflite` file, proven to answer as the model does."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from keras_mobilenets.export import conversion, parity
from keras_mobilenets.export import precisions as schemes
from keras_mobilenets.export.report import ExportReport
from keras_mobilenets.export.samples import Images, grid_of
from keras_mobilenets.pixels import PixelScale
from keras_mobilenets.quantization.twin import target_for
from keras_mobilenets.tflite import metadata
from keras_mobilenets.tflite.audit import audit
from keras_mobilenets.tflite.edit.slim import slim
from keras_mobilenets.tflite.file import read_tflite
from keras_mobilenets.utils import atomic_path, output_path, user_path


def export_tflite(
    model: keras.Model | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    quantize: str | None = "auto",
    target: str | None = None,
    input_dtype: str = "uint8",
    input_shape: tuple[int, int, int] | None = None,
    dynamic_batch: bool = False,
    labels: Sequence[str] | str | os.PathLike[str] | None = None,
    normalization: str | tuple[Any, Any] | None = "auto",
    calibration: Any = None,
    verify: Any = None,
    strict: bool = False,
    verbose: bool = True,
) -> ExportReport:
    """Writes a model as a `.tflite` file and shows how the file answers.

    The file is run beside the Keras model before it appears under its name: on the images given, or on seeded random
    ones. An export that fails leaves the file that was there before as it was.

    Args:
        model: a Keras model with one image input, or the path of a `.keras` file: float or from `quantize_model`,
            with composite and nested layers, in any precision.
        path: of the file.
        quantize: "auto" is what a quantized model was quantized for, and None for a float one; None is float32;
            "dynamic" stores 8-bit kernels and computes in float; "float16" stores 16-bit kernels; "int8" is integer
            throughout, from a quantized model, or from a float one by post-training quantization on `calibration`;
            "int16x8" likewise with 16-bit feature maps and 8-bit kernels.
        target: what will run an int8 file, as in `quantize_model`: decides on the form of hard-swish and of the way in
            of the pixels. See the table. None is what a quantized model was quantized for, for a float one "xnnpack".
        input_dtype: of input and output of an int8 file: "uint8" takes raw pixels, "int8" pixels less 128 (fastest),
            "float32" normalized ones, by the mean and std in the file's metadata: integer input has a 0, so that
            [-1, 1] is `(pixel - 128) / 127.5` there.
        input_shape: (height, width, channels), for a model that takes images of any size.
        dynamic_batch: whether the file declares its batch as variable. It may be resized either way.
        labels: the class names in the order of the scores, or the path of a file with one a line. They are written
            into the file, where MediaPipe Tasks finds them.
        normalization: from pixels to what the model takes, as (mean, std) of `(pixel - mean) / std`. "auto" reads it
            off the model or, where that does not say, off the images given; None writes none.
        calibration: images as the model takes them, in whatever `fit` takes; the first 256 are used.
        verify: likewise, to compare on; the first 64 are used. By default `calibration`.
        strict: fail, and write nothing, when an operation or tensor between input and output is not integer.
        verbose: print the report as a table.

    | target | runs on | hard-swish in int8 | from uint8 pixels |
    |---|---|---|---|
    | "xnnpack" | CPUs of phones and computers | ADD with RELU6, MUL: it has no int8 HARD_SWISH | CAST, ADD, SUB |
    | "edgetpu" | Coral's Edge TPU | ADD with RELU6, MUL: it has no HARD_SWISH | QUANTIZE |
    | "tflite-micro" | microcontrollers | HARD_SWISH: less memory, fewer operations | QUANTIZE |
    | "npu" | NPUs that look activations up in tables | HARD_SWISH: one look-up | QUANTIZE |

    A float file keeps HARD_SWISH, which XNNPACK has in float. docs/targets.md says more, with figures.

    Returns:
        An `ExportReport`.

    Raises:
        FileNotFoundError: the model file or the label file does not exist.
        ValueError: an argument does not fit, or `strict` found something that is not integer.
        RuntimeError: Keras does not run on TensorFlow, or the file does not answer as the model does.
        OSError: the file cannot be written, for instance because the disk is full.

    Example:

    >>> layers = [keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 8), keras.layers.Flatten(), keras.layers.Softmax()]
    >>> model = keras.Sequential(layers, name="cat_or_dog")
    >>> report = export_tflite(model, "model.tflite", labels=["cat", "dog"], verbose=False)
    >>> report.parity.agreement, report.audit.input
    (1.0, 'float32 1 x 8 x 8 x 3')
    """
    conversion.require_tensorflow()
    _check_choices(quantize, input_dtype)
    path = user_path(path)
    output_path(path)
    model = conversion.load(model)
    target = target_for(model, target)
    shape = conversion.image_shape(model, input_shape)
    names = read_label_list(labels)
    images = Images(model, calibration, verify, shape, normalization)
    made = schemes.convert(
        model,
        shape,
        quantize=quantize,
        target=target,
        input_dtype=input_dtype,
        calibration=images.for_calibration,
        scale=images.scale,
    )
    fast_pixels = target == "xnnpack"
    content = _finished(made, model, shape, images.scale, names, dynamic_batch, fast_pixels)
    report = _report(path, content, made, model, images, len(names))
    if strict and not report.audit.is_integer:
        found = report.audit.float_operations or report.audit.float_tensors
        raise ValueError(f"Not integer throughout, so nothing was written: {', '.join(found)}")
    _write(path, content)
    if verbose:
        report.print()
    return report


def read_label_list(labels: Sequence[str] | str | os.PathLike[str] | None) -> list[str]:
    """Class names as given, or from a file with one a line."""
    if labels is None:
        return []
    if isinstance(labels, str | os.PathLike):
        path = user_path(labels)
        if not path.is_file():
            raise FileNotFoundError(f"No such label file: {path}")
        return path.read_text(encoding="utf-8").splitlines()
    return [str(label) for label in labels]


def _check_choices(quantize: str | None, input_dtype: str) -> None:
    if quantize not in schemes.SCHEMES:
        raise ValueError(f"`quantize` must be one of {list(schemes.SCHEMES)}. Received: quantize={quantize!r}")
    if input_dtype not in conversion.INPUT_DTYPES:
        choices = list(conversion.INPUT_DTYPES)
        raise ValueError(f"`input_dtype` must be one of {choices}. Received: input_dtype={input_dtype!r}")


def _finished(
    made: schemes.Converted,
    model: keras.Model,
    shape: tuple[int, int, int],
    scale: PixelScale | None,
    labels: list[str],
    dynamic_batch: bool,
    fast_pixels: bool,
) -> bytes:
    """The converter's file in fewer bytes, with metadata and labels in it."""
    graph = read_tflite(made.content).graph
    classes = graph.tensors[graph.outputs[0]].shape[-1]
    if graph.tensors[graph.inputs[0]].is_float:
        scale = grid_of(made.reference) or scale
    if labels and len(labels) != classes:
        raise ValueError(f"`labels` must name the model's {classes} classes. Received: {len(labels)} names")
    names = _output_names(model)
    entry = metadata.describe(
        name=model.name, image_shape=shape, normalization=scale, output_names=names, labels=bool(labels)
    )
    content = slim(
        made.content,
        layer_names=made.layer_names,
        output_names=names,
        dynamic_batch=dynamic_batch,
        fast_pixels=fast_pixels,
        metadata=entry,
    )
    return metadata.append_labels(content, labels) if labels else content


def _output_names(model: keras.Model) -> list[str]:
    """In the order in which `keras.tree` flattens the outputs."""
    if isinstance(model, keras.Function) and isinstance(model.output, dict):
        return sorted(model.output)
    return list(getattr(model, "output_names", None) or ["output"])


def _report(
    path: Path,
    content: bytes,
    made: schemes.Converted,
    model: keras.Model,
    images: Images,
    labels: int,
) -> ExportReport:
    given = images.verify
    if images.scale is not None and grid_of(made.reference) is not None:
        given = images.scale.pixels(given)  # what a camera gives, which the file takes without a float on the way
    compared = parity.compare(made.reference, content, images.verify, given, images.source)
    if made.scheme is None:
        parity.require_equal(compared)
    against_float = None
    if made.is_post_training:
        against_float = parity.agreement(model, content, images.verify, given)
    return ExportReport(path, made.scheme, compared, against_float, audit(content), labels)


def _write(path: Path, content: bytes) -> None:
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        reason = f"{path} could not be written and is as it was before: {error.strerror or error}"
        raise OSError(error.errno, reason) from error
