"""The model that `quantize_model` makes."""

from __future__ import annotations

from typing import Any

import keras

from keras_mobilenets.quantization.layers import QuantBatchNormalization, QuantKernel


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class QuantizedModel(keras.Model):
    """A functional model whose quantized layers know each other.

    An integer bias is a multiple of the input's scale times the kernel's: to round it as the integer model does, a
    convolution has to know what quantized its input, and a batch normalization the convolution before it. Both have
    the name of that layer; here, when the model is made or loaded, names become layers. Everything else is
    `keras.Model`.

    Args:
        *args, **kwargs: of a functional `keras.Model`.

    Example:

    >>> model = MobileNet(input_shape=(32, 32, 3), alpha=0.25, weights=None)
    >>> isinstance(quantize_model(model), QuantizedModel)
    True
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        layers = {layer.name: layer for layer in self.layers}
        for layer in layers.values():
            if isinstance(layer, QuantKernel | QuantBatchNormalization):
                layer.wire(layers)
