"""Which layer computes which operation of a file, and from what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from keras_mobilenets.integer.arithmetic import (
    IntegerAdd,
    IntegerAddNumber,
    IntegerExtremum,
    IntegerMatmul,
    IntegerMean,
    IntegerMultiply,
    IntegerPRelu,
    IntegerSoftmax,
    number_line,
)
from keras_mobilenets.integer.convolution import IntegerConvolution, largest_sums, split_channels
from keras_mobilenets.integer.layer import EXACT, NotInteger, Quantization
from keras_mobilenets.integer.moving import IntegerMove
from keras_mobilenets.integer.tables import FUNCTIONS, IntegerConcatenation, IntegerTable
from keras_mobilenets.integer.windows import IntegerAveragePool, IntegerMaxPool, IntegerResize
from keras_mobilenets.tflite.file import Operator, Tensor

ACTIVATIONS = ("NONE", "RELU", "RELU6", "RELU_N1_TO_1")


@dataclass(frozen=True)
class Step:
    """One layer to be: its class, its arguments, the tensors that it reads, the arrays that it holds."""

    cls: type
    config: dict[str, Any]
    sources: list[Tensor]
    weights: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """An operator with its tensors, and what is known of them.

    Args:
        operator: the operator.
        given: the tensors that it reads, None for what it does without.
        results: the tensors that it writes.
        kernels: "xnnpack" or "reference".
    """

    operator: Operator
    given: list[Tensor | None]
    results: list[Tensor]
    kernels: str

    @property
    def operands(self) -> list[Tensor]:
        return [tensor for tensor in self.given if tensor is not None]

    @property
    def options(self) -> dict[str, Any]:
        return self.operator.options

    @property
    def shape(self) -> list[int]:
        """Of the output, without the batch."""
        return list(self.results[0].shape[1:])

    def error(self, reason: str) -> NotInteger:
        return NotInteger(f"Operation {self.operator.index}, {self.operator.name}, {reason}.")

    def numbers(self, place: int) -> list[int]:
        """The integers of a constant operand, for instance of axes."""
        data = self.operands[place].data
        if data is None:
            raise self.error("has a shape that is computed, which is not known")
        return [int(number) for number in np.ravel(data)]

    def axes(self, place: int = 1) -> list[int]:
        """The axes that it reduces."""
        axes = sorted(axis % len(self.operands[0].shape) for axis in self.numbers(place))
        if 0 in axes:
            raise self.error("works across the batch")
        return axes

    def step(self, cls: type, sources: list[Tensor], *, output: int = 0, weights: Any = None, **config: Any) -> Step:
        """A step whose `config` is completed with the quantization of its inputs and output."""
        activation = self.options.get("fused_activation_function", "NONE")
        if activation not in ACTIVATIONS:
            raise self.error(f"has a fused {activation}, which is not known")
        common = {
            "inputs": [vars(quantization_of(tensor)) for tensor in sources],
            "output": vars(quantization_of(self.results[output])),
            "activation": activation,
            "kernels": self.kernels,
        }
        computed = [tensor for tensor in sources if tensor.data is None]
        return Step(cls, {**common, **config}, computed, weights or {})

    def move(self, function: str, sources: list[Tensor] | None = None, *, output: int = 0, **settings: Any) -> Step:
        """A step that moves integers, for which all must be on one grid."""
        sources = sources or [tensor for tensor in self.operands if tensor.dtype != "int32"][:1]
        grids = {quantization_of(tensor) for tensor in (*sources, self.results[output])}
        if len(grids) > 1:
            raise self.error(f"moves integers from one grid to another: {sorted(grids, key=str)}")
        shape = list(self.results[output].shape[1:])
        return self.step(IntegerMove, sources, output=output, function=function, settings=settings, target_shape=shape)


def convolution(place: Place) -> Step:
    """CONV_2D, DEPTHWISE_CONV_2D, TRANSPOSE_CONV and FULLY_CONNECTED."""
    kind = _KINDS[place.operator.name]
    operands = place.operands
    if kind == "transpose":  # the first says how large the output is
        operands = [operands[2], operands[1], *operands[3:]]
    source, weights = operands[:2]
    if weights.data is None:
        raise place.error("has a kernel that is computed, which is not known")
    kernel = _kernel(kind, weights, source.shape[-1])
    is_grouped = kind == "conv" and kernel.shape[2] != source.shape[-1]
    outputs = kernel.shape[2] * kernel.shape[3] if kind == "depthwise" else kernel.shape[3]
    bias = np.asarray(operands[2].data if len(operands) > 2 else np.zeros(outputs), "int32")
    sums = largest_sums(kernel, quantization_of(source).limits)
    if kind == "depthwise":
        sums = sums.swapaxes(0, 1).reshape(1, 2, outputs)  # of one channel each
    bounds = split_channels(sums)
    if len(bounds) > 2 and (is_grouped or kind == "depthwise"):
        raise place.error("has groups of too many channels for exact sums")
    wide = bool((sums.sum(0) + np.abs(bias.astype("float64"))).max() >= EXACT)
    options = place.options
    return place.step(
        IntegerConvolution,
        [source],
        kind=kind,
        kernel_shape=list(kernel.shape),
        kernel_scales=[float(scale) for scale in weights.scales],
        strides=[options.get("stride_h", 1), options.get("stride_w", 1)],
        dilation_rate=[options.get("dilation_h_factor", 1), options.get("dilation_w_factor", 1)],
        padding=options.get("padding", "VALID").lower(),
        target_shape=place.shape,
        splits=bounds,
        wide=wide,
        weights={"kernel": kernel, "bias": bias},
    )


_KINDS = {
    "CONV_2D": "conv",
    "DEPTHWISE_CONV_2D": "depthwise",
    "TRANSPOSE_CONV": "transpose",
    "FULLY_CONNECTED": "dense",
}


def _kernel(kind: str, weights: Tensor, channels: int) -> np.ndarray:
    """(height, width, input channels, output channels), or of a depthwise kernel (.., channels, multiplier)."""
    kernel = centered(weights)
    if kind == "dense":
        return kernel.T[None, None]
    if kind == "depthwise":  # (1, height, width, channels * multiplier), channels outermost
        return kernel[0].reshape(*kernel.shape[1:3], channels, -1)
    return kernel.transpose(1, 2, 3, 0)


def binary(cls: type, **settings: Any) -> Callable[[Place], Step]:
    """ADD, SUB, MUL and their like."""

    def make(place: Place) -> Step:
        operands = place.operands[:2]
        constants = [number for number, tensor in enumerate(operands) if tensor.data is not None]
        if len(constants) > 1:
            raise place.error("has two constants")
        constant: dict[str, Any] = {"constant": None, "place": None}
        if constants:
            constant = {"constant": centered(operands[constants[0]]).tolist(), "place": constants[0]}
        elif len({tensor.index for tensor in operands}) == 1:
            raise place.error("reads one tensor twice, which is not known")
        if cls is IntegerExtremum and len({quantization_of(tensor) for tensor in (*operands, place.results[0])}) > 1:
            raise place.error("compares integers of different grids")
        step = place.step(cls, operands, **constant, **settings)
        return replace(step, cls=IntegerAddNumber) if cls is IntegerAdd and number_line(step.config) else step

    return make


def mean(place: Place) -> Step:
    """MEAN."""
    source, axes = place.operands[0], place.axes()
    count = int(np.prod([source.shape[axis] for axis in axes]))
    return place.step(IntegerMean, [source], axes=axes, count=count, target_shape=place.shape)


def extremum(function: str) -> Callable[[Place], Step]:
    """REDUCE_MAX and REDUCE_MIN."""
    return lambda place: place.move(function, axes=place.axes())


def pool(cls: type) -> Callable[[Place], Step]:
    """AVERAGE_POOL_2D and MAX_POOL_2D."""

    def make(place: Place) -> Step:
        options = place.options
        return place.step(
            cls,
            place.operands[:1],
            target_shape=place.shape,
            pool_size=[options["filter_height"], options["filter_width"]],
            strides=[options["stride_h"], options["stride_w"]],
            padding=options["padding"].lower(),
        )

    return make


def softmax(place: Place) -> Step:
    """SOFTMAX."""
    return place.step(IntegerSoftmax, place.operands[:1], beta=place.options.get("beta", 1.0))


def matmul(place: Place) -> Step:
    """BATCH_MATMUL."""
    left, right = place.operands
    if left.data is not None or right.data is not None or left.shape[:-2] != right.shape[:-2]:
        raise place.error("has a constant operand or other batches, which is not known")
    return place.step(IntegerMatmul, [left, right], transposed=[bool(place.options.get(f"adj_{x}")) for x in "xy"])


def function(place: Place) -> Step:
    """The functions of one number."""
    alpha = float(place.options.get("alpha", 1.0))
    return place.step(IntegerTable, place.operands[:1], function=place.operator.name, alpha=alpha)


def resize_bilinear(place: Place) -> Step:
    """RESIZE_BILINEAR."""
    corners, half = (bool(place.options.get(name)) for name in ("align_corners", "half_pixel_centers"))
    where = {"align_corners": corners, "half_pixel": half}
    return place.step(IntegerResize, place.operands[:1], target_shape=place.shape, **where)


def resize_nearest(place: Place) -> Step:
    """RESIZE_NEAREST_NEIGHBOR."""
    corners, half = bool(place.options.get("align_corners")), bool(place.options.get("half_pixel_centers"))
    indices = []
    for axis in (1, 2):
        size, outputs = place.operands[0].shape[axis], place.results[0].shape[axis]
        scale = np.float32(size) / np.float32(outputs)
        if corners and outputs > 1:
            scale = np.float32(size - 1) / np.float32(outputs - 1)
        places = (np.arange(outputs, dtype="float32") + np.float32(0.5 if half else 0.0)) * scale
        places = np.floor(places + np.float32(0.5)) if corners else np.floor(places)
        indices.append((axis, [int(one) for one in np.clip(places, 0, size - 1)]))
    return place.move("gather", indices=indices)


def pad(place: Place) -> Step:
    """PAD and PADV2."""
    paddings = np.reshape(place.numbers(1), (-1, 2)).tolist()
    if any(paddings[0]):
        raise place.error("pads the batch")
    value = float(centered(place.operands[2]).ravel()[0]) if len(place.operands) > 2 else 0.0
    return place.move("pad", paddings=paddings, value=value)


def mirror_pad(place: Place) -> Step:
    """MIRROR_PAD."""
    mode = ("reflect", "symmetric")[place.options.get("mode", 0)]
    return place.move("pad", paddings=np.reshape(place.numbers(1), (-1, 2)).tolist(), mode=mode)


def cut(place: Place) -> Step:
    """SLICE."""
    shape, begin = place.operands[0].shape, place.numbers(1)
    ends = [
        end if size == -1 else first + size for end, first, size in zip(shape, begin, place.numbers(2), strict=True)
    ]
    return place.move("slice", begin=begin[1:], end=ends[1:], strides=[1] * (len(shape) - 1))


def strided_slice(place: Place) -> Step:
    """STRIDED_SLICE."""
    options, shape = place.options, place.operands[0].shape
    if options.get("ellipsis_mask") or options.get("new_axis_mask") or options.get("offset"):
        raise place.error("has an ellipsis or a new axis, which is not known")
    windows = []
    for axis, bounds in enumerate(zip(place.numbers(1), place.numbers(2), place.numbers(3), strict=True)):
        begin, end, step = bounds
        first = None if options.get("begin_mask", 0) >> axis & 1 else begin
        window = slice(first, None if options.get("end_mask", 0) >> axis & 1 else end, step)
        if options.get("shrink_axis_mask", 0) >> axis & 1:
            window = slice(first, (first or 0) + 1 or None, 1)
        windows.append(window.indices(shape[axis]))
    windows += [(0, size, 1) for size in shape[len(windows) :]]
    begins, ends, strides = (list(part) for part in zip(*windows[1:], strict=True))
    return place.move("slice", begin=begins, end=ends, strides=strides)


def split(place: Place) -> list[Step]:
    """SPLIT, SPLIT_V and UNPACK: a slice for each output."""
    source = next(tensor for tensor in place.operands if tensor.dtype != "int32")
    axis = _split_axis(place) % len(source.shape)
    if axis == 0:
        raise place.error("splits the batch")
    steps, start, sizes = [], 0, list(source.shape[1:])
    for number, result in enumerate(place.results):
        length = 1 if place.operator.name == "UNPACK" else result.shape[axis]
        begin, end = [0] * len(sizes), list(sizes)
        begin[axis - 1], end[axis - 1] = start, start + length
        start += length
        steps.append(place.move("slice", output=number, begin=begin, end=end, strides=[1] * len(sizes)))
    return steps


def _split_axis(place: Place) -> int:
    if place.operator.name == "UNPACK":
        return place.options["axis"]
    return place.numbers(0 if place.operator.name == "SPLIT" else 2)[0]


def concatenation(place: Place) -> Step:
    """CONCATENATION."""
    axis = place.options["axis"] % len(place.results[0].shape)
    if axis == 0:
        raise place.error("joins batches")
    result = place.results[0]
    if result.dtype == "uint8" and {quantization_of(one) for one in place.operands} != {quantization_of(result)}:
        return place.step(IntegerConcatenation, place.operands, axis=axis, target_shape=list(result.shape[1:]))
    return place.move("concatenate", place.operands, axis=axis)


def transpose(place: Place) -> Step:
    """TRANSPOSE."""
    axes = place.numbers(1)
    if axes[0] != 0:
        raise place.error("moves the batch")
    return place.move("transpose", axes=axes)


def blocks(function: str) -> Callable[[Place], Step]:
    """SPACE_TO_DEPTH and DEPTH_TO_SPACE."""
    return lambda place: place.move(function, block=place.options["block_size"])


MAKERS: dict[str, Callable[[Place], Any]] = {
    **dict.fromkeys(_KINDS, convolution),
    "ADD": binary(IntegerAdd, sign=1),
    "SUB": binary(IntegerAdd, sign=-1),
    "MUL": binary(IntegerMultiply),
    "MAXIMUM": binary(IntegerExtremum, largest=True),
    "MINIMUM": binary(IntegerExtremum, largest=False),
    "PRELU": binary(IntegerPRelu),
    "MEAN": mean,
    "REDUCE_MAX": extremum("largest"),
    "REDUCE_MIN": extremum("smallest"),
    "AVERAGE_POOL_2D": pool(IntegerAveragePool),
    "MAX_POOL_2D": pool(IntegerMaxPool),
    "SOFTMAX": softmax,
    "BATCH_MATMUL": matmul,
    **dict.fromkeys(FUNCTIONS, function),
    "RESIZE_BILINEAR": resize_bilinear,
    "RESIZE_NEAREST_NEIGHBOR": resize_nearest,
    **dict.fromkeys(("RESHAPE", "SQUEEZE", "EXPAND_DIMS"), lambda place: place.move("reshape")),
    **dict.fromkeys(("SPLIT", "SPLIT_V", "UNPACK"), split),
    **dict.fromkeys(("PAD", "PADV2"), pad),
    "MIRROR_PAD": mirror_pad,
    # What a layer of Keras does to places, and no operation of a file: see `keras_mobilenets.quantization`.
    "MOVE": lambda place: place.move("call", **place.options),
    "SLICE": cut,
    "STRIDED_SLICE": strided_slice,
    "CONCATENATION": concatenation,
    "TRANSPOSE": transpose,
    "SPACE_TO_DEPTH": blocks("space_to_depth"),
    "DEPTH_TO_SPACE": blocks("depth_to_space"),
}


def quantization_of(tensor: Tensor) -> Quantization:
    """The grid of a tensor.

    Raises:
        NotInteger: it has none, or several.
    """
    if len(tensor.scales) != 1 or tensor.dtype not in ("int8", "uint8", "int16"):
        raise NotInteger(
            f"The file is not full-integer: tensor {tensor.index} ({tensor.name or 'unnamed'}) is {tensor.dtype}"
            + ("." if tensor.is_float else f" with {len(tensor.scales)} scales.")
        )
    return Quantization(float(tensor.scales[0]), int(tensor.zero_points[0]), tensor.dtype)


def centered(weights: Tensor) -> np.ndarray:
    """A constant's integers less their zero points."""
    zero_points = weights.zero_points
    if len(zero_points) > 1:
        shape = [1] * len(weights.shape)
        shape[weights.quantized_dimension] = -1
        zero_points = zero_points.reshape(shape)
    return np.asarray(weights.data, "float32") - zero_points.astype("float32")
