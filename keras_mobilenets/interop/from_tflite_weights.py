"""What a file holds besides its structure: weights, means of channels, ranges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_mobilenets.graph import Graph as KerasGraph
from keras_mobilenets.interop.from_tflite_reading import bias_of, kernel_of
from keras_mobilenets.interop.from_tflite_steps import Step
from keras_mobilenets.pixels import PixelScale, observed
from keras_mobilenets.quantization import FakeQuant
from keras_mobilenets.tflite.file import Graph, Tensor
from keras_mobilenets.tflite.runner import TFLiteModel, make_interpreter

STATISTICS_BATCH = 8  # all feature maps of MobileNetV2 at 224 x 224 are 27 MB for each image
Pairs = list[tuple[Step, Step]]  # the file's and the model's


def set_weights(graph: Graph, pairs: Pairs) -> None:
    """Kernels and biases; batch normalization does nothing but add the bias, and is frozen to stay so."""
    for found, step in pairs:
        if step.layer is None or not hasattr(step.layer, "kernel"):
            continue
        layer, norm = step.layer, step.norm
        kernel, bias = own_weights(graph, found)
        if reads_pixels(found):
            kernel, bias = _for_normalized_pixels(graph, found, kernel, bias)
        weights = [kernel.reshape(layer.kernel.shape)]
        layer.set_weights([*weights, bias] if layer.use_bias else weights)
        if norm is not None:
            ones = np.ones_like(bias)
            norm.set_weights([ones, bias, 0 * ones, (1 - norm.epsilon) * ones])
            norm.trainable = False


def own_weights(graph: Graph, found: Step) -> tuple[np.ndarray, np.ndarray]:
    """A file's kernel and bias in units of the Keras model, for what the file itself reads."""
    source = found.sources[0]
    kernel, bias = kernel_of(graph, found.operator), bias_of(graph, found.operator)
    kernel = kernel * np.float32((source.factor if source else 1.0) / found.factor)
    return kernel, bias / np.float32(found.factor) - np.float32(found.offset)


def set_kernel_grids(graph: Graph, twin: keras.Model, pairs: Pairs) -> None:
    """Gives each kernel the file's grid: one for all channels, or those of the channels to the last bit."""
    for found, step in pairs:
        if step.layer is None or not hasattr(step.layer, "kernel"):
            continue
        tensor, source, layer = graph.operand(found.operator, 1), found.sources[0], twin.get_layer(step.layer.name)
        scales = tensor.scales * np.float64((source.factor if source else 1.0) / found.factor)
        limits, one_for_all = np.iinfo(tensor.dtype), len(scales) == 1
        if one_for_all or not _stretch(layer, scales):
            low, high = ((end - tensor.zero_points) * scales for end in (limits.min, limits.max))
            layer.kernel_range = (low.item(), high.item()) if one_for_all else (tuple(low), tuple(high))


def _stretch(layer: Any, scales: np.ndarray) -> bool:
    """Gives the largest value of each channel back the last bit that it lost; says whether they make all the scales."""
    kernel = np.array(layer.kernel)
    channels = kernel.reshape(-1, len(scales)) if layer.kernel_axes == (0, 1) else kernel.reshape(-1, kernel.shape[-1])
    steps = scales.astype("float32")

    def makes(ends: np.ndarray) -> np.ndarray:  # rounded to the grid that they make, they give the file's
        rounded = np.float32(127) * (ends.astype("float32") * np.float32(1 / 127))
        return np.float32(rounded.astype("float64") / 127) == steps

    ends = _those_beside(scales * 127, makes)
    is_end = np.abs(np.abs(channels) - ends) < scales / 2
    stretched = np.where(is_end, np.sign(channels) * ends, channels).astype("float32")
    layer.kernel.assign(stretched.reshape(kernel.shape))
    return bool(makes(np.abs(stretched).max(0)).all())


