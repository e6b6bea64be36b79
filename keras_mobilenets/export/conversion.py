"""From a Keras model to a `.tflite` file's bytes: a frozen function with a fixed batch, then TensorFlow's converter."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_mobilenets.layers import HardSwish, inline
from keras_mobilenets.utils import user_path

INPUT_DTYPES = ("uint8", "int8", "float32")


def load(model: keras.Model | str | os.PathLike[str]) -> keras.Model:
    """The model itself, or the one in a `.keras` file."""
    if isinstance(model, keras.Model):
        return model
    path = user_path(model)
    if not path.is_file():
        raise FileNotFoundError(f"No such .keras file: {path}")
    return keras.models.load_model(path, compile=False)


def image_shape(model: keras.Model, given: tuple[int, ...] | None) -> tuple[int, int, int]:
    """(height, width, channels) of what the file will take.

    Raises:
        ValueError: the model has not one image input, or neither it nor the caller says its size.
    """
    inputs = list(model.inputs) if isinstance(model, keras.Function | keras.Sequential) and model.built else []
    if not inputs and given is None:
        raise ValueError(f"{model.name} does not know its input: pass `input_shape=(height, width, channels)`.")
    if len(inputs) > 1 or (inputs and len(inputs[0].shape) != 4):
        shapes = [one.shape for one in inputs]
        raise ValueError(f"{model.name}: one image input (batch, height, width, channels) is needed. It has: {shapes}")
    known = inputs[0].shape[1:] if inputs else (None, None, None)
    shape = tuple(given) if given is not None else known
    if len(shape) != 3 or None in shape:
        raise ValueError(
            f"{model.name} takes images of any size: {known}. A file needs one: pass "
            "`input_shape=(height, width, channels)`, for instance input_shape=(224, 224, 3)."
        )
    if any(size not in (None, wanted) for size, wanted in zip(known, shape, strict=True)):
        raise ValueError(f"`input_shape` must fit the model's {known}. Received: input_shape={shape}")
    height, width, channels = (int(size) for size in shape if size is not None)
    return height, width, channels


def flat_float32(model: keras.Model, shape: tuple[int, int, int]) -> keras.Model:
    """The flat view of the model, or a copy of it if some layer computes in another precision than float32.

    A subclassed model has no flat view and is given back as it is, built for images of `shape`.

    Raises:
        ValueError: a subclassed model is in mixed precision.
    """
    functional = isinstance(model, keras.Function | keras.Sequential)
    if not model.built:
        model(np.zeros((1, *shape), "float32"), training=False)
    flat = inline(model) if functional else model
    if all(layer.compute_dtype == "float32" for layer in flat.layers):
        return flat
    if not functional:
        raise ValueError(
            f"{model.name} is a subclassed model with layers that compute in lower precision. Make it with "
            "dtype='float32' and copy its weights, then export that."
        )
    copy = keras.models.clone_model(flat, clone_function=_float32_layer)
    copy.set_weights(flat.get_weights())
    return copy


def _float32_layer(layer: keras.layers.Layer) -> keras.layers.Layer:
    return type(layer).from_config({**layer.get_config(), "dtype": "float32"})


class _UnfusedHardSwish(keras.layers.Layer):
    """Hard-swish in an order of operations that the converter does not recognize."""

    def call(self, inputs):
        return keras.ops.relu6(inputs + 3.0) * (inputs * (1.0 / 6.0))


def without_hard_swish(flat: keras.Model) -> keras.Model:
    """The same function without TFLite's HARD_SWISH, which has no 16-bit form."""

    def replace(layer):
        named = getattr(getattr(layer, "activation", None), "__name__", "") in ("hard_swish", "hard_silu")
        is_swish = isinstance(layer, HardSwish) or (isinstance(layer, keras.layers.Activation) and named)
        return _UnfusedHardSwish(name=layer.name) if is_swish else layer

    return keras.models.clone_model(flat, clone_function=replace)


def convert(
    model: keras.Model,
    shape: tuple[int, int, int],
    *,
    scheme: str | None = None,
    input_dtype: str = "float32",
    samples: Sequence[np.ndarray] = (),
) -> bytes:
    """Converts a float32 model, with a batch of one.

    Args:
        model: whose weights are all float32.
        shape: (height, width, channels).
        scheme: None for float32, "dynamic", "float16", "int16x8" or "int8"; the latter
            expects fake quantization in the model.
        input_dtype: of input and output, for "int8".
        samples: images, which "int16x8" takes its ranges from; none where the model has fake quantization of 16 bits.

    Returns:
        The file as TensorFlow's converter writes it.

    Raises:
        ValueError: the converter cannot do it.
    """
    import tensorflow as tf

    # The empty module stands for "no variables": without one the converter takes a path that it deprecates.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([_frozen(model, shape)], tf.Module())
    if scheme is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if scheme == "float16":
        converter.target_spec.supported_types = [tf.float16]
    elif scheme == "int8":
        dtype = tf.as_dtype(input_dtype)
        converter.inference_input_type = converter.inference_output_type = dtype
    elif scheme == "int16x8":
        builtins = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        converter.target_spec.supported_ops = [builtins]
        if len(samples):
            converter.representative_dataset = lambda: ([image[None]] for image in samples)
    with warnings.catch_warnings():
        # "Statistics for quantized inputs were expected": the fake quantization in the model has them.
        warnings.filterwarnings("ignore", message="Statistics for quantized inputs")
        try:
            return converter.convert()
        except (RuntimeError, ValueError) as error:  # MLIR's message runs over pages, the reason comes first
            reason = str(error).strip().splitlines()[0]
            raise ValueError(f"{model.name} cannot be converted to {scheme or 'float32'}: {reason}") from error


def _frozen(model: keras.Model, shape: tuple[int, int, int]) -> Any:
    """The model as one function whose weights are constants.

    A function traced over the live variables keeps them (VAR_HANDLE, unfused batch normalization); a SavedModel on the
    way costs several times as long.
    """
    import tensorflow as tf

    constants = [(variable, tf.constant(variable)) for variable in model.variables]

    def serve(image):
        with keras.StatelessScope(state_mapping=constants):
            return keras.tree.flatten(model(image, training=False))

    return tf.function(serve).get_concrete_function(tf.TensorSpec((1, *shape), tf.float32, name="image"))


def require_tensorflow() -> None:
    """TensorFlow's converter sees TensorFlow operations only."""
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise RuntimeError(
            f"A .tflite file is made by TensorFlow, and Keras runs on {backend!r} here. Save the model with "
            "model.save('model.keras') and run: KERAS_BACKEND=tensorflow keras-mobilenets export model.keras"
        )
