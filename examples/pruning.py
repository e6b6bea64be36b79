"""Half of the weights pruned by tfmot, then quantization-aware training that keeps the zeros, then int8.

pip install 'keras_mobilenets[tfmot]' && python examples/pruning.py
"""

import argparse
import zlib
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from tensorflow_model_optimization.sparsity import keras as sparsity

from keras_mobilenets import data, export_tflite, inline, interop, quantize_model, tflite
from keras_mobilenets.quantization import KeepZeros
from keras_mobilenets.training import build_classifier, fit

parser = argparse.ArgumentParser()
parser.add_argument("picture", nargs="?", default="pruning.png")
parser.add_argument("--epochs", type=int, default=10)
options, stages = parser.parse_args(), []


def show(stage, model, file=None):
    """Prints how good and how small the model is, or the file."""
    scores = tflite.TFLiteModel(file).predict(pixels) if file else model.predict_on_batch(pixels)
    kernels = np.concatenate([weight.numpy().ravel() for weight in inline(model).weights if weight.name == "kernel"])
    content = Path(file).read_bytes() if file else b"".join(weight.tobytes() for weight in model.get_weights())
    accuracy, zeros, size = np.mean(scores.argmax(-1) == labels), np.mean(kernels == 0), len(zlib.compress(content))
    stages.append((f"{stage}\n{accuracy:.1%} right\n{zeros:.0%} zeros", size / 1000))
    print(f"{stage:7} accuracy {accuracy:.3f}, zeros {zeros:.2f}, zipped {size / 1000:.0f} kB")


digits = data.load("digits", image_size=32, batch_size=64)
pixels, labels = (np.concatenate(parts) for parts in zip(*digits.val.as_numpy_iterator(), strict=True))
model = build_classifier("MobileNet", classes=10, image_size=32, alpha=0.25, stem_stride=2)
fit(model, digits, epochs=options.epochs)
show("float", model)
schedule = sparsity.PolynomialDecay(0.0, 0.5, begin_step=0, end_step=60, frequency=10)
twin = sparsity.prune_low_magnitude(interop.to_tf_keras(model), schedule)
twin.compile("adam", "sparse_categorical_crossentropy")
twin.fit(digits.train, epochs=4, verbose=0, callbacks=[sparsity.UpdatePruningStep()])
interop.from_tf_keras(twin, model)
show("pruned", model)
quantized = quantize_model(model)
fit(quantized, digits, epochs=2, learning_rate=1e-4, callbacks=[KeepZeros()])
export_tflite(quantized, "digits.tflite", verify=digits.val, verbose=False)
show("int8", quantized, "digits.tflite")

axes = Figure(figsize=(7, 4.5), layout="constrained").subplots()
axes.bar_label(axes.bar(*zip(*stages, strict=True)), fmt="%.0f kB")
axes.set(ylabel="zipped size, kB", title=f"Pruned and in 8 bits: 1/{stages[0][1] / stages[-1][1]:.0f} of the download")
axes.figure.savefig(options.picture)
