"""A 1x1 convolution is one matrix product; a larger one must first copy the map into columns (im2col).

    python examples/pointwise_is_a_product.py

Times are measured here, with NumPy, for V1's first pointwise layer: 112x112x32 to 64. "1x1 convolutions do not require
this reordering in memory", and 95 % of V1's multiply-adds are in them: arXiv:1704.04861, section 3.2.
"""

import sys
import timeit

import keras
import numpy as np
from matplotlib.figure import Figure

SIDE, CHANNELS, FILTERS, SIZES = 112, 32, 64, (1, 3, 5)
random = np.random.default_rng(0)
maps = random.normal(size=(SIDE, SIDE, CHANNELS)).astype("float32")


def columns(size):
    """For each pixel its size x size neighbourhood as a row; for size 1 that is the map as it lies in memory."""
    if size == 1:
        return maps.reshape(SIDE * SIDE, CHANNELS)
    border = size // 2
    padded = np.pad(maps, ((border, border), (border, border), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(0, 1))
    return windows.transpose(0, 1, 3, 4, 2).reshape(SIDE * SIDE, -1)


def milliseconds(function):
    """The fastest of 20 calls."""
    return min(timeit.repeat(function, number=1, repeat=20)) * 1e3


copies, products, labels = [], [], []
for size in SIZES:
    kernel = random.normal(size=(size, size, CHANNELS, FILTERS)).astype("float32")
    matrix, rows = kernel.reshape(-1, FILTERS), columns(size)
    convolution = np.asarray(keras.ops.conv(maps[None], kernel, padding="same"))
    np.testing.assert_allclose((rows @ matrix).ravel(), convolution.ravel(), atol=1e-3)  # rounding of up to 800 terms
    copies.append(milliseconds(lambda size=size: columns(size)))
    products.append(milliseconds(lambda rows=rows, matrix=matrix: rows @ matrix))
    copied = 0 if np.shares_memory(rows, maps) else rows.nbytes
    labels.append(f"{copied / 1e6:.1f} MB copied, {copies[-1] / (copies[-1] + products[-1]):.0%} of the time")
    print(f"{size}x{size}: {labels[-1]}")
names = [f"{size}x{size}" for size in SIZES]
axes = Figure(figsize=(8, 4.5), layout="constrained").subplots()
axes.bar(names, products, label="matrix product")
axes.bar_label(axes.bar(names, copies, bottom=products, label="copy into columns (im2col)"), labels)
axes.set(xlabel="kernel", ylabel="ms for 112x112x32 to 64, NumPy, measured here")
axes.set_title("A 1x1 convolution is one matrix product of the map as it lies in memory")
axes.legend(loc="upper left")
axes.margins(y=0.12)
axes.figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "pointwise_is_a_product.png")
