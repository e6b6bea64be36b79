"""MobileNetV1 (arXiv:1704.04861)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_mobilenets.applications import common, preprocessing, pretrained
from keras_mobilenets.applications.common import Activation, Weights
from keras_mobilenets.layers import DepthwiseSeparableConv
from keras_mobilenets.layers.convolution import Conv2D

decode_predictions = pretrained.decode_predictions


@dataclass(frozen=True)
class Row:
    """Two rows of the paper's Table 1: "Conv dw / s`stride`" and the 1x1 "Conv / s1" that makes `filters` of it."""

    stride: int
    filters: int


STEM_FILTERS = 32
TABLE = (
    Row(1, 64),
    Row(2, 128),
    Row(1, 128),
    Row(2, 256),
    Row(1, 256),
    Row(2, 512),
    Row(1, 512),
    Row(1, 512),
    Row(1, 512),
    Row(1, 512),
    Row(1, 512),
    Row(2, 1024),
    # The paper prints "s2" here as well, with an output of 7x7 that only stride 1 gives.
    Row(1, 1024),
)
STRIDES = (2, *(row.stride for row in TABLE))


def MobileNet(
    input_shape: Sequence[int | None] | None = None,
    alpha: float = 1.0,
    depth_multiplier: int = 1,
    dropout: float = 1e-3,
    include_top: bool = True,
    weights: Weights = "imagenet",
    input_tensor: Any = None,
    pooling: str | None = None,
    classes: int = 1000,
    classifier_activation: Activation = "softmax",
    name: str | None = None,
    *,
    rho: float = 1.0,
    output_stride: int = 32,
    stem_stride: int = 4,
    quantization_friendly: bool = False,
    normalization: str | None = "batch",
    momentum: float = 0.99,
    epsilon: float = 1e-3,
) -> keras.Model:
    """Builds a MobileNetV1: thirteen depthwise separable convolutions behind a standard one.

    The positional arguments are those of `keras.applications.MobileNet`, and its weights give the same answers,
    with one exception: where a block with stride 2 meets a map of odd size, this model pads as the paper's code does
    ("same": one pixel on either side), keras.applications on one side only. Maps are even throughout for sizes that
    are a multiple of 32.

    Args:
        input_shape: (height, width, channels), sizes from 32 or None; by default (224, 224, 3), and without top
            (None, None, 3). Any number of channels.
        alpha: width multiplier, > 0: all layers have `int(alpha * filters)` filters.
        depth_multiplier: depthwise outputs for each channel.
        dropout: rate before the classifier, in [0, 1).
        include_top: whether with pooling and classifier.
        weights: None for random ones, "imagenet" for those of keras.applications, or a path: a legacy `.h5`, a
            `.weights.h5` or a `.keras` file. It is loaded by the layers' names and shapes.
        input_tensor: a KerasTensor to build on, in place of a new input.
        pooling: without top: None for the feature map, "avg" or "max" over height and width.
        classes: number of classes.
        classifier_activation: of the classifier; None gives logits.
        name: of the model.
        rho: resolution multiplier, > 0: the default size is `224 * rho`. Published: 1, 6/7, 5/7 and 4/7.
        output_stride: largest ratio of input to output size: 32, or 16 or 8 by dilation.
        stem_stride: how much the first convolution and the first strided block halve: 4 as published, 2 for images
            of about 64x64, 1 for 32x32. The weights are the same.
        quantization_friendly: neither normalization nor activation between depthwise and pointwise convolution, and
            ReLU in place of ReLU6 (arXiv:1803.08607).
        normalization: "batch", or None for convolutions with a bias instead.
        momentum: of the batch normalization.
        epsilon: of the batch normalization.

    Input: images with values in [-1, 1]: see `preprocess_input`.

    Returns:
        A functional Keras model. With top it gives (batch, classes); `inline(model)` is its flat view, with the layer
        names of keras.applications, and `endpoints(model)` its feature maps.

    Raises:
        ValueError: an argument is out of its range, contradicts another, or the weights do not fit.
        ConnectionError: the ImageNet weights are neither in Keras' cache nor to be had from the network.

    Reference:
        Howard et al., MobileNets, arXiv:1704.04861.

    Example:

    >>> model = MobileNet((64, 64, 3), alpha=0.25, weights=None, classes=10)
    >>> model.output_shape, model.count_params()
    ((None, 10), 221114)
    """
    common.check_arguments(alpha=alpha, weights=weights, pooling=pooling, dropout=dropout)
    common.check_classes(classes, classifier_activation, published=weights == "imagenet" and include_top)
    image = common.image_input(input_shape, input_tensor, rho=rho, stem_stride=stem_stride, fixed_size=include_top)
    size = image.shape[1]
    if weights == "imagenet":
        common.check_published(
            depth_multiplier=(depth_multiplier, 1),
            quantization_friendly=(quantization_friendly, False),
            normalization=(normalization, "batch"),
        )
        size = pretrained.published_size("MobileNet", alpha, image)
        weights = pretrained.pretrained_path("MobileNet", alpha, size, include_top=include_top)
    block = {"depth_multiplier": depth_multiplier, "quantization_friendly": quantization_friendly}
    settings = {"normalization": normalization, "momentum": momentum, "epsilon": epsilon}
    steps = common.strides_and_dilations(STRIDES, output_stride=output_stride, stem_stride=stem_stride)
    x = _trunk(image, alpha, steps, block, settings)
    x = _top(x, classes, dropout, classifier_activation) if include_top else common.pool(x, pooling)
    return common.finish(x, image, name=name or f"mobilenet_{alpha:0.2f}_{size}", weights=weights)


def _trunk(x: Any, alpha: float, steps: list[tuple[int, int]], block: dict[str, Any], settings: dict[str, Any]) -> Any:
    (stem_strides, _), *steps = steps
    filters = int(STEM_FILTERS * alpha)
    x = common.convolution(x, filters, 3, strides=stem_strides, name="conv1", activation="relu6", **settings)
    for index, (row, (strides, dilation_rate)) in enumerate(zip(TABLE, steps, strict=True), start=1):
        x = DepthwiseSeparableConv(
            int(row.filters * alpha),
            strides=strides,
            dilation_rate=dilation_rate,
            **block,
            **settings,
            name=f"conv_{index}",
        )(x)
    return x


def _top(x: Any, classes: int, dropout: float, activation: Activation) -> Any:
    x = keras.layers.GlobalAveragePooling2D(keepdims=True, name="avg_pool")(x)
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    x = Conv2D(classes, 1, padding="same", name="conv_preds")(x)
    x = keras.layers.Reshape((classes,), name="reshape_2")(x)
    return keras.layers.Activation(activation, name="predictions")(x)


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Scales pixels from [0, 255] to the [-1, 1] that `MobileNet` takes.

    Args:
        x: array or tensor of pixels, any shape and numeric type; it is not changed.
        data_format: as in keras.applications; makes no difference.

    Returns:
        `x / 127.5 - 1`, of the same kind.

    Raises:
        ValueError: an unknown `data_format`.

    Warns:
        UserWarning: `x` has been scaled already.

    Example:

    >>> preprocess_input(np.array([0, 127.5, 255]))
    array([-1.,  0.,  1.])
    """
    return preprocessing.scale_pixels(x, data_format)
