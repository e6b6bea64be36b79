"""A U-Net decoder of the public layers on a MobileNetV2: it says for each pixel which digit it belongs to.

    python examples/unet.py

The map of each stride is made twice as large, joined with the network's own map of that size, and mixed by a depthwise
separable convolution. All of it has an integer form: resizes by two, and concatenations.
"""

import argparse

import keras
import numpy as np
from matplotlib.figure import Figure

from keras_mobilenets import DepthwiseSeparableConv, MobileNetV2, endpoints
from keras_mobilenets.data import load_segmentation
from keras_mobilenets.tasks import Segmentation
from keras_mobilenets.tasks.segmentation import palette
from keras_mobilenets.training import fit

parser = argparse.ArgumentParser()
parser.add_argument("picture", nargs="?", default="unet.png")
parser.add_argument("--epochs", type=int, default=10)
options = parser.parse_args()

keras.utils.set_random_seed(0)
data = load_segmentation("scattered_digits", batch_size=16)
task = Segmentation(len(data.class_names))
inputs = keras.Input((*data.image_size, 3))
scaled = keras.layers.Rescaling(1 / 127.5, -1)(inputs)
encoder = MobileNetV2(input_tensor=scaled, alpha=0.35, include_top=False, weights=None, momentum=0.9)
maps = endpoints(encoder)
x = maps["stride_32_block"]
for stride, filters in ((16, 64), (8, 48), (4, 32), (2, 24)):
    x = keras.layers.UpSampling2D(2, interpolation="bilinear")(x)
    x = keras.layers.Concatenate()([x, maps[f"stride_{stride}"]])
    x = DepthwiseSeparableConv(filters, momentum=0.9)(x)
x = keras.layers.Conv2D(task.classes, 1)(x)
model = keras.Model(inputs, {"mask": keras.layers.UpSampling2D(2, interpolation="bilinear", name="mask")(x)})
history = fit(model, data, task=task, recipe="segmentation", epochs=options.epochs)

images, truth = next(iter(data.val.as_numpy_iterator()))
answers = task.decode(model.predict(images, verbose=0))
result = f"mIoU {history.history['val_mIoU'][-1]:.3f} of {task.classes} classes, {model.count_params():,} parameters"
print(result)
figure = Figure(figsize=(10, 6), layout="constrained")
rows = zip(*(part[:5] for part in (images, palette(16)[answers], palette(16)[np.minimum(truth, 15)])), strict=True)
for columns, row in zip(figure.subplots(3, 5).T, rows, strict=True):
    for axes, shown, name in zip(columns, row, ("picture", "answer", "truth"), strict=True):
        axes.imshow(shown)
        axes.set(title=name, xticks=[], yticks=[])
figure.suptitle(f"U-Net on MobileNetV2 0.35: {result}")
figure.savefig(options.picture)
