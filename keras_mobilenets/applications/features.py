"""The feature maps inside a MobileNet, for detection, segmentation and embedding heads."""

from __future__ import annotations

from typing import Any

import keras

from keras_mobilenets.layers import inline

# Where the convolutional part of each network ends; what comes behind is a top or somebody's head.
_LAST_LAYERS = frozenset({"conv_pw_13_relu", "out_relu", "conv_1_hard_swish", "conv_1_relu"})


def endpoints(model: keras.Model) -> dict[str, keras.KerasTensor]:
    """Gives the feature maps of a MobileNet by name.

    For each ratio N of input to output size there is

    - `stride_N`: the last map of that size that a block gives out; for the largest N the network's last one;
    - `stride_N_expansion`: the last expanded map of that size, inside a block, where the family expands (V2, V3).

    The last expansion at a stride mostly belongs to the block that leaves it: `stride_16_expansion` is what SSDLite
    takes, the expansion of V2's `block_13`, of V3-Large's 13th and of V3-Small's 9th bottleneck. Any other tensor is
    reached by the name of its layer: `inline(model).get_layer("block_5_add").output`.

    Args:
        model: a MobileNet of this package, with or without top, or a functional or sequential model around one.

    Returns:
        The maps, of shape (batch, height, width, channels), by name in the order of the network. They belong to the
        model's own input: `keras.Model(model.inputs, list(endpoints(model).values()))` computes all of them.

    Raises:
        ValueError: `model` cannot be flattened, or holds no MobileNet.

    Example:

    >>> model = MobileNetV2((96, 96, 3), alpha=0.35, weights=None)
    >>> {name: tuple(map.shape[1:]) for name, map in endpoints(model).items() if "16" in name}
    {'stride_16': (6, 6, 32), 'stride_16_expansion': (6, 6, 192)}
    """
    flat = inline(model)
    layers = {layer.name: layer for layer in flat.layers}
    maps: dict[int, keras.KerasTensor] = {}
    expansions: dict[int, keras.KerasTensor] = {}
    stride = 1
    for layer in flat.layers:
        if layer.name in _LAST_LAYERS:
            maps[stride] = layer.output
            break
        if not _is_spatial(layer):
            continue
        expand = layers.get(_expansion_name(layer))
        if expand is not None:
            expansions[stride] = layer.input
        if layer.strides[0] > 1:
            if stride > 1:
                maps[stride] = layer.input if expand is None else expand.input
            stride *= layer.strides[0]
    else:
        raise ValueError(f"`model` must be a MobileNet, or hold one. Received: {model.name!r}")
    return _named(maps, expansions)


def _is_spatial(layer: keras.layers.Layer) -> bool:
    convolves = isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D)
    return convolves and max(layer.kernel_size) > 1


def _expansion_name(layer: keras.layers.Layer) -> str:
    return layer.name.removesuffix("_depthwise") + "_expand"


def _named(maps: dict[int, Any], expansions: dict[int, Any]) -> dict[str, Any]:
    named = {}
    for stride in sorted(maps.keys() | expansions.keys()):
        if stride in maps:
            named[f"stride_{stride}"] = maps[stride]
        if stride in expansions:
            named[f"stride_{stride}_expansion"] = expansions[stride]
    return named
