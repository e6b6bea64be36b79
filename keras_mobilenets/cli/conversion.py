"""`quantize` and `export`: the library's functions on files."""

from __future__ import annotations

from pathlib import Path

import keras

from keras_mobilenets.cli import progress
from keras_mobilenets.cli.models import load_keras, saved_labels
from keras_mobilenets.data import load as load_data
from keras_mobilenets.export import export_tflite
from keras_mobilenets.export.conversion import require_tensorflow
from keras_mobilenets.export.samples import normalization_of
from keras_mobilenets.quantization import calibrate, is_quantized, quantize_model
from keras_mobilenets.training import fit, freeze_normalization

CALIBRATION_STEPS = 8
LEARNING_RATE = 2e-5  # the model is trained already


def quantize(model: Path, output: Path, *, data: str, epochs: int, batch_size: int, seed: int) -> None:
    """Calibrates a float classifier, trains it quantization-aware if asked to, and writes the integer file."""
    require_tensorflow()
    keras.utils.set_random_seed(seed)
    given = load_keras(model)
    if is_quantized(given):
        raise ValueError(f"{model} is quantized already: `keras-mobilenets export` writes it")
    scale = normalization_of(given)
    pictures = load_data(
        data,
        image_size=given.input_shape[1:3],
        batch_size=batch_size,
        seed=seed,
        preprocess=lambda images: (images - scale.mean) / scale.std,
    )
    if given.output_shape[-1] != len(pictures.class_names):
        raise ValueError(f"{model} knows {given.output_shape[-1]} classes, {data} has {len(pictures.class_names)}")
    quantized = quantize_model(given)
    freeze_normalization(quantized)
    calibrate(quantized, pictures.train.take(CALIBRATION_STEPS))
    if epochs:
        with progress.epochs("quantized", pictures.batch_size) as callback:
            fit(quantized, pictures, epochs=epochs, learning_rate=LEARNING_RATE, callbacks=[callback])
    export_tflite(quantized, output, labels=pictures.class_names, verify=pictures.val)


def export(model: Path, output: Path, *, labels: Path | None, precision: str) -> None:
    """Writes a Keras model as a `.tflite` file."""
    names = labels if labels is not None else saved_labels(model)
    export_tflite(load_keras(model), output, quantize=None if precision == "float32" else precision, labels=names)
