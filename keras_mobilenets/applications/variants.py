"""The published MobileNets: what exists, how large it is and what it reached. Pure data: importing it costs nothing."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

BUILDERS = ("MobileNet", "MobileNetV2", "MobileNetV3Small", "MobileNetV3Large")
"""The builders of `keras_mobilenets.applications`, by name."""


@dataclass(frozen=True)
class Variant:
    """One published model with ImageNet weights.

    Attributes:
        builder: one of `BUILDERS`.
        alpha: width multiplier.
        size: height and width of the training images, in pixels.
        parameters: of the whole model with its 1000 classes.
        madds_millions: multiply-accumulates for one image of that size, convolutions and classifier, in millions.
        top1: published accuracy on the ImageNet validation set, in percent.
        top1_8bit: the same of the published 8-bit model; None where none was published.
        minimalistic: the MobileNetV3 without squeeze-excite, hard-swish and 5x5 kernels.
    """

    builder: str
    alpha: float
    size: int
    parameters: int
    madds_millions: float
    top1: float
    top1_8bit: float | None = None
    minimalistic: bool = False

    @property
    def name(self) -> str:
        """The name in TF-slim's tables: `mobilenet_v2_0.35_96`, `mobilenet_v3_large_minimalistic_1.0_224`."""
        family = {"MobileNet": "v1", "MobileNetV3Small": "v3_small", "MobileNetV3Large": "v3_large"}
        kind = "_minimalistic" if self.minimalistic else ""
        return f"mobilenet_{family.get(self.builder, 'v2')}{kind}_{self.alpha}_{self.size}"


VARIANTS = (
    # arXiv:1704.04861, Tables 6 and 7, and TF-slim's table. 325.4 and 30.2 are counted, not published.
    #       builder      alpha size  parameters  MAdds  top-1  8-bit
    Variant("MobileNet", 1.00, 224, 4_253_864, 569.0, 70.9, 69.7),
    Variant("MobileNet", 1.00, 192, 4_253_864, 418.0, 70.0, 69.0),
    Variant("MobileNet", 1.00, 160, 4_253_864, 291.0, 68.0, 67.3),
    Variant("MobileNet", 1.00, 128, 4_253_864, 186.0, 65.2, 64.0),
    Variant("MobileNet", 0.75, 224, 2_601_976, 325.4, 68.4, 67.9),
    Variant("MobileNet", 0.75, 192, 2_601_976, 239.3, 67.2, 66.2),
    Variant("MobileNet", 0.75, 160, 2_601_976, 166.4, 65.3, 63.9),
    Variant("MobileNet", 0.75, 128, 2_601_976, 106.8, 62.1, 59.8),
    Variant("MobileNet", 0.50, 224, 1_342_536, 150.0, 63.3, 62.2),
    Variant("MobileNet", 0.50, 192, 1_342_536, 110.0, 61.7, 60.4),
    Variant("MobileNet", 0.50, 160, 1_342_536, 77.0, 59.1, 57.7),
    Variant("MobileNet", 0.50, 128, 1_342_536, 49.0, 56.3, 54.9),
    Variant("MobileNet", 0.25, 224, 475_544, 41.0, 49.8, 48.2),
    Variant("MobileNet", 0.25, 192, 475_544, 30.2, 47.7, 45.8),
    Variant("MobileNet", 0.25, 160, 475_544, 21.0, 45.5, 43.5),
    Variant("MobileNet", 0.25, 128, 475_544, 14.0, 41.5, 39.9),
    # arXiv:1801.04381 and TF-slim's table.
    Variant("MobileNetV2", 1.40, 224, 6_156_712, 582.0, 75.0),
    Variant("MobileNetV2", 1.30, 224, 5_431_048, 509.0, 74.4),
    Variant("MobileNetV2", 1.00, 224, 3_538_984, 300.0, 71.8),
    Variant("MobileNetV2", 1.00, 192, 3_538_984, 221.0, 70.7),
    Variant("MobileNetV2", 1.00, 160, 3_538_984, 154.0, 68.8),
    Variant("MobileNetV2", 1.00, 128, 3_538_984, 99.0, 65.3),
    Variant("MobileNetV2", 1.00, 96, 3_538_984, 56.0, 60.3),
    Variant("MobileNetV2", 0.75, 224, 2_663_064, 209.0, 69.8),
    Variant("MobileNetV2", 0.75, 192, 2_663_064, 153.0, 68.7),
    Variant("MobileNetV2", 0.75, 160, 2_663_064, 107.0, 66.4),
    Variant("MobileNetV2", 0.75, 128, 2_663_064, 69.0, 63.2),
    Variant("MobileNetV2", 0.75, 96, 2_663_064, 39.0, 58.8),
    Variant("MobileNetV2", 0.50, 224, 1_987_224, 97.0, 65.4),
    Variant("MobileNetV2", 0.50, 192, 1_987_224, 71.0, 63.9),
    Variant("MobileNetV2", 0.50, 160, 1_987_224, 50.0, 61.0),
    Variant("MobileNetV2", 0.50, 128, 1_987_224, 32.0, 57.7),
    Variant("MobileNetV2", 0.50, 96, 1_987_224, 18.0, 51.2),
    Variant("MobileNetV2", 0.35, 224, 1_691_208, 59.0, 60.3),
    Variant("MobileNetV2", 0.35, 192, 1_691_208, 43.0, 58.2),
    Variant("MobileNetV2", 0.35, 160, 1_691_208, 30.0, 55.7),
    Variant("MobileNetV2", 0.35, 128, 1_691_208, 20.0, 50.8),
    Variant("MobileNetV2", 0.35, 96, 1_691_208, 11.0, 45.5),
    # arXiv:1905.02244 and TF-slim's table; MAdds counted on these models.
    Variant("MobileNetV3Small", 1.00, 224, 2_554_968, 56.5, 67.5, 64.9),
    Variant("MobileNetV3Small", 0.75, 224, 2_051_552, 43.4, 65.4),
    Variant("MobileNetV3Small", 1.00, 224, 2_056_848, 52.3, 61.9, minimalistic=True),
    Variant("MobileNetV3Large", 1.00, 224, 5_507_432, 216.6, 75.2, 73.9),
    Variant("MobileNetV3Large", 0.75, 224, 4_012_616, 154.6, 73.3),
    Variant("MobileNetV3Large", 1.00, 224, 3_948_688, 209.1, 72.3, 71.3, minimalistic=True),
)
"""All published variants, in the order of the papers."""


