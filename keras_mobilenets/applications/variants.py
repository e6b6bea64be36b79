"""The published MobileNets: what exists, how large it is and what it reached. Pure data: importing it costs nothing."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

from keras_mobilenets.pixels import NETWORKS


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
        kind = "_minimalistic" if self.minimalistic else ""
        return f"mobilenet_{FAMILIES[self.builder].short}{kind}_{self.alpha}_{self.size}"


@dataclass(frozen=True)
class Family:
    """What is true of a builder besides its table.

    Attributes:
        builder: name of the function in `keras_mobilenets.applications`.
        short: in TF-slim's names of models.
        first, second: names of its first convolution and of a layer that no other network has behind one of that
            name: by both a model is recognized, ours or keras.applications'.
        last: names of the layer that gives out the last map of its convolutional part.
        scales_pixels: whether the model scales pixels itself, as published.
        takes: what the first convolution takes for black and white.
        weight_file: of keras.applications, below its address, for `str.format`.
        no_top: what names of files without top have in them.
        md5: of the files with and without top, by alpha and whether minimalistic; none are known of V1 and V2.
        variants: what was published, in the order of the papers.
    """

    builder: str
    short: str
    first: str
    second: str
    last: tuple[str, ...]
    scales_pixels: bool = False
    takes: tuple[float, float] = (-1.0, 1.0)
    weight_file: str = ""
    no_top: str = "_no_top"
    md5: Mapping[tuple[float, bool], tuple[str, str]] = field(default_factory=dict)
    variants: tuple[Variant, ...] = ()

    @property
    def title(self) -> str:
        """In plots: `V3 Small`."""
        return self.short.replace("_", " ").title()

    @property
    def has_minimalistic(self) -> bool:
        return any(variant.minimalistic for variant in self.variants)

    def weights(self, alpha: float, size: int, *, include_top: bool, minimalistic: bool) -> tuple[str, str | None]:
        """The file with a variant's ImageNet weights, below keras.applications' address, and its MD5 where known."""
        width = f"{alpha * 10:.1f}".replace(".", "_") if alpha < 1 else "1_0"
        file = self.weight_file.format(
            alpha=float(alpha),
            width=width,
            size=size,
            minimalistic="_minimalistic" if minimalistic else "",
            top="" if include_top else self.no_top,
        )
        sums = self.md5.get((alpha, minimalistic))
        return file, sums and sums[0 if include_top else 1]


_NECK = ("conv_1_hard_swish", "conv_1_relu", "conv_1_activation")

FAMILIES = {
    family.builder: family
    for family in (
        # arXiv:1704.04861, Tables 6 and 7, and TF-slim's table. 325.4 and 30.2 are counted, not published.
        Family(
            "MobileNet",
            "v1",
            "conv1",
            "conv_dw_1",
            ("conv_pw_13_relu",),
            weight_file="mobilenet/mobilenet_{width}_{size}_tf{top}.h5",
            variants=(
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
            ),
        ),
        # arXiv:1801.04381 and TF-slim's table.
        Family(
            "MobileNetV2",
            "v2",
            "Conv1",
            "expanded_conv_depthwise",
            ("out_relu",),
            weight_file="mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{alpha}_{size}{top}.h5",
            variants=(
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
            ),
        ),
        # arXiv:1905.02244 and TF-slim's table; MAdds counted on these models.
        Family(
            "MobileNetV3Small",
            "v3_small",
            "conv",
            "expanded_conv_depthwise",
            _NECK,
            scales_pixels=True,
            weight_file="mobilenet_v3/weights_mobilenet_v3_small{minimalistic}_{size}_{alpha}_float{top}.h5",
            no_top="_no_top_v2",
            md5={
                (0.75, False): ("cb65d4e5be93758266aa0a7f2c6708b7", "ebdb5cc8e0b497cd13a7c275d475c819"),
                (1.0, False): ("8768d4c2e7dee89b9d02b2d03d65d862", "d3e8ec802a04aa4fc771ee12a9a9b836"),
                (1.0, True): ("99cd97fb2fcdad2bf028eb838de69e37", "cde8136e733e811080d9fcd8a252f7e4"),
            },
            variants=(
                Variant("MobileNetV3Small", 1.00, 224, 2_554_968, 56.5, 67.5, 64.9),
                Variant("MobileNetV3Small", 0.75, 224, 2_051_552, 43.4, 65.4),
                Variant("MobileNetV3Small", 1.00, 224, 2_056_848, 52.3, 61.9, minimalistic=True),
            ),
        ),
        Family(
            "MobileNetV3Large",
            "v3_large",
            "conv",
            "expanded_conv_depthwise",
            _NECK,
            scales_pixels=True,
            weight_file="mobilenet_v3/weights_mobilenet_v3_large{minimalistic}_{size}_{alpha}_float{top}.h5",
            no_top="_no_top_v2",
            md5={
                (0.75, False): ("765b44a33ad4005b3ac83185abf1d0eb", "40af19a13ebea4e2ee0c676887f69a2e"),
                (1.0, False): ("59e551e166be033d707958cf9e29a6a7", "07fb09a5933dd0c8eaafa16978110389"),
                (1.0, True): ("675e7b876c45c57e9e63e6d90a36599c", "ec5221f64a2f6d1ef965a614bdae7973"),
            },
            variants=(
                Variant("MobileNetV3Large", 1.00, 224, 5_507_432, 216.6, 75.2, 73.9),
                Variant("MobileNetV3Large", 0.75, 224, 4_012_616, 154.6, 73.3),
                Variant("MobileNetV3Large", 1.00, 224, 3_948_688, 209.1, 72.3, 71.3, minimalistic=True),
            ),
        ),
        # arXiv:2404.10518; no weights are published for Keras.
        Family("MobileNetV4ConvSmall", "v4_conv_small", "conv", "block_0_conv", _NECK, scales_pixels=True),
        Family("MobileNetV4ConvMedium", "v4_conv_medium", "conv", "block_0_expand", _NECK, scales_pixels=True),
        Family("MobileNetV4ConvLarge", "v4_conv_large", "conv", "block_0_expand", _NECK, scales_pixels=True),
        Family("MobileNetV4HybridMedium", "v4_hybrid_medium", "conv", "block_0_expand", _NECK, scales_pixels=True),
        Family("MobileNetV4HybridLarge", "v4_hybrid_large", "conv", "block_0_expand", _NECK, scales_pixels=True),
    )
}
"""What is known of each builder, by its name."""

NETWORKS.update({(family.first, family.second): family.takes for family in FAMILIES.values()})

BUILDERS = tuple(FAMILIES)
"""The builders of `keras_mobilenets.applications`, by name."""

VARIANTS = tuple(variant for family in FAMILIES.values() for variant in family.variants)
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
