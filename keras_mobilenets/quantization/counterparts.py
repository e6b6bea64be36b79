"""Which operation of a `.tflite` file computes what a layer of a deployed model computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_mobilenets.layers import HardSwish
from keras_mobilenets.quantization.forms import Join, Scaling
from keras_mobilenets.quantization.roles import Role, is_plain_resize, role_of

_L = keras.layers
Form = tuple[str, dict[str, Any], list[Any], bool]
"""(operation, options, constant operands, whether the output is on the grid of the input)"""


@dataclass(frozen=True)
class Moved:
    """A layer or operation that only moves values, called on integers as on real numbers: 0 stays 0.

    Args:
        layer: the layer or operation.
        args, kwargs: of its call, with None in the place of the values.
        output: which of its outputs is taken.
    """

    layer: Any
    args: tuple[Any, ...] = (None,)
    kwargs: tuple[tuple[str, Any], ...] = ()
    output: int = 0

    def __call__(self, values: Any) -> Any:
        given = [values if one is None else one for one in self.args]
        return keras.tree.flatten(self.layer(*given, **dict(self.kwargs)))[self.output]


def moved(layer: Any, args: tuple, kwargs: dict[str, Any]) -> Moved | None:
    """The function of a layer or operation that only moves the values of `args[0]`; None of others."""
    moves = role_of(layer) is Role.MOVE or isinstance(layer, _L.CenterCrop) or type(layer).__name__ == "Flip"
    if not moves or isinstance(args[0], list | tuple) or getattr(layer, "constant_values", None):
        return None
    return Moved(layer, (None, *args[1:]), tuple(kwargs.items()))


def form_of(layer: Any, args: tuple, shape: tuple[int, ...]) -> Form | None:
    """The operation of a layer that is called with `args` and gives `shape`; None where there is none."""
    for classes, make in _FORMS:
        if isinstance(layer, classes):
            return make(layer, args[0], shape)
    make = _OPERATIONS.get(type(layer).__name__)
    return None if make is None or isinstance(layer, _L.Layer) else make(layer, args[0], shape)


def _window(layer: Any) -> dict[str, Any]:
    return {
        "stride_h": layer.strides[0],
        "stride_w": layer.strides[1],
        "padding": layer.padding.upper(),
    }


def _convolution(layer: Any, value: Any, shape: Any) -> Form:
    name = "DEPTHWISE_CONV_2D" if isinstance(layer, _L.DepthwiseConv2D) else "CONV_2D"
    dilation = {"dilation_h_factor": layer.dilation_rate[0], "dilation_w_factor": layer.dilation_rate[1]}
    return name, {**_window(layer), **dilation}, [], False


def _transposed(layer: Any, value: Any, shape: Any) -> Form | None:
    plain = tuple(layer.dilation_rate) == (1, 1) and layer.output_padding is None
    return ("TRANSPOSE_CONV", _window(layer), [np.array(shape)], False) if plain else None


def _dense(layer: Any, value: Any, shape: Any) -> Form:
    return "FULLY_CONNECTED", {}, [], False


def _pool(name: str, keeps_grid: bool) -> Any:
    def make(layer: Any, value: Any, shape: Any) -> Form:
        size = {"filter_height": layer.pool_size[0], "filter_width": layer.pool_size[1]}
        return name, {**_window(layer), **size}, [], keeps_grid

    return make


def _average(layer: Any, value: Any, shape: Any) -> Form:
    return "MEAN", {}, [np.arange(1, len(value.shape) - 1)], False


def _mean(operation: Any, value: Any, shape: Any) -> Form | None:
    axes = operation.axis if isinstance(operation.axis, list | tuple) else [operation.axis]
    return None if None in axes else ("MEAN", {}, [np.array([axis % len(value.shape) for axis in axes])], False)


def _scaling(layer: Any, value: Any, shape: Any) -> Form | None:
    if np.ndim(layer.scale) or np.ndim(layer.offset):
        return None
    name, number = ("ADD", layer.offset) if layer.scale == 1 else ("MUL", layer.scale)
    return name, {}, [np.float32(number)], False


def _resize(layer: Any, value: Any, shape: Any) -> Form | None:
    names = {"nearest": "RESIZE_NEAREST_NEIGHBOR", "bilinear": "RESIZE_BILINEAR"}
    if layer.interpolation not in names or not (isinstance(layer, _L.UpSampling2D) or is_plain_resize(layer)):
        return None
    return names[layer.interpolation], {"half_pixel_centers": True}, [np.array(shape[1:3])], True


def _activation(layer: Any, value: Any, shape: Any) -> Form | None:
    names = {"sigmoid": "LOGISTIC", "tanh": "TANH", "gelu": "GELU", "exponential": "EXP"}
    name = names.get(getattr(layer.activation, "__name__", ""))
    return None if name is None else (name, {}, [], False)


def _relu(layer: Any, value: Any, shape: Any) -> Form | None:
    names = {None: "RELU", 6.0: "RELU6"}
    plain = layer.max_value in names and not layer.negative_slope and not layer.threshold
    return (names[layer.max_value], {}, [], False) if plain else None


def _softmax(layer: Any, value: Any, shape: Any) -> Form | None:
    return ("SOFTMAX", {"beta": 1.0}, [], False) if layer.axis in (-1, len(shape) - 1) else None


def _dot(layer: Any, values: Any, shape: Any) -> Form | None:
    first, second = (layer.axes,) * 2 if isinstance(layer.axes, int) else layer.axes
    options = {"adj_x": first % 3 == 1, "adj_y": second % 3 == 2}
    return ("BATCH_MATMUL", options, [], False) if len(shape) == len(values[0].shape) == 3 else None


def _plain(name: str, keeps_grid: bool = False, **options: Any) -> Any:
    return lambda layer, value, shape: (name, options, [], keeps_grid)


_FORMS: tuple[tuple[Any, Any], ...] = (
    (_L.Conv2DTranspose, _transposed),  # which is a Conv2D, too
    (_L.Conv2D, _convolution),
    (_L.DepthwiseConv2D, _convolution),
    (_L.Dense, _dense),
    (_L.ReLU, _relu),
    (HardSwish, _plain("HARD_SWISH")),
    (_L.Add, _plain("ADD")),
    (_L.Subtract, _plain("SUB")),
    (_L.Multiply, _plain("MUL")),
    (Join, lambda layer, value, shape: ("CONCATENATION", {"axis": layer.axis % len(shape)}, [], False)),
    (_L.Concatenate, lambda layer, value, shape: ("CONCATENATION", {"axis": layer.axis % len(shape)}, [], True)),
    (_L.Maximum, _plain("MAXIMUM", True)),
    (_L.Minimum, _plain("MINIMUM", True)),
    ((_L.GlobalAveragePooling1D, _L.GlobalAveragePooling2D, _L.GlobalAveragePooling3D), _average),
    (_L.AveragePooling2D, _pool("AVERAGE_POOL_2D", True)),
    (_L.MaxPooling2D, _pool("MAX_POOL_2D", True)),
    (_L.GlobalMaxPooling2D, lambda layer, value, shape: ("REDUCE_MAX", {}, [np.array([1, 2])], True)),
    ((_L.UpSampling2D, _L.Resizing), _resize),
    ((_L.Reshape, _L.Flatten), _plain("RESHAPE", True)),
    (_L.Softmax, _softmax),
    (_L.Activation, _activation),
    (_L.LeakyReLU, lambda layer, value, shape: ("LEAKY_RELU", {"alpha": layer.negative_slope}, [], False)),
    (_L.PReLU, _plain("PRELU")),
    (_L.Dot, _dot),
    (Scaling, _scaling),
)
_OPERATIONS: dict[str, Any] = {
    **dict.fromkeys(("Reshape", "Squeeze", "ExpandDims"), _plain("RESHAPE", True)),
    "Add": _plain("ADD"),
    "Subtract": _plain("SUB"),
    "Multiply": _plain("MUL"),
    "Matmul": lambda layer, value, shape: ("BATCH_MATMUL", {}, [], False) if len(shape) > 2 else None,
    "Mean": _mean,
    "Resize": _resize,
}
