"""`export_tflite`: the model as a `.tflite` file, proven to answer as the model does."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from keras_mobilenets.export import conversion, equality, parity
from keras_mobilenets.export import precisions as schemes
from keras_mobilenets.export.report import ExportReport
from keras_mobilenets.export.samples import Samples, grids_of
from keras_mobilenets.export.signature import Signature
from keras_mobilenets.export.sizing import Sizing
from keras_mobilenets.pixels import PixelScale
from keras_mobilenets.quantization.twin import QuantizedModel, target_for
from keras_mobilenets.tasks import Task, task_of
from keras_mobilenets.tflite import metadata
from keras_mobilenets.tflite.audit import audit
from keras_mobilenets.tflite.edit.slim import slim
from keras_mobilenets.tflite.file import TFLiteFile, read_tflite
from keras_mobilenets.tflite.labels import labels_by_output, labels_of_task
from keras_mobilenets.tflite.metadata import InFile, TensorInfo
from keras_mobilenets.tflite.runner import TFLiteModel
from keras_mobilenets.utils import atomic_path


def export_tflite(
    model: keras.Model | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    quantize: str | None = "auto",
    target: str | None = None,
    input_dtype: str = "uint8",
    input_shape: tuple[int, ...] | Mapping[str, tuple[int, ...]] | None = None,
    dynamic_batch: bool = False,
    task: Task | None = None,
    decoded: bool | None = None,
    labels: Any = None,
    normalization: str | tuple[Any, Any] | Mapping[str, Any] | None = "auto",
    calibration: Any = None,
    verify: Any = None,
    strict: bool = False,
    verbose: bool = True,
) -> ExportReport:
    """Writes a model as a `.tflite` file and shows how the file answers.

    The file is run beside the Keras model before it appears under its name: on the images given, or on seeded random
    ones. An export that fails leaves the file that was there before as it was.

    `Resizing` and `CenterCrop` in front of a model are left out of an integer file, and of any other where no runtime
    has them: the file then takes pictures of the size that the model computes with, which the app has to make. A
    warning and the report say so.

    Args:
        model: a Keras model with any inputs and outputs, or the path of a `.keras` or `.h5` file: float or from
            `quantize_model`, with composite and nested layers, in any precision. The file calls inputs and outputs as
            Keras does.
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
        input_shape: (height, width, channels), for a model that takes images of any size; for other inputs a
            dictionary by name.
        dynamic_batch: whether the file declares its batch as variable. It may be resized either way.
        task: what the model is for; by its form if None, see `keras_mobilenets.tasks.task_of`.
        decoded: whether the file itself makes answers of its outputs. A detector's then ends in
            TFLite_Detection_PostProcess, and gives "boxes" (1, most, 4) as (top, left, bottom, right) in shares of the
            image, "labels", "scores" and "count"; else it gives encoded boxes and all scores, and the metadata hold
            what decodes them. MediaPipe's ObjectDetector takes either. None is the task's choice: a detector decodes.
        labels: the class names in the order of the scores, the path of a file with one a line, or a dictionary with
            their indices, as `class_indices`. They belong to the output whose last axis they fit; of several such,
            {output name: class names}; a task knows where its own belong. Two names for a single score are those of 0
            and of 1. They are written into the file, where MediaPipe Tasks finds them.
        normalization: from pixels to what the model takes, as (mean, std) of `(pixel - mean) / std`. "auto" reads it
            off the model or, where that does not say, off the images given; None writes none. For several images a
            dictionary by name.
        calibration: images, and what else the model takes, in whatever `fit` takes; the first 256 are used.
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
        An `ExportReport`. Post-training quantization that loses much of the float model's answers is warned of.

    Raises:
        FileNotFoundError: the model file or the label file does not exist.
        ValueError: an argument does not fit, or `strict` found something that is not integer.
        RuntimeError: Keras does not run on TensorFlow, the runtime does not run the file, or it does not answer as the
            model does: a float32 file up to rounding, others up to half the standard deviation of an output.
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
    path = conversion.exported_path(path)
    model = conversion.load(model)
    target = target_for(model, target)
    sizing = Sizing(model)
    signature = Signature.of(model, input_shape, sizing.shapes)
    task = _task(task, model, signature)
    added = _in_file(task, labels, signature, decoded, dynamic_batch)
    samples = Samples(model, signature, calibration, verify, normalization)
    # What decodes reads floats, which are made of int8 at once, without uint8 in between.
    output_dtype = "int8" if added.decodes and input_dtype == "uint8" else input_dtype
    dtypes = {"input_dtype": input_dtype, "output_dtype": output_dtype}
    made = schemes.convert(model, signature, samples, sizing, quantize=quantize, target=target, **dtypes)
    grids = grids_of(made.reference, signature) if made.scheme in ("int8", "int16x8") else {}
    takes_pixels = made.scheme == "int8" and input_dtype != "float32"
    inputs = _inputs(made.signature, samples, {} if takes_pixels else grids)
    edits: dict[str, Any] = {
        "layer_names": made.layer_names,
        "input_names": [one.name for one in signature.inputs],
        "output_names": list(signature.outputs),
        "dynamic_batch": dynamic_batch,
        "fast_pixels": target == "xnnpack",
        "origin": made.origin,
        "metadata": {metadata.ENTRY: metadata.describe(model.name, inputs, added.outputs, added.custom)},
    }
    network, file = (
        read_tflite(metadata.append_labels(slim(made.content, **edits, add_operations=one), added.outputs))
        for one in (None, added.add_operations)
    )
    report = _report(path, file, network, made, model, samples, grids, task)
    if strict and not report.audit.is_integer:
        found = report.audit.float_operations or report.audit.float_tensors
        raise ValueError(f"Not integer throughout, so nothing was written: {', '.join(found)}")
    _write(path, file.content)
    if verbose:
        report.print()
    return report


