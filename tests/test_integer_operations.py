"""Every operation's arithmetic against the runtime, byte for byte, with random quantization, sizes and integers."""

import itertools

import numpy as np
import pytest
from one_operation import file_of, runtime, tensor

from keras_mobilenets.integer import integer_model

COUNT = 3  # samples


def scales(rng, count):
    return [float(np.float32(scale)) for scale in np.exp(rng.uniform(np.log(0.004), np.log(0.12), count))]


def zero(rng):
    return int(rng.integers(-100, 100))


def shape(rng, channels=6):
    height, width = (int(size) for size in rng.integers(3, 12, 2))
    return (1, height, width, channels)


def whole(values):
    return tensor(np.shape(values), dtype="int32", data=np.array(values, "int32"))


def unary(name, output=None, span=1.0, **options):
    def make(rng):
        size, (first, second) = shape(rng), scales(rng, 2)
        result = tensor(size, *(output or (second, zero(rng))))
        return name, [tensor(size, first * span, zero(rng))], [result], options

    return make


def binary(name, constant=0, spread=3.0, same=False, **options):
    def make(rng):
        size, (first, second, third) = shape(rng), scales(rng, 3)
        zeros = [zero(rng) for _ in range(3)]
        if same:
            second = third = first
            zeros = zeros[:1] * 3
        other = (1, 1, 1, constant) if constant else size
        data = rng.integers(-128, 128, other[-1]) if constant else None
        inputs = [tensor(size, first, zeros[0]), tensor(other, second, zeros[1], data=data)]
        if name == "MUL":
            third = first * second * 64
        return name, inputs, [tensor(size, third if same else third * spread, zeros[2])], options

    return make


def resize(name, factor=None, corners=False, half=False):
    def make(rng):
        _, height, width, channels = size = shape(rng)
        target = [height * factor, width * factor] if factor else [int(one) for one in rng.integers(2, 30, 2)]
        grid = scales(rng, 1)[0], zero(rng)
        options = {"alignCorners": corners, "halfPixelCenters": half}
        return name, [tensor(size, *grid), whole(target)], [tensor((1, *target, channels), *grid)], options

    return make


