"""What each part of MobileNetV3-Large's blocks costs: multiply-adds, weights, and bytes that move.

    python examples/v3_block_cost.py

Counted by `profile`, and of the last block by the papers' closed form, which agrees. Activations have no multiply-adds
and overwrite what they read: examples/hard_swish.py has their time. arXiv:1905.02244, Figure 4 and Table 1.
"""

import re
import sys

from matplotlib.figure import Figure

from keras_mobilenets import MobileNetV3Large
from keras_mobilenets.analysis import profile
from keras_mobilenets.applications.mobilenet_v3 import TABLE_LARGE

PARTS = {"expand": "expand 1x1", "depthwise": "depthwise", "project": "project 1x1", "squeeze_excite": "squeeze-excite"}
COSTS = {
    "madds": (1e6, "million MAdds"),
    "weight_bytes_int8": (1e3, "kB of weights, int8"),
    "moved_bytes_int8": (1e3, "kB read and written, int8"),
}
blocks = [{part: [] for part in PARTS} for _ in TABLE_LARGE]
for layer in profile(MobileNetV3Large((224, 224, 3), weights=None)).layers:
    if found := re.match(rf"expanded_conv_?(\d*)_({'|'.join(PARTS)})", layer.name):
        blocks[int(found[1] or 0)][found[2]].append(layer)

expanded = TABLE_LARGE[-1].exp_size  # 7x7x160, expanded by 6, 5x5, squeeze-excite by 4
form = 7 * 7 * expanded * (160 + 5 * 5 + 160) + 2 * expanded * expanded // 4
assert form == sum(layer.madds for part in blocks[-1].values() for layer in part)

figure = Figure(figsize=(11, 8.5), layout="constrained")
names = [
    f"{number}\n{row.kernel_size}x{row.kernel_size}{', SE' if row.se_ratio else ''}"
    for number, row in enumerate(TABLE_LARGE, 1)
]
for axes, (cost, (unit, label)) in zip(figure.subplots(3, 1), COSTS.items(), strict=True):
    every = sum(getattr(layer, cost) for block in blocks for part in block.values() for layer in part)
    bottom = [0.0] * len(blocks)
    for part, title in PARTS.items():
        heights = [sum(getattr(layer, cost) for layer in block[part]) / unit for block in blocks]
        share = f"{title}: {sum(heights) * unit / every:.1%}"
        axes.bar(names, heights, bottom=bottom, label=share)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
        print(f"{label:26} {share}")
    axes.set(ylabel=label, ylim=(0, 1.05 * max(bottom)))
    axes.legend(fontsize=8)
axes.set_xlabel("block of MobileNetV3-Large at 224x224: kernel of its depthwise convolution, squeeze-excite")
figure.suptitle(
    "1x1 convolutions take 90 % of the multiply-adds; squeeze-excite over half of the weights, a quarter of the traffic"
)
figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "v3_block_cost.png")
