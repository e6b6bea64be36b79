"""The same function in Keras' own layers, for people without this package."""

from __future__ import annotations

from typing import Any

import keras

from keras_mobilenets.layers.activations import HardSigmoid, HardSwish
from keras_mobilenets.layers.convolution import Conv2D
from keras_mobilenets.layers.flatten import inline
from keras_mobilenets.layers.layer_scale import LayerScale
from keras_mobilenets.layers.mobile_mqa import MultiQueryAttention
from keras_mobilenets.layers.normalization import BatchNormalization

_SAME_CONFIG: dict[type, Any] = {
    Conv2D: keras.layers.Conv2D,
    BatchNormalization: keras.layers.BatchNormalization,
}
_ACTIVATIONS: dict[type, str] = {HardSwish: "hard_swish", HardSigmoid: "hard_sigmoid"}


def plain(model: keras.Model) -> keras.Model:
    """Gives the same function in Keras' own layers only.

    What it saves loads where this package is not installed. It is flat, as `inline(model)` is, has weights of its own
    with the same names, and can be trained; what makes this package's layers faster is gone.

    Args:
        model: a functional or sequential float model. It stays unchanged.

    Returns:
        A functional model, not compiled.

    Raises:
        ValueError: a layer of this package has no counterpart: `strip_quantization` comes first, for a quantized model.

    Example:

    >>> model = plain(MobileNetV3Small((32, 32, 3), alpha=0.25, weights=None, classes=5))
    >>> {type(layer).__module__.partition(".")[0] for layer in model.layers}
    {'keras'}
    """
    flat = inline(model)
    pairs: list[tuple[Any, Any]] = []

    def clone(layer: Any) -> Any:
        pairs.append((layer, _counterpart(layer)))
        return pairs[-1][1]

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(layer, MultiQueryAttention):  # of several layers of Keras
            return layer.in_keras_layers(*keras.tree.flatten(args))
        return layer(*args, **kwargs)

    copy = keras.models.clone_model(flat, clone_function=clone, call_function=call)
    for old, new in pairs:
        if old.weights:
            give_weights(new, old.get_weights())
    return copy


def give_weights(layer: Any, weights: list[Any]) -> None:
    """Sets weights, and what a layer computes from them: a `Normalization` forgets what it was adapted to else."""
    layer.set_weights(weights)
    if isinstance(layer, keras.layers.Normalization):
        layer.finalize_state()


def _counterpart(layer: Any) -> Any:
    """A layer of Keras that computes the same; its weights are not copied."""
    kind, config = type(layer), layer.get_config()
    if not (kind.__module__.startswith("keras_mobilenets") and kind is not MultiQueryAttention):
        return kind.from_config(config)
    if kind in _SAME_CONFIG:
        return _SAME_CONFIG[kind].from_config(config)
    common: dict[str, Any] = {key: config[key] for key in ("name", "trainable", "dtype")}
    if kind in _ACTIVATIONS:
        return keras.layers.Activation(_ACTIVATIONS[kind], **common)
    if kind is LayerScale:
        axes = "abcdefgh"[: len(layer.input.shape)]
        return keras.layers.EinsumDense(f"{axes},{axes[-1]}->{axes}", layer.input.shape[1:], **common)
    raise ValueError(
        f"Layer {layer.name!r} ({kind.__name__}) has no counterpart among Keras' own layers. Of a quantized model give "
        "what `strip_quantization` gives."
    )
