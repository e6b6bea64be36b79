"""`from_tflite`: a deployed integer MobileNet back as a Keras model that can be trained."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import keras

from keras_mobilenets.export.samples import CALIBRATION_IMAGES, take_images
from keras_mobilenets.interop.detectors import without_background
from keras_mobilenets.interop.from_tflite_candidates import matching_model
from keras_mobilenets.interop.from_tflite_reading import steps_of_file
from keras_mobilenets.interop.from_tflite_steps import Foreign
from keras_mobilenets.interop.from_tflite_weights import (
    means_in_file,
    measure_statistics,
    set_kernel_grids,
    set_ranges,
    set_weights,
)
from keras_mobilenets.interop.from_tflite_written import Written
from keras_mobilenets.quantization import quantize_model
from keras_mobilenets.quantization.bias_correction import IMAGES as CORRECTION_IMAGES
from keras_mobilenets.quantization.bias_correction import correct_biases
from keras_mobilenets.quantization.quantizers import Quantizer
from keras_mobilenets.tflite.edit.pixels import with_plain_border
from keras_mobilenets.tflite.file import read_tflite


def from_tflite(source: str | os.PathLike[str] | bytes, *, images: Any = None, quantized: bool = False) -> keras.Model:
    """Turns the integer file of a MobileNet into a trainable Keras model of this package.

    The file may be any converter's, uint8 or int8, with scales per tensor or per channel: it is matched by what it
    computes. So a clamp may be written down or implied by a range, hard-swish one operation or several, with its sixth
    in the kernels behind it or not, the classifier dense or a convolution. It may hold a classifier (MobileNet,
    MobileNetV2, MobileNetV3Small and MobileNetV3Large, minimalistic too, of any width), the `SSD300` of one, with or
    without postprocessing, whose answers `tasks.Detection` decodes, or the `DeepLabV3` of one. Where that resizes its
    answers corner on corner, the model gives them as they are before: `tasks.Segmentation(classes, corners=True)`
    resizes them likewise.

    The model takes images in [-1, 1], whatever scale the file had for its pixels.

    An integer file has no batch normalization left. With `images` its statistics are measured, so that the model can
    be trained as ever, and its biases take over what the file's rounding does on average. Without, the layers of batch
    normalization do nothing and are frozen.

    Args:
        source: path of the file, or its content.
        images: some hundred images in [-1, 1], in whatever `fit` takes; the first 256 are used.
        quantized: give the quantization-aware model instead of the float one, with the file's ranges of feature maps
            and the file's own grid of each kernel, so that it answers as the file does. What it is exported to has a
            symmetric grid for each channel of a kernel; where the file has one for all, that is another rounding, and
            the export says so.

    Returns:
        A Keras model with as many classes as the file. A detector has the scores that the file chooses boxes by: a
        sigmoid for the background, which nobody reads, is left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a `.tflite` file, is damaged, or does not hold such a model; the message says what does
            not fit.

    Example:

    >>> model = from_tflite("mobilenet_v2_1.0_224_quant.tflite", images=photographs)  # doctest: +SKIP
    >>> model.predict(photographs).shape                                              # doctest: +SKIP
    (64, 1001)
    """
    file = read_tflite(source)
    graph = with_plain_border(file.graph)
    taken = None if images is None else take_images(images, CALIBRATION_IMAGES)
    try:
        model, pairs = matching_model(steps_of_file(graph), graph.tensors[graph.inputs[0]].shape[1:])
    except Foreign as reason:
        raise ValueError(f"{file.source} cannot become a model of this package: {reason}.") from None
    set_weights(graph, pairs)
    if taken is not None and not quantized:  # else its own rounding does to the means what the file's does
        correct_biases(model, means_in_file(file.content, pairs, taken[:CORRECTION_IMAGES]), taken)
    if taken is not None:
        measure_statistics(model, pairs, taken)
    model = without_background(model, graph)
    if not quantized:
        return model
    fused = any(operator.name == "HARD_SWISH" for operator in graph.operators)
    written, target = Written(graph, model, pairs), "npu" if fused else "xnnpack"
    twin = quantize_model(written.model, configs=written.configs, input_range=written.input_range, target=target)
    unsigned = any(tensor.dtype == "uint8" for one in graph.operators[1:-1] for tensor in graph.results(one))
    for layer in twin.layers:
        if isinstance(layer, Quantizer) and layer.settings is not None:
            layer.settings = replace(layer.settings, unsigned=unsigned)
    set_ranges(twin, written.steps)
    set_kernel_grids(graph, twin, pairs)
    return twin
