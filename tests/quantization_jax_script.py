"""Run by test_quantization_jax.py with KERAS_BACKEND=jax or torch: trains a quantized model there and saves it."""

import sys
from pathlib import Path

import keras
import numpy as np

import keras_mobilenets as km
from keras_mobilenets.quantization import FakeQuant, FreezeQuantization, calibrate, quantize_model

folder = Path(sys.argv[1])
keras.utils.set_random_seed(0)
rng = np.random.default_rng(0)
images = rng.uniform(0, 255, (16, 32, 32, 3)).astype("float32")
labels = rng.integers(0, 3, 16)
model = km.MobileNetV3Small((32, 32, 3), alpha=0.75, weights=None, classes=3)
quantized = quantize_model(model)
calibrate(quantized, images, batch_size=8)
calibrated = [layer.range for layer in quantized.layers if isinstance(layer, FakeQuant)]
assert None not in calibrated

quantized.compile(keras.optimizers.SGD(1e-3), "sparse_categorical_crossentropy")
quantized.fit(images, labels, batch_size=8, epochs=2, verbose=0, callbacks=[FreezeQuantization(1, 1)])
trained = [layer.range for layer in quantized.layers if isinstance(layer, FakeQuant)]
assert trained != calibrated
observing = [layer for layer in quantized.layers if isinstance(layer, FakeQuant) and layer.weights]
assert all(float(layer.observed[2]) == 4 for layer in observing)
quantized.save(folder / "model.keras")
np.savez(folder / "answers.npz", images=images, answers=quantized.predict(images, verbose=0))
