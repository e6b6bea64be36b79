"""Quantization from data, without training."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_mobilenets.layers import inline
from keras_mobilenets.layers.replicas import processes
from keras_mobilenets.pixels import PixelScale
from keras_mobilenets.quantization.bias_correction import channel_means, correct_biases
from keras_mobilenets.quantization.quantize import is_quantized, quantize_model, strip_quantization
from keras_mobilenets.quantization.quantizers import FakeQuant, InputQuant

IMAGES = 256  # ranges hardly move after that


def post_training_quantize(model: keras.Model, images: Any, **settings: Any) -> keras.Model:
    """Makes the quantized twin of a model and sets it up from a few hundred images, without training.

    Each feature map gets the range with the least squared error of rounding and clipping; then, from the first layer
    to the last, biases are shifted until each channel has the mean that it has in float. `export_tflite` does the same
    with a float model: the file is the same by either way.

    Args:
        model: as `quantize_model` takes it. It stays unchanged.
        images: whatever `fit` takes: an array, a list or dictionary of arrays for several inputs, a `tf.data.Dataset`,
            a generator. Images as the model takes them; labels are ignored, and the first 256 are used.
        **settings: of `quantize_model`, for instance `target="npu"` or `skip=["predictions"]`.

    Returns:
        A functional `QuantizedModel`, not compiled: to export, or to train on.

    Raises:
        ValueError: the model cannot be quantized, `images` is empty or does not fit the range that the model takes.

    Reference:
        arXiv:1906.04721, section 4.2, for the biases.

    Example:

    >>> model = MobileNet(input_shape=(32, 32, 3), alpha=0.25, weights=None)
    >>> images = np.random.uniform(-1, 1, (16, 32, 32, 3)).astype("float32")
    >>> quantized = post_training_quantize(model, images)
    >>> report = export_tflite(quantized, "model.tflite", verify=images, verbose=False)
    """
    taken = _first(images)
    if settings.get("input_range") is None and hasattr(taken, "shape"):
        scale = PixelScale.known(model, taken)
        settings["input_range"] = scale.ends if scale is not None else None
    quantized = quantize_model(model, **{"observer": "least_error", **settings})
    calibrate(quantized, taken)
    correct_biases(quantized, channel_means(strip_quantization(quantized), taken), taken)
    return quantized


def calibrate(model: keras.Model, data: Any, *, steps: int | None = None, batch_size: int | None = None) -> None:
    """Sets the ranges of a quantized model from data, so that its training starts with them.

    To export without training, `post_training_quantize` gives better answers.

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


def _first(data: Any) -> Any:
    """The first images of what `fit` takes, as arrays."""
    if all(isinstance(one, np.ndarray) for one in keras.tree.flatten(data)):
        return keras.tree.map_structure(lambda one: one[:IMAGES], data)
    taken, count = [], 0
    for batch in data:
        inputs = batch[0] if isinstance(batch, tuple) else batch
        taken.append(keras.tree.map_structure(np.asarray, inputs))
        count += len(keras.tree.flatten(taken[-1])[0])
        if count >= IMAGES:
            break
    if not taken:
        raise ValueError("There are no images in `images`: it is empty.")
    return keras.tree.map_structure(lambda *parts: np.concatenate(parts)[:IMAGES], *taken)
