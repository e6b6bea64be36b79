"""`from_tflite`: a deployed integer MobileNet back as a Keras model that can be trained."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_mobilenets.applications import MobileNet, MobileNetV2
from keras_mobilenets.export.samples import CALIBRATION_IMAGES, take_images
from keras_mobilenets.layers import inline, make_divisible
from keras_mobilenets.pixels import PixelScale
from keras_mobilenets.quantization import FakeQuant, quantize_model
from keras_mobilenets.quantization.bias_correction import IMAGES as CORRECTION_IMAGES
from keras_mobilenets.quantization.bias_correction import correct_biases
from keras_mobilenets.tflite.edit.pixels import with_plain_border
from keras_mobilenets.tflite.file import Graph, Operator, Tensor, read_bytes, read_tflite
from keras_mobilenets.tflite.runner import TFLiteModel, make_interpreter

KINDS = {
    "CONV_2D": "convolution",
    "FULLY_CONNECTED": "convolution",
    "DEPTHWISE_CONV_2D": "depthwise",
    "ADD": "addition",
}
OTHERS = ("AVERAGE_POOL_2D", "MEAN", "RESHAPE", "SQUEEZE", "SOFTMAX", "QUANTIZE")
ALPHAS = {MobileNet: (0.25, 0.5, 0.75, 1.0), MobileNetV2: (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)}
STATISTICS_BATCH = 8  # all feature maps of MobileNetV2 at 224 x 224 are 27 MB for each image


class Foreign(Exception):
    """Why a graph is not one of ours."""


@dataclass(frozen=True)
class Step:
    """What a convolution, a dense layer or an addition is, in the file and in Keras alike.

    Attributes:
        kind: "convolution", "depthwise" or "addition".
        shape: of the kernel in Keras' order, without leading sizes of 1: a 1x1 convolution and a dense layer are one.
        strides: of a convolution, else ().
        activation: "NONE", "RELU" or "RELU6".
    """

    kind: str
    shape: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    activation: str = "NONE"

    def __str__(self) -> str:
        parts = [" x ".join(map(str, self.shape)), f"strides {self.strides}" if self.strides else "", self.activation]
        return ", ".join([self.kind, *filter(None, parts)])


def from_tflite(source: str | os.PathLike[str] | bytes, *, images: Any = None, quantized: bool = False) -> keras.Model:
    """Turns an integer MobileNet or MobileNetV2 file into a trainable Keras model of this package.

    The file may be Google's (slim or TF 2, uint8 or int8, scales per tensor or per channel) or one that
    `export_tflite` wrote. The model takes images in [-1, 1], whatever scale the file had for its pixels.

    An integer file has no batch normalization left. With `images` its statistics are measured, so that the model can
    be trained as ever, and its biases take over what the file's rounding does on average. Without, the layers of batch
    normalization do nothing and are frozen.

    Args:
        source: path of the file, or its content.
        images: some hundred images in [-1, 1], in whatever `fit` takes; the first 256 are used.
        quantized: give the quantization-aware model, with the file's ranges of feature maps, instead of the float one.
            Its kernels are rounded anew, to one symmetric grid for each channel: exact for a file that has such, else
            about as much noise as the file's own rounding.

    Returns:
        A Keras model with as many classes as the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a `.tflite` file, is damaged, or does not hold a MobileNet or MobileNetV2 of a published
            width; the message says what does not fit.

    Example:

    >>> model = from_tflite("mobilenet_v2_1.0_224_quant.tflite", images=photographs)  # doctest: +SKIP
    >>> model.predict(photographs).shape                                              # doctest: +SKIP
    (64, 1001)
    """
    name = "these bytes" if isinstance(source, bytes) else str(source)
    graph = with_plain_border(read_tflite(source).graph)
    taken = None if images is None else take_images(images, CALIBRATION_IMAGES)
    try:
        operators = _operators(graph)
        model = _matching_model(graph, operators)
    except Foreign as reason:
        raise ValueError(f"{name} cannot become a MobileNet or MobileNetV2 of this package: {reason}.") from None
    kernels = [one for one in operators if one.name != "ADD"]
    _set_weights(model, graph, kernels)
    if taken is not None and not quantized:  # else its own rounding does to the means what the file's does
        means = _means_in_file(read_bytes(source), [one.outputs[0] for one in kernels], taken[:CORRECTION_IMAGES])
        names = [(norm or layer).name for layer, norm in _kernels_and_norms(model)]
        correct_biases(model, dict(zip(names, means, strict=True)), taken)
    if taken is not None:
        _measure_statistics(model, taken)
    if not quantized:
        return model
    twin = quantize_model(model)
    _set_ranges(twin, graph)
    return twin


def _operators(graph: Graph) -> list[Operator]:
    """The operators with a kernel and the additions, in order, once it is sure that there is nothing else."""
    for operator in graph.operators:
        if operator.name not in (*KINDS, *OTHERS):
            raise Foreign(f"operation {operator.index} is {operator.name}, and they have none such")
        if operator.name in KINDS and operator.name != "ADD":
            kernel = graph.operands(operator)[1]
            dtype = kernel.dtype if kernel is not None and kernel.is_constant else "computed"
            if dtype not in ("int8", "uint8"):
                raise Foreign(f"the kernel of operation {operator.index}, {operator.name}, is {dtype}, not integer")
    return [operator for operator in graph.operators if operator.name in KINDS]


def _matching_model(graph: Graph, operators: list[Operator]) -> keras.Model:
    """The builder's model that has the file's structure, with random weights."""
    found = [_step(graph, operator) for operator in operators]
    if len(found) < 3 or found[-1].kind != "convolution":
        raise Foreign(f"it has {len(found)} convolutions and additions")
    builder = MobileNetV2 if any(step.kind == "addition" for step in found) else MobileNet
    # What says the width: the last pointwise convolution of V1, the last projection of V2.
    width = found[-2 if builder is MobileNet else -3].shape[-1]
    widths = {
        alpha: int(1024 * alpha) if builder is MobileNet else make_divisible(320 * alpha) for alpha in ALPHAS[builder]
    }
    alphas = [alpha for alpha, known in widths.items() if known == width]
    if not alphas:
        raise Foreign(f"its last block gives {width} channels, of the published widths it is {list(widths.values())}")
    softmax = any(operator.name == "SOFTMAX" for operator in graph.operators)
    model = builder(
        graph.tensors[graph.inputs[0]].shape[1:],
        alpha=alphas[0],
        weights=None,
        classes=found[-1].shape[-1],
        classifier_activation="softmax" if softmax else None,
    )
    expected = _expected_steps(model)
    for operator, step, other in zip(operators, found, expected, strict=False):
        if step != other:
            raise Foreign(f"operation {operator.index} is {step}, where {model.name} has {other}")
    if len(found) != len(expected):
        raise Foreign(f"it has {len(found)} convolutions and additions, {model.name} has {len(expected)}")
    _check_flow(graph, operators)
    return model


def _step(graph: Graph, operator: Operator) -> Step:
    options, kind = operator.options, KINDS[operator.name]
    shape = () if kind == "addition" else _without_ones(_keras_kernel(graph, operator).shape)
    strides: tuple[int, ...] = (options.get("stride_h", 1), options.get("stride_w", 1))
    if len(shape) > 2:
        dilation = (options.get("dilation_h_factor", 1), options.get("dilation_w_factor", 1))
        if options.get("padding") != "SAME" or dilation != (1, 1):
            raise Foreign(f"operation {operator.index} has padding {options.get('padding')}, dilation {dilation}")
    elif strides == (1, 1):
        strides = ()
    return Step(kind, shape, strides, options.get("fused_activation_function", "NONE"))


def _expected_steps(model: keras.Model) -> list[Step]:
    steps: list[Step] = []
    for layer in inline(model).layers:
        if isinstance(layer, keras.layers.Add):
            steps.append(Step("addition"))
        elif isinstance(layer, keras.layers.ReLU):
            steps[-1] = replace(steps[-1], activation="RELU6" if layer.max_value == 6 else "RELU")
        elif hasattr(layer, "kernel"):
            kind = "depthwise" if isinstance(layer, keras.layers.DepthwiseConv2D) else "convolution"
            shape = _without_ones(tuple(layer.kernel.shape))
            steps.append(Step(kind, shape, tuple(layer.strides) if len(shape) > 2 else ()))
    return steps


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[2:] if len(shape) == 4 and shape[:2] == (1, 1) else shape


def _check_flow(graph: Graph, operators: list[Operator]) -> None:
    """Each operation reads what the one before it wrote; an addition reads what went into its block as well."""
    for position, operator in enumerate(operators[1:], 1):
        before = {operators[position - 1].outputs[0]}
        read = {_behind_moves(graph, operator.inputs[0])}
        if operator.name == "ADD":
            before.add(_behind_moves(graph, operators[position - 3].inputs[0]))
            read.add(_behind_moves(graph, operator.inputs[1]))
        if read != before:
            raise Foreign(f"operation {operator.index}, {operator.name}, does not read what the one before it wrote")


def _behind_moves(graph: Graph, index: int) -> int:
    """The tensor that pooling, reshaping and requantizing made this one of."""
    operator = graph.producers.get(index)
    while operator is not None and operator.name not in KINDS:
        index = operator.inputs[0]
        operator = graph.producers.get(index)
    return index


def _keras_kernel(graph: Graph, operator: Operator) -> np.ndarray:
    values = graph.operand(operator, 1).dequantized()
    # The file has (out, height, width, in), for depthwise (1, height, width, channels), for dense (out, in).
    return values.T if values.ndim == 2 else np.transpose(values, (1, 2, 3, 0))


def _bias(graph: Graph, operator: Operator) -> np.ndarray:
    bias = graph.operands(operator)[2] if len(operator.inputs) > 2 else None
    return bias.dequantized() if bias is not None else np.zeros(graph.results(operator)[0].shape[-1], np.float32)


def _set_weights(model: keras.Model, graph: Graph, operators: list[Operator]) -> None:
    """Kernels and biases; batch normalization does nothing but add the bias, and is frozen to stay so."""
    pairs = _kernels_and_norms(model)
    for position, (operator, (layer, norm)) in enumerate(zip(operators, pairs, strict=True)):
        kernel = _keras_kernel(graph, operator)
        bias = _bias(graph, operator)
        if position == 0:
            kernel, bias = _for_normalized_pixels(graph.operand(operator, 0), kernel, bias)
        weights = [kernel.reshape(layer.kernel.shape)]
        layer.set_weights([*weights, bias] if layer.use_bias else weights)
        if norm is not None:
            ones = np.ones_like(bias)
            norm.set_weights([ones, bias, 0 * ones, (1 - norm.epsilon) * ones])
            norm.trainable = False


def _kernels_and_norms(model: keras.Model) -> list[tuple[Any, Any]]:
    """Each layer with a kernel, and the batch normalization behind it or None."""
    layers = inline(model).layers
    followers = [*layers[1:], None]
    return [
        (layer, follower if isinstance(follower, keras.layers.BatchNormalization) else None)
        for layer, follower in zip(layers, followers, strict=True)
        if hasattr(layer, "kernel")
    ]


def _for_normalized_pixels(entry: Tensor, kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first kernel and bias for images in [-1, 1] instead of `scale * (pixel - zero point)`."""
    scale = float(entry.scales[0])
    zero_point = int(entry.zero_points[0]) - np.iinfo(entry.dtype).min
    offset = scale * (127.5 - zero_point)  # of the middle of [-1, 1]
    return kernel * np.float32(127.5 * scale), bias + np.float32(offset) * kernel.sum((0, 1, 2))


