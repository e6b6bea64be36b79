"""A head of one's own on a MobileNet: it says which digit is in the picture, and where, though nobody told it where.

    python examples/custom_head.py

A 1x1 convolution gives each cell of the stride-4 feature map a score for each class; the best cells decide. Trained
with the label of the whole picture alone, its scores are a map of where that class is.
"""

import argparse

import keras
import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from keras_mobilenets import MobileNet, endpoints

parser = argparse.ArgumentParser()
parser.add_argument("picture", nargs="?", default="custom_head.png")
parser.add_argument("--epochs", type=int, default=10)
options = parser.parse_args()

keras.utils.set_random_seed(0)
random = np.random.default_rng(0)
digits, labels = load_digits(return_X_y=True)
images, corners = np.full((len(digits), 48, 48, 3), -1, "float32"), random.integers(0, 25, (len(digits), 2))
for image, digit, (top, left) in zip(images, digits.reshape(-1, 8, 8), corners, strict=True):
    image[top : top + 24, left : left + 24] = np.kron(digit / 8 - 1, np.ones((3, 3)))[..., None]

backbone = MobileNet((48, 48, 3), alpha=0.5, include_top=False, weights=None, stem_stride=2, momentum=0.9)
scores = keras.layers.Conv2D(10, 1, name="where")(endpoints(backbone)["stride_4"])
classes = keras.layers.Softmax(name="what")(keras.ops.logsumexp(scores, axis=(1, 2)))
model = keras.Model(backbone.inputs, classes)
model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
model.fit(images[300:], labels[300:], batch_size=32, epochs=options.epochs, verbose=0)

what, where = keras.Model(backbone.inputs, [classes, scores]).predict(images[:300], verbose=0)
found = what.argmax(-1)
heat = where[np.arange(300), :, :, found]
cells = np.stack(np.unravel_index(heat.reshape(300, -1).argmax(-1), heat.shape[1:]), axis=-1)
inside = np.abs(cells * 4 + 2 - (corners[:300] + 12)).max(axis=-1) <= 12
accuracy = np.mean(found == labels[:300])
result = f"right for {accuracy:.1%}, and the best cell (cross) lies on the digit for {inside.mean():.1%}"
print(f"of 300 held-out pictures {result}")

figure = Figure(figsize=(12, 5), layout="constrained")
for axes, image, one, best, name in zip(figure.subplots(2, 6).flat, images, heat, cells, found, strict=False):
    axes.imshow(image[..., 0], cmap="gray", extent=(0, 48, 48, 0))
    axes.imshow(one, cmap="inferno", alpha=0.5, extent=(0, 48, 48, 0))
    axes.plot(*(best[::-1] * 4 + 2), "c+", markersize=14)
    axes.set(title=f"says {name}", xticks=[], yticks=[])
figure.suptitle(f"Trained on labels alone: {result}")
figure.savefig(options.picture)
