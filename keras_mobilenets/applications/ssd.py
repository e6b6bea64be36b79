"""SSD and SSDLite detectors on any MobileNet (arXiv:1512.02325; 1801.04381, section 6.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import keras

from keras_mobilenets.applications import common
from keras_mobilenets.layers import BatchNormalization
from keras_mobilenets.layers.convolution import Conv2D

EXTRAS = (512, 256, 256, 128)
"""Widths of the maps behind the network's own two, each half as large as the one before."""
NARROWEST = 16
ANCHORS = (3, 6, 6, 6, 6, 6)
"""Anchors around a pixel of each map: `keras_mobilenets.tasks.ssd_anchors`."""
PRIOR = 0.01  # of what a class scores before training: most anchors show nothing (focal loss, arXiv:1708.02002)


def SSDLite(
    backbone: str = "MobileNetV3Large",
    input_shape: Sequence[int | None] = (320, 320, 3),
    *,
    classes: int = 90,
    alpha: float = 1.0,
    background: bool = False,
    anchors: Sequence[int] = ANCHORS,
    weights: common.Weights = None,
    backbone_weights: common.Weights = "imagenet",
    name: str | None = None,
    **options: Any,
) -> keras.Model:
    """Builds an SSDLite detector: SSD with depthwise separable convolutions, on a MobileNet.

    It looks at six maps: the expanded one of stride 16 (V1: the block's own), the network's last, and four more, each
    half as large. Around each of their pixels it answers for several anchors: how the box differs from the anchor, and
    what it shows. `keras_mobilenets.tasks.Detection` makes boxes of it and trains it.

    Args:
        backbone: name of a builder of this package.
        input_shape: (height, width, channels), sizes from 32. Published: 320.
        classes: number of classes.
        alpha: width multiplier of backbone and head, > 0.
        background: whether a class of its own, the first, says that an anchor shows nothing: scores are a softmax
            then, as torchvision's, else a sigmoid for each class.
        anchors: how many there are around a pixel of each map.
        weights: path of a detector's weights, or None. Of a detector of other classes all is taken but the scores' last
            convolutions, which begin anew.
        backbone_weights: as the backbone's `weights`.
        name: of the model.
        **options: of the backbone, for instance `reduced_tail=True` of MobileNetV3.

    Input: images as the backbone takes them.

    Returns:
        A functional Keras model with two outputs by name, (batch, anchors, 4) "boxes", which are encoded, and
        (batch, anchors, classes) "scores", which are probabilities; one more column with `background`.

    Raises:
        ValueError: an argument is out of its range, or the weights do not fit.

    Reference:
        MobileNetV2, arXiv:1801.04381, section 6.2; MobileNetV3, arXiv:1905.02244, section 6.3.

    Example:

    >>> model = SSDLite("MobileNetV2", (96, 96, 3), classes=3, alpha=0.35, backbone_weights=None)
    >>> {name: output.shape for name, output in model.output.items()}
    {'boxes': (None, 204, 4), 'scores': (None, 204, 3)}
    """
    head = {"classes": classes, "alpha": alpha, "background": background, "anchors": anchors, "separable": True}
    return _build("ssdlite", backbone, input_shape, head, weights, backbone_weights, name, options)


def SSD300(
    backbone: str = "MobileNet",
    input_shape: Sequence[int | None] = (300, 300, 3),
    *,
    classes: int = 90,
    alpha: float = 1.0,
    background: bool = False,
    anchors: Sequence[int] = ANCHORS,
    weights: common.Weights = None,
    backbone_weights: common.Weights = "imagenet",
    name: str | None = None,
    **options: Any,
) -> keras.Model:
    """Builds an SSD detector as the V1 paper has it: plain 3x3 convolutions to smaller maps, 1x1 ones that answer.

    Arguments, result and errors: see `SSDLite`.

    Reference:
        MobileNets, arXiv:1704.04861, section 4.6 and Table 13.

    Example:

    >>> model = SSD300("MobileNet", (96, 96, 3), classes=3, alpha=0.25, backbone_weights=None)
    >>> model.output["boxes"].shape
    (None, 204, 4)
    """
    head = {"classes": classes, "alpha": alpha, "background": background, "anchors": anchors, "separable": False}
    return _build("ssd", backbone, input_shape, head, weights, backbone_weights, name, options)


