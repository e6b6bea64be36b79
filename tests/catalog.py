"""One row for each public layer and builder. A row buys every test of test_catalog.py; a public name without one fails.

Golden parameter counts are keras.applications' (a builder's row) or counted by hand from the formula (a layer's).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras_mobilenets


@dataclass(frozen=True)
class Row:
    """How to make one instance of a public name, what goes in, what comes out and how many parameters it has."""

    name: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    parameters: int
    arguments: dict[str, Any] = field(default_factory=dict)
    input_range: tuple[float, float] = (-1.0, 1.0)
    slow: bool = False

    def make(self, **kwargs: Any) -> Any:
        make: Callable[..., Any] = getattr(keras_mobilenets, self.name)
        return make(**{**self.arguments, **kwargs})

    def __str__(self) -> str:
        shown = ",".join(f"{key}={value}" for key, value in self.arguments.items())
        return f"{self.name}({shown})"


MAP = (8, 10, 16)  # height, width, channels: not square, so that a swapped axis shows

LAYERS = [
    Row("HardSwish", MAP, MAP, 0),
    Row("HardSigmoid", MAP, MAP, 0),
    Row("BatchNormalization", MAP, MAP, 4 * 16),
    Row("Conv2D", MAP, (8, 10, 4), 16 * 4 + 4, {"filters": 4, "kernel_size": (1, 1)}),
    # 16 -> 8 -> 16 with biases: make_divisible(16 / 4) is 8.
    Row("SqueezeExcite", MAP, MAP, 16 * 8 + 8 + 8 * 16 + 16),
    Row("SqueezeExcite", MAP, MAP, 16 * 16 + 4 * 16 + 16 * 16 + 4 * 16, {"ratio": 1.0, "normalization": "batch"}),
    # Dk * Dk * M + 4 M + M * N + 4 N
    Row("DepthwiseSeparableConv", MAP, (8, 10, 24), 9 * 16 + 4 * 16 + 16 * 24 + 4 * 24, {"filters": 24}),
    Row(
        "DepthwiseSeparableConv",
        MAP,
        (4, 5, 24),
        25 * 32 + 32 * 24 + 4 * 24,
        {"filters": 24, "kernel_size": 5, "strides": 2, "depth_multiplier": 2, "quantization_friendly": True},
    ),
    Row(
        "DepthwiseSeparableConv",
        MAP,
        (8, 10, 8),
        9 * 16 + 16 + 16 * 8 + 8,
        {"filters": 8, "dilation_rate": 2, "normalization": None, "activation": "silu"},
    ),
    # expand 16 * 96 + 4 * 96, depthwise 9 * 96 + 4 * 96, project 96 * 16 + 4 * 16
    Row("InvertedResidual", MAP, MAP, 16 * 96 + 8 * 96 + 9 * 96 + 96 * 16 + 64, {"filters": 16, "drop_path": 0.2}),
    Row("InvertedResidual", MAP, (4, 5, 24), 13 * 16 + 16 * 24 + 96, {"filters": 24, "expansion": None, "strides": 2}),
    # expanded 64, squeezed 16
    Row(
        "InvertedResidual",
        MAP,
        MAP,
        16 * 64 + 8 * 64 + 25 * 64 + (64 * 16 + 16 + 16 * 64 + 64) + 64 * 16 + 64,
        {"filters": 16, "expansion": 4, "kernel_size": 5, "se_ratio": 0.25, "activation": "hard_swish"},
    ),
    Row("LayerScale", MAP, MAP, 16, {"initial": 0.5}),
    # start 25 * 16 + 4 * 16, expand 16 * 64 + 4 * 64, middle 9 * 64 + 4 * 64, project 64 * 16 + 4 * 16, scale 16
    Row(
        "UniversalInvertedBottleneck",
        MAP,
        MAP,
        29 * 16 + 16 * 64 + 8 * 64 + 9 * 64 + 64 * 16 + 64 + 16,
        {"filters": 16, "start_kernel_size": 5, "layer_scale": 0.5, "drop_path": 0.2},
    ),
    Row(
        "UniversalInvertedBottleneck",
        MAP,
        (4, 5, 24),
        13 * 16 + 16 * 64 + 4 * 64 + 64 * 24 + 4 * 24,
        {"filters": 24, "start_kernel_size": 3, "kernel_size": None, "strides": 2},
    ),
    # normalization 4 * 16, query 16 * 24, key and value 9 * 16 + 4 * 16 + 16 * 8 each, output 24 * 16, scale 16
    Row(
        "MobileMQA",
        MAP,
        MAP,
        64 + 16 * 24 + 2 * (13 * 16 + 16 * 8) + 24 * 16 + 16,
        {"num_heads": 3, "key_dim": 8, "kv_strides": 2, "layer_scale": 0.5, "drop_path": 0.2},
    ),
    Row("MobileMQA", MAP, MAP, 2 * 16 * 24 + 2 * 16 * 8, {"num_heads": 3, "key_dim": 8, "normalization": None}),
]

_TINY: dict[str, Any] = {"weights": None, "classes": 10}

_PIXELS = (0.0, 255.0)  # MobileNetV3 normalizes inside

BUILDERS = [
    Row("MobileNet", (64, 96, 3), (10,), 221_114, {**_TINY, "alpha": 0.25}),
    Row("MobileNetV2", (64, 96, 3), (10,), 423_018, {**_TINY, "alpha": 0.35}),
    Row("MobileNetV3Small", (64, 96, 3), (10,), 1_036_802, {**_TINY, "alpha": 0.75}, _PIXELS),
    Row("MobileNetV3Large", (64, 96, 3), (10,), 873_018, {**_TINY, "alpha": 0.35}, _PIXELS, slow=True),
    Row("MobileNetV4ConvSmall", (64, 96, 3), (10,), 429_194, {**_TINY, "alpha": 0.25}, _PIXELS, slow=True),
    Row("MobileNetV4ConvMedium", (64, 96, 3), (10,), 890_642, {**_TINY, "alpha": 0.25}, _PIXELS, slow=True),
    Row("MobileNetV4ConvLarge", (64, 96, 3), (10,), 2_394_882, {**_TINY, "alpha": 0.25}, _PIXELS, slow=True),
    Row("MobileNetV4HybridMedium", (64, 96, 3), (10,), 1_183_266, {**_TINY, "alpha": 0.25}, _PIXELS, slow=True),
    Row("MobileNetV4HybridLarge", (64, 96, 3), (10,), 3_298_818, {**_TINY, "alpha": 0.25}, _PIXELS, slow=True),
]
