"""The tables of the MobileNetV4 paper (arXiv:2404.10518, Tables 11 to 15), row by row."""

from __future__ import annotations

from dataclasses import dataclass

LAYER_SCALE = 1e-5


@dataclass(frozen=True)
class Conv:
    """A row of the paper's Tables 11 to 15, "Conv2D": kernel size, stride and #out."""

    kernel_size: int
    stride: int
    filters: int


@dataclass(frozen=True)
class Fused:
    """A row "FusedIB": kernel size and stride of the expanding convolution, #out and expansion."""

    kernel_size: int
    stride: int
    filters: int
    expansion: float


@dataclass(frozen=True)
class UIB:
    """A row "UIB": kernel sizes of start and middle depthwise convolution, 0 for none; stride, #out and expansion."""

    start: int
    middle: int
    stride: int
    filters: int
    expansion: float


@dataclass(frozen=True)
class MQA:
    """A row "Mobile MQA": heads, channels of a key, and the strides of keys and values."""

    heads: int
    key_dim: int
    kv_strides: int
    stride: int = 1


@dataclass(frozen=True)
class Network:
    """One of the paper's tables, and what else differs from network to network."""

    builder: str
    stem_filters: int
    table: tuple[Conv | Fused | UIB | MQA, ...]
    activation: str = "relu"
    layer_scale: float | None = None
    momentum: float = 0.997
    epsilon: float = 1e-3

    @property
    def strides(self) -> tuple[int, ...]:
        """Of all convolutions that may have one, the stem's first."""
        return (2, *(row.stride for row in self.table))


NECK_FILTERS, LAST_FILTERS = 960, 1280

CONV_SMALL = Network(
    "MobileNetV4ConvSmall",
    32,
    (
        *(Conv(3, 2, 32), Conv(1, 1, 32)),
        *(Conv(3, 2, 96), Conv(1, 1, 64)),
        #   dw1 dw2 s  out exp
        UIB(5, 5, 2, 96, 3),
        *4 * (UIB(0, 3, 1, 96, 2),),
        UIB(3, 0, 1, 96, 4),
        UIB(3, 3, 2, 128, 6),
        UIB(5, 5, 1, 128, 4),
        UIB(0, 5, 1, 128, 4),
        UIB(0, 5, 1, 128, 3),
        *2 * (UIB(0, 3, 1, 128, 4),),
    ),
    momentum=0.95,
    epsilon=1e-6,
)
CONV_MEDIUM = Network(
    "MobileNetV4ConvMedium",
    32,
    (
        Fused(3, 2, 48, 4),
        UIB(3, 5, 2, 80, 4),
        UIB(3, 3, 1, 80, 2),
        UIB(3, 5, 2, 160, 6),
        *2 * (UIB(3, 3, 1, 160, 4),),
        UIB(3, 5, 1, 160, 4),
        UIB(3, 3, 1, 160, 4),
        UIB(3, 0, 1, 160, 4),
        UIB(0, 0, 1, 160, 2),
        UIB(3, 0, 1, 160, 4),
        UIB(5, 5, 2, 256, 6),
        UIB(5, 5, 1, 256, 4),
        *2 * (UIB(3, 5, 1, 256, 4),),
        UIB(0, 0, 1, 256, 4),
        UIB(3, 0, 1, 256, 4),
        UIB(3, 5, 1, 256, 2),
        UIB(5, 5, 1, 256, 4),
        *2 * (UIB(0, 0, 1, 256, 4),),
        UIB(5, 0, 1, 256, 2),
    ),
)
_LARGE_LAST = (
    UIB(5, 5, 2, 512, 4),
    *3 * (UIB(5, 5, 1, 512, 4),),
    UIB(5, 0, 1, 512, 4),
    UIB(5, 3, 1, 512, 4),
    *2 * (UIB(5, 0, 1, 512, 4),),
    UIB(5, 3, 1, 512, 4),
    UIB(5, 5, 1, 512, 4),
)
CONV_LARGE = Network(
    "MobileNetV4ConvLarge",
    24,
    (
        Fused(3, 2, 48, 4),
        UIB(3, 5, 2, 96, 4),
        UIB(3, 3, 1, 96, 4),
        UIB(3, 5, 2, 192, 4),
        *3 * (UIB(3, 3, 1, 192, 4),),
        UIB(3, 5, 1, 192, 4),
        *5 * (UIB(5, 3, 1, 192, 4),),
        UIB(3, 0, 1, 192, 4),
        *_LARGE_LAST,
        *3 * (UIB(5, 0, 1, 512, 4),),
    ),
)
HYBRID_MEDIUM = Network(
    "MobileNetV4HybridMedium",
    32,
    (
        Fused(3, 2, 48, 4),
        UIB(3, 5, 2, 80, 4),
        UIB(3, 3, 1, 80, 2),
        UIB(3, 5, 2, 160, 6),
        UIB(0, 0, 1, 160, 2),
        UIB(3, 3, 1, 160, 4),
        UIB(3, 5, 1, 160, 4),
        *(MQA(4, 64, 2), UIB(3, 3, 1, 160, 4)),
        *(MQA(4, 64, 2), UIB(3, 0, 1, 160, 4)),
        *(MQA(4, 64, 2), UIB(3, 3, 1, 160, 4)),
        *(MQA(4, 64, 2), UIB(3, 0, 1, 160, 4)),
        UIB(5, 5, 2, 256, 6),
        UIB(5, 5, 1, 256, 4),
        *2 * (UIB(3, 5, 1, 256, 4),),
        UIB(0, 0, 1, 256, 2),
        UIB(3, 5, 1, 256, 2),
        UIB(0, 0, 1, 256, 2),
        UIB(0, 0, 1, 256, 4),
        *(MQA(4, 64, 1), UIB(3, 0, 1, 256, 4)),
        *(MQA(4, 64, 1), UIB(5, 5, 1, 256, 4)),
        *(MQA(4, 64, 1), UIB(5, 0, 1, 256, 4)),
        *(MQA(4, 64, 1), UIB(5, 0, 1, 256, 4)),
    ),
    layer_scale=LAYER_SCALE,
)
HYBRID_LARGE = Network(
    "MobileNetV4HybridLarge",
    24,
    (
        Fused(3, 2, 48, 4),
        UIB(3, 5, 2, 96, 4),
        UIB(3, 3, 1, 96, 4),
        UIB(3, 5, 2, 192, 4),
        *3 * (UIB(3, 3, 1, 192, 4),),
        UIB(3, 5, 1, 192, 4),
        *2 * (UIB(5, 3, 1, 192, 4),),
        *3 * (MQA(8, 48, 2), UIB(5, 3, 1, 192, 4)),
        *(MQA(8, 48, 2), UIB(3, 0, 1, 192, 4)),
        *_LARGE_LAST,
        *4 * (MQA(8, 64, 1), UIB(5, 0, 1, 512, 4)),
    ),
    activation="gelu",
    layer_scale=LAYER_SCALE,
)
