"""Detectors, segmentation networks and MobileNetV4 beside what is printed of them; `benchmarks.papers` shows them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from benchmarks.cells import Cell
from keras_mobilenets import applications, inline
from keras_mobilenets.analysis import profile
from keras_mobilenets.tasks import torchvision_anchors

DETECTORS: dict[str, dict[str, tuple[tuple[Any, ...], dict[str, Any], str, str]]] = {
    # table: row: builder, backbone and classes; options; B MAdds and M parameters as printed
    "V1 Table 13": {"SSD300, V1": (("SSD300", "MobileNet", 91), {}, "1.2", "6.8")},
    "V2 Table 6": {
        "V1 + SSDLite": (("SSDLite", "MobileNet", 81), {}, "1.3", "5.1"),
        "V2 + SSDLite": (("SSDLite", "MobileNetV2", 81), {}, "0.8", "4.3"),
    },
    "V3 Table 6": {
        "V2 0.35": (
            ("SSDLite", "MobileNetV2", 90),
            {"alpha": 0.35, "background": True, "reduced_tail": True},
            "0.16",
            "0.93",
        ),
        "V2 0.5": (
            ("SSDLite", "MobileNetV2", 90),
            {"alpha": 0.5, "background": True, "reduced_tail": True},
            "0.27",
            "1.54",
        ),
        "V3-Large": (("SSDLite", "MobileNetV3Large", 90), {}, "0.62", "4.97"),
        "V3-Large, reduced tail": (("SSDLite", "MobileNetV3Large", 90), {"reduced_tail": True}, "0.51", "3.22"),
        "V3-Small": (("SSDLite", "MobileNetV3Small", 90), {}, "0.21", "2.49"),
        "V3-Small, reduced tail": (("SSDLite", "MobileNetV3Small", 90), {"reduced_tail": True}, "0.16", "1.77"),
    },
}
SEGMENTERS: dict[str, dict[str, tuple[str, tuple[str, tuple[int, int, int]], dict[str, Any], str, str]]] = {
    # table: row: builder; backbone and size; options; B MAdds and M parameters as printed
    "V2 Table 7": {
        "V1, OS 16, ASPP": ("DeepLabV3", ("MobileNet", (513, 513, 3)), {"aspp": True}, "14.25", "11.15"),
        "V2, OS 16, ASPP": ("DeepLabV3", ("MobileNetV2", (513, 513, 3)), {"aspp": True}, "5.8", "4.52"),
        "V2, OS 16": ("DeepLabV3", ("MobileNetV2", (513, 513, 3)), {}, "2.75", "2.11"),
    },
    "V3 Table 8": {
        f"{name}, OS {stride}": ("LRASPP", (f"MobileNetV3{name}", (1024, 2048, 3)), {"output_stride": stride}, *printed)
        for name, stride, *printed in (
            ("Large", 16, "9.74", "1.51"),
            ("Large", 32, "7.74", "1.51"),
            ("Small", 16, "2.90", "0.47"),
            ("Small", 32, "2.06", "0.47"),
        )
    },
}
OPTIONS: dict[str, dict[str, Any]] = {
    "V2 Table 7": {"classes": 21, "resize": False},
    "V3 Table 8": {"classes": 19, "reduced_tail": "whole"},
}
TORCHVISION = {
    "ssdlite320_mobilenet_v3_large": (
        "SSDLite",
        {"classes": 90, "background": True, "anchors": torchvision_anchors().per_pixel, "reduced_tail": True},
        "3.440060",
    ),
    "lraspp_mobilenet_v3_large": ("LRASPP", {"input_shape": (64, 64, 3)}, "3.221538"),
}
TIMM = {
    "ConvSmall": (224, "3.77"),
    "ConvMedium": (256, "9.72"),
    "ConvLarge": (384, "32.59"),
    "HybridMedium": (256, "11.07"),
    "HybridLarge": (384, "37.76"),
}
CAPTIONS = {
    "V1 Table 13": "Detection, at 300. Parameters of detectors count one for each channel of a normalization, which is "
    "what stays when it is folded.",
    "V2 Table 6": "Detection, at 320, of COCO's classes with background.",
    "V3 Table 6": "Detection, at 320.",
    "V2 Table 7": "Segmentation by DeepLabV3, at 513, of Pascal's 21 classes; on V2's last block (V2* in print).",
    "V3 Table 8": 'Segmentation by LR-ASPP with `reduced_tail="whole"`, of Cityscapes\' 19 classes, at 1024 x 2048.',
    "torchvision": "Parameters that are trained.",
    "V4": "Parameters that are trained, as timm prints them; MAdds at the published sizes, without the products of "
    "attention. The paper prints 9.2, 31.0, 10.5 and 35.9 M for all but the first, 5 % less than timm: no cause found.",
}


def trained(model: keras.Model, *, folded: bool = False) -> float:
    """Million parameters that are trained; folded: one for each channel of a normalization."""
    count = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    norms = [layer for layer in inline(model).layers if isinstance(layer, keras.layers.BatchNormalization)]
    return (count - folded * sum(layer.gamma.shape[0] for layer in norms)) / 1e6


def comparisons() -> dict[str, list[Cell]]:
    """All tables of this module."""
    tables = {name: list(detectors(name)) for name in DETECTORS}
    tables |= {name: list(segmenters(name)) for name in SEGMENTERS}
    return {**tables, "torchvision": list(torchvision()), "V4": list(v4())}


def detectors(table: str) -> Iterator[Cell]:
    """Multiply-adds and parameters of detectors."""
    for row, ((builder, backbone, classes), options, madds, parameters) in DETECTORS[table].items():
        model = getattr(applications, builder)(backbone, classes=classes, backbone_weights=None, **options)
        yield Cell(table, row, "B MAdds", profile(model).madds / 1e9, madds)
        yield Cell(table, row, "M parameters", trained(model, folded=True), parameters)


def segmenters(table: str) -> Iterator[Cell]:
    """Multiply-adds and parameters of segmentation networks."""
    for row, (builder, arguments, options, madds, parameters) in SEGMENTERS[table].items():
        model = getattr(applications, builder)(*arguments, backbone_weights=None, **OPTIONS[table], **options)
        yield Cell(table, row, "B MAdds", profile(model).madds / 1e9, madds)
        yield Cell(table, row, "M parameters", trained(model), parameters)


def torchvision() -> Iterator[Cell]:
    """The networks that torchvision has, too."""
    for row, (builder, options, parameters) in TORCHVISION.items():
        model = getattr(applications, builder)("MobileNetV3Large", backbone_weights=None, **options)
        yield Cell("torchvision", row, "M parameters", trained(model), parameters)


def v4() -> Iterator[Cell]:
    """MobileNetV4's five networks."""
    for name, (size, parameters) in TIMM.items():
        model = getattr(applications, f"MobileNetV4{name}")((size, size, 3))
        row = f"{name}, {size}"
        yield Cell("V4", row, "M MAdds", profile(model).madds / 1e6, "")
        yield Cell("V4", row, "M parameters", trained(model), parameters)
