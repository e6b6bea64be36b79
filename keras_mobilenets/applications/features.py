"""The feature maps inside a MobileNet, for detection, segmentation and embedding heads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_mobilenets.applications.variants import FAMILIES
from keras_mobilenets.layers import inline

# Where the convolutional part of each network ends; what comes behind is a top or somebody's head.
_LAST_LAYERS = frozenset(name for family in FAMILIES.values() for name in family.last)
NECK = "conv_1"
"""The 1x1 convolution behind the last block, in capitals or not."""


def endpoints(model: keras.Model, *, layers: Sequence[str] = ()) -> dict[str, keras.KerasTensor]:
    """Gives the feature maps of a MobileNet by name.

    For each ratio N of input to output size there is

    - `stride_N`: the last map of that size that a block gives out; for the largest N the network's last one;
    - `stride_N_expansion`: the last expanded map of that size, inside a block, where the family expands (V2, V3);
    - `stride_N_block`, for the largest N: what the last block gives out, where a convolution behind it widens it (V2,
      V3, V4).

    The last expansion at a stride mostly belongs to the block that leaves it: `stride_16_expansion` is what SSDLite
    takes, the expansion of V2's `block_13`, of V3-Large's 13th and of V3-Small's 9th bottleneck.

    Args:
        model: a MobileNet of this package, with or without top, or a functional or sequential model around one.
        layers: names of layers of the flat view, as `inline(model)` has them, whose outputs are wanted as well.

    Returns:
        The maps, of shape (batch, height, width, channels), by name in the order of the network, then the outputs of
        `layers` by theirs. They belong to the model's own input, so that
        `keras.Model(model.inputs[0], list(endpoints(model).values()))` computes all of them.

    Raises:
        ValueError: `model` cannot be flattened, holds no MobileNet, or has no layer of a name in `layers`.

    Example:

    >>> model = MobileNetV2((96, 96, 3), alpha=0.35, weights=None)
    >>> {name: tuple(map.shape[1:]) for name, map in endpoints(model).items() if "16" in name}
    {'stride_16': (6, 6, 32), 'stride_16_expansion': (6, 6, 192)}
    """
    calls = _calls(inline(model))
    unknown = [name for name in layers if name not in calls]
    if unknown:
        raise ValueError(f"`layers` must be names of layers in `inline(model)`. Received: {', '.join(unknown)}")
    if not _LAST_LAYERS & calls.keys():
        raise ValueError(f"`model` must be a MobileNet, or hold one. Received: {model.name!r}")
    return {**_maps(calls), **{name: calls[name][2] for name in layers}}


def _calls(flat: keras.Model) -> dict[str, tuple[keras.layers.Layer, Any, Any]]:
    """Each layer with its input and output in this very graph, by name in the order of the computation.

    `layer.input` will not do: a layer that several graphs share, as those of a nested model do, answers for the first.
    """
    calls = {}
    padded: dict[int, Any] = {}  # what a convolution reads is the map before its padding

    def record(layer: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = layer(*args, **kwargs)
        calls[layer.name] = (layer, padded.get(id(args[0]), args[0]), outputs)
        if isinstance(layer, keras.layers.ZeroPadding2D):
            padded[id(outputs)] = args[0]
        return outputs

    keras.models.clone_model(flat, input_tensors=flat.input, clone_function=lambda layer: layer, call_function=record)
    return calls


def _maps(calls: dict[str, tuple[keras.layers.Layer, Any, Any]]) -> dict[str, keras.KerasTensor]:
    """Walks the convolutions that look around themselves: the stem, and the depthwise one of each block."""
    maps: dict[str, keras.KerasTensor] = {}
    stride, behind_stem, neck = 1, False, None
    for name, (layer, inputs, outputs) in calls.items():
        if name in _LAST_LAYERS:
            maps.pop(f"stride_{stride}", None)  # the network's last map comes last
            if neck is not None:
                maps[f"stride_{stride}_block"] = neck
            maps[f"stride_{stride}"] = outputs
            break
        neck = inputs if name.lower() == NECK else neck
        if not isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D) or max(layer.kernel_size) == 1:
            continue
        block = name.removesuffix("_depthwise").removesuffix("_start")
        parts = [part for part in (f"{block}_start_depthwise", f"{block}_expand") if part in calls]
        block_input = calls[parts[0]][1] if parts else inputs
        if behind_stem:
            maps[f"stride_{stride}"] = block_input
        if name == f"{block}_depthwise" and f"{block}_expand" in parts:
            maps[f"stride_{stride}_expansion"] = inputs
        behind_stem = True
        stride *= layer.strides[0]
    return maps