def _check_choices(quantize: str | None, input_dtype: str) -> None:
    if quantize not in schemes.SCHEMES:
        raise ValueError(f"`quantize` must be one of {list(schemes.SCHEMES)}. Received: quantize={quantize!r}")
    if input_dtype not in conversion.INPUT_DTYPES:
        choices = list(conversion.INPUT_DTYPES)
        raise ValueError(f"`input_dtype` must be one of {choices}. Received: input_dtype={input_dtype!r}")


def _task(given: Task | None, model: keras.Model, signature: Signature) -> Task | None:
    """What the model is for, by the names that the file has for its outputs."""
    task = given or task_of(model)
    if task is None or sorted(task.outputs) == sorted(signature.outputs):
        return task
    if len(task.outputs) == len(signature.outputs) == 1:
        return dataclasses.replace(task, outputs=tuple(signature.outputs))  # type: ignore[type-var]
    raise ValueError(
        f"`task` must have the outputs of {model.name}, {list(signature.outputs)}. Received: {list(task.outputs)}"
    )


def _in_file(task: Task | None, labels: Any, signature: Signature, decoded: bool | None, dynamic_batch: bool) -> InFile:
    """What is written of the outputs, in the order in which the file gives them."""
    if task is None:
        if decoded:
            raise ValueError("`decoded` needs a `task` that says what the outputs mean. Received: task=None")
        names = labels_by_output(labels, signature.outputs)
        infos = []
        for name, shape in signature.outputs.items():
            own = tuple(names.get(name, ()))
            infos.append(TensorInfo(name, labels=own, labels_of_values=bool(own) and len(own) > shape[-1]))
        return InFile(tuple(infos))
    found = task.in_file(labels_of_task(labels, signature.outputs), decoded)
    if dynamic_batch and found.decodes:
        raise ValueError("A file that decodes takes one image: pass decoded=False with dynamic_batch=True.")
    if found.decodes:
        return found
    by_name = dict(zip(task.outputs, found.outputs, strict=True))
    return dataclasses.replace(found, outputs=tuple(by_name[name] for name in signature.outputs))


