"""The ways in which numbers are stored in the file, and how a model gets there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from keras_mobilenets.export import conversion
from keras_mobilenets.pixels import PixelScale
from keras_mobilenets.quantization import (
    FakeQuant,
    calibrate,
    deployable,
    is_quantized,
    quantize_model,
    strip_quantization,
)
from keras_mobilenets.quantization.bias_correction import channel_means, correct_biases

SCHEMES = ("auto", None, "dynamic", "float16", "int8", "int16x8")


@dataclass(frozen=True)
class Converted:
    """A converted model.

    Attributes:
        content: the file as the converter made it.
        scheme: one of `SCHEMES`, with "auto" decided.
        reference: the Keras model that the file must answer like, in float32 or with fake quantization.
        is_post_training: whether `reference` was quantized here.
        layer_names: of what was converted.
    """

    content: bytes
    scheme: str | None
    reference: keras.Model
    is_post_training: bool
    layer_names: tuple[str, ...]


def convert(
    model: keras.Model,
    shape: tuple[int, int, int],
    *,
    quantize: str | None,
    target: str,
    input_dtype: str,
    calibration: Callable[[], np.ndarray],
    scale: PixelScale | None = None,
) -> Converted:
    """Converts a model by a scheme.

    Args:
        model: float or quantized.
        shape: (height, width, channels).
        quantize: one of `SCHEMES`.
        target: what will run an int8 file.
        input_dtype: of an int8 file's input and output.
        calibration: gives images as the model takes them, for the schemes that need ranges.
        scale: from pixels to what the model takes.

    Returns:
        A `Converted`.
    """
    quantized = is_quantized(model)
    own = _scheme_of(model) if quantized else None
    scheme = own if quantize == "auto" else quantize
    if own == "int16x8" and scheme == "int8":
        raise ValueError(f"{model.name} is quantized with feature maps of 16 bits: `quantize` must be 'int16x8'.")
    if scheme == "int8" or (scheme == "int16x8" and own == scheme):
        reference = model if quantized else post_training_quantized(model, target, calibration(), scale)
        flat = deployable(reference, target=target)
    else:
        flat = reference = conversion.flat_float32(strip_quantization(model) if quantized else model, shape)
    samples: Sequence[np.ndarray] = ()
    if scheme == "int16x8" and own != scheme:
        samples, flat = list(calibration()), conversion.without_hard_swish(flat)
    content = conversion.convert(flat, shape, scheme=scheme, input_dtype=input_dtype, samples=samples)
    names = tuple(layer.name for layer in flat.layers)
    return Converted(content, scheme, reference, scheme == "int8" and not quantized, names)


def _scheme_of(model: keras.Model) -> str:
    """What a quantized model was quantized for."""
    widths = {layer.bits for layer in model.layers if isinstance(layer, FakeQuant)}
    return "int16x8" if widths == {16} else "int8"


def post_training_quantized(
    model: keras.Model, target: str, images: np.ndarray, scale: PixelScale | None = None
) -> keras.Model:
    """The quantized twin of a float model, with ranges and corrected biases from images, as the model takes them."""
    scale = scale or PixelScale.known(model, images)
    quantized = quantize_model(model, target=target, observer="min_max", input_range=scale.range if scale else None)
    calibrate(quantized, images)
    correct_biases(quantized, channel_means(strip_quantization(quantized), images), images)
    return quantized
