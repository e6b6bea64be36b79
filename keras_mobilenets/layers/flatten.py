"""The flat view of a model: composite for people, flat for compilers."""

from __future__ import annotations

from typing import Any

import keras

from keras_mobilenets.layers.composite import CompositeLayer


def inline(model: keras.Model) -> keras.Model:
    """Gives the flat view of a model: the same primitive layers, without the composites and models around them.

    Every `CompositeLayer` and every nested functional or sequential model, at any depth, is replaced by the layers
    that it applies. These are the same layer objects on the same input tensors: weights are shared and the outputs are
    equal, in training to the bit; at inference composites fold normalizations into their convolutions on TensorFlow,
    which rounds differently in the last place. The feature maps inside are best reached with
    `keras_mobilenets.endpoints`; a layer's own `output` is of the first model that it was part of.

    Args:
        model: a functional or sequential model that has been built.

    Returns:
        A functional model in which no layer holds others that this package knows; `model` itself where it is flat.

    Raises:
        ValueError: `model` is no functional or built sequential model, or two layers of nested models have the same
            name.

    Example:

    >>> inputs = keras.Input((32, 32, 16))
    >>> model = keras.Model(inputs, InvertedResidual(16, name="block_1")(inputs))
    >>> [layer.name for layer in inline(model).layers][1:4]
    ['block_1_expand', 'block_1_expand_bn', 'block_1_expand_relu']
    """
    flat = _as_functional(model)
    while any(_has_parts(operation) or _is_conversion(operation) for operation in flat.operations):
        _check_names(flat)
        flat = _inline_once(flat)
    return flat


def _inline_once(model: keras.Model) -> keras.Model:
    inlined = keras.models.clone_model(
        model, input_tensors=model.input, clone_function=lambda layer: layer, call_function=_call_parts
    )
    # A plain functional model: a subclass, or what it was compiled with, does not belong to the view.
    flat = keras.Model(inlined.input, inlined.output, name=model.name)
    flat.output_names = list(model.output_names)
    return flat


def _call_parts(layer: Any, *args: Any, **kwargs: Any) -> Any:
    if _is_conversion(layer):
        return args[0]
    # `call` leaves the parts in the graph, where `__call__` would leave the whole.
    return layer.call(*args, **kwargs) if _has_parts(layer) else layer(*args, **kwargs)


def _has_parts(layer: Any) -> bool:
    return isinstance(layer, CompositeLayer | keras.Sequential) or _is_functional(layer)


def _is_conversion(operation: Any) -> bool:
    # A functional model's `call` converts what it is given, which leaves an operation that does nothing to a tensor.
    return type(operation).__name__ == "ConvertToTensor"


def _is_functional(layer: Any) -> bool:
    # keras.Model(inputs, outputs) makes an instance of a class that is not public: it is what Keras' Function and
    # Model have in common.
    return isinstance(layer, keras.Model) and isinstance(layer, keras.Function)


def _as_functional(model: Any) -> keras.Model:
    if isinstance(model, keras.Sequential):
        if not model.built:
            raise ValueError(f"`model` must be built: give {model.name!r} a `keras.Input` as its first layer.")
        return keras.Model(model.inputs[0], model.outputs[0], name=model.name)
    if not _is_functional(model):
        raise ValueError(
            "`model` must be a functional or sequential Keras model: the layers of a subclassed one are known only "
            f"to its `call`. Received: {model!r}"
        )
    return model


def _check_names(model: keras.Model) -> None:
    """Names both layers that clash, where Keras would give the name alone."""
    owners: dict[str, str] = {}
    for layer in model.layers:
        nested = isinstance(layer, keras.Model)
        for part in _as_functional(layer).layers if nested else [layer]:
            if isinstance(part, keras.layers.InputLayer) and nested:
                continue
            path = f"{layer.name}/{part.name}" if nested else part.name
            if owners.setdefault(part.name, path) != path:
                raise ValueError(
                    f"Two layers have the name {part.name!r}: {owners[part.name]} and {path}. "
                    "Give one of them another name."
                )
