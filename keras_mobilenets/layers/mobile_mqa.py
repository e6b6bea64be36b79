"""Mobile multi-query attention, the attention of MobileNetV4's hybrids."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from keras_mobilenets.arguments import check_integers, check_numbers, check_sizes
from keras_mobilenets.layers.composite import (
    CompositeLayer,
    build_chain,
    known_channels,
    run,
)
from keras_mobilenets.layers.layer_scale import LayerScale
from keras_mobilenets.layers.normalization import BatchNormalization


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class MultiQueryAttention(keras.layers.Layer):
    """Attention in which all heads share one key and one value: `softmax(q k^T / sqrt(d)) v`, without weights.

    Heads and pixels of the query are one axis, so that each product is of two matrices.

    Input shapes: query (batch, height, width, heads * d); key and value (batch, key height, key width, d). Any range.
    Output shape: the query's.

    Reference:
        Shazeer, arXiv:1911.02150; on feature maps: MobileNetV4, arXiv:2404.10518, section 3.2.

    Example:

    >>> query, key = np.ones((1, 4, 4, 32), "float32"), np.ones((1, 2, 2, 16), "float32")
    >>> MultiQueryAttention()([query, key, key]).shape
    TensorShape([1, 4, 4, 32])
    """

    def call(self, inputs):
        key_dim = inputs[1].shape[-1]
        query, key, value = (ops.reshape(one, (ops.shape(one)[0], -1, key_dim)) for one in inputs)
        scores = ops.matmul(query * (1.0 / math.sqrt(key_dim)), ops.transpose(key, (0, 2, 1)))
        return ops.reshape(ops.matmul(ops.softmax(scores), value), ops.shape(inputs[0]))

    def in_keras_layers(self, query, key, value):
        """The same on maps of known sizes, by layers of Keras whose names begin with this one's."""
        key_dim = key.shape[-1]

        def named(kind, part, *args):
            return kind(*args, name=f"{self.name}_{part}" if part else self.name, dtype=self.dtype_policy)

        query = named(keras.layers.Rescaling, "scaled", 1.0 / math.sqrt(key_dim))(query)
        maps = {"queries": query, "keys": key, "values": value}
        rows = [named(keras.layers.Reshape, part, (-1, key_dim))(one) for part, one in maps.items()]
        scores = named(keras.layers.Dot, "scores", 2)(rows[:2])
        shares = named(keras.layers.Softmax, "shares")(scores)
        attended = named(keras.layers.Dot, "attended", (2, 1))([shares, rows[2]])
        return named(keras.layers.Reshape, "", query.shape[1:])(attended)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs[0].shape, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape[0]

    def get_config(self):
        return super().get_config()  # the automatic one refuses a dtype policy that is an object


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class MobileMQA(CompositeLayer):
    """Mobile multi-query attention on a feature map, with a residual connection.

    `x + layer_scale * output(attention(query(y), key(y), value(y)))` with `y` the normalized input. Key and value may
    be read off a smaller map, each through a strided depthwise convolution of its own.

    Args:
        num_heads: number of queries for each pixel, > 0.
        key_dim: channels of query (for each head), key and value, > 0.
        kv_strides: how much smaller the map of keys and values is, an integer > 0.
        kernel_size: of the depthwise convolutions that make it smaller.
        layer_scale: what the factor of each output channel begins with; None leaves the factors out.
        drop_path: probability with which, in training, a sample skips the attention; in [0, 1).
        **kwargs: of `CompositeLayer`: normalization, momentum, epsilon, initializers, regularizers, name.

    Input shape: (batch, height, width, channels), any range. Output shape: the same.

    Sub-layers of a layer `block_1`: `block_1_bn`, `block_1_query`, `block_1_key`, `block_1_value` (with strides each
    behind `block_1_key_depthwise` and its normalization), `block_1_attention`, `block_1_output`,
    `block_1_layer_scale` and `block_1_add`. There are no biases.

    Raises:
        ValueError: an argument is out of its range.

    Reference:
        MobileNetV4, arXiv:2404.10518, section 3.2.

    Example:

    >>> MobileMQA(4, 16, kv_strides=2)(np.zeros((1, 8, 8, 32), "float32")).shape
    TensorShape([1, 8, 8, 32])
    """

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        kv_strides: int = 1,
        kernel_size: int | tuple[int, int] = 3,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**{"activation": None, **kwargs})
        check_integers("(0, inf)", num_heads=num_heads, key_dim=key_dim, kv_strides=kv_strides)
        check_sizes(kernel_size=kernel_size)
        check_numbers("[0, 1)", drop_path=drop_path)
        check_numbers("(-inf, inf)", optional=True, layer_scale=layer_scale)
        self.num_heads = num_heads
        self.key_dim = key_dim
        self.kv_strides = kv_strides
        self.kernel_size = kernel_size
        self.layer_scale = layer_scale
        self.drop_path = drop_path
        self.supports_masking = True

    def build(self, input_shape):
        channels = known_channels(self, input_shape)
        prefix, policy = self.name, self.dtype_policy
        self.norm = None
        if self.normalization is not None:
            name = f"{prefix}_{self.normalization_suffix}"
            options = {"momentum": self.momentum, "epsilon": self.epsilon, "trainable": self.trainable}
            self.norm = BatchNormalization(**options, name=name, dtype=policy)
            self.norm.build(input_shape)
        self.query = [self.product(self.num_heads * self.key_dim, f"{prefix}_query")]
        self.key, self.value = (self._smaller(f"{prefix}_{name}") for name in ("key", "value"))
        self.attention = MultiQueryAttention(name=f"{prefix}_attention", dtype=policy)
        self.end = [self.product(channels, f"{prefix}_output")]
        if self.layer_scale is not None:
            name = f"{prefix}_layer_scale"
            self.end.append(LayerScale(self.layer_scale, name=name, trainable=self.trainable, dtype=policy))
        self.end += self.drop_path_layers(self.drop_path)
        self.add = keras.layers.Add(name=f"{prefix}_add", dtype=policy)
        attended = build_chain(self.query, input_shape)
        for layers in (self.key, self.value):
            build_chain(layers, input_shape)
        self.add.build([input_shape, build_chain(self.end, attended)])

    def _smaller(self, name: str) -> list[keras.layers.Layer]:
        """Keys or values: of a smaller map, where there are strides."""
        layers = []
        if self.kv_strides > 1:
            part = f"{name}_depthwise"
            layers = self.depthwise(part, None, kernel_size=self.kernel_size, strides=self.kv_strides)
        return [*layers, self.product(self.key_dim, name)]

    def call(self, inputs, training=None):
        normalized = inputs if self.norm is None else self.norm(inputs, training=training)
        attended = self.attention([run(layers, normalized, training) for layers in (self.query, self.key, self.value)])
        return self.add([inputs, run(self.end, attended, training)])

    def compute_output_shape(self, input_shape):
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "kv_strides": self.kv_strides,
            "kernel_size": self.kernel_size,
            "layer_scale": self.layer_scale,
            "drop_path": self.drop_path,
        }
