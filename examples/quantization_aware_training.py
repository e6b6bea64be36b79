"""Quantization-aware training against post-training quantization, down to 3-bit weights.

    python examples/quantization_aware_training.py

Both are the same rewrite: one is given ranges by `calibrate`, the other is trained for two more epochs as well. With 8
bits little is lost on digits either way; with fewer, only training finds weights that survive. arXiv:1806.08342.
"""

import argparse

import keras
import numpy as np
from matplotlib.figure import Figure

from keras_mobilenets import calibrate, data, export_tflite, quantize_model
from keras_mobilenets.training import build_classifier, fit

parser = argparse.ArgumentParser()
parser.add_argument("picture", nargs="?", default="quantization_aware_training.png")
parser.add_argument("--epochs", type=int, default=8)
options = parser.parse_args()

digits = data.load("digits", image_size=32, batch_size=64)
pixels, labels = (np.concatenate(parts) for parts in zip(*digits.val.as_numpy_iterator(), strict=True))
model = build_classifier("MobileNet", classes=10, image_size=32, alpha=0.25, stem_stride=2)
accuracy = 100 * fit(model, digits, epochs=options.epochs).history["val_accuracy"][-1]
calibrated, trained, bits = [], [], (3, 4, 8)
for width in bits:
    quantized = quantize_model(model, weight_bits=width)
    calibrate(quantized, digits.train.take(4))
    calibrated.append(100 * np.mean(np.argmax(quantized(pixels), axis=-1) == labels))
    quantized.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", jit_compile=False)
    quantized.fit(digits.train, epochs=max(options.epochs // 4, 1), verbose=0)
    trained.append(100 * np.mean(np.argmax(quantized(pixels), axis=-1) == labels))
    print(
        f"{width} bits: {calibrated[-1]:.1f} % after training, {trained[-1]:.1f} % trained so; float {accuracy:.1f} %"
    )
export_tflite(quantized, "digits.tflite", verify=digits.val)  # the last one: 8 bits are what runtimes have

axes = Figure(figsize=(8, 4.5), layout="constrained").subplots()
axes.axhline(accuracy, color="0.6", linestyle="--", label=f"float: {accuracy:.1f} %")
for label, accuracies in {"quantized after training": calibrated, "quantization-aware": trained}.items():
    axes.plot([str(width) for width in bits], accuracies, "o-", label=label)
axes.set(xlabel="bits of the weights (feature maps: 8)", ylabel="accuracy on held-out digits, %")
axes.set_title(
    f"Trained with {bits[0]}-bit weights: {trained[0]:.0f} %; rounded to them afterwards: {calibrated[0]:.0f} %"
)
axes.legend()
axes.figure.savefig(options.picture)