def _inputs(signature: Signature, samples: Samples, grids: Mapping[str, PixelScale]) -> list[TensorInfo]:
    """What the metadata say of them; a float input of an integer graph takes what its grid holds."""
    pairs = zip(signature.inputs, samples.scales, strict=True)
    return [
        TensorInfo(one.name, one.shape, grids.get(one.name, scale) if scale is not None else None)
        for one, scale in pairs
    ]


def _report(
    path: Path,
    file: TFLiteFile,
    network: TFLiteFile,
    made: schemes.Converted,
    model: keras.Model,
    samples: Samples,
    grids: Mapping[str, PixelScale],
    task: Task | None,
) -> ExportReport:
    """Runs the file, and refuses it or tells what it is; `network` is the file up to where it decodes."""
    try:
        runner = TFLiteModel(network)
        decoder = TFLiteModel(file)
    except ValueError as error:
        raise RuntimeError(_refused(model, made, str(error))) from error
    signature, in_front = made.signature, made.left_out.note(made.signature) if made.left_out else None
    pictures = made.left_out(samples.verify) if made.left_out else samples.verify
    run = equality.Run.of(runner, signature, samples.scales, pictures, grids)
    if task is not None and file.content != network.content:
        parity.require_decoded(task, run.answers, decoder.predict(run.given))
    labelled = [one.name for one in file.outputs if one.labels] if task is None else None

    def compared(expected: dict[str, Any]) -> parity.Parity:
        steps = _steps(network, signature)
        return parity.measure(expected, run.answers, samples.source, steps=steps, scores=labelled or None, task=task)

    names, inexact = list(signature.outputs), None
    in_float: tuple[str, ...] = ()
    to_be_equal = made.scheme == "int8" and isinstance(made.reference, QuantizedModel) and not in_front
    expected = parity.predict(made.reference, run.taken if to_be_equal else samples.verify, names)
    found = compared(expected)
    (parity.require_equal if made.scheme is None else parity.require_alike)(found)
    if isinstance(made.reference, QuantizedModel):
        in_float, inexact = made.reference.float_layers, in_front or equality.hindrance(made.reference)
        if to_be_equal and inexact is None:
            found = dataclasses.replace(found, equal=int(run.equal(made.reference, expected).sum()))
    against_float = compared(parity.predict(model, samples.verify, names)) if made.is_post_training else None
    lost = (*equality.differences(found), *(parity.losses(against_float) if against_float is not None else ()))
    for sentence in (*lost, *filter(None, [in_front])):
        warnings.warn(sentence, stacklevel=3)
    labels = sum(len(one.labels) for one in file.outputs)
    return ExportReport(path, made.scheme, found, against_float, audit(file), labels, lost, in_float, in_front, inexact)


def _steps(file: TFLiteFile, signature: Signature) -> dict[str, float]:
    """The size of a step of each integer output."""
    tensors = [file.graph.tensors[index] for index in file.graph.outputs]
    named = zip(signature.outputs, tensors, strict=True)
    return {name: float(tensor.scales[0]) for name, tensor in named if len(tensor.scales)}


def _refused(model: keras.Model, made: schemes.Converted, reason: str) -> str:
    """What a refusal by the runtime means for the one who exports."""
    reason = reason.split("the runtime refuses this file: ")[-1].split(" It may be made")[0]
    if "no_integer_overflow" in reason:
        reason += " Feature maps are so near 0 that a clip, as at 6, is beyond 32 bits: train the model first."
    return (
        f"The runtime does not run what was made of {model.name} as {made.scheme or 'float32'}, so nothing was "
        f"written: {reason} Export it in another precision, or, in int8, leave that operation's layer in float: "
        "quantize_model(model, skip=[...])."
    )


def _write(path: Path, content: bytes) -> None:
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        reason = f"{path} could not be written and is as it was before: {error.strerror or error}"
        raise OSError(error.errno, reason) from error
