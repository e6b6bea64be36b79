"""MobileNetV2 (arXiv:1801.04381)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras

from keras_mobilenets.applications import common, preprocessing, pretrained
from keras_mobilenets.applications.common import Activation, Weights
from keras_mobilenets.layers import InvertedResidual, make_divisible

decode_predictions = pretrained.decode_predictions


@dataclass(frozen=True)
class Row:
    """A row of the paper's Table 2, "bottleneck": t, c, n and s."""

    expansion: int
    filters: int
    repeats: int
    stride: int


STEM_FILTERS = 32
TABLE = (
    #   t    c  n  s
    Row(1, 16, 1, 1),
    Row(6, 24, 2, 2),
    Row(6, 32, 3, 2),
    Row(6, 64, 4, 2),
    Row(6, 96, 3, 1),
    Row(6, 160, 3, 2),
    Row(6, 320, 1, 1),
)
LAST_FILTERS = 1280

# One pair (row, stride) for each of a row's n blocks: only the first has the row's stride.
BLOCKS = tuple((row, row.stride if repeat == 0 else 1) for row in TABLE for repeat in range(row.repeats))
STRIDES = (2, *(stride for _, stride in BLOCKS))


def MobileNetV2(
    input_shape: Sequence[int | None] | None = None,
    alpha: float = 1.0,
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
    dropout: float = 0.0,
    reduced_tail: bool = False,
    divisor: int = 8,
    normalization: str | None = "batch",
    momentum: float = 0.999,
    epsilon: float = 1e-3,
) -> keras.Model:
    """Builds a MobileNetV2: seventeen inverted residual blocks with linear bottlenecks.

    The positional arguments are those of `keras.applications.MobileNetV2`, and its weights give the same answers.

    Args:
        input_shape: (height, width, channels), sizes from 32 or None; by default (224, 224, 3), and without top
            (None, None, 3). Any number of channels.
        alpha: width multiplier, > 0. Widths are rounded to multiples of `divisor`; the last convolution has 1280,
            more only for `alpha` > 1.
        include_top: whether with pooling and classifier.
        weights: None for random ones, "imagenet" for those of keras.applications, or a path: a legacy `.h5`, a
            `.weights.h5` or a `.keras` file. It is loaded by the layers' names and shapes.
        input_tensor: a KerasTensor to build on, in place of a new input.
        pooling: without top: None for the feature map, "avg" or "max" over height and width.
        classes: number of classes.
        classifier_activation: of the classifier; None gives logits.
        name: of the model.
        rho: resolution multiplier, > 0: the default size is `224 * rho`. Published: 1, 6/7, 5/7, 4/7 and 3/7.
        output_stride: largest ratio of input to output size: 32, or 16 or 8 by dilation.
        stem_stride: how much the first convolution and the first strided block halve: 4 as published, 2 for images
            of about 64x64, 1 for 32x32. The weights are the same.
        dropout: rate before the classifier, in [0, 1).
        reduced_tail: whether the last convolution, too, has fewer channels for `alpha` < 1, as published for detection.
        divisor: widths are multiples of it; 1 in the published segmentation networks of `alpha` < 1.
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
        Sandler et al., MobileNetV2, arXiv:1801.04381.

    Example:

    >>> model = MobileNetV2((64, 64, 3), alpha=0.35, weights=None, include_top=False)
    >>> model.output_shape, model.count_params()
    ((None, 2, 2, 1280), 410208)
    """
    common.check_arguments(alpha=alpha, weights=weights, pooling=pooling, dropout=dropout)
    common.check_classes(classes, classifier_activation, published=weights == "imagenet" and include_top)
    image = common.image_input(input_shape, input_tensor, rho=rho, stem_stride=stem_stride, fixed_size=include_top)
    size = image.shape[1]
    if weights == "imagenet":
        common.check_published(
            normalization=(normalization, "batch"), divisor=(divisor, 8), reduced_tail=(reduced_tail, False)
        )
        size = pretrained.published_size("MobileNetV2", alpha, image)
        weights = pretrained.pretrained_path("MobileNetV2", alpha, size, include_top=include_top)
    settings = {"normalization": normalization, "momentum": momentum, "epsilon": epsilon}
    steps = common.strides_and_dilations(STRIDES, output_stride=output_stride, stem_stride=stem_stride)
    last = LAST_FILTERS * (alpha if reduced_tail else max(alpha, 1.0))
    x = _trunk(image, partial(make_divisible, divisor=divisor), alpha, last, steps, settings)
    x = _top(x, classes, dropout, classifier_activation) if include_top else common.pool(x, pooling)
    return common.finish(x, image, name=name or f"mobilenetv2_{alpha:0.2f}_{size}", weights=weights)


def _trunk(
    x: Any, width: Any, alpha: float, last_filters: float, steps: list[tuple[int, int]], settings: dict[str, Any]
) -> Any:
    (stem_strides, _), *steps = steps
    stem = {"name": "Conv1", "bn_name": "bn_Conv1", "activation": "relu6", **settings}
    x = common.convolution(x, width(STEM_FILTERS * alpha), 3, strides=stem_strides, **stem)
    for index, ((row, stride), (strides, dilation_rate)) in enumerate(zip(BLOCKS, steps, strict=True)):
        x = InvertedResidual(
            width(max(1, int(row.filters * alpha))),
            expansion=row.expansion if row.expansion > 1 else None,
            strides=strides,
            dilation_rate=dilation_rate,
            residual=None if stride == 1 else False,  # where the table has a stride, there is no residual connection
            normalization_suffix="BN",
            **settings,
            name=f"block_{index}" if index else "expanded_conv",
        )(x)
    last = {"name": "Conv_1", "activation_prefix": "out", "activation": "relu6", **settings}
    return common.convolution(x, width(last_filters), 1, **last)


def _top(x: Any, classes: int, dropout: float, activation: Activation) -> Any:
    x = keras.layers.GlobalAveragePooling2D(name="avg_pool")(x)
    if dropout:
        x = keras.layers.Dropout(dropout, name="dropout")(x)
    return keras.layers.Dense(classes, activation=activation, name="predictions")(x)


def preprocess_input(x: Any, data_format: str | None = None) -> Any:
    """Scales pixels from [0, 255] to the [-1, 1] that `MobileNetV2` takes.

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
