"""The feature maps of a MobileNet by stride, and the expansion that a detector taps.

    python examples/feature_maps.py

SSDLite on MobileNetV2 predicts from the expansion inside block 13 (stride 16) and from the last map (stride 32):
arXiv:1801.04381, section 6.2.
"""

import keras
import numpy as np

from keras_mobilenets import MobileNetV2, endpoints

backbone = MobileNetV2(input_shape=(224, 224, 3), alpha=0.35, include_top=False, weights=None)
taps = endpoints(backbone)
for name, tensor in taps.items():
    print(f"{name:32} {tensor.shape[1:]}")

features = keras.Model(backbone.inputs, taps)  # all of them at once, with the backbone's own weights
maps = features(np.zeros((1, 224, 224, 3), "float32"))
assert {name: tuple(tensor.shape[1:]) for name, tensor in maps.items()} == {n: t.shape[1:] for n, t in taps.items()}
