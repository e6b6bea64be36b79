"""`export_onnx`: the model as an ONNX file, through Keras' own exporter."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import keras

from keras_mobilenets.export import conversion, parity
from keras_mobilenets.export.report import ServingReport
from keras_mobilenets.export.samples import Samples
from keras_mobilenets.export.signature import Signature, structured
from keras_mobilenets.export.sizing import Sizing
from keras_mobilenets.quantization import is_quantized, strip_quantization
from keras_mobilenets.utils import atomic_path, require


def export_onnx(
    model: keras.Model | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    input_shape: tuple[int, ...] | Mapping[str, tuple[int, ...]] | None = None,
    opset_version: int = 17,
    verify: Any = None,
    verbose: bool = True,
) -> ServingReport:
    """Writes a model as a float32 ONNX file, for any number of images.

    The file is run by ONNX Runtime beside the Keras model before it appears under its name. Of a quantized model the
    float weights are written: ONNX has no place for what quantization-aware training found.

    Args:
        model: a Keras model, or the path of a `.keras` or `.h5` file.
        path: of the file.
        input_shape: as in `export_tflite`.
        opset_version: of ONNX; 17 is what runtimes of the last years all read.
        verify: images as the model takes them, in whatever `fit` takes; seeded random ones by default.
        verbose: print the report as a table.

    Returns:
        A `ServingReport`.

    Raises:
        FileNotFoundError: the model file does not exist.
        ImportError: the extra `onnx` is not installed.
        ValueError: an argument does not fit.
        RuntimeError: Keras does not run on TensorFlow, or the file does not answer as the model does.
        OSError: the file cannot be written.

    Example:

    >>> export_onnx(model, "model.onnx").parity.agreement                             # doctest: +SKIP
    1.0
    """
    conversion.require_tensorflow()
    path = conversion.exported_path(path)
    require("tf2onnx", "onnx")
    runtime = require("onnxruntime", "onnx")
    model = conversion.load(model)
    signature = Signature.of(model, input_shape, Sizing(model).shapes)
    flat = conversion.flat_float32(strip_quantization(model) if is_quantized(model) else model, signature)
    samples = Samples(model, signature, None, verify, "auto")
    specs: list[Any] = [keras.InputSpec(one.dtype, (None, *one.shape), name=one.name) for one in signature.inputs]
    names = list(signature.outputs)
    with atomic_path(path) as temporary:
        given = [structured(flat, specs)]
        flat.export(str(temporary), format="onnx", verbose=False, input_signature=given, opset_version=opset_version)
        session = runtime.InferenceSession(temporary.read_bytes(), providers=["CPUExecutionProvider"])
        pairs = zip(signature.inputs, samples.verify, strict=True)
        answers = session.run(None, {one.name: values.astype(one.dtype) for one, values in pairs})
        expected = parity.predict(flat, samples.verify, names)
        compared = parity.measure(expected, dict(zip(names, answers, strict=True)), samples.source)
        parity.require_equal(compared)
        size_bytes = temporary.stat().st_size
    report = ServingReport(path, {one.name: str(one) for one in signature.inputs}, compared, size_bytes)
    if verbose:
        report.print()
    return report
