"""What the papers print, as they print it: the digits say how exactly it was meant."""

from __future__ import annotations

V1, V2, V3 = "arXiv:1704.04861", "arXiv:1801.04381", "arXiv:1905.02244"

# MobileNets, Table 2: percent of (multiply-adds, parameters).
V1_SHARES = {
    "pointwise 1x1": ("94.86", "74.59"),
    "depthwise 3x3": ("3.06", "1.06"),
    "conv 3x3": ("1.19", "0.02"),
    "fully connected": ("0.18", "24.33"),
}

# MobileNets, Table 3: each row adds to the one before. Million (multiply-adds, parameters).
V1_LAYER = {
    "convolution": ("462", "2.36"),
    "depthwise separable": ("52.3", "0.27"),
    "alpha = 0.75": ("29.6", "0.15"),
    "rho = 0.714": ("15.1", "0.15"),
}

# MobileNets, Tables 4 to 7: top-1, million (multiply-adds, parameters).
V1_FULL_CONVOLUTION = {"Conv MobileNet": ("71.7", "4866", "29.3"), "MobileNet": ("70.6", "569", "4.2")}
V1_SHALLOW = {"0.75 MobileNet": ("68.4", "325", "2.6"), "Shallow MobileNet": ("65.3", "307", "2.9")}
V1_WIDTH = {
    1.0: ("70.6", "569", "4.2"),
    0.75: ("68.4", "325", "2.6"),
    0.5: ("63.7", "149", "1.3"),
    0.25: ("50.6", "41", "0.5"),
}
V1_RESOLUTION = {
    224: ("70.6", "569", "4.2"),
    192: ("69.1", "418", "4.2"),
    160: ("67.2", "290", "4.2"),
    128: ("64.4", "186", "4.2"),
}

# TF-slim's table of checkpoints: (alpha, size) -> top-1, million (multiply-adds, parameters). The first release of the
# builders' weights; top-1 differs from the paper's by another training.
V1_SLIM = {
    (1.0, 224): ("70.9", "569", "4.24"),
    (1.0, 192): ("70.0", "418", "4.24"),
    (1.0, 160): ("68.0", "291", "4.24"),
    (1.0, 128): ("65.2", "186", "4.24"),
    (0.75, 224): ("68.4", "317", "2.59"),
    (0.75, 192): ("67.2", "233", "2.59"),
    (0.75, 160): ("65.3", "162", "2.59"),
    (0.75, 128): ("62.1", "104", "2.59"),
    (0.5, 224): ("63.3", "150", "1.34"),
    (0.5, 192): ("61.7", "110", "1.34"),
    (0.5, 160): ("59.1", "77", "1.34"),
    (0.5, 128): ("56.3", "49", "1.34"),
    (0.25, 224): ("49.8", "41", "0.47"),
    (0.25, 192): ("47.7", "34", "0.47"),
    (0.25, 160): ("45.5", "21", "0.47"),
    (0.25, 128): ("41.5", "14", "0.47"),
}

# MobileNetV2, Table 2: input, operator, t, c, n, s.
V2_ARCHITECTURE = (
    ("224²x3", "conv2d", "-", "32", "1", "2"),
    ("112²x32", "bottleneck", "1", "16", "1", "1"),
    ("112²x16", "bottleneck", "6", "24", "2", "2"),
    ("56²x24", "bottleneck", "6", "32", "3", "2"),
    ("28²x32", "bottleneck", "6", "64", "4", "2"),
    ("14²x64", "bottleneck", "6", "96", "3", "1"),
    ("14²x96", "bottleneck", "6", "160", "3", "2"),
    ("7²x160", "bottleneck", "6", "320", "1", "1"),
    ("7²x320", "conv2d 1x1", "-", "1280", "1", "1"),
    ("7²x1280", "pool 7x7", "-", "-", "1", "-"),
    ("1²x1280", "conv2d 1x1", "-", "k", "-", "-"),
)

# MobileNetV2, Table 4, the models that are built here: top-1, million (multiply-adds, parameters).
V2_COMPARISON = {
    "MobileNetV1": ("70.6", "575", "4.2"),
    "MobileNetV2": ("72.0", "300", "3.4"),
    "MobileNetV2 (1.4)": ("74.7", "585", "6.9"),
}

# TF-slim's table of checkpoints: alpha -> million parameters, {size: (top-1, million multiply-adds)}.
V2_SLIM = {
    1.4: ("6.06", {224: ("75.0", "582")}),
    1.3: ("5.34", {224: ("74.4", "509")}),
    1.0: (
        "3.47",
        {224: ("71.8", "300"), 192: ("70.7", "221"), 160: ("68.8", "154"), 128: ("65.3", "99"), 96: ("60.3", "56")},
    ),
    0.75: (
        "2.61",
        {224: ("69.8", "209"), 192: ("68.7", "153"), 160: ("66.4", "107"), 128: ("63.2", "69"), 96: ("58.8", "39")},
    ),
    0.5: (
        "1.95",
        {224: ("65.4", "97"), 192: ("63.9", "71"), 160: ("61.0", "50"), 128: ("57.7", "32"), 96: ("51.2", "18")},
    ),
    0.35: (
        "1.66",
        {224: ("60.3", "59"), 192: ("58.2", "43"), 160: ("55.7", "30"), 128: ("50.8", "20"), 96: ("45.5", "11")},
    ),
}

