"""Quantization-aware training as one call: quantize, calibrate, train at a low rate, keep the best epoch."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence

import keras

from keras_mobilenets.layers.replicas import processes
from keras_mobilenets.quantization import FreezeQuantization, calibrate, is_quantized, quantize_model
from keras_mobilenets.tasks import Task
from keras_mobilenets.training.checkpoint import Checkpoint
from keras_mobilenets.training.fitting import TrainingData, fit
from keras_mobilenets.training.recipes import Recipe
from keras_mobilenets.training.transfer import freeze_normalization

CALIBRATION_IMAGES = 512


def quantize_aware(
    model: keras.Model,
    data: TrainingData,
    *,
    task: Task | None = None,
    recipe: Recipe | str = "finetune-qat",
    epochs: int | None = None,
    learning_rate: float | None = None,
    freeze: FreezeQuantization | None = None,
    teacher: keras.Model | None = None,
    checkpoint: Checkpoint | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 0,
) -> keras.Model:
    """Makes the quantized twin of a trained model, and trains it until it has got used to 8 bits.

    Quantizes, takes the ranges from 512 training images (of fewer, from all once), trains as the recipe says and leaves
    the weights of the best epoch. Interrupted, it goes on from its checkpoint as `fit` does.

    Args:
        model: a trained float model; or its twin from `quantize_model`, where target, observer or configs matter.
        data: what to train on and to validate with.
        task: what the model is for; by its form if None.
        recipe: one of `keras-mobilenets list recipes` or one's own.
        epochs: the recipe's if None.
        learning_rate: the highest one, in place of the recipe's.
        freeze: when statistics of batch normalization and ranges stop to move. None freezes the statistics, gamma and
            beta from the start, which is right for short runs; ranges follow the data to the end.
        teacher: a model to learn from, such as the float model; see `distiller`.
        checkpoint: where to save, and to go on from; several processes need one. By default a temporary folder.
        callbacks: further Keras callbacks.
        verbose: of Keras' `fit`.

    Returns:
        The quantized model, ready for `export_tflite`; its `history` is Keras' History.

    Raises:
        ValueError: there is no such recipe, or the checkpoint is another model's.
        FloatingPointError: the loss is no longer a number.

    Reference:
        Krishnamoorthi, arXiv:1806.08342, section 3.2.

    Example:

    >>> quantized = quantize_aware(model, load("digits", image_size=32), epochs=2)  # doctest: +SKIP
    >>> report = export_tflite(quantized, "model.tflite")  # doctest: +SKIP
    """
    if checkpoint is None and processes() > 1:
        raise ValueError("`checkpoint` must be given where several processes train together: all read the best epoch")
    quantized = model if is_quantized(model) else quantize_model(model)
    if freeze is None:
        freeze_normalization(quantized)
    steps = min(-(-CALIBRATION_IMAGES // data.batch_size), data.steps_per_epoch)
    calibrate(quantized, data.train_from(0), steps=steps)
    with contextlib.ExitStack() as stack:
        if checkpoint is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            checkpoint = Checkpoint(folder, keep=1, every=10**9)
        fit(
            quantized,
            data,
            task=task,
            recipe=recipe,
            epochs=epochs,
            learning_rate=learning_rate,
            teacher=teacher,
            checkpoint=checkpoint,
            keep_best=True,
            callbacks=[*callbacks, *([freeze] if freeze else [])],
            verbose=verbose,
        )
    return quantized
