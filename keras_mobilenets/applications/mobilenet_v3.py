"""MobileNetV3, Large and Small (arXiv:1905.02244)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from keras_mobilenets.applications import common, preprocessing, pretrained
from keras_mobilenets.applications.common import Activation, Weights
from keras_mobilenets.layers import InvertedResidual, make_divisible
from keras_mobilenets.layers.convolution import Conv2D

decode_predictions = pretrained.decode_predictions

SE, __ = 0.25, None
WHOLE = "whole"
RE, HS = "relu", "hard_swish"


@dataclass(frozen=True)
class Row:
    """A row of the paper's Tables 1 and 2, "bneck": kernel size, exp size, #out, SE, NL and s."""

    kernel_size: int
    exp_size: int
    filters: int
    se_ratio: float | None
    activation: str
    stride: int


@dataclass(frozen=True)
class Network:
    """One of the paper's tables, with the activation of its first and last convolutions and the width of its top."""

    builder: str
    table: tuple[Row, ...]
    last_filters: int
    activation: str = HS

    @property
    def strides(self) -> tuple[int, ...]:
        """Of all convolutions that may have one, the stem's first."""
        return (2, *(row.stride for row in self.table))

    def minimalistic(self) -> Network:
        """The same widths without squeeze-excite, hard-swish and 5x5 kernels."""
        table = tuple(replace(row, kernel_size=3, se_ratio=None, activation=RE) for row in self.table)
        return replace(self, table=table, activation=RE)

    def reduced(self, tail: bool | str) -> Network:
        """Half the channels in the last three blocks; of the first of them the expansion only in a "whole" tail."""
        if tail not in (True, WHOLE):
            raise ValueError(f"`reduced_tail` must be False, True or {WHOLE!r}. Received: reduced_tail={tail!r}")
        *before, first, second, third = self.table
        halves = [replace(row, exp_size=row.exp_size // 2, filters=row.filters // 2) for row in (first, second, third)]
        if tail is True:
            halves[0] = replace(halves[0], exp_size=first.exp_size)
        return replace(self, table=(*before, *halves))


STEM_FILTERS = 16
TABLE_LARGE = (
    #   k  exp  out  SE  NL  s
    Row(3, 16, 16, __, RE, 1),
    Row(3, 64, 24, __, RE, 2),
    Row(3, 72, 24, __, RE, 1),
    Row(5, 72, 40, SE, RE, 2),
    Row(5, 120, 40, SE, RE, 1),
    Row(5, 120, 40, SE, RE, 1),
    Row(3, 240, 80, __, HS, 2),
    Row(3, 200, 80, __, HS, 1),
    Row(3, 184, 80, __, HS, 1),
    Row(3, 184, 80, __, HS, 1),
    Row(3, 480, 112, SE, HS, 1),
    Row(3, 672, 112, SE, HS, 1),
    Row(5, 672, 160, SE, HS, 2),
    Row(5, 960, 160, SE, HS, 1),
    Row(5, 960, 160, SE, HS, 1),
)
TABLE_SMALL = (
    #   k  exp  out  SE  NL  s
    Row(3, 16, 16, SE, RE, 2),
    Row(3, 72, 24, __, RE, 2),
    Row(3, 88, 24, __, RE, 1),
    Row(5, 96, 40, SE, HS, 2),
    Row(5, 240, 40, SE, HS, 1),
    Row(5, 240, 40, SE, HS, 1),
    Row(5, 120, 48, SE, HS, 1),
    Row(5, 144, 48, SE, HS, 1),
    Row(5, 288, 96, SE, HS, 2),
    Row(5, 576, 96, SE, HS, 1),
    Row(5, 576, 96, SE, HS, 1),
)
LARGE = Network("MobileNetV3Large", TABLE_LARGE, last_filters=1280)
SMALL = Network("MobileNetV3Small", TABLE_SMALL, last_filters=1024)


def MobileNetV3Small(
    input_shape: Sequence[int | None] | None = None,
    alpha: float = 1.0,
    minimalistic: bool = False,
    include_top: bool = True,
    weights: Weights = "imagenet",
    input_tensor: Any = None,
    classes: int = 1000,
    pooling: str | None = None,
    dropout_rate: float = 0.2,
    classifier_activation: Activation = "softmax",
    include_preprocessing: bool = True,
    name: str | None = "MobileNetV3Small",
    *,
    rho: float = 1.0,
    output_stride: int = 32,
    stem_stride: int = 4,
    reduced_tail: bool | str = False,
    normalization: str | None = "batch",
    momentum: float = 0.999,
    epsilon: float = 1e-3,
) -> keras.Model:
    """Builds a MobileNetV3-Small: inverted residual blocks found by search, with squeeze-excite and hard-swish.

    The positional arguments are those of `keras.applications.MobileNetV3Small`, and its weights give the same answers.

    The model scales its input itself. What it takes, and what `mobilenet_v3.preprocess_input` gives, depends on one
    argument that both have:

    | `include_preprocessing` | the model takes | `preprocess_input` |
    |---|---|---|
    | True (default) | pixels in [0, 255] | gives them back as they are |
    | False | values in [-1, 1] | scales pixels to them |

    Args:
        input_shape: (height, width, channels), sizes from 32 or None; by default (None, None, 3). Any number of
            channels.
        alpha: width multiplier, > 0. Widths are rounded to multiples of 8; the stem has 16 filters for any `alpha`.
        minimalistic: without squeeze-excite, hard-swish and 5x5 kernels: what runs everywhere.
        include_top: whether with pooling and classifier.
        weights: None for random ones, "imagenet" for those of keras.applications, or a path: a legacy `.h5`, a
            `.weights.h5` or a `.keras` file. It is loaded by the layers' names and shapes.
        input_tensor: a KerasTensor to build on, in place of a new input.
        classes: number of classes.
        pooling: without top: None for the feature map, "avg" or "max" over height and width.
        dropout_rate: before the classifier, in [0, 1).
        classifier_activation: of the classifier; None gives logits.
        include_preprocessing: whether the model scales pixels to [-1, 1] itself.
        name: of the model.
        rho: resolution multiplier, > 0: where it is not 1, the default size is `224 * rho`. Published: 1.
        output_stride: largest ratio of input to output size: 32, or 16 or 8 by dilation.
        stem_stride: how much the first convolution and the first strided block halve: 4 as published, 2 for images
            of about 64x64, 1 for 32x32. The weights are the same.
        reduced_tail: whether the last three blocks have half the channels: True as published for detection, where the
            first one keeps its expansion; "whole" as for segmentation.
        normalization: "batch", or None for convolutions with a bias instead.
        momentum: of the batch normalization.
        epsilon: of the batch normalization.

    Returns:
        A functional Keras model. With top it gives (batch, classes); `inline(model)` is its flat view, with the layer
        names of keras.applications, and `endpoints(model)` its feature maps.

    Raises:
        ValueError: an argument is out of its range, contradicts another, or the weights do not fit.
        ConnectionError: the ImageNet weights are neither in Keras' cache nor to be had from the network.

    Reference:
        Howard et al., Searching for MobileNetV3, arXiv:1905.02244.

    Example:

    >>> model = MobileNetV3Small((64, 64, 3), weights=None, classes=10)
    >>> model.output_shape, model.count_params()
    ((None, 10), 1540218)
    """
    return _build(
        SMALL,
        input_shape=input_shape,
        alpha=alpha,
        minimalistic=minimalistic,
        include_top=include_top,
        weights=weights,
        input_tensor=input_tensor,
        classes=classes,
        pooling=pooling,
        dropout_rate=dropout_rate,
        classifier_activation=classifier_activation,
        include_preprocessing=include_preprocessing,
        name=name,
        rho=rho,
        output_stride=output_stride,
        stem_stride=stem_stride,
        reduced_tail=reduced_tail,
        settings={"normalization": normalization, "momentum": momentum, "epsilon": epsilon},
    )


def MobileNetV3Large(
    input_shape: Sequence[int | None] | None = None,
    alpha: float = 1.0,
    minimalistic: bool = False,
    include_top: bool = True,
    weights: Weights = "imagenet",
    input_tensor: Any = None,
    classes: int = 1000,
    pooling: str | None = None,
    dropout_rate: float = 0.2,
    classifier_activation: Activation = "softmax",
    include_preprocessing: bool = True,
    name: str | None = "MobileNetV3Large",
    *,
    rho: float = 1.0,
    output_stride: int = 32,
    stem_stride: int = 4,
    reduced_tail: bool | str = False,
    normalization: str | None = "batch",
    momentum: float = 0.999,
    epsilon: float = 1e-3,
) -> keras.Model:
    """Builds a MobileNetV3-Large. Arguments, result and errors: see `MobileNetV3Small`.

    Example:

    >>> model = MobileNetV3Large((64, 64, 3), weights=None, classes=10)
    >>> model.output_shape, model.count_params()
    ((None, 10), 4239242)
    """
    return _build(
        LARGE,
        input_shape=input_shape,
        alpha=alpha,
        minimalistic=minimalistic,
        include_top=include_top,
        weights=weights,
        input_tensor=input_tensor,
        classes=classes,
        pooling=pooling,
        dropout_rate=dropout_rate,
        classifier_activation=classifier_activation,
        include_preprocessing=include_preprocessing,
        name=name,
        rho=rho,
        output_stride=output_stride,
        stem_stride=stem_stride,
        reduced_tail=reduced_tail,
        settings={"normalization": normalization, "momentum": momentum, "epsilon": epsilon},
    )


def _build(
    network: Network,
    *,
    input_shape: Sequence[int | None] | None,
    alpha: float,
    minimalistic: bool,
    include_top: bool,
    weights: Weights,
    input_tensor: Any,
    classes: int,
    pooling: str | None,
    dropout_rate: float,
    classifier_activation: Activation,
    include_preprocessing: bool,
    name: str | None,
    rho: float,
    output_stride: int,
    stem_stride: int,
    reduced_tail: bool | str,
    settings: dict[str, Any],
) -> keras.Model:
    common.check_arguments(alpha=alpha, weights=weights, pooling=pooling, dropout_rate=dropout_rate)
    common.check_classes(classes, classifier_activation, published=weights == "imagenet" and include_top)
    image = common.image_input(input_shape, input_tensor, rho=rho, stem_stride=stem_stride, fixed_size=False)
    if weights == "imagenet":
        common.check_published(normalization=(settings["normalization"], "batch"), reduced_tail=(reduced_tail, False))
        variant: dict[str, Any] = {"builder": network.builder, "alpha": alpha, "minimalistic": minimalistic}
        size = pretrained.published_size(image=image, **variant, stacklevel=4)  # warns where the builder was called
        weights = pretrained.pretrained_path(size=size, include_top=include_top, **variant)
    network = network.minimalistic() if minimalistic else network
    network = network.reduced(reduced_tail) if reduced_tail else network
    steps = common.strides_and_dilations(network.strides, output_stride=output_stride, stem_stride=stem_stride)
    x = keras.layers.Rescaling(1 / 127.5, -1.0, name="rescaling")(image) if include_preprocessing else image
    x = _trunk(x, network, alpha, steps, settings)
    if include_top:
        x = _top(x, network, alpha, classes, dropout_rate, classifier_activation)
    else:
        x = common.pool(x, pooling)
    return common.finish(x, image, name=name or network.builder, weights=weights)


def _trunk(x: Any, network: Network, alpha: float, steps: list[tuple[int, int]], settings: dict[str, Any]) -> Any:
    (stem_strides, _), *steps = steps
    neck = {"activation": network.activation, **settings}
    x = common.convolution(x, STEM_FILTERS, 3, strides=stem_strides, name="conv", **neck)
    previous_filters = STEM_FILTERS  # of the table: the expansion is the paper's ratio, whatever alpha is
    for index, (row, (strides, dilation_rate)) in enumerate(zip(network.table, steps, strict=True)):
        x = InvertedResidual(
            make_divisible(row.filters * alpha),
            expansion=row.exp_size / previous_filters if index else None,
            kernel_size=row.kernel_size,
            strides=strides,
            dilation_rate=dilation_rate,
            se_ratio=row.se_ratio,
            activation=row.activation,
            residual=None if row.stride == 1 else False,  # where the table has a stride, there is none
            **settings,
            name=f"expanded_conv_{index}" if index else "expanded_conv",
        )(x)
        previous_filters = row.filters
    return common.convolution(x, make_divisible(6 * x.shape[-1]), 1, name="conv_1", **neck)


def _top(x: Any, network: Network, alpha: float, classes: int, dropout: float, activation: Activation) -> Any:
    filters = make_divisible(network.last_filters * max(alpha, 1.0))
    x = keras.layers.GlobalAveragePooling2D(keepdims=True, name="avg_pool")(x)
    x = Conv2D(filters, 1, padding="same", name="conv_2")(x)
    x = common.activate(x, network.activation, "conv_2")
    if dropout:
        x = keras.layers.Dropout(dropout, name="dropout")(x)
    x = Conv2D(classes, 1, padding="same", name="logits")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    return keras.layers.Activation(activation, name="predictions")(x)


def preprocess_input(x: Any, data_format: str | None = None, *, include_preprocessing: bool = True) -> Any:
    """Prepares pixels for `MobileNetV3Small` and `MobileNetV3Large`, given how the model was built.

    Args:
        x: array or tensor of pixels in [0, 255], any shape and numeric type; it is not changed.
        data_format: as in keras.applications; makes no difference.
        include_preprocessing: what the model was built with. With True it scales pixels itself, and `x` is given
            back as it is; with False it takes values in [-1, 1], and `x / 127.5 - 1` is given back.

    Returns:
        What the model takes, of the same kind as `x`.

    Raises:
        ValueError: an unknown `data_format`.

    Warns:
        UserWarning: `x` has been scaled already.

    Example:

    >>> preprocess_input(np.array([0, 127.5, 255]))
    array([  0. , 127.5, 255. ])
    >>> preprocess_input(np.array([0, 127.5, 255]), include_preprocessing=False)
    array([-1.,  0.,  1.])
    """
    return preprocessing.prepare_pixels(x, data_format, scaled_inside=include_preprocessing)
