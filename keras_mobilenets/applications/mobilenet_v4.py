"""MobileNetV4: Conv-S, Conv-M, Conv-L, Hybrid-M and Hybrid-L (arXiv:2404.10518)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypedDict

import keras

from keras_mobilenets.applications import common, preprocessing, timm_weights
from keras_mobilenets.applications.common import Activation
from keras_mobilenets.applications.mobilenet_v4_tables import (
    CONV_LARGE,
    CONV_MEDIUM,
    CONV_SMALL,
    HYBRID_LARGE,
    HYBRID_MEDIUM,
    LAST_FILTERS,
    MQA,
    NECK_FILTERS,
    UIB,
    Conv,
    Fused,
    Network,
)
from keras_mobilenets.arguments import check_choice
from keras_mobilenets.layers import MobileMQA, UniversalInvertedBottleneck, make_divisible

if TYPE_CHECKING:
    import os

    from typing_extensions import Unpack


class Options(TypedDict, total=False):
    """What all builders take; `MobileNetV4ConvSmall` says what each means."""

    include_top: bool
    weights: str | os.PathLike[str] | None
    input_tensor: Any
    classes: int
    pooling: str | None
    dropout: float
    classifier_activation: Activation
    include_preprocessing: bool
    name: str | None
    rho: float
    output_stride: int
    stem_stride: int
    drop_path: float
    normalization: str | None
    momentum: float | None
    epsilon: float | None
    origin: str | None


def MobileNetV4ConvSmall(
    input_shape: Sequence[int | None] | None = None, alpha: float = 1.0, **options: Unpack[Options]
) -> keras.Model:
    """Builds MobileNetV4's Conv-S: universal inverted bottlenecks found by search, and ReLU.

    The model scales its input itself: it takes pixels in [0, 255], or values in [-1, 1] with
    `include_preprocessing=False`. There are no published weights of Keras' own.

    Args:
        input_shape: (height, width, channels), sizes from 32 or None; by default (None, None, 3). Any number of
            channels. Published: 224 for Conv-S, 256 for the M and 384 for the L networks.
        alpha: width multiplier, > 0. Widths are rounded to multiples of 8; the stem is not made narrower, the last
            convolution has 1280 filters, more only for `alpha` > 1.
        include_top: whether with pooling and classifier.
        weights: None for random ones, or a path: a `.weights.h5` or a `.keras` file, or timm's checkpoint, a
            `.safetensors` or `.pth` file. timm's networks were trained on pixels that are normalized as their
            `pretrained_cfg` says: most by a mean and a variance for each channel.
        input_tensor: a KerasTensor to build on, in place of a new input.
        classes: number of classes; 1000.
        pooling: without top: None for the feature map, "avg" or "max" over height and width.
        dropout: rate before the classifier, in [0, 1); 0.2.
        classifier_activation: of the classifier; "softmax"; None gives logits.
        include_preprocessing: whether the model scales pixels to [-1, 1] itself.
        name: of the model.
        rho: resolution multiplier, > 0: where it is not 1, the default size is `224 * rho`.
        output_stride: largest ratio of input to output size: 32, or 16 or 8 by dilation.
        stem_stride: how much the first convolution and the first strided block halve: 4 as published, 2 for images
            of about 64x64, 1 for 32x32. The weights are the same.
        drop_path: stochastic depth of the last block, in [0, 1), that of those before it rising to it evenly; 0.
        normalization: "batch", or None for convolutions with a bias instead.
        momentum: of the batch normalization; None for the published one.
        epsilon: likewise.
        origin: whose settings padding, momentum and epsilon are: "tensorflow", the authors', or "timm", which pads
            strided convolutions by half a kernel on each side; None for what `weights` need.

    Returns:
        A functional Keras model. With top it gives (batch, classes); `inline(model)` is its flat view, and
        `endpoints(model)` its feature maps.

    Raises:
        ValueError: an argument is out of its range, contradicts another, or the weights do not fit.

    Reference:
        Qin et al., MobileNetV4, arXiv:2404.10518, Table 11.

    Example:

    >>> model = MobileNetV4ConvSmall((64, 64, 3), classes=10)
    >>> model.output_shape, model.count_params()
    ((None, 10), 2530922)
    """
    return _build(CONV_SMALL, input_shape, alpha, **options)


def MobileNetV4ConvMedium(
    input_shape: Sequence[int | None] | None = None, alpha: float = 1.0, **options: Unpack[Options]
) -> keras.Model:
    """Builds MobileNetV4's Conv-M, of Table 12. Arguments, result and errors: see `MobileNetV4ConvSmall`.

    Example:

    >>> MobileNetV4ConvMedium((64, 64, 3), alpha=0.25, include_top=False).output_shape
    (None, 2, 2, 240)
    """
    return _build(CONV_MEDIUM, input_shape, alpha, **options)


def MobileNetV4ConvLarge(
    input_shape: Sequence[int | None] | None = None, alpha: float = 1.0, **options: Unpack[Options]
) -> keras.Model:
    """Builds MobileNetV4's Conv-L, of Table 13. Arguments, result and errors: see `MobileNetV4ConvSmall`.

    Example:

    >>> MobileNetV4ConvLarge((64, 64, 3), alpha=0.25, include_top=False).output_shape
    (None, 2, 2, 240)
    """
    return _build(CONV_LARGE, input_shape, alpha, **options)


def MobileNetV4HybridMedium(
    input_shape: Sequence[int | None] | None = None, alpha: float = 1.0, **options: Unpack[Options]
) -> keras.Model:
    """Builds MobileNetV4's Hybrid-M, of Table 14: attention between the blocks of the last two stages.

    Arguments, result and errors: see `MobileNetV4ConvSmall`.

    Example:

    >>> MobileNetV4HybridMedium((64, 64, 3), alpha=0.25, include_top=False).output_shape
    (None, 2, 2, 240)
    """
    return _build(HYBRID_MEDIUM, input_shape, alpha, **options)


def MobileNetV4HybridLarge(
    input_shape: Sequence[int | None] | None = None, alpha: float = 1.0, **options: Unpack[Options]
) -> keras.Model:
    """Builds MobileNetV4's Hybrid-L, of Table 15: attention between the blocks of the last two stages, and GELU.

    Arguments, result and errors: see `MobileNetV4ConvSmall`.

    Example:

    >>> MobileNetV4HybridLarge((64, 64, 3), alpha=0.25, include_top=False).output_shape
    (None, 2, 2, 240)
    """
    return _build(HYBRID_LARGE, input_shape, alpha, **options)


def _build(
    network: Network,
    input_shape: Sequence[int | None] | None,
    alpha: float,
    *,
    include_top: bool = True,
    weights: str | os.PathLike[str] | None = None,
    input_tensor: Any = None,
    classes: int = 1000,
    pooling: str | None = None,
    dropout: float = 0.2,
    classifier_activation: Activation = "softmax",
    include_preprocessing: bool = True,
    name: str | None = None,
    rho: float = 1.0,
    output_stride: int = 32,
    stem_stride: int = 4,
    drop_path: float = 0.0,
    normalization: str | None = "batch",
    momentum: float | None = None,
    epsilon: float | None = None,
    origin: str | None = None,
) -> keras.Model:
    if weights == "imagenet":
        raise ValueError("`weights` must be None or a path: MobileNetV4 has no published weights for Keras.")
    common.check_arguments(alpha=alpha, weights=weights, pooling=pooling, dropout=dropout)
    common.check_classes(classes, classifier_activation, published=False)
    image = common.image_input(input_shape, input_tensor, rho=rho, stem_stride=stem_stride, fixed_size=False)
    check_choice((None, "tensorflow", "timm"), origin=origin)
    is_timm = origin == "timm" or (origin is None and timm_weights.is_checkpoint(weights))
    known = (timm_weights.MOMENTUM, timm_weights.EPSILON) if is_timm else (network.momentum, network.epsilon)
    settings = {
        "normalization": normalization,
        "momentum": known[0] if momentum is None else momentum,
        "epsilon": known[1] if epsilon is None else epsilon,
        "padding": "symmetric" if is_timm else "same",
    }
    steps = common.strides_and_dilations(network.strides, output_stride=output_stride, stem_stride=stem_stride)
    x = keras.layers.Rescaling(1 / 127.5, -1.0, name="rescaling")(image) if include_preprocessing else image
    x = _trunk(x, network, alpha, steps, drop_path, settings)
    if include_top:
        x = _top(x, network, alpha, classes, dropout, classifier_activation, settings)
    else:
        x = common.pool(x, pooling)
    return common.finish(x, image, name=name or network.builder, weights=weights)


def _trunk(
    x: Any, network: Network, alpha: float, steps: list[tuple[int, int]], drop_path: float, settings: dict[str, Any]
) -> Any:
    (stem_strides, _), *steps = steps
    conv = {"activation": network.activation, **settings}
    filters = make_divisible(network.stem_filters * max(alpha, 1.0))
    x = common.convolution(x, filters, 3, strides=stem_strides, name="conv", **conv)
    for index, (row, step) in enumerate(zip(network.table, steps, strict=True)):
        rate = drop_path * index / (len(steps) - 1)
        x = _block(x, row, network, alpha, step, {**settings, "drop_path": rate}, name=f"block_{index}")
    return common.convolution(x, make_divisible(NECK_FILTERS * alpha), 1, name="conv_1", **conv)


def _block(
    x: Any,
    row: Conv | Fused | UIB | MQA,
    network: Network,
    alpha: float,
    step: tuple[int, int],
    settings: dict[str, Any],
    *,
    name: str,
) -> Any:
    strides, dilation_rate = step
    if isinstance(row, MQA):
        attention = MobileMQA(
            row.heads, row.key_dim, row.kv_strides, layer_scale=network.layer_scale, **settings, name=name
        )
        return attention(x)
    filters = make_divisible(row.filters * alpha)
    if isinstance(row, UIB):
        block = UniversalInvertedBottleneck(
            filters,
            row.expansion,
            row.start or None,
            row.middle or None,
            strides,
            network.layer_scale,
            activation=network.activation,
            dilation_rate=dilation_rate,
            residual=None if row.stride == 1 else False,  # where the table has a stride, there is none
            **settings,
            name=name,
        )
        return block(x)
    conv = {key: value for key, value in settings.items() if key != "drop_path"}
    conv |= {"strides": strides, "activation": network.activation}
    if isinstance(row, Conv):
        return common.convolution(x, filters, row.kernel_size, name=f"{name}_conv", **conv)
    expanded = make_divisible(x.shape[-1] * row.expansion)
    x = common.convolution(x, expanded, row.kernel_size, name=f"{name}_expand", **conv)
    return common.convolution(x, filters, 1, name=f"{name}_project", **{**conv, "strides": 1, "activation": None})


def _top(
    x: Any,
    network: Network,
    alpha: float,
    classes: int,
    dropout: float,
    activation: Activation,
    settings: dict[str, Any],
) -> Any:
    x = keras.layers.GlobalAveragePooling2D(keepdims=True, name="avg_pool")(x)
    filters = make_divisible(LAST_FILTERS * max(alpha, 1.0))
    x = common.convolution(x, filters, 1, name="conv_2", activation=network.activation, **settings)
    x = keras.layers.Flatten(name="flatten")(x)
    if dropout:
        x = keras.layers.Dropout(dropout, name="dropout")(x)
    return keras.layers.Dense(classes, activation=activation, name="predictions")(x)


def preprocess_input(x: Any, data_format: str | None = None, *, include_preprocessing: bool = True) -> Any:
    """Prepares pixels for the MobileNetV4 builders: as `mobilenet_v3.preprocess_input`.

    Example:

    >>> preprocess_input(np.array([0, 127.5, 255]))
    array([  0. , 127.5, 255. ])
    """
    return preprocessing.prepare_pixels(x, data_format, scaled_inside=include_preprocessing)
