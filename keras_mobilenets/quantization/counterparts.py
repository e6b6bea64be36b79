"""Which operation of a `.tflite` file computes what a layer of a deployed model computes."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_mobilenets.layers import HardSwish

_L = keras.layers
Form = tuple[str, dict[str, Any], list[Any], bool]
"""(operation, options, constant operands, whether the output is on the grid of the input)"""


def form_of(layer: Any, value: Any, shape: tuple[int, ...], args: tuple, kwargs: dict[str, Any]) -> Form | None:
    """The operation of a layer that reads `value` and gives `shape`; None where there is none."""
    for classes, make in _FORMS:
        if isinstance(layer, classes):
            return make(layer, value, shape)
    if type(layer).__name__ in ("Reshape", "Squeeze", "ExpandDims"):
        return "RESHAPE", {}, [], True
    return None


def _window(layer: Any) -> dict[str, Any]:
    return {
        "stride_h": layer.strides[0],
        "stride_w": layer.strides[1],
        "padding": layer.padding.upper(),
    }


def _convolution(layer: Any, value: Any, shape: Any) -> Form | None:
    if layer.data_format != "channels_last" or getattr(layer, "groups", 1) != 1:
        return None
    name = "DEPTHWISE_CONV_2D" if isinstance(layer, _L.DepthwiseConv2D) else "CONV_2D"
    dilation = {"dilation_h_factor": layer.dilation_rate[0], "dilation_w_factor": layer.dilation_rate[1]}
    return name, {**_window(layer), **dilation}, [], False


def _dense(layer: Any, value: Any, shape: Any) -> Form:
    return "FULLY_CONNECTED", {}, [], False


def _pool(name: str, keeps_grid: bool) -> Any:
    def make(layer: Any, value: Any, shape: Any) -> Form:
        size = {"filter_height": layer.pool_size[0], "filter_width": layer.pool_size[1]}
        return name, {**_window(layer), **size}, [], keeps_grid

    return make


def _average(layer: Any, value: Any, shape: Any) -> Form:
    return "MEAN", {}, [np.array([1, 2])], False


def _upsampling(layer: Any, value: Any, shape: Any) -> Form | None:
    names = {"nearest": "RESIZE_NEAREST_NEIGHBOR", "bilinear": "RESIZE_BILINEAR"}
    if layer.interpolation not in names:
        return None
    return names[layer.interpolation], {"half_pixel_centers": True}, [np.array(shape[1:3])], True


def _padding(layer: Any, value: Any, shape: Any) -> Form:
    return "PAD", {}, [np.array([(0, 0), *layer.padding, (0, 0)])], True


def _cropping(layer: Any, value: Any, shape: Any) -> Form:
    begin = np.array([0, *(before for before, _ in layer.cropping), 0])
    return "SLICE", {}, [begin, np.array(shape)], True


def _activation(layer: Any, value: Any, shape: Any) -> Form | None:
    names = {"sigmoid": "LOGISTIC", "tanh": "TANH", "gelu": "GELU", "exponential": "EXP"}
    name = names.get(getattr(layer.activation, "__name__", ""))
    return None if name is None else (name, {}, [], False)


def _relu(layer: Any, value: Any, shape: Any) -> Form | None:
    names = {None: "RELU", 6.0: "RELU6"}
    plain = layer.max_value in names and not layer.negative_slope and not layer.threshold
    return (names[layer.max_value], {}, [], False) if plain else None


def _plain(name: str, keeps_grid: bool = False, **options: Any) -> Any:
    return lambda layer, value, shape: (name, options, [], keeps_grid)


_FORMS: tuple[tuple[Any, Any], ...] = (
    (_L.Conv2D, _convolution),
    (_L.DepthwiseConv2D, _convolution),
    (_L.Dense, _dense),
    (_L.ReLU, _relu),
    (HardSwish, _plain("HARD_SWISH")),
    (_L.Add, _plain("ADD")),
    (_L.Subtract, _plain("SUB")),
    (_L.Multiply, _plain("MUL")),
    (_L.Concatenate, lambda layer, value, shape: ("CONCATENATION", {"axis": layer.axis % len(shape)}, [], True)),
    (_L.GlobalAveragePooling2D, _average),
    (_L.AveragePooling2D, _pool("AVERAGE_POOL_2D", True)),
    (_L.MaxPooling2D, _pool("MAX_POOL_2D", True)),
    (_L.GlobalMaxPooling2D, lambda layer, value, shape: ("REDUCE_MAX", {}, [np.array([1, 2])], True)),
    (_L.UpSampling2D, _upsampling),
    (_L.ZeroPadding2D, _padding),
    (_L.Cropping2D, _cropping),
    (_L.Permute, lambda layer, value, shape: ("TRANSPOSE", {}, [np.array([0, *layer.dims])], True)),
    ((_L.Reshape, _L.Flatten), _plain("RESHAPE", True)),
    (_L.Softmax, _plain("SOFTMAX", beta=1.0)),
    (_L.Activation, _activation),
    (_L.LeakyReLU, lambda layer, value, shape: ("LEAKY_RELU", {"alpha": layer.negative_slope}, [], False)),
)
