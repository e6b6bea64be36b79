"""DeepLabV3 on any MobileNet (arXiv:1706.05587; as the MobileNetV2 paper has it, arXiv:1801.04381, section 6.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import keras

from keras_mobilenets.applications import common
from keras_mobilenets.layers import BatchNormalization
from keras_mobilenets.layers.convolution import Conv2D

FILTERS = 256
RATES = (6, 12, 18)
"""Of the atrous convolutions at an output stride of 16; twice as large at 8, half at 32."""
DROPOUT = 0.1
# Published with a momentum of .9997, which averages over thousands of steps.
_SETTINGS: dict[str, Any] = {"normalization": "batch", "momentum": 0.97, "epsilon": 1e-5}


def DeepLabV3(
    backbone: str = "MobileNetV2",
    input_shape: Sequence[int | None] = (512, 512, 3),
    *,
    classes: int = 21,
    alpha: float = 1.0,
    output_stride: int = 16,
    aspp: bool = False,
    neck: bool = False,
    resize: bool = True,
    filters: int = FILTERS,
    dropout: float = DROPOUT,
    weights: common.Weights = None,
    backbone_weights: common.Weights = "imagenet",
    name: str | None = None,
    **options: Any,
) -> keras.Model:
    """Builds a segmentation network: DeepLabV3 on a MobileNet.

    The mean of the network's last map, a 1x1 convolution of it and, with `aspp`, three 3x3 convolutions that look 6, 12
    and 18 pixels far are joined and answer for each pixel.

    Args:
        backbone: name of a builder of this package.
        input_shape: (height, width, channels); with `resize` height and width are multiples of `output_stride`.
        classes: number of classes.
        alpha: width multiplier of the backbone, > 0.
        output_stride: largest ratio of input to map: 8, 16 or 32.
        aspp: whether with the atrous convolutions, which twice as many parameters are for.
        neck: whether to look at the network's last map (1280 channels of V2) instead of its last block's (320): as
            published without.
        resize: whether the answers are made as large as the image inside of the model; else they are a map of the
            output stride, which `tasks.Segmentation` and MediaPipe resize.
        filters: of the head.
        dropout: rate before the answers, in [0, 1).
        weights: path of such a network's weights, or None.
        backbone_weights: as the backbone's `weights`.
        name: of the model.
        **options: of the backbone.

    Input: images as the backbone takes them.

    Returns:
        A functional Keras model with one output by name, "mask": the logits of each pixel,
        (batch, height, width, classes).

    Raises:
        ValueError: an argument is out of its range, or the weights do not fit.

    Reference:
        DeepLabV3, arXiv:1706.05587; MobileNetV2, arXiv:1801.04381, section 6.3 and Table 7.

    Example:

    >>> model = DeepLabV3("MobileNetV2", (64, 96, 3), classes=5, alpha=0.35, backbone_weights=None)
    >>> model.output["mask"].shape
    (None, 64, 96, 5)
    """
    common.check_classes(classes, None, published=False)
    sizes = tuple(input_shape)[:2]
    if any(size is None or (resize and size % output_stride) for size in sizes):
        raise ValueError(
            f"`input_shape` must have a height and width, multiples of {output_stride} unless resize=False. "
            f"Received: input_shape={tuple(input_shape)}"
        )
    head = partial(deeplab_head, classes=classes, aspp=aspp, neck=neck, resize=resize, filters=filters, dropout=dropout)
    return common.on_backbone(
        backbone,
        input_shape,
        head,
        kind="deeplabv3",
        name=name,
        weights=weights,
        backbone_weights=backbone_weights,
        alpha=alpha,
        output_stride=output_stride,
        **options,
    )


def deeplab_head(
    maps: Mapping[str, Any],
    *,
    classes: int,
    aspp: bool = False,
    neck: bool = False,
    resize: bool = True,
    filters: int = FILTERS,
    dropout: float = DROPOUT,
) -> dict[str, Any]:
    """Puts DeepLabV3 on a network's feature maps.

    Args:
        maps: by name, as `endpoints` gives them.
        classes, aspp, neck, resize, filters, dropout: see `DeepLabV3`.

    Returns:
        "mask".
    """
    last = list(maps)[-1]
    stride = int(last.removeprefix("stride_"))
    features = maps[last] if neck else maps.get(f"{last}_block", maps[last])
    image = keras.layers.GlobalAveragePooling2D(keepdims=True, name="image_pool")(features)
    image = common.convolution(image, filters, 1, name="image_conv", activation="relu", **_SETTINGS)
    branches = [common.larger(image, tuple(features.shape[1:3]), "image_resize")]
    branches.append(common.convolution(features, filters, 1, name="aspp_0", activation="relu", **_SETTINGS))
    for number, rate in enumerate(RATES if aspp else (), 1):
        branches.append(_atrous(features, filters, max(rate * 16 // stride, 1), f"aspp_{number}"))
    x = keras.layers.Concatenate(name="aspp_concat")(branches)
    x = common.convolution(x, filters, 1, name="aspp_project", activation="relu", **_SETTINGS)
    x = keras.layers.Dropout(dropout, name="aspp_dropout")(x) if dropout else x
    x = Conv2D(classes, 1, name="classes" if resize else "mask")(x)
    return {"mask": common.larger(x, (stride, stride), "mask") if resize else x}


def _atrous(x: Any, filters: int, rate: int, name: str) -> Any:
    x = Conv2D(filters, 3, dilation_rate=rate, padding="same", use_bias=False, name=name)(x)
    x = BatchNormalization(momentum=_SETTINGS["momentum"], epsilon=_SETTINGS["epsilon"], name=f"{name}_bn")(x)
    return common.activate(x, "relu", name)
