"""The feature maps of a MobileNet by stride, and the expansion that a detector taps.

    python examples/feature_maps.py

SSDLite on MobileNetV2 predicts from the expansion inside block 13 (stride 16) and from the last map (stride 32):
arXiv:1801.04381, section 6.2. Here the network has learned to read digits.
"""

import argparse

import keras
from matplotlib.figure import Figure

from keras_mobilenets import data, endpoints
from keras_mobilenets.training import build_classifier, fit

parser = argparse.ArgumentParser()
parser.add_argument("picture", nargs="?", default="feature_maps.png")
parser.add_argument("--epochs", type=int, default=4)
options = parser.parse_args()

digits = data.load("digits", image_size=96, batch_size=64)
model = build_classifier("MobileNetV2", classes=10, image_size=96, alpha=0.35, stem_stride=4)
fit(model, digits, epochs=options.epochs)
taps = endpoints(model)
features = keras.Model(model.input, taps)  # all of them at once, with the model's own weights

images, _ = next(digits.val.as_numpy_iterator())
maps = {name: tensor.numpy()[0] for name, tensor in features(images[:1]).items()}
figure = Figure(figsize=(11, 1.25 * len(maps)), layout="constrained")
for row, (name, tensor) in zip(figure.subplots(len(maps), 9), taps.items(), strict=True):
    one = maps[name]
    print(f"{name:22} {tensor.shape[1:]}")
    row[0].imshow(images[0])
    row[0].set_ylabel(f"{name}\n{'x'.join(map(str, one.shape))}", rotation=0, ha="right", va="center")
    strongest = one.std(axis=(0, 1)).argsort()[::-1]
    for axes, channel in zip(row[1:], strongest, strict=False):
        axes.imshow(one[..., channel], cmap="viridis")
        axes.set_title(f"channel {channel}", fontsize=8)
    for axes in row:
        axes.set(xticks=[], yticks=[])
figure.suptitle("Maps halve stride by stride; expansions, from which detectors predict, hold six times the channels")
figure.savefig(options.picture)
