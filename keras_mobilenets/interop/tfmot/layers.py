"""The layers of a Keras 2 twin: those that tf_keras has under the same name, and those of our own that it lacks.

tfmot prunes a model only if it knows each of its layers, or the layer has a method `get_prunable_weights`.
"""

from __future__ import annotations

import inspect
from typing import Any

import keras

from keras_mobilenets.layers import BatchNormalization
from keras_mobilenets.layers import HardSigmoid as Keras3HardSigmoid
from keras_mobilenets.layers import HardSwish as Keras3HardSwish
from keras_mobilenets.layers.convolution import Conv2D
from keras_mobilenets.utils import require

tf_keras: Any = require("tf_keras", "tfmot")

_register = tf_keras.utils.register_keras_serializable("keras_mobilenets")


class NothingToPrune:
    """Mixed into a layer that tfmot does not know and that has no kernel."""

    def get_prunable_weights(self) -> list:
        return []


class _Stepwise(NothingToPrune):
    """Mixed into a layer that is two integer operations: between them stands an activation, as tfmot calls it.

    It changes nothing, until a QuantizeConfig puts a quantizer in its place.
    """

    activation = staticmethod(tf_keras.activations.linear)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape


@_register
class HardSigmoid(_Stepwise, tf_keras.layers.Layer):
    """`relu6(x + 3) / 6`: Keras 2's own hard-sigmoid is another function."""

    def call(self, inputs):
        return self.activation(tf_keras.activations.relu(inputs + 3.0, max_value=6.0)) * (1.0 / 6.0)


@_register
class Rescaling(_Stepwise, tf_keras.layers.Layer):
    """`scale * x + offset`, both numbers or one for each channel."""

    def __init__(self, scale, offset=0.0, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale
        self.offset = offset

    def call(self, inputs):
        scaled = tf_keras.backend.cast(inputs, self.compute_dtype) * self.scale
        return self.activation(scaled) + self.offset

    def get_config(self):
        return {**super().get_config(), "scale": self.scale, "offset": self.offset}


@_register
class HardSwish(NothingToPrune, tf_keras.layers.Layer):
    """`x * relu6(x + 3) / 6`."""

    def call(self, inputs):
        return inputs * tf_keras.activations.relu(inputs + 3.0, max_value=6.0) * (1.0 / 6.0)

    def compute_output_shape(self, input_shape):
        return input_shape


_SAME_NAME = (
    *("Add", "Average", "AveragePooling2D", "BatchNormalization", "Concatenate", "Conv2D", "Conv2DTranspose"),
    *("Cropping2D", "Dense", "DepthwiseConv2D", "Dropout", "ELU", "Flatten", "GaussianDropout", "GaussianNoise"),
    *("GlobalAveragePooling2D", "GlobalMaxPooling2D", "MaxPooling2D", "Maximum", "Minimum", "Multiply", "PReLU"),
    *("Permute", "ReLU", "Reshape", "SeparableConv2D", "Softmax", "SpatialDropout2D", "Subtract", "UpSampling2D"),
    "ZeroPadding2D",
)
_UNKNOWN_TO_TFMOT = (
    *("CenterCrop", "Identity", "RandomBrightness", "RandomContrast", "RandomFlip", "RandomRotation"),
    *("RandomTranslation", "RandomZoom", "Resizing"),
)


def _known_to_tfmot(name: str) -> type:
    return _register(type(name, (NothingToPrune, getattr(tf_keras.layers, name)), {}))


FRONT_LAYERS: dict[str, type] = {name: _known_to_tfmot(name) for name in _UNKNOWN_TO_TFMOT}
"""Cropping and augmentation."""
_TWINS: dict[type, type] = {
    **{getattr(keras.layers, name): getattr(tf_keras.layers, name) for name in _SAME_NAME},
    **{getattr(keras.layers, name): twin for name, twin in FRONT_LAYERS.items()},
    keras.layers.Rescaling: Rescaling,
    BatchNormalization: tf_keras.layers.BatchNormalization,
    Conv2D: tf_keras.layers.Conv2D,
    Keras3HardSwish: HardSwish,
    Keras3HardSigmoid: HardSigmoid,
}
_OWN_ACTIVATIONS: dict[str, Any] = {
    "relu6": lambda **kwargs: tf_keras.layers.ReLU(6.0, **kwargs),
    "hard_silu": HardSwish,
    "hard_sigmoid": HardSigmoid,
}
_SAME_ACTIVATIONS = {
    **{name: name for name in ("elu", "exponential", "gelu", "linear", "relu", "selu", "sigmoid", "softmax")},
    **{name: name for name in ("softplus", "softsign", "tanh")},
    "silu": "swish",
}


def twin_layers(layer: keras.layers.Layer) -> list[Any]:
    """The tf_keras layers that compute, one after the other, what a Keras 3 layer does; without its weights.

    Raises:
        ValueError: there are none.
    """
    if isinstance(layer, keras.layers.Activation):
        activation, own = _activation(layer)
        if own is not None:
            return [own(name=layer.name)]
        return [tf_keras.layers.Activation(activation, name=layer.name)]
    twin = _TWINS.get(type(layer))
    if twin is None:
        raise ValueError(
            f"Layer {layer.name!r} ({type(layer).__name__}) has no twin in tf_keras. Leave it out of the model that "
            f"goes through tfmot, or use one of {sorted(known.__name__ for known in _TWINS)}."
        )
    config = _config(layer, twin)
    if "activation" not in config:
        return [twin(**config)]
    config["activation"], own = _activation(layer)
    main = twin(**config)
    return [main] if own is None else [main, own(name=f"{layer.name}_{_activation_name(layer)}")]


def _config(layer: keras.layers.Layer, twin: type) -> dict[str, Any]:
    """What the twin takes of a layer's config; initial values are not needed, the weights are copied."""
    known = {"name", "trainable", *inspect.signature(twin).parameters} - {"dtype", "seed"}
    return {
        key: value for key, value in layer.get_config().items() if key in known and not key.endswith("_initializer")
    }


def _activation(layer: Any) -> tuple[str | None, Any]:
    """The activation's name in tf_keras, and the layer of our own that takes its place where it has none."""
    name = _activation_name(layer)
    if name in _OWN_ACTIVATIONS:
        return None, _OWN_ACTIVATIONS[name]
    if name not in _SAME_ACTIVATIONS:
        known = sorted([*_SAME_ACTIVATIONS, *_OWN_ACTIVATIONS])
        raise ValueError(f"Layer {layer.name!r} has the activation {name!r}. With a twin in tf_keras: {known}.")
    return _SAME_ACTIVATIONS[name], None


def _activation_name(layer: Any) -> str:
    return getattr(layer.activation, "__name__", type(layer.activation).__name__)
