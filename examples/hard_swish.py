"""Hard-swish beside swish, hard-sigmoid beside sigmoid: how far apart they are, and what each costs on the runtime.

    python examples/hard_swish.py

Cost is time measured here: ten in a row on a map of 56x56x64, by LiteRT with XNNPACK on one thread, in float32.
arXiv:1905.02244, section 5.2.
"""

import sys
import timeit

import keras
import numpy as np
from matplotlib.figure import Figure

from keras_mobilenets import HardSigmoid, HardSwish, export_tflite
from keras_mobilenets.tflite import TFLiteModel

maps = np.random.default_rng(0).normal(0, 3, (1, 56, 56, 64)).astype("float32")


def microseconds(layer):
    """For one layer: the fastest of 50 runs of ten in a row."""
    model = keras.Sequential([keras.Input(maps.shape[1:]), *(layer() for _ in range(10))])
    export_tflite(model, "activation.tflite", verify=maps, verbose=False)
    runner = TFLiteModel("activation.tflite")
    return min(timeit.repeat(lambda: runner.predict(maps), number=1, repeat=50)) * 1e6 / 10


pairs = {
    "swish": (lambda: keras.layers.Activation("swish"), HardSwish),
    "sigmoid": (lambda: keras.layers.Activation("sigmoid"), HardSigmoid),
}
x = np.linspace(-6, 6, 601, dtype="float32")
figure = Figure(figsize=(12, 4.5), layout="constrained")
axes = figure.subplots(1, 3)
shares = []
for curve, (name, layers) in zip(axes, pairs.items(), strict=False):
    soft, hard = (layer()(x).numpy() for layer in layers)
    times = [microseconds(layer) for layer in layers]
    curve.plot(x, soft, label=name)
    curve.plot(x, hard, label=f"hard-{name}")
    curve.fill_between(x, soft, hard, alpha=0.2)
    curve.set(title=f"never more than {np.abs(soft - hard).max():.2f} apart", xlabel="x", ylabel="f(x)")
    curve.legend()
    bars = axes[2].bar([name, f"hard-{name}"], times, color=["C0", "C1"])
    axes[2].bar_label(bars, fmt="%.0f")
    shares.append(f"hard-{name} takes {times[1] / times[0]:.0%} of {name}'s time")
axes[2].set(title="time for a map of 56x56x64, float32", ylabel="µs on one thread, measured here")
print(*shares, sep="\n")
figure.suptitle(f"No exponential, nearly the same: {', '.join(shares)}")
figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "hard_swish.png")
