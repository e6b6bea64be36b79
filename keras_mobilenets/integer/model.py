"""What a phone will answer, computed in Keras, bit for bit."""

from __future__ import annotations

import os
from typing import Any

import keras

from keras_mobilenets.integer.building import Builder
from keras_mobilenets.integer.layer import KERNELS
from keras_mobilenets.tflite.edit.endings import without_choice
from keras_mobilenets.tflite.edit.pixels import with_plain_border
from keras_mobilenets.tflite.file import Graph, read_tflite


def integer_model(
    source: keras.Model | str | os.PathLike[str] | bytes, *, kernels: str = "xnnpack", logits: bool = False
) -> keras.Model:
    """Gives the Keras model that computes what the TFLite runtime computes, to the last bit.

    Integer inputs and kernels, int32 biases, exact sums, the runtime's own rounding, saturation and tables. It takes
    batches and runs at about the speed of a float model, so that the accuracy of the deployed file is measured as fast
    as any other, and a wrong phone is told from a wrong model.

    Args:
        source: a quantized model, of which no file is needed, or a full-integer `.tflite` file, as a path or bytes.
        kernels: "xnnpack", the runtime's default on x86 and ARM: products with a float32 scale, rounded half to even;
            or "reference", the fixed-point arithmetic of the kernels that run without XNNPACK, for instance on
            microcontrollers (TensorFlow backend only: it needs 64-bit integers).
        logits: whether to end before the softmax, where nothing is hidden by its flatness.

    Returns:
        A model from the file's integers (batch, height, width, channels), for instance raw uint8 pixels, to the
        file's output integers; of a file that chooses boxes itself, to the encoded boxes and scores that it chooses
        from. Each operation is a layer named by its place: `op_12`.

    Raises:
        ValueError: the file is not full-integer, or has an operation that this model has no arithmetic for.
        RuntimeError: the reference kernels' arithmetic is asked for on JAX without 64-bit integers.

    Example:

    >>> model = integer_model("model.tflite")                                         # doctest: +SKIP
    >>> model.predict(images).argmax(-1)                                              # doctest: +SKIP
    """
    if kernels not in KERNELS:
        raise ValueError(f"`kernels` must be one of {KERNELS}. Received: kernels={kernels!r}")
    return Builder(_graph_of(source), kernels, logits).model()


def _graph_of(source: Any) -> Graph:
    if not isinstance(source, keras.Model):
        return with_plain_border(without_choice(read_tflite(source).graph))
    if not hasattr(source, "integer_graph"):
        raise ValueError("`source` must be a quantized model (see `quantize_model`) or a .tflite file.")
    return source.integer_graph()