def pool(name, window=3, stride=2, padding=0, dtype="int8"):
    def make(rng):
        _, height, width, channels = size = shape(rng)
        high, wide = (height, width) if window is None else (window, window)
        if padding == 1:
            outputs = [max((one - span) // stride + 1, 1) for one, span in ((height, high), (width, wide))]
        else:
            outputs = [-(-one // stride) for one in (height, width)]
        grid = scales(rng, 1)[0], zero(rng) + (128 if dtype == "uint8" else 0)
        options = {"filterHeight": high, "filterWidth": wide, "strideH": stride, "strideW": stride, "padding": padding}
        made = [tensor(one, *grid, dtype=dtype) for one in (size, (1, *outputs, channels))]
        return name, made[:1], made[1:], options

    return make


def reduce(name, axes, keep=False):
    def make(rng):
        size, first = shape(rng), scales(rng, 1)[0]
        kept = [1 if axis in axes else one for axis, one in enumerate(size) if keep or axis not in axes]
        grid = first, zero(rng)
        output = (first * float(rng.uniform(0.2, 0.9)), grid[1] // 2) if name == "MEAN" else grid
        return name, [tensor(size, *grid), whole(axes)], [tensor(kept, *output)], {"keepDims": keep}

    return make


def convolution(name, padding=0, stride=2, dilation=1, activation=0, channels=6, span=3, bias=True, multiplier=1):
    def make(rng):
        _, height, width, _ = size = shape(rng, channels)
        reach = (span - 1) * dilation
        if padding == 1:
            height, width = max(height, reach + 1), max(width, reach + 1)
            size = (1, height, width, channels)
        outputs = [-(-(one - reach * padding) // stride) for one in (height, width)]
        first, second = scales(rng, 2)
        filters = multiplier * channels if name.startswith("DEPTHWISE") else 5
        options = {"padding": padding, "strideH": stride, "strideW": stride, "fusedActivationFunction": activation}
        options |= {"dilationHFactor": dilation, "dilationWFactor": dilation}
        steps = np.float32(scales(rng, filters)) * 0.1
        kernel = (1, span, span, filters) if name.startswith("DEPTHWISE") else (filters, span, span, channels)
        if name.startswith("DEPTHWISE"):
            options["depthMultiplier"] = multiplier
        elif name == "TRANSPOSE_CONV":
            outputs = [one * stride for one in (height, width)]
            outputs = [one + (span - stride) * padding for one in outputs]
            kernel, options = (
                (filters, span, span, channels),
                {k: options[k] for k in ("padding", "strideH", "strideW")},
            )
        elif name == "FULLY_CONNECTED":
            size, outputs, kernel, options = (1, channels), [], (filters, channels), {}
        weights = tensor(kernel, steps, 0, data=rng.integers(-127, 128, kernel))
        added = tensor((filters,), steps * first, 0, "int32", rng.integers(-9999, 9999, filters))
        inputs = [tensor(size, first, zero(rng)), weights, *([added] if bias else [])]
        if name == "TRANSPOSE_CONV":
            inputs = [whole([1, *outputs, filters]), weights, inputs[0], *inputs[2:]]
        return name, inputs, [tensor((1, *outputs, filters), second * 4, zero(rng))], options

    return make


def moved(name, size, target, *others, **options):
    def make(rng):
        grid = scales(rng, 1)[0], zero(rng)
        targets = target if isinstance(target, list) else [target]
        return name, [tensor(size, *grid), *others], [tensor(one, *grid) for one in targets], options

    return make


def split(rng):
    size, grid = (1, 5, 4, 6), (scales(rng, 1)[0], zero(rng))
    return "SPLIT", [whole(3), tensor(size, *grid)], [tensor((1, 5, 4, 2), *grid)] * 3, {"numSplits": 3}


def concatenation(rng):
    grid = scales(rng, 1)[0], zero(rng)
    parts = [tensor((1, 5, 4, channels), *grid) for channels in (3, 1, 8)]
    return "CONCATENATION", parts, [tensor((1, 5, 4, 12), *grid)], {"axis": 3}


def regridded(rng):
    """Parts on several grids, which the runtime joins in uint8 only."""
    first, *others = (tensor((1, 5, 4, 3), one, int(rng.integers(0, 256)), "uint8") for one in scales(rng, 4))
    return "CONCATENATION", others, [{**first, "shape": (1, 5, 4, 9)}], {"axis": 3}


def prelu(rng):
    size, (first, second, third) = shape(rng), scales(rng, 3)
    slopes = tensor((1, 1, size[-1]), second, zero(rng), data=rng.integers(-128, 128, size[-1]))
    return "PRELU", [tensor(size, first, zero(rng)), slopes], [tensor(size, third * 4, zero(rng))], {}


def softmax(rng):
    size = (1, int(rng.integers(2, 200)))
    return "SOFTMAX", [tensor(size, scales(rng, 1)[0], zero(rng))], [tensor(size, 1 / 256, -128)], {"beta": 1.0}


CASES = {
    "hard_swish": unary("HARD_SWISH"),
    "hard_swish-small": unary("HARD_SWISH", span=0.1),
    "logistic": unary("LOGISTIC", (1 / 256, -128)),
    "tanh": unary("TANH", (1 / 128, 0)),
    "elu": unary("ELU"),
    "gelu": unary("GELU"),
    "leaky_relu": unary("LEAKY_RELU", alpha=0.3),
    "leaky_relu-thin": unary("LEAKY_RELU", alpha=0.01),
    "relu": unary("RELU"),
    "relu6": unary("RELU6"),
    "quantize": unary("QUANTIZE"),
    "prelu": prelu,
    "softmax": softmax,
    "add": binary("ADD"),
    "add-relu": binary("ADD", fusedActivationFunction=1),
    "add-constant": binary("ADD", constant=6),
    "sub": binary("SUB"),
    "sub-constant": binary("SUB", constant=6),
    "add-number": binary("ADD", constant=1, fusedActivationFunction=3),
    "sub-number": binary("SUB", constant=1, spread=0.3),
    "mul": binary("MUL"),
    "mul-constant": binary("MUL", constant=6, fusedActivationFunction=3),
    "maximum": binary("MAXIMUM", same=True),
    "minimum": binary("MINIMUM", same=True),
    "concatenation": concatenation,
    "concatenation-uint8": regridded,
    **{
        f"resize_bilinear-{factor}-{corners:d}{half:d}": resize("RESIZE_BILINEAR", factor, corners, half)
        for factor in (2, 4, 8, None)
        for corners, half in ((False, False), (False, True), (True, False))
    },
    **{
        f"resize_nearest-{factor}-{corners:d}{half:d}": resize("RESIZE_NEAREST_NEIGHBOR", factor, corners, half)
        for factor in (2, None)
        for corners, half in ((False, False), (False, True), (True, False))
    },
    **{
        f"{name.lower()}-{window}-{stride}-{padding}-{dtype}": pool(name, window, stride, padding, dtype)
        for name in ("MAX_POOL_2D", "AVERAGE_POOL_2D")
        for window, stride, padding, dtype in (
            *((3, 2, 0, "int8"), (3, 1, 0, "int8"), (2, 2, 1, "int8")),
            *((None, 1, 1, "int8"), (3, 2, 0, "uint8"), (None, 1, 1, "uint8")),
        )
    },
    **{
        f"{name.lower()}-{axes}-{keep:d}": reduce(name, axes, keep)
        for name in ("MEAN", "REDUCE_MAX", "REDUCE_MIN")
        for axes, keep in (([1, 2], False), ([1, 2], True), ([3], False), ([2], True), ([1, 2, 3], False))
    },
    **{
        f"{name.lower()}-{number}": convolution(name, **options)
        for name in ("CONV_2D", "DEPTHWISE_CONV_2D")
        for number, options in enumerate(
            ({}, {"padding": 1, "stride": 1}, {"stride": 1, "dilation": 2}, {"activation": 3})
        )
    },
    "depthwise_conv_2d-multiplier": convolution("DEPTHWISE_CONV_2D", multiplier=2),
    "conv_2d-wide": convolution("CONV_2D", channels=700, span=1),
    "fully_connected": convolution("FULLY_CONNECTED", channels=40),
    "fully_connected-wide": convolution("FULLY_CONNECTED", channels=900),
    "transpose_conv": convolution("TRANSPOSE_CONV"),
    "transpose_conv-2": convolution("TRANSPOSE_CONV", span=2),
    "transpose_conv-4": convolution("TRANSPOSE_CONV", span=4, bias=False),
    "transpose_conv-valid": convolution("TRANSPOSE_CONV", padding=1),
    "transpose_conv-stride1": convolution("TRANSPOSE_CONV", stride=1),
    "pad": moved("PAD", (1, 5, 4, 6), (1, 8, 5, 6), whole([[0, 0], [1, 2], [0, 1], [0, 0]])),
    "mirror_pad": moved("MIRROR_PAD", (1, 5, 4, 6), (1, 8, 5, 6), whole([[0, 0], [1, 2], [0, 1], [0, 0]])),
    "slice": moved("SLICE", (1, 5, 4, 6), (1, 5, 2, 3), whole([0, 0, 1, 2]), whole([1, 5, 2, 3])),
    "strided_slice": moved(
        "STRIDED_SLICE", (1, 5, 4, 6), (1, 5, 4, 2), *(whole(one) for one in ([0, 0, 0, 1], [1, 5, 4, 5], [1, 1, 1, 2]))
    ),
    "strided_slice-shrink": moved(
        *("STRIDED_SLICE", (1, 5, 4, 6), (1, 4, 6)),
        *(whole(one) for one in ([0, -2, 0, 0], [0, -1, 0, 0], [1, 1, 1, 1])),
        **{"beginMask": 13, "endMask": 13, "shrinkAxisMask": 2},
    ),
    "split": split,
    "transpose": moved("TRANSPOSE", (1, 5, 4, 6), (1, 6, 5, 4), whole([0, 3, 1, 2])),
    "reshape": moved("RESHAPE", (1, 5, 4, 6), (1, 120), whole([1, 120])),
    "squeeze": moved("SQUEEZE", (1, 1, 1, 6), (1, 6), squeezeDims=[1, 2]),
    "space_to_depth": moved("SPACE_TO_DEPTH", (1, 4, 6, 3), (1, 2, 3, 12), blockSize=2),
    "depth_to_space": moved("DEPTH_TO_SPACE", (1, 2, 3, 12), (1, 4, 6, 3), blockSize=2),
}
NOT_KNOWN = {("elu", "reference")}  # the runtime has no such kernel
SEEDS = 2


def answers(made, rng, kernels):
    content = file_of(*made, axis=3 if made[0].startswith("DEPTHWISE") else 0)
    given = [one for one in made[1] if one["data"] is None]
    low = {"int8": (-128, 128), "uint8": (0, 256)}
    inputs = [rng.integers(*low[one["dtype"]], (COUNT, *one["shape"][1:])).astype(one["dtype"]) for one in given]
    wanted = runtime(content, *inputs, kernels=kernels)
    found = integer_model(content, kernels=kernels).predict_on_batch(inputs if len(inputs) > 1 else inputs[0])
    return (np.concatenate([np.ravel(part) for part in _list(one)]).astype(int) for one in (wanted, found))


def _list(values):
    return values if isinstance(values, list) else [values]


@pytest.mark.parametrize(
    ("case", "kernels"), [pair for pair in itertools.product(CASES, ("xnnpack", "reference")) if pair not in NOT_KNOWN]
)
def test_every_byte_equals_the_runtimes(case, kernels):
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        wanted, found = answers(CASES[case](rng), rng, kernels)
        assert len(np.unique(wanted)) > 2 or len(wanted) == COUNT
        np.testing.assert_array_equal(found, wanted)


def test_what_is_not_known_is_refused():
    grids = [tensor((1, 4, 4, 3), scale, 0) for scale in (0.1, 0.2, 0.1)]
    with pytest.raises(ValueError, match="from one grid to another"):
        integer_model(file_of("CONCATENATION", grids[:2], [tensor((1, 4, 4, 6), 0.1, 0)], {"axis": 3}))
