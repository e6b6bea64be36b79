"""What a file holds besides its structure: weights, means of channels, ranges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_mobilenets.graph import Graph as KerasGraph
from keras_mobilenets.interop.from_tflite_reading import bias_of, kernel_of
from keras_mobilenets.interop.from_tflite_steps import Step
from keras_mobilenets.pixels import PixelScale
from keras_mobilenets.quantization import FakeQuant, InputQuant
from keras_mobilenets.tflite.file import Graph, Tensor
from keras_mobilenets.tflite.runner import TFLiteModel, make_interpreter

STATISTICS_BATCH = 8  # all feature maps of MobileNetV2 at 224 x 224 are 27 MB for each image
Pairs = list[tuple[Step, Step]]  # the file's and the model's


def set_weights(graph: Graph, pairs: Pairs) -> None:
    """Kernels and biases; batch normalization does nothing but add the bias, and is frozen to stay so."""
    for found, step in pairs:
        if step.layer is None or not hasattr(step.layer, "kernel"):
            continue
        source, layer, norm = found.sources[0], step.layer, step.norm
        kernel, bias = kernel_of(graph, found.operator), bias_of(graph, found.operator)
        if source is None:
            kernel, bias = _for_normalized_pixels(graph.operand(found.operator, 0), kernel, bias)
        kernel = kernel * np.float32((source.factor if source else 1.0) / found.factor)
        bias = bias / np.float32(found.factor) - np.float32(found.offset)
        weights = [kernel.reshape(layer.kernel.shape)]
        layer.set_weights([*weights, bias] if layer.use_bias else weights)
        if norm is not None:
            ones = np.ones_like(bias)
            norm.set_weights([ones, bias, 0 * ones, (1 - norm.epsilon) * ones])
            norm.trainable = False


def set_kernel_grids(graph: Graph, twin: keras.Model, pairs: Pairs) -> None:
    """Gives each kernel the file's grid: one for all channels, or those of the channels to the last bit."""
    for found, step in pairs:
        if step.layer is None or not hasattr(step.layer, "kernel"):
            continue
        entry, tensor = graph.operands(found.operator)[:2]
        assert entry and tensor  # a convolution has both
        source, layer = found.sources[0], twin.get_layer(step.layer.name)
        scales = tensor.scales * np.float64((source.factor if source else 1.0) / found.factor)
        if source is None:
            scales = _scales_of_pixels(entry.scales[0], tensor.scales, _pixel_step(twin))
        zero, limits = int(tensor.zero_points[0]), np.iinfo(tensor.dtype)
        if len(scales) == 1:
            layer.kernel_range = (limits.min - zero) * scales[0], (limits.max - zero) * scales[0]
        elif not tensor.zero_points.any():
            _stretch(layer, scales)


def _pixel_step(twin: keras.Model) -> np.float32:
    return next(np.float32(layer.scale) for layer in twin.layers if isinstance(layer, InputQuant))


def _scales_of_pixels(entry: np.float32, scales: np.ndarray, step: np.float32) -> np.ndarray:
    """Scales of the first kernel for pixels of another step, with which the runtime comes to the same products."""
    wanted = entry * scales
    return _those_beside(wanted.astype("float64") / step, lambda scale: scale * step == wanted)


def _stretch(layer: Any, scales: np.ndarray) -> None:
    """Makes a scale out of the largest value of each channel, which has lost the last bit of it, again."""
    kernel = np.array(layer.kernel)
    channels = kernel.reshape(-1, len(scales)) if layer.kernel_axes == (0, 1) else kernel.reshape(-1, kernel.shape[-1])
    steps = scales.astype("float32")
    ends = _those_beside(scales * 127, lambda end: np.float32(end.astype("float64") / 127) == steps)
    is_end = np.abs(np.abs(channels) - ends) < scales / 2
    layer.kernel.assign(np.where(is_end, np.sign(channels) * ends, channels).reshape(kernel.shape))


def _those_beside(values: np.ndarray, fits: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Of the float32 numbers around each value the nearest one that fits, or the nearest."""
    found, *others = _beside(values)
    for candidate in (found, *others)[::-1]:
        found = np.where(fits(candidate), candidate, found)
    return found.astype("float64")


def _for_normalized_pixels(entry: Tensor, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first kernel and bias for images in [-1, 1] instead of `scale * (pixel - zero point)`."""
    scale = float(entry.scales[0])
    zero_point = _zero(entry)
    offset = scale * (127.5 - zero_point)  # of the middle of [-1, 1]
    return kernel * np.float32(127.5 * scale), bias + np.float32(offset) * kernel.sum((0, 1, 2))


def pixel_zero(graph: Graph) -> int:
    """The pixel that stands for 0 in a file, which is what convolutions pad with."""
    return _zero(graph.tensors[graph.inputs[0]])


def _zero(entry: Tensor) -> int:
    return int(entry.zero_points[0]) - np.iinfo(entry.dtype).min


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


def set_ranges(twin: keras.Model, pairs: Pairs) -> None:
    """Gives each quantizer the range of the file's tensor of the same value."""
    values = {name: found for found, step in pairs for name in step.names}
    for node in KerasGraph.of(twin).nodes:
        if isinstance(node.layer, FakeQuant) and node.layer.fixed_range is None:
            found = values[node.inputs[0].name]
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