# MobileNetV3, Table 1 (Large): input, operator, exp size, #out, SE, NL, s.
V3_LARGE = (
    ("224²x3", "conv2d", "-", "16", "-", "HS", "2"),
    ("112²x16", "bneck 3x3", "16", "16", "-", "RE", "1"),
    ("112²x16", "bneck 3x3", "64", "24", "-", "RE", "2"),
    ("56²x24", "bneck 3x3", "72", "24", "-", "RE", "1"),
    ("56²x24", "bneck 5x5", "72", "40", "SE", "RE", "2"),
    ("28²x40", "bneck 5x5", "120", "40", "SE", "RE", "1"),
    ("28²x40", "bneck 5x5", "120", "40", "SE", "RE", "1"),
    ("28²x40", "bneck 3x3", "240", "80", "-", "HS", "2"),
    ("14²x80", "bneck 3x3", "200", "80", "-", "HS", "1"),
    ("14²x80", "bneck 3x3", "184", "80", "-", "HS", "1"),
    ("14²x80", "bneck 3x3", "184", "80", "-", "HS", "1"),
    ("14²x80", "bneck 3x3", "480", "112", "SE", "HS", "1"),
    ("14²x112", "bneck 3x3", "672", "112", "SE", "HS", "1"),
    ("14²x112", "bneck 5x5", "672", "160", "SE", "HS", "2"),
    ("7²x160", "bneck 5x5", "960", "160", "SE", "HS", "1"),
    ("7²x160", "bneck 5x5", "960", "160", "SE", "HS", "1"),
    ("7²x160", "conv2d 1x1", "-", "960", "-", "HS", "1"),
    ("7²x960", "pool 7x7", "-", "-", "-", "-", "1"),
    ("1²x960", "conv2d 1x1, NBN", "-", "1280", "-", "HS", "1"),
    ("1²x1280", "conv2d 1x1, NBN", "-", "k", "-", "-", "1"),
)

# MobileNetV3, Table 2 (Small).
V3_SMALL = (
    ("224²x3", "conv2d", "-", "16", "-", "HS", "2"),  # "conv2d, 3x3" in print, where Table 1 says "conv2d"
    ("112²x16", "bneck 3x3", "16", "16", "SE", "RE", "2"),
    ("56²x16", "bneck 3x3", "72", "24", "-", "RE", "2"),
    ("28²x24", "bneck 3x3", "88", "24", "-", "RE", "1"),
    ("28²x24", "bneck 5x5", "96", "40", "SE", "HS", "2"),
    ("14²x40", "bneck 5x5", "240", "40", "SE", "HS", "1"),
    ("14²x40", "bneck 5x5", "240", "40", "SE", "HS", "1"),
    ("14²x40", "bneck 5x5", "120", "48", "SE", "HS", "1"),
    ("14²x48", "bneck 5x5", "144", "48", "SE", "HS", "1"),
    ("14²x48", "bneck 5x5", "288", "96", "SE", "HS", "2"),
    ("7²x96", "bneck 5x5", "576", "96", "SE", "HS", "1"),
    ("7²x96", "bneck 5x5", "576", "96", "SE", "HS", "1"),
    ("7²x96", "conv2d 1x1", "-", "576", "SE", "HS", "1"),
    ("7²x576", "pool 7x7", "-", "-", "-", "-", "1"),
    ("1²x576", "conv2d 1x1, NBN", "-", "1024", "-", "HS", "1"),
    ("1²x1024", "conv2d 1x1, NBN", "-", "k", "-", "-", "1"),
)

# MobileNetV3, Table 3, the models that are built here: top-1, million (multiply-adds, parameters).
V3_COMPARISON = {
    "V3-Large 1.0": ("75.2", "219", "5.4"),
    "V3-Large 0.75": ("73.3", "155", "4.0"),
    "V3-Small 1.0": ("67.4", "56", "2.5"),
    "V3-Small 0.75": ("65.4", "44", "2.0"),
    "V2 1.0": ("72.0", "300", "3.4"),
}

