"""What a phone will answer, known in Keras: the integer model equals the file on the runtime, byte for byte.

    python examples/integer_answers.py

Real digits, an untrained network with measured statistics: what counts here is the arithmetic.
"""

import sys

import keras
import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

from keras_mobilenets import MobileNet, calibrate, export_tflite, inline, quantize_model
from keras_mobilenets.integer import integer_model
from keras_mobilenets.tflite import TFLiteModel

pixels = np.repeat(load_digits().images[:64, :, :, None] / 16 * 255, 3, axis=-1)
pixels = np.asarray(keras.ops.image.resize(pixels, (32, 32))).astype("uint8")
images = pixels / np.float32(127.5) - 1

model = MobileNet(input_shape=(32, 32, 3), alpha=0.25, weights=None, classes=10)
for layer in inline(model).layers:
    if isinstance(layer, keras.layers.BatchNormalization):
        layer.momentum = 0.0
model(images, training=True)

quantized = quantize_model(model)
calibrate(quantized, images)
export_tflite(quantized, "digits.tflite", verify=images)

in_keras = integer_model("digits.tflite").predict(pixels, verbose=0)
on_the_runtime = TFLiteModel("digits.tflite").predict(pixels, raw=True)
print(f"{(in_keras == on_the_runtime).mean():.2%} of {in_keras.size} output bytes are equal")
assert (in_keras == on_the_runtime).all()

fake_quantized = np.rint(quantized.predict(images, verbose=0) * 256)
axes = Figure(figsize=(8, 4.5), layout="constrained").subplots()
for name, answers in {"fake-quantized model": fake_quantized, "integer model": in_keras}.items():
    axes.plot(on_the_runtime.ravel(), (answers - on_the_runtime.astype(float)).ravel(), ".", label=name)
axes.set(xlabel="output byte of the file (score x 256)", ylabel="Keras less file, in steps of 1/256")
axes.set_title("The integer model in Keras answers as the file does, byte for byte")
axes.legend()
axes.figure.savefig(sys.argv[1] if len(sys.argv) > 1 else "integer_answers.png")
