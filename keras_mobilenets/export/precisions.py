"""The ways in which numbers are stored in the file, and how a model gets there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import keras
import numpy as np

from keras_mobilenets.export import conversion
from keras_mobilenets.export.samples import Samples
from keras_mobilenets.export.signature import Signature, structured
from keras_mobilenets.export.sizing import Sizing
from keras_mobilenets.quantization import (
    FakeQuant,
    deployable,
    is_quantized,
    post_training_quantize,
    strip_quantization,
)
from keras_mobilenets.quantization.fold import integer_operations
from keras_mobilenets.quantization.settings import UNFUSED_HARD_SWISH

SCHEMES = ("auto", None, "dynamic", "float16", "int8", "int16x8")


@dataclass(frozen=True)
class Converted:
    """A converted model.

    Attributes:
        content: the file as the converter made it.
        signature: what it takes and gives.
        left_out: what is in front of the model and not in the file; None for nothing.
        scheme: one of `SCHEMES`, with "auto" decided.
        reference: the Keras model that the file must answer like, in float32 or with fake quantization.
        is_post_training: whether `reference` was quantized here.
        layer_names: of what was converted.
        origin: by the name of a layer of these the operation of `reference` that it ends, and its factor.
    """

    content: bytes
    signature: Signature
    left_out: Sizing | None
    scheme: str | None
    reference: keras.Model
    is_post_training: bool
    layer_names: tuple[str, ...]
    origin: dict[str, tuple[str, float]]


def convert(
    model: keras.Model,
    signature: Signature,
    samples: Samples,
    sizing: Sizing,
    *,
    quantize: str | None,
    target: str,
    input_dtype: str,
    output_dtype: str | None = None,
) -> Converted:
    """Converts a model by a scheme.

    What brings pictures to size is left out of integer files, whose pixels are those that the model computes with, and
    of others where no runtime does as Keras, or any size may go in. Else it is a part of the file.

    Args:
        model: float or quantized.
        signature: what it takes and gives.
        samples: for the schemes that need ranges.
        sizing: what brings pictures to size in front of the model.
        quantize: one of `SCHEMES`.
        target: what will run an int8 file.
        input_dtype: of an int8 file's inputs.
        output_dtype: of its outputs; None is that of the inputs.

    Returns:
        A `Converted`.
    """
    quantized = is_quantized(model)
    own = _scheme_of(model) if quantized else None
    scheme = own if quantize == "auto" else quantize
    if own == "int16x8" and scheme == "int8":
        raise ValueError(f"{model.name} is quantized with feature maps of 16 bits: `quantize` must be 'int16x8'.")
    left_out: Sizing | None = sizing or None
    if scheme == "int8" or (scheme == "int16x8" and own == scheme):
        reference = model if quantized else _post_training(model, signature, samples, target)
        flat = deployable(reference, target=target)
    else:
        flat = reference = conversion.flat_float32(strip_quantization(model) if quantized else model, signature)
        if scheme != "int16x8" and sizing.is_convertible and not any(None in one.shape for one in signature.inputs):
            left_out = None
        flat = Sizing(reference).without() if left_out else reference
    arrays: Sequence[np.ndarray] = ()
    if scheme == "int16x8" and own != scheme:
        arrays, flat = samples.for_calibration(), conversion.without_hard_swish(flat)
        arrays = left_out(arrays) if left_out else arrays
    taken = signature.behind(flat)
    content = conversion.convert(
        *(flat, taken),
        scheme=scheme,
        input_dtype=input_dtype,
        output_dtype=output_dtype,
        samples=arrays,
    )
    names = tuple(layer.name for layer in flat.layers)
    origin = _origin(reference, target) if is_quantized(reference) else {}
    return Converted(content, taken, left_out, scheme, reference, scheme == "int8" and not quantized, names, origin)


def _origin(quantized: keras.Model, target: str) -> dict[str, tuple[str, float]]:
    """The names that a converter may give the result of an operation: those of all that is computed with it."""
    origin = {}
    for operation in integer_operations(quantized, target in UNFUSED_HARD_SWISH):
        gate = [f"{operation.gate.name}_relu6"] if operation.gate is not None else []
        for name in [*(node.name for node in operation.nodes), *gate]:
            origin[name] = operation.name, operation.factor
    return origin


def _scheme_of(model: keras.Model) -> str:
    """What a quantized model was quantized for."""
    widths = {layer.bits for layer in model.layers if isinstance(layer, FakeQuant)}
    return "int16x8" if widths == {16} else "int8"


def _post_training(model: keras.Model, signature: Signature, samples: Samples, target: str) -> keras.Model:
    ranges = {
        one.name: scale.ends if scale is not None else None
        for one, scale in zip(signature.inputs, samples.scales, strict=True)
    }
    given = next(iter(ranges.values())) if len(ranges) == 1 else ranges
    return post_training_quantize(model, structured(model, samples.for_calibration()), target=target, input_range=given)