def _means_in_file(content: bytes, tensors: list[int], images: np.ndarray) -> list[np.ndarray]:
    """The mean of each channel of some of a file's tensors, over images in [-1, 1]."""
    interpreter = make_interpreter(content, "the file", delegate=False, keep_tensors=True)
    (entry,) = interpreter.get_input_details()
    grids = {one["index"]: one["quantization"] for one in interpreter.get_tensor_details()}
    means: list[Any] = [0.0] * len(tensors)
    for image in TFLiteModel(content).prepare(PixelScale.between(-1, 1).pixels(images)):
        interpreter.set_tensor(entry["index"], image[np.newaxis])
        interpreter.invoke()
        for place, index in enumerate(tensors):
            integers, (scale, zero_point) = interpreter.get_tensor(index), grids[index]
            mean = integers.reshape(-1, integers.shape[-1]).mean(0)
            means[place] = means[place] + scale * (mean - zero_point) / len(images)
    return [mean.astype("float32") for mean in means]


def _measure_statistics(model: keras.Model, images: np.ndarray) -> None:
    """Gives batch normalization the statistics of its input, and the gamma and beta that keep the function."""
    pairs = [(layer, norm) for layer, norm in _kernels_and_norms(model) if norm is not None]
    watched = keras.Model(model.input, [layer.output for layer, _ in pairs])
    sums = [np.zeros((2, norm.gamma.shape[0])) for _, norm in pairs]
    count = 0
    for start in range(0, len(images), STATISTICS_BATCH):
        batch = images[start : start + STATISTICS_BATCH]
        count += len(batch)
        for total, values in zip(sums, watched(batch, training=False), strict=True):
            flat = np.asarray(values, np.float64).reshape(-1, total.shape[-1])
            total += len(batch) * np.stack([flat.mean(0), (flat**2).mean(0)])
    for (_, norm), (mean, square) in zip(pairs, (total / count for total in sums), strict=True):
        variance = np.maximum(square - mean**2, 0.0)
        beta = np.asarray(norm.beta) + mean
        norm.set_weights([np.sqrt(variance + norm.epsilon), beta, mean, variance])
        norm.trainable = True


def _set_ranges(twin: keras.Model, graph: Graph) -> None:
    """Gives each quantizer the range of the file's tensor: they stand in the same order."""
    quantizers = [layer for layer in twin.layers if isinstance(layer, FakeQuant) and layer.fixed_range is None]
    pools = ("AVERAGE_POOL_2D", "MEAN")
    results = [graph.results(one)[0] for one in graph.operators if one.name in (*KINDS, *pools)]
    if not any(one.name in pools for one in graph.operators):
        results.insert(-1, results[-2])  # one pixel needs no pooling
    for layer, tensor in zip(quantizers, results, strict=True):
        limits = np.iinfo(tensor.dtype)
        ends = (np.array([limits.min, limits.max]) - tensor.zero_points[0]) * np.float64(tensor.scales[0])
        layer.set_range(*ends)
