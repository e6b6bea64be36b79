"""A standard convolution, factored into a depthwise and a pointwise one: what the best factors leave out.

    python examples/factored_convolution.py

For each input channel a kernel is a matrix of 9 taps x N filters. A depthwise filter with its pointwise weights is one
of rank 1, and the SVD has the best; k depthwise filters for each channel make it rank k at k times the cost. Errors are
those of the kernel, and of the output for white noise. Costs: arXiv:1704.04861, section 3.1.
"""

import argparse

import keras
import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

parser = argparse.ArgumentParser()
parser.add_argument("picture", nargs="?", default="factored_convolution.png")
parser.add_argument("--epochs", type=int, default=20)
options = parser.parse_args()


def factors(kernel, rank=1):
    """The best depthwise (3, 3, M, rank) and pointwise (1, 1, M x rank, N) kernels, and their relative error."""
    left, values, right = np.linalg.svd(kernel.transpose(2, 0, 1, 3).reshape(kernel.shape[2], 9, -1), False)
    depthwise = (left * values[:, None])[..., :rank].reshape(-1, 3, 3, rank).transpose(1, 2, 0, 3)
    error = np.linalg.norm(values[:, rank:]) / np.linalg.norm(values)
    return depthwise, right[:, :rank].reshape(1, 1, -1, kernel.shape[-1]), error


keras.utils.set_random_seed(0)
first, standard = (keras.layers.Conv2D(n, 3, padding="same", activation="relu") for n in (16, 256))
model = keras.Sequential([first, standard, keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(10, "softmax")])
model.compile("adam", "sparse_categorical_crossentropy")
model.fit(load_digits().images[..., None] / 16, load_digits().target, epochs=options.epochs, verbose=0)
kernels = {"random": np.random.default_rng(0).normal(size=(3, 3, 16, 256)), "trained": standard.kernel.numpy()}

noise = np.random.default_rng(1).normal(size=(1, 64, 64, 16)).astype("float32")
depthwise, pointwise, error = factors(kernels["trained"])
exact = np.asarray(keras.ops.conv(noise, kernels["trained"]))
measured = np.linalg.norm(exact - keras.ops.separable_conv(noise, depthwise, pointwise)) / np.linalg.norm(exact)
print(f"relative error of the trained kernel {error:.3f}, of its output {measured:.3f}")

figure = Figure(figsize=(11, 4.6), layout="constrained")
by_filters, by_cost = figure.subplots(1, 2, sharey=True)
counts, ranks = 2 ** np.arange(9), np.arange(1, 10)
costs = 100 * ranks * (1 / 256 + 1 / 9)  # of each depthwise separable one: arXiv:1704.04861, section 3.1
for name, kernel in kernels.items():
    by_filters.semilogx(counts, [100 * factors(kernel[..., :n])[2] for n in counts], "o-", base=2, label=name)
    by_cost.plot(costs, [100 * factors(kernel, rank)[2] for rank in ranks], "o-", label=name)
by_filters.axhline(100 * np.sqrt(8 / 9), color="0.6", linestyle="--", label="random, N → ∞: √(8/9)")
by_filters.set(title="one depthwise filter for each channel", xlabel="N, filters", ylabel="relative error, %")
by_cost.set(title="1 to 9 of them, N = 256", xlabel="multiply-adds, % of the standard convolution's")
by_filters.legend()
figure.suptitle(f"A ninth of the cost cannot hold a trained kernel ({error:.0%} error): train separable from the start")
figure.savefig(options.picture)