def published(builder: str, *, alpha: float | None = None, minimalistic: bool = False) -> tuple[Variant, ...]:
    """Gives the published variants of a builder.

    Args:
        builder: one of `BUILDERS`.
        alpha: only those of this width; None for all.
        minimalistic: only the minimalistic ones (MobileNetV3), or only the others.

    Returns:
        The variants, possibly none.

    Raises:
        ValueError: an unknown builder.

    Example:

    >>> [variant.size for variant in published("MobileNetV2", alpha=0.35)]
    [224, 192, 160, 128, 96]
    """
    check_builder(builder)
    return tuple(
        variant
        for variant in VARIANTS
        if variant.builder == builder and variant.minimalistic == minimalistic and alpha in (None, variant.alpha)
    )


def check_builder(name: str) -> str:
    """Gives back the name of a builder, or says which one was probably meant.

    Args:
        name: a name that a user typed.

    Returns:
        `name`, which is one of `BUILDERS`.

    Raises:
        ValueError: an unknown name; the message lists the near ones and the known ones.

    Example:

    >>> check_builder("MobilenetV3small")
    Traceback (most recent call last):
    ValueError: Unknown model 'MobilenetV3small'. Did you mean MobileNetV3Small? Known: MobileNet, MobileNetV2, ...
    """
    if name in BUILDERS:
        return name
    given = str(name).lower()
    near = (
        [known for known in BUILDERS if known.lower() == given]
        or [known for known in BUILDERS if given and given in known.lower()]
        or difflib.get_close_matches(str(name), BUILDERS, n=2)
    )
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise ValueError(f"Unknown model {name!r}.{hint} Known: {', '.join(BUILDERS)}")
