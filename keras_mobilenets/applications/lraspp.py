"""LR-ASPP, the light segmentation head of the MobileNetV3 paper (arXiv:1905.02244, section 6.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import keras

from keras_mobilenets.applications import common
from keras_mobilenets.arguments import check_choice
from keras_mobilenets.layers import Conv2D

FILTERS = 128
_SETTINGS: dict[str, Any] = {"normalization": "batch", "momentum": 0.99, "epsilon": 1e-3}


def LRASPP(
    backbone: str = "MobileNetV3Large",
    input_shape: Sequence[int | None] = (512, 512, 3),
    *,
    classes: int = 21,
    alpha: float = 1.0,
    output_stride: int = 16,
    filters: int = FILTERS,
    weights: common.Weights = None,
    backbone_weights: common.Weights = "imagenet",
    name: str | None = None,
    **options: Any,
) -> keras.Model:
    """Builds a segmentation network: LR-ASPP ("lite, reduced") on a MobileNet.

    Each channel of the network's last map is weighed by what the whole image holds, made twice (or four times) as
    large, and added up with the map of stride 8; the sum is made eight times as large. All resizes are by 2, 4 or 8,
    which integer runtimes compute.

    Args:
        backbone: name of a builder of this package.
        input_shape: (height, width, channels); height and width are multiples of `output_stride`, or None.
        classes: number of classes.
        alpha: width multiplier of the backbone, > 0.
        output_stride: largest ratio of input to map: 16 or 32.
        filters: of the head.
        weights: path of such a network's weights, or None.
        backbone_weights: as the backbone's `weights`.
        name: of the model.
        **options: of the backbone, for instance `reduced_tail=True` of MobileNetV3.

    Input: images as the backbone takes them.

    Returns:
        A functional Keras model with one output by name, "mask": the logits of each pixel,
        (batch, height, width, classes).

    Raises:
        ValueError: an argument is out of its range, or the weights do not fit.

    Reference:
        MobileNetV3, arXiv:1905.02244, section 6.4; with a global mean as gate, as torchvision's `lraspp`.

    Example:

    >>> model = LRASPP("MobileNetV2", (64, 96, 3), classes=5, alpha=0.35, backbone_weights=None)
    >>> model.output["mask"].shape
    (None, 64, 96, 5)
    """
    common.check_classes(classes, None, published=False)
    check_choice((16, 32), output_stride=output_stride)
    if any(size is not None and size % output_stride for size in input_shape[:2]):
        raise ValueError(
            f"`input_shape` must have a height and width that are multiples of {output_stride}. "
            f"Received: input_shape={tuple(input_shape)}"
        )
    return common.on_backbone(
        backbone,
        input_shape,
        partial(lraspp_head, classes=classes, filters=filters),
        kind="lraspp",
        name=name,
        weights=weights,
        backbone_weights=backbone_weights,
        alpha=alpha,
        output_stride=output_stride,
        **options,
    )


def lraspp_head(maps: Mapping[str, Any], *, classes: int, filters: int = FILTERS) -> dict[str, Any]:
    """Puts LR-ASPP on a network's feature maps.

    Args:
        maps: by name, as `endpoints` gives them: it looks at the last one and at that of stride 8, or half the last's.
        classes, filters: see `LRASPP`.

    Returns:
        "mask".

    Raises:
        ValueError: the maps' sizes are no multiples of each other.
    """
    last = list(maps)[-1]
    stride = int(last.removeprefix("stride_"))
    fine = min(8, stride // 2)
    low, high = maps[f"stride_{fine}"], maps[last]
    sizes = zip(low.shape[1:3], high.shape[1:3], strict=True)
    if any(one is not None and one != other * (stride // fine) for one, other in sizes):
        raise ValueError(f"The image must have a height and width that are multiples of {stride}.")
    x = common.convolution(high, filters, 1, name="head", activation="relu", **_SETTINGS)
    gate = keras.layers.GlobalAveragePooling2D(keepdims=True, name="head_pool")(high)
    gate = Conv2D(filters, 1, use_bias=False, name="head_gate")(gate)
    x = keras.layers.Multiply(name="head_mul")([x, keras.layers.Activation("sigmoid", name="head_sigmoid")(gate)])
    x = common.larger(x, stride // fine, "head_resize")
    # A trained network's fine map has values of 10 and more: usual kernels begin with six times the loss of a guess.
    small = keras.initializers.TruncatedNormal(stddev=0.01)  # as research/deeplab begins
    fine_classes = Conv2D(classes, 1, kernel_initializer=small, name="low_classes")(low)
    parts = [Conv2D(classes, 1, name="high_classes")(x), fine_classes]
    return {"mask": common.larger(keras.layers.Add(name="classes")(parts), fine, "mask")}
