"""What tfmot has to be told to quantize a twin: the layers that its registry does not know."""

from __future__ import annotations

from typing import Any

from keras_mobilenets.interop.tfmot.layers import FRONT_LAYERS, HardSigmoid, HardSwish, Rescaling, tf_keras
from keras_mobilenets.utils import require

tfmot: Any = require("tensorflow_model_optimization", "tfmot")

_quantization: Any = tfmot.quantization.keras
_quantizers = _quantization.quantizers
_register = tf_keras.utils.register_keras_serializable("keras_mobilenets")


class _QuantizeConfig(_quantization.QuantizeConfig):
    """No weights, no activations, and nothing to configure."""

    def get_weights_and_quantizers(self, layer):
        return []

    def set_quantize_weights(self, layer, quantize_weights):
        pass

    def get_activations_and_quantizers(self, layer):
        return []

    def set_quantize_activations(self, layer, quantize_activations):
        pass

    def get_output_quantizers(self, layer):
        return []

    def get_config(self):
        return {}


@_register
class InPlaceQuantizeConfig(_QuantizeConfig):
    """For what leaves values on the grid that they are on: cropping, augmentation."""


@_register
class OutputQuantizeConfig(_QuantizeConfig):
    """For `Multiply` and `HardSwish`: one integer operation, whose result is rounded to an observed range."""

    def get_output_quantizers(self, layer):
        return [_observer()]


@_register
class StepwiseQuantizeConfig(OutputQuantizeConfig):
    """For `HardSigmoid` and `Rescaling`: two integer operations; what is between them is rounded too.

    Their ranges are those of all values seen: the inputs' and the gates' do not change as training goes on.
    """

    def get_activations_and_quantizers(self, layer):
        return [(layer.activation, _extremes())]

    def set_quantize_activations(self, layer, quantize_activations):
        layer.activation = quantize_activations[0]

    def get_output_quantizers(self, layer):
        return [_extremes()]


_CONFIGS: dict[type, type[_QuantizeConfig]] = {
    tf_keras.layers.Multiply: OutputQuantizeConfig,
    tf_keras.layers.Subtract: OutputQuantizeConfig,
    HardSwish: OutputQuantizeConfig,
    HardSigmoid: StepwiseQuantizeConfig,
    Rescaling: StepwiseQuantizeConfig,
    **dict.fromkeys(FRONT_LAYERS.values(), InPlaceQuantizeConfig),
}


def _observer() -> Any:
    return _quantizers.MovingAverageQuantizer(num_bits=8, per_axis=False, symmetric=False, narrow_range=False)


def _extremes() -> Any:
    return _quantizers.AllValuesQuantizer(num_bits=8, per_axis=False, symmetric=False, narrow_range=False)


def tfmot_annotate(twin: Any) -> Any:
    """Annotates a Keras 2 twin for `tfmot.quantization.keras.quantize_apply`, with what tfmot does not know by itself.

    In place of `tfmot.quantization.keras.quantize_annotate_model`, which refuses MobileNetV3: hard-swish,
    hard-sigmoid, multiplications, rescaling and augmentation get a `QuantizeConfig` each; all other layers have
    tfmot's own. The result goes through `quantize_apply` with any of tfmot's schemes, and needs no `quantize_scope`.

    Args:
        twin: a model from `to_tf_keras`, or what pruning and clustering left of it, stripped.

    Returns:
        The annotated `tf_keras.Model`, with the weights of `twin`.

    Raises:
        ImportError: the extra `tfmot` is not installed.

    Example:

    >>> model = MobileNetV3Small((32, 32, 3), alpha=0.35, weights=None, classes=2)
    >>> annotated = tfmot_annotate(to_tf_keras(model))  # then tfmot.quantization.keras.quantize_apply(annotated)
    >>> annotated.output_shape
    (None, 2)
    """

    def annotate(layer: Any) -> Any:
        config = _CONFIGS.get(type(layer))
        return _quantization.quantize_annotate_layer(layer, None if config is None else config())

    # Not on the twin's own layers, which would then be part of two models.
    copy = tf_keras.models.clone_model(twin)
    copy.set_weights(twin.get_weights())
    return tf_keras.models.clone_model(copy, clone_function=annotate)
