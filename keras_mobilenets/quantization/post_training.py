"""Ranges from data, without training."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_mobilenets.layers import inline
from keras_mobilenets.layers.replicas import processes
from keras_mobilenets.quantization.quantize import is_quantized
from keras_mobilenets.quantization.quantizers import FakeQuant, InputQuant


def calibrate(model: keras.Model, data: Any, *, steps: int | None = None, batch_size: int | None = None) -> None:
    """Sets the ranges of a quantized model from data: post-training quantization is this, and then export.

    The data run through the model at inference, with quantized kernels and float feature maps, and each range is
    observed anew. A few hundred images do; they need no labels.

    Args:
        model: a model from `quantize_model`; its ranges are set in place.
        data: whatever `fit` takes: an array, a `tf.data.Dataset`, a generator, a `keras.utils.PyDataset`. Images as
            the model takes them; labels are ignored.
        steps: number of batches to take; all by default. A generator without end needs it.
        batch_size: for arrays, 32 by default.

    Raises:
        ValueError: `model` is not quantized, `data` is empty, or its values are not in the range that the model was
            quantized for.

    Example:

    >>> quantized = quantize_model(MobileNet(input_shape=(32, 32, 3), alpha=0.25, weights=None))
    >>> images = np.random.uniform(-1, 1, (16, 32, 32, 3)).astype("float32")
    >>> calibrate(quantized, images, batch_size=8)
    >>> quantized.get_layer("conv1_relu_quant").range[0]
    0.0
    """
    if not is_quantized(model):
        raise ValueError(f"Model {model.name!r} is not quantized. Call quantize_model first.")
    flat = inline(model)
    quantizers = [layer for layer in flat.layers if isinstance(layer, FakeQuant | InputQuant)]
    # A model of its own: what `predict` compiled for the given one does not observe.
    observing = keras.Model(flat.input, flat.output)
    # Tracing takes longer than running a few hundred images does; JAX, which compiles each operation, is faster traced.
    observing.compile(run_eagerly=keras.backend.backend() != "jax", jit_compile=keras.backend.backend() == "jax")
    for layer in quantizers:
        layer.reset()
        layer.calibrating = True
    try:
        if processes() == 1:
            observing.predict(data, batch_size=batch_size, steps=steps, verbose=0)
        else:  # all are given the same data; `predict` gathers its answers, which several processes cannot
            for images in _batches(data, steps, batch_size or 32):
                observing.predict_on_batch(images)
    finally:
        for layer in quantizers:
            layer.calibrating = False
    for layer in quantizers:
        layer.check()


def _batches(data: Any, steps: int | None, batch_size: int) -> Iterator[np.ndarray]:
    if isinstance(data, np.ndarray):
        data = [data[start : start + batch_size] for start in range(0, len(data), batch_size)]
    for batch in itertools.islice(data, steps):
        yield np.asarray(batch[0] if isinstance(batch, tuple | list) else batch)
