"""From a Keras model to a `.tflite` file's bytes: a frozen function with a fixed batch, then TensorFlow's converter."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mobilenets.export.signature import Signature, call
from keras_mobilenets.layers import HardSwish, inline
from keras_mobilenets.layers.plain import give_weights
from keras_mobilenets.quantization.kinds import convertible
from keras_mobilenets.serialization import load_model
from keras_mobilenets.utils import SHOWN, output_path, quiet, user_path

INPUT_DTYPES = ("uint8", "int8", "float32")


def load(model: keras.Model | str | os.PathLike[str]) -> keras.Model:
    """The model itself, or the one in a file, whose weights are finite.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a weight is NaN or infinite.
    """
    if isinstance(model, str | os.PathLike):
        model = load_model(model)
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a Keras model, or the path of one. Received: model={model!r}")
    for variable in model.weights:
        values = keras.ops.convert_to_numpy(variable)
        if values.dtype.kind not in "iub" and not np.isfinite(values.astype("float32")).all():
            raise ValueError(
                f"{model.name} has weights that are not finite numbers (NaN or infinity), in {variable.path!r}: its "
                "training diverged. Take weights from before, or train at a lower learning rate."
            )
    return model


def exported_path(path: str | os.PathLike[str]) -> Path:
    """Where an exported file goes, once it is known that nothing is lost by writing it.

    Raises:
        FileExistsError: as of `output_path`.
        ValueError: it is the name of a Keras model, which what is made of it must not replace.
    """
    output_path(path)
    if user_path(path).suffix.lower() in (".keras", ".h5", ".hdf5"):
        raise ValueError(
            f"`path` is that of the file to write, and this is a Keras model's name. Received: path={path}"
        )
    return user_path(path)


def flat_float32(model: keras.Model, signature: Signature) -> keras.Model:
    """The flat view of the model, or a copy of it if some layer computes in another precision than float32.

    A subclassed model has no flat view and is given back as it is, built for what it takes.

    Raises:
        ValueError: a subclassed model is in mixed precision.
    """
    functional = isinstance(model, keras.Function | keras.Sequential)
    if not model.built:
        call(model, [np.zeros((1, *one.example), one.dtype) for one in signature.inputs])
    flat = convertible(inline(model)) if functional else model
    if all(layer.compute_dtype == "float32" for layer in flat.layers):
        return flat
    if not functional:
        raise ValueError(
            f"{model.name} is a subclassed model with layers that compute in lower precision. Make it with "
            "dtype='float32' and copy its weights, then export that."
        )
    copy = keras.models.clone_model(flat, clone_function=_float32_layer)
    for new, old in zip(copy.layers, flat.layers, strict=True):
        give_weights(new, old.get_weights())
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
    signature: Signature,
    *,
    scheme: str | None = None,
    input_dtype: str = "float32",
    output_dtype: str | None = None,
    samples: Sequence[np.ndarray] = (),
) -> bytes:
    """Converts a float32 model, with a batch of one.

    Args:
        model: whose weights are all float32.
        signature: what it takes.
        scheme: None for float32, "dynamic", "float16", "int16x8" or "int8"; the latter
            expects fake quantization in the model.
        input_dtype: of inputs, for "int8".
        output_dtype: of outputs; None is that of the inputs.
        samples: arrays for the inputs, which "int16x8" takes its ranges from; none where the model has fake
            quantization of 16 bits.

    Returns:
        The file as TensorFlow's converter writes it.

    Raises:
        ValueError: the converter cannot do it.
    """
    import tensorflow as tf

    # The empty module stands for "no variables": without one the converter takes a path that it deprecates.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([_frozen(model, signature)], tf.Module())
    if scheme is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if scheme == "float16":
        converter.target_spec.supported_types = [tf.float16]
    elif scheme == "int8":
        converter.inference_input_type = tf.as_dtype(input_dtype)
        converter.inference_output_type = tf.as_dtype(output_dtype or input_dtype)
    elif scheme == "int16x8":
        builtins = tf.lite.OpsSet.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
        converter.target_spec.supported_ops = [builtins]
        if len(samples):
            examples = list(zip(*samples, strict=True))
            converter.representative_dataset = lambda: ([one[None] for one in each] for each in examples)
    with warnings.catch_warnings(), quiet(even_if_it_fails=True):
        # "Statistics for quantized inputs were expected": the fake quantization in the model has them.
        warnings.filterwarnings("ignore", message="Statistics for quantized inputs")
        try:
            return converter.convert()
        except Exception as error:  # ConverterError and whatever else: MLIR's message runs over pages
            raise ValueError(_refusal(model, scheme, str(error))) from error


def _refusal(model: keras.Model, scheme: str | None, message: str) -> str:
    """The converter's message in a sentence: which operation, of which layer."""
    lines = [line.strip() for line in message.splitlines() if line.strip()] or ["no reason is given"]
    first = (
        lines[-1].removeprefix("ValueError: ") if lines[0] == "in user code:" else lines[0]
    )  # TensorFlow's traceback of what it traced
    reason = next(iter(re.findall(r"error: (.*)", message)), first)
    missing = re.findall(r"^\s*(?:TF Select|Flex|Custom) ops: (.*)", message, re.MULTILINE)
    if missing:
        reason = f"TFLite has no {', '.join(missing)}"
    made_by = [layer.name for layer in model.layers if re.search(rf"[/\"]{re.escape(layer.name)}[/_\"]", message)]
    where = f", in layer {' or '.join(map(repr, made_by[:SHOWN]))}" if made_by else ""
    return (
        f"{model.name} cannot be converted to {scheme or 'float32'}: {reason.rstrip('.')}{where}. Replace it by other "
        "layers, or end the model before it and compute the rest outside."
    )


def _frozen(model: keras.Model, signature: Signature) -> Any:
    """The model as one function whose weights are constants.

    A function traced over the live variables keeps them (VAR_HANDLE, unfused batch normalization); a SavedModel on the
    way costs several times as long.
    """
    import tensorflow as tf

    constants = [(variable, tf.constant(variable)) for variable in model.variables]
    # Float where pixels were cast to it: that is part of the input's scale. A subclassed model knows no inputs.
    taken = keras.tree.flatten(getattr(model, "inputs", None) or signature.inputs)
    specs = [
        tf.TensorSpec((1, *one.shape), given.dtype, name=f"input_{number}")  # numbers: TensorFlow changes names
        for number, (one, given) in enumerate(zip(signature.inputs, taken, strict=True))
    ]

    def serve(*inputs):
        with keras.StatelessScope(state_mapping=constants):
            return call(model, inputs)

    try:
        return tf.function(serve).get_concrete_function(*specs)
    except Exception as error:  # of whatever layer
        raise ValueError(_refusal(model, None, str(error))) from error


def require_tensorflow() -> None:
    """TensorFlow's converter sees TensorFlow operations only."""
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise RuntimeError(
            f"A .tflite file is made by TensorFlow, and Keras runs on {backend!r} here. Save the model with "
            "model.save('model.keras') and run: KERAS_BACKEND=tensorflow keras-mobilenets export model.keras"
        )