def _build(
    kind: str,
    backbone: str,
    input_shape: Sequence[int | None],
    head: dict[str, Any],
    weights: common.Weights,
    backbone_weights: common.Weights,
    name: str | None,
    options: dict[str, Any],
) -> keras.Model:
    common.check_classes(head["classes"], None, published=False)
    return common.on_backbone(
        backbone,
        input_shape,
        partial(ssd_head, **head),
        kind=kind,
        name=name,
        weights=weights,
        backbone_weights=backbone_weights,
        free=[f"scores_{index}" for index in range(len(head["anchors"]))],
        alpha=head["alpha"],
        **options,
    )


def ssd_head(
    maps: Mapping[str, Any],
    *,
    classes: int,
    alpha: float = 1.0,
    background: bool = False,
    anchors: Sequence[int] = ANCHORS,
    separable: bool = True,
) -> dict[str, Any]:
    """Puts the head of an SSD on a network's feature maps.

    Args:
        maps: by name, as `endpoints` gives them.
        classes, alpha, background, anchors: see `SSDLite`.
        separable: whether as SSDLite has it.

    Returns:
        "boxes" and "scores".
    """
    looked_at = [maps.get("stride_16_expansion", maps["stride_16"]), list(maps.values())[-1]]
    for index, filters in enumerate(EXTRAS[: len(anchors) - 2]):
        looked_at.append(_smaller(looked_at[-1], max(int(filters * alpha), NARROWEST), separable, f"extra_{index}"))
    slots = classes + background
    answers = {"boxes": (4, 0.0), "scores": (slots, 0.0 if background else _logit(PRIOR))}
    joined = {}
    for name, (size, bias) in answers.items():
        parts = []
        for index, (one, count) in enumerate(zip(looked_at, anchors, strict=True)):
            part = f"{name}_{index}"
            x = _depthwise(one, 1, f"{part}_depthwise") if separable else one
            x = Conv2D(
                count * size,
                1,
                kernel_initializer=keras.initializers.RandomNormal(stddev=0.03),
                bias_initializer=keras.initializers.Constant(bias),
                name=part,
            )(x)
            parts.append(keras.layers.Reshape((-1, size), name=f"{part}_rows")(x))
        last = name if name == "boxes" else f"{name}_logits"
        joined[name] = keras.layers.Concatenate(axis=1, name=last)(parts)
    activation = "softmax" if background else "sigmoid"
    return {**joined, "scores": keras.layers.Activation(activation, name="scores")(joined["scores"])}


def _logit(probability: float) -> float:
    return float(keras.ops.log(probability / (1 - probability)))


_SETTINGS: dict[str, Any] = {"normalization": "batch", "momentum": 0.97, "epsilon": 1e-3, "activation": "relu6"}


def _smaller(x: Any, filters: int, separable: bool, name: str) -> Any:
    """The next map, half as large."""
    x = common.convolution(x, filters // 2, 1, name=f"{name}_reduce", **_SETTINGS)
    if not separable:
        return common.convolution(x, filters, 3, strides=2, name=name, **_SETTINGS)
    return common.convolution(_depthwise(x, 2, f"{name}_depthwise"), filters, 1, name=name, **_SETTINGS)


def _depthwise(x: Any, strides: int, name: str) -> Any:
    x = keras.layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False, name=name)(x)
    x = BatchNormalization(momentum=_SETTINGS["momentum"], epsilon=_SETTINGS["epsilon"], name=f"{name}_bn")(x)
    return common.activate(x, _SETTINGS["activation"], name)
