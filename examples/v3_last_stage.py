"""The last stage of MobileNetV3-Large before and after it was redesigned: the pooling comes first.

    python examples/v3_last_stage.py

Before, V2's end: expand, filter, project, widen to 1280 and pool. After: expand, pool, widen one pixel. The paper
reports 30 million multiply-adds and 7 ms (11 % of the time) saved at almost the same accuracy: arXiv:1905.02244, 5.1.
"""

import sys
import timeit

import keras
import numpy as np
from matplotlib.figure import Figure

from keras_mobilenets import export_tflite
from keras_mobilenets.analysis import profile
from keras_mobilenets.tflite import TFLiteModel

maps = np.random.default_rng(0).normal(size=(1, 7, 7, 160)).astype("float32")


def convolution(filters, activation="hard_swish"):
    """A pointwise convolution."""
    return keras.layers.Conv2D(filters, 1, activation=activation, name=f"1x1_{filters}")


def stage(*layers):
    """A model of the layers, what each costs, and the milliseconds of its file: the fastest of 50 runs."""
    model = keras.Sequential([keras.Input(maps.shape[1:]), *layers, convolution(1000, None), keras.layers.Flatten()])
    export_tflite(model, "stage.tflite", verify=maps, verbose=False)
    runner = TFLiteModel("stage.tflite")
    time = min(timeit.repeat(lambda: runner.predict(maps), number=1, repeat=50)) * 1e3
    return profile(model), time


filter_ = keras.layers.DepthwiseConv2D(3, padding="same", activation="hard_swish", name="depthwise")
pools = [keras.layers.GlobalAveragePooling2D(keepdims=True, name="pool") for _ in range(2)]
stages = {
    "before": stage(convolution(960), filter_, convolution(320, None), convolution(1280), pools[0]),
    "after": stage(convolution(960), pools[1], convolution(1280)),
}
names = list(dict.fromkeys(layer.name for cost, _ in stages.values() for layer in cost.layers if layer.madds))
axes = Figure(figsize=(11, 4), layout="constrained").subplots()
bars, left = [f"{name}\n{cost.madds / 1e6:.1f} M\n{time:.2f} ms" for name, (cost, time) in stages.items()], np.zeros(2)
for name in names:
    madds = [sum(layer.madds for layer in cost.layers if layer.name == name) / 1e6 for cost, _ in stages.values()]
    axes.barh(bars, madds, left=left, label=name.replace("_", " to "))
    left += madds
axes.legend(loc="lower right")
axes.set(xlabel="million multiply-adds, behind the last block (7x7x160)", ylim=(1.5, -0.5))
(old, old_time), (new, new_time) = stages.values()
saved = f"{(old.madds - new.madds) / 1e6:.1f} million multiply-adds and {1 - new_time / old_time:.0%} of its time"
print("saved:", saved)
axes.set_title(f"Pooled first, the last stage saves {saved} (float32, measured here)")
axes.figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "v3_last_stage.png")
