"""Layer by layer: what of a layer is quantized, and how many bits it gets."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_mobilenets.arguments import check_integers, check_range
from keras_mobilenets.quantization.grid import fake_quant_kernel
from keras_mobilenets.quantization.observers import Observer, get_observer


def check_layer(layer: Any) -> None:
    """Refuses what is no layer."""
    if not isinstance(layer, keras.layers.Layer):
        raise ValueError(f"`layer` must be a Keras layer. Received: layer={layer!r}")


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class QuantizeConfig:
    """Says what of a layer is quantized.

    For layers that the package knows it overrides the settings of `quantize_model`; for a user's own layer it is how
    the layer becomes known.

    Args:
        weights: for own layers: name of each attribute that holds a weight to quantize, with the axis of its output
            channels, each of which gets a grid (None: one grid for the whole weight).
        output: whether the layer's output is rounded: True with an observed range, False not at all (for a layer that
            only moves values around), or a fixed range (low, high).
        weight_bits: width of the weights' integers, 2 to 8; None as `quantize_model` says.
        activation_bits: width of the output's integers, 2 to 16; None as `quantize_model` says.
        observer: how the output's range is found; None as `quantize_model` says.

    Example: a layer of one's own

    >>> from keras_mobilenets.quantization import quantize_model
    >>> @keras.saving.register_keras_serializable()
    ... class Scale(keras.layers.Layer):
    ...     def build(self, input_shape):
    ...         self.factor = self.add_weight(shape=(input_shape[-1],), initializer="ones")
    ...
    ...     def call(self, inputs):
    ...         return inputs * self.factor
    >>> inputs = keras.Input((8, 8, 3))
    >>> model = keras.Model(inputs, Scale(name="scale")(inputs))
    >>> quantized = quantize_model(model, configs={"scale": QuantizeConfig({"factor": None})})
    """

    def __init__(
        self,
        weights: dict[str, int | None] | None = None,
        *,
        output: bool | tuple[float, float] = True,
        weight_bits: int | None = None,
        activation_bits: int | None = None,
        observer: str | Observer | None = None,
    ):
        if not isinstance(weights, dict | None):
            raise ValueError(f"`weights` must be a dictionary of axes. Received: weights={weights!r}")
        check_integers("[2, 8]", optional=True, weight_bits=weight_bits)
        check_integers("[2, 16]", optional=True, activation_bits=activation_bits)
        if not isinstance(output, bool):
            check_range(output=output)
        self.weights = dict(weights or {})
        self.output = output if isinstance(output, bool) else (float(output[0]), float(output[1]))
        self.weight_bits = weight_bits
        self.activation_bits = activation_bits
        self.observer = None if observer is None else get_observer(observer)

    def get_config(self) -> dict[str, Any]:
        return {
            "weights": self.weights,
            "output": self.output,
            "weight_bits": self.weight_bits,
            "activation_bits": self.activation_bits,
            "observer": self.observer and keras.saving.serialize_keras_object(self.observer),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> QuantizeConfig:
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class QuantizeAnnotate(keras.layers.Wrapper):
    """Marks a layer to be quantized by `quantize_apply`; it computes what the layer computes.

    Args:
        layer: the layer, a composite one or a nested model too.
        quantize_config: what of it is quantized; None for what the package does by default.

    Input and output shape: those of the layer.

    Example:

    >>> QuantizeAnnotate(keras.layers.Dense(4))(np.ones((1, 3), "float32")).shape
    TensorShape([1, 4])
    """

    def __init__(self, layer: keras.layers.Layer, quantize_config: Any = None, **kwargs: Any):
        check_layer(layer)
        super().__init__(layer, **{"name": f"annotate_{layer.name}", **kwargs})
        if isinstance(quantize_config, dict):
            quantize_config = keras.saving.deserialize_keras_object(quantize_config)
        self.quantize_config = quantize_config

    def call(self, inputs, **kwargs):
        return self.layer(inputs, **kwargs)

    def compute_output_spec(self, inputs, **kwargs):
        return self.layer.compute_output_spec(inputs, **kwargs)

    def get_config(self):
        config = self.quantize_config and keras.saving.serialize_keras_object(self.quantize_config)
        return {**super().get_config(), "quantize_config": config}


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class QuantWeights(keras.layers.Wrapper):
    """Runs a user's own layer with fake-quantized weights.

    Args:
        layer: the layer.
        axes: name of each attribute that holds a weight to quantize, with the axis of its output channels or None.
        weight_bits: width of the weights' integers, 2 to 8.

    Input and output shape: those of the layer.

    Raises:
        ValueError: the layer has no weight of such a name.

    Example:

    >>> layer = QuantWeights(keras.layers.PReLU(), {"alpha": None})
    >>> layer(-np.ones((1, 3), "float32")).shape
    TensorShape([1, 3])
    """

    def __init__(self, layer: keras.layers.Layer, axes: dict[str, int | None], weight_bits: int = 8, **kwargs: Any):
        check_layer(layer)
        check_integers("[2, 8]", weight_bits=weight_bits)
        super().__init__(layer, **{"name": layer.name, **kwargs})
        self.axes = axes
        self.weight_bits = weight_bits

    def build(self, input_shape=None):
        super().build(input_shape)
        for name in self.axes:
            if not isinstance(getattr(self.layer, name, None), keras.Variable):
                raise ValueError(
                    f"Layer {self.layer.name!r} has no weight in an attribute {name!r}, which its QuantizeConfig names."
                )

    def quantized_weights(self) -> dict[str, Any]:
        """Each weight on its integer grid, by the name of its attribute."""
        quantized = {}
        for name, axis in self.axes.items():
            weight = ops.cast(getattr(self.layer, name), "float32")
            channels = () if axis is None else (axis % len(weight.shape),)
            axes = tuple(other for other in range(len(weight.shape)) if other not in channels)
            quantized[name] = fake_quant_kernel(weight, axes, self.weight_bits)
        return quantized

    def call(self, inputs, **kwargs):
        variables = self.layer.variables
        replaced = {id(getattr(self.layer, name)): value for name, value in self.quantized_weights().items()}
        # The layer reads its variables from the scope, which holds rounded values for some of them ...
        scope = keras.StatelessScope([(v, ops.cast(replaced.get(id(v), v.value), v.dtype)) for v in variables])
        with scope:
            outputs = self.layer(inputs, **kwargs)
        # ... and writes to it: what it has changed is brought out.
        for variable in variables:
            if id(variable) not in replaced and not variable.trainable:
                variable.assign(scope.get_current_value(variable))
        return outputs

    def compute_output_spec(self, inputs, **kwargs):
        return self.layer.compute_output_spec(inputs, **kwargs)

    def get_config(self):
        return {**super().get_config(), "axes": self.axes, "weight_bits": self.weight_bits}