# MobileNetV3, Table 9: (model, alpha, size) -> top-1, million (multiply-adds, parameters).
V3_GRID = {
    ("Large", 1.25, 224): ("76.6", "356", "7.5"),
    ("Large", 1.0, 224): ("75.2", "217", "5.4"),
    ("Large", 0.75, 224): ("73.3", "155", "4.0"),
    ("Large", 0.5, 224): ("68.8", "69", "2.6"),
    ("Large", 0.35, 224): ("64.2", "40", "2.2"),
    ("Large", 1.0, 256): ("76.0", "282", "5.4"),
    ("Large", 1.0, 192): ("73.7", "160", "5.4"),
    ("Large", 1.0, 160): ("71.7", "112", "5.4"),
    ("Large", 1.0, 128): ("68.4", "73", "5.4"),
    ("Large", 1.0, 96): ("63.3", "43", "5.4"),
    ("Small", 1.25, 224): ("70.4", "91", "3.6"),
    ("Small", 1.0, 224): ("67.5", "57", "2.5"),
    ("Small", 0.75, 224): ("65.4", "44", "2.0"),
    ("Small", 0.5, 224): ("58.0", "21", "1.6"),
    ("Small", 0.35, 224): ("49.8", "12", "1.4"),
    ("Small", 1.0, 256): ("68.5", "74", "2.5"),
    ("Small", 1.0, 160): ("62.8", "30", "2.5"),
    ("Small", 1.0, 128): ("57.3", "20", "2.5"),
    ("Small", 1.0, 96): ("51.7", "12", "2.5"),
}

# TF-slim's table of MobileNetV3 checkpoints: those without squeeze-excite, hard-swish and 5x5 kernels.
V3_MINIMALISTIC = {"Large minimalistic": ("72.3", "209", "3.9"), "Small minimalistic": ("61.9", "65", "2.0")}

# Why a count here is more than 1 % off: (table, row, quantity) -> what is known.
EXPLANATIONS = {
    **{
        ("V2 Table 7", f"{name}, OS 16, ASPP", "B MAdds"): (
            "printed as TensorFlow computed them: atrous convolutions on maps padded from 33 to 36, which adds "
            f"{share}; with that {total}"
        )
        for name, share, total in (("V1", "1.47", "14.23"), ("V2", "0.46", "5.82"))
    },
    **{
        ("V3 Table 8", f"{name}, OS {stride}", "B MAdds"): (
            f"at 1025 x 2049, which DeepLab's code takes, {share} % more; for the rest no cause found"
        )
        for name, stride, share in (("Large", 16, 1.7), ("Large", 32, 1.8), ("Small", 16, 1.8), ("Small", 32, 1.9))
    },
    ("V1 Table 2", "conv 3x3", "% of MAdds"): (
        "digits exchanged in print: the printed shares add up to 99.29, with 1.91 to 100.01"
    ),
    **{
        (
            "V1 TF-slim",
            f"0.75, {size}",
            "M MAdds",
        ): f"printed without the first convolution: {rest}"
        for size, rest in {224: "317.3", 192: "233.3", 160: "162.2", 128: "104.1"}.items()
    },
    ("V1 TF-slim", "0.25, 192", "M MAdds"): "not in line with its neighbours: 41 x (192/224)² is 30",
    ("V2 Table 4", "MobileNetV1", "M MAdds"): "the first paper prints 569 for this model",
    ("V2 Table 4", "MobileNetV2 (1.4)", "M parameters"): "TF-slim's table prints 6.06 for this model",
    ("V3 Table 2", "13", "SE"): "the published weights have no squeeze-excite there",
    ("V3 Table 3", "V3-Large 1.0", "M MAdds"): "Table 9 of the same paper prints 217 for this model",
    ("V3 Table 3", "V3-Small 0.75", "M MAdds"): (
        "printed for 1280 features before the classifier, as in the paper's first version: 43.8, and 2.4 M parameters "
        "there; the later version has 1024 and corrects the parameters"
    ),
    **{
        ("V3 Table 9", row, "M MAdds"): (
            f"printed for a first convolution that follows alpha: {count}; keras.applications has 16 filters for any"
        )
        for row, count in {
            "Large 1.25": "355.9",
            "Large 0.5": "69.2",
            "Large 0.35": "39.5",
            "Small 1.25": "91.2",
            "Small 0.5": "21.1",
            "Small 0.35": "12.8",
        }.items()
    },
    ("V3 Table 9", "Large 1.25", "M parameters"): "printed for 1280 features before the classifier: 7.51; here 1600",
    ("V3 Table 9", "Large 0.35", "M parameters"): "2.14 with biases and normalization; no cause found for the rest",
    ("V3 Table 9", "Small 0.75", "M MAdds"): "printed for 1280 features before the classifier, as in Table 3: 43.8",
    ("V3 Table 9", "Small 1, 256", "M MAdds"): "printed for 1280 features before the classifier: 73.6",
    ("V3 Table 9", "Small 0.35", "M parameters"): "1.355 with biases and normalization",
    ("V3 Table 6", "V3-Large", "B MAdds"): "no cause found",
    ("V3 minimalistic", "Small minimalistic", "M MAdds"): (
        "TF-slim prints 66 for Small 1.0, too, which the paper corrects to 56 and 57; the same widths with smaller "
        "kernels need less"
    ),
}
