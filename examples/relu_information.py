"""What a ReLU loses of two dimensions that are embedded in n channels: MobileNetV2's Figure 1.

    python examples/relu_information.py

A spiral goes through a random matrix, a ReLU and the matrix's pseudo-inverse. A point can be told only if at least two
of the n channels let it through; of random ones fewer do with probability (n + 1) / 2^n. Hence linear bottlenecks, and
ReLUs only where channels are many: arXiv:1801.04381, section 3.2.
"""

import sys

import numpy as np
from matplotlib.figure import Figure

random = np.random.default_rng(0)
angle = np.linspace(0.5, 5 * np.pi, 500)
spiral = np.stack([np.cos(angle), np.sin(angle)], axis=1) * angle[:, None] / angle.max()

figure = Figure(figsize=(13, 6), layout="constrained")
axes = figure.subplot_mosaic([["spiral", "2", "3", "5", "15", "30"], ["lost"] * 6], height_ratios=[1, 1.1])
axes["spiral"].set_title("the spiral")
axes["spiral"].scatter(*spiral.T, c=angle, s=3)
lost = []
for channels in range(2, 31):
    matrices = random.normal(size=(2000, 2, channels))
    maps = np.maximum(spiral @ matrices, 0)  # (matrix, point, channel)
    is_lost = (maps > 0).sum(axis=-1) < 2
    lost.append(is_lost.mean())
    if str(channels) in axes:
        back = maps[0] @ np.linalg.pinv(matrices[0])
        axes[str(channels)].scatter(*back.T, c=angle, s=3)
        axes[str(channels)].set_title(f"back from {channels} channels:\n{is_lost[0].mean():.0%} of points lost")
        print(f"{channels:2} channels: {lost[-1]:.2%} of the points are lost")
for name in set(axes) - {"lost"}:
    axes[name].set(xticks=[], yticks=[])
    axes[name].axis("equal")
n = np.arange(2, 31)
axes["lost"].plot(n, 100 * (n + 1) / 2.0**n, color="0.6", label="(n + 1) / 2ⁿ")
axes["lost"].plot(n, 100 * np.array(lost), "o", label="counted, 2000 random matrices for each n")
axes["lost"].set(xlabel="n, channels that the ReLU sees", ylabel="points with < 2 active channels, %")
axes["lost"].legend()
figure.suptitle("A ReLU on few channels destroys what they hold; on many it does not (colour: place along the spiral)")
figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "relu_information.png")
