"""Choosing layer by layer what is quantized: the interface of tfmot, for those who know it."""

from __future__ import annotations

from typing import Any

import keras

from keras_mobilenets.layers import CompositeLayer, inline
from keras_mobilenets.quantization.config import QuantizeAnnotate, QuantizeConfig

Annotations = dict[int, QuantizeConfig | None]
"""The annotated layers of a flat model, by `id`."""


def quantize_annotate_layer(layer: keras.layers.Layer, quantize_config: QuantizeConfig | None = None) -> Any:
    """Marks a layer to be quantized by `quantize_apply`.

    Args:
        layer: any layer, a composite one or a nested model too: then all its parts are marked.
        quantize_config: what of it is quantized; None for what the package does by default.

    Returns:
        A layer to use in place of `layer`, also as the result of a `clone_function` of `keras.models.clone_model`.

    Raises:
        TypeError: `layer` is no layer, or `quantize_config` no `QuantizeConfig`.

    Example:

    >>> from keras_mobilenets.quantization import is_quantized, quantize_apply
    >>> model = keras.Sequential([
    ...     keras.Input((32,)),
    ...     keras.layers.Dense(16, activation="relu"),
    ...     quantize_annotate_layer(keras.layers.Dense(10)),
    ... ])
    >>> is_quantized(quantize_apply(model))
    True
    """
    if not isinstance(layer, keras.layers.Layer):
        raise TypeError(f"`layer` must be a Keras layer. Received: layer={layer!r}")
    if quantize_config is not None and not isinstance(quantize_config, QuantizeConfig):
        raise TypeError(f"`quantize_config` must be a QuantizeConfig. Received: quantize_config={quantize_config!r}")
    return QuantizeAnnotate(layer, quantize_config)


def see_through(model: keras.Model) -> tuple[keras.Model, Annotations]:
    """The flat view of a model without its annotations, and these."""
    found: Annotations = {}

    def call(layer, *args, **kwargs):
        if not isinstance(layer, QuantizeAnnotate):
            return layer(*args, **kwargs)
        found.update({id(part): layer.quantize_config for part in _parts(layer.layer, args[0])})
        return layer.layer(*args, **kwargs)

    flat = inline(model)
    while any(isinstance(layer, QuantizeAnnotate) for layer in flat.layers):
        flat = keras.models.clone_model(
            keras.Model(flat.input, flat.output, name=flat.name),
            input_tensors=flat.input,
            clone_function=lambda layer: layer,
            call_function=call,
        )
        flat = inline(flat)
    return flat, found


def _parts(layer: Any, inputs: Any) -> list[Any]:
    if not isinstance(layer, CompositeLayer | keras.Model):
        return [layer]
    copies = keras.tree.map_structure(lambda tensor: keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype), inputs)
    return inline(keras.Model(copies, layer(copies))).layers