def _those_beside(values: np.ndarray, fits: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Of the float32 numbers around each value the nearest one that fits, or the nearest."""
    found, *others = _beside(values)
    for candidate in (found, *others)[::-1]:
        found = np.where(fits(candidate), candidate, found)
    return found.astype("float64")


def reads_pixels(found: Step) -> bool:
    """Whether a step reads the image, or what constants made of it."""
    source = found.sources[0]
    return source is None or source.kind == "front"


def fronts_of(found: Step) -> list[Step]:
    """The constant factors and sums between the image and the step that reads it, in order."""
    fronts: list[Step] = []
    while (source := (fronts or [found])[0].sources[0]) is not None:
        fronts.insert(0, source)
    return fronts


def entry_of(graph: Graph, found: Step) -> Tensor:
    """The integers that a file begins with, those of its pixels or what a float image is rounded to."""
    first = (fronts_of(found) or [found])[0].operator
    return next(one for one in graph.operands(first) if one is not None and not one.is_constant)


def takes_floats(graph: Graph) -> bool:
    """Whether a file rounds its image itself."""
    return graph.tensors[graph.inputs[0]].is_float


def pixels_of(graph: Graph, found: Step) -> tuple[float, float]:
    """(scale, offset) that make of an image in [-1, 1] the real values of a file's pixels, 0 the lowest of them."""
    entry = entry_of(graph, found)
    scale, zero_point = float(entry.scales[0]), int(entry.zero_points[0]) - np.iinfo(entry.dtype).min
    usual = observed(scale * (np.array([0, 255]) - zero_point)) if takes_floats(graph) else None
    if usual is not None:  # of which a calibration may have seen less than all
        return (usual.range[1] - usual.range[0]) / 2, sum(usual.range) / 2
    return 127.5 * scale, scale * (127.5 - zero_point)


def _for_normalized_pixels(
    graph: Graph, found: Step, kernel: np.ndarray, bias: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The first kernel and bias for images in [-1, 1] instead of what the file makes of its pixels."""
    scale, offset = pixels_of(graph, found)
    for one in fronts_of(found):
        is_factor = one.operator.name == "MUL"
        scale, offset = (scale * one.constant, offset * one.constant) if is_factor else (scale, offset + one.constant)
    return kernel * np.float32(scale), bias + np.float32(offset) * kernel.sum((0, 1, 2))


def means_in_file(content: bytes, pairs: Pairs, images: np.ndarray) -> dict[str, np.ndarray]:
    """The mean of each channel behind each bias of the model, by the layer that adds it, over images in [-1, 1]."""
    watched = {(step.norm or step.layer).name: found for found, step in pairs if found.shape and found.tensor}
    interpreter = make_interpreter(content, "the file", delegate=False, keep_tensors=True)
    (entry,) = interpreter.get_input_details()
    means: dict[str, Any] = dict.fromkeys(watched, 0.0)
    for image in TFLiteModel(content).prepare(PixelScale.between(-1, 1).pixels(images)):
        interpreter.set_tensor(entry["index"], image[np.newaxis])
        interpreter.invoke()
        for name, step in watched.items():
            integers, tensor = interpreter.get_tensor(step.tensor.index), step.tensor
            mean = integers.reshape(-1, integers.shape[-1]).mean(0) - tensor.zero_points[0]
            means[name] = means[name] + tensor.scales[0] / step.factor * mean / len(images)
    return {name: mean.astype("float32") for name, mean in means.items()}


def measure_statistics(model: keras.Model, pairs: Pairs, images: np.ndarray) -> None:
    """Gives batch normalization the statistics of its input, and the gamma and beta that keep the function."""
    steps = [step for _, step in pairs if step.norm is not None]
    watched = keras.Model(model.input, [step.layer.output for step in steps])
    sums = [np.zeros((2, step.norm.gamma.shape[0])) for step in steps]
    count = 0
    for start in range(0, len(images), STATISTICS_BATCH):
        batch = images[start : start + STATISTICS_BATCH]
        count += len(batch)
        for total, values in zip(sums, watched(batch, training=False), strict=True):
            flat = np.asarray(values, np.float64).reshape(-1, total.shape[-1])
            total += len(batch) * np.stack([flat.mean(0), (flat**2).mean(0)])
    for step, (mean, square) in zip(steps, (total / count for total in sums), strict=True):
        norm, variance = step.norm, np.maximum(square - mean**2, 0.0)
        beta = np.asarray(norm.beta) + mean
        norm.set_weights([np.sqrt(variance + norm.epsilon), beta, mean, variance])
        norm.trainable = True


def set_ranges(twin: keras.Model, steps: Mapping[str, Step]) -> None:
    """Gives each quantizer the range of the file's tensor of the same value, by the name of the layer that has it."""
    for node in KerasGraph.of(twin).nodes:
        if isinstance(node.layer, FakeQuant) and node.layer.fixed_range is None:
            found = steps[node.inputs[0].name]
            node.layer.set_range(*float32_range(*found.range, np.float32(found.tensor.scales[0] / found.factor)))


def float32_range(low: float, high: float, scale: np.float32) -> tuple[float, float]:
    """The ends of a range, of the float32 around them those whose step is a scale to the last bit.

    Products of scales that are off by one bit round some values in a hundred thousand to another integer.
    """
    near = [_beside(end) if end else [np.float32(0)] for end in (low, high)]
    for first in near[0]:
        for last in near[1]:
            if np.float32((float(last) - float(first)) / 255.0) == scale:
                return float(first), float(last)
    return low, high


def _beside(values: Any) -> np.ndarray:
    """The float32 numbers near each value, the nearest first."""
    middle = np.asarray(values, "float32")
    return np.stack([middle + np.float32(steps) * np.spacing(middle) for steps in (0, 1, -1, 2, -2, 3, -3)])
