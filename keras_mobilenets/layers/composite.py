"""What the layers with parts have in common."""

from __future__ import annotations

import inspect
from typing import Any

import keras
from keras import ops

from keras_mobilenets.arguments import check_numbers
from keras_mobilenets.layers.activations import Activation, activation_layer
from keras_mobilenets.layers.convolution import Conv2D, convolve
from keras_mobilenets.layers.normalization import BatchNormalization


class CompositeLayer(keras.layers.Layer):
    """A layer made of named sub-layers, which `inline` sees through.

    The sub-layers are made in `build`, once the number of input channels is known, and are named after their parent,
    so that a flat view of a whole model has unique, telling names.

    Args:
        activation: name or function; "relu", "relu6", "hard_swish" and "hard_sigmoid" become layers of their own,
            which quantization knows; None is linear.
        normalization: "batch", or None for convolutions with a bias instead.
        momentum: of the moving averages of batch normalization, in [0, 1).
        epsilon: added to the variance in batch normalization, > 0.
        padding: of strided depthwise convolutions: "same" as in TensorFlow, where one more zero may be below and to the
            right than above and to the left, or "symmetric" as in PyTorch: half a kernel on each side.
        normalization_suffix: how the batch normalization of a convolution `x` is named: `x_{suffix}`.
        kernel_initializer, depthwise_initializer: as in `keras.layers.SeparableConv2D`.
        kernel_regularizer, depthwise_regularizer: likewise. The papers put little or no weight decay on depthwise
            kernels: they have few weights (arXiv:1704.04861, section 3.2).
        **kwargs: of `keras.layers.Layer`: name, dtype, trainable.

    Raises:
        ValueError: an argument is out of its range, or Keras is set to channels_first.
    """

    def __init__(
        self,
        *,
        activation: Activation = "relu6",
        normalization: str | None = "batch",
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        padding: str = "same",
        normalization_suffix: str = "bn",
        kernel_initializer: Any = "glorot_uniform",
        depthwise_initializer: Any = "glorot_uniform",
        kernel_regularizer: Any = None,
        depthwise_regularizer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if keras.config.image_data_format() != "channels_last":
            raise ValueError(
                f"{type(self).__name__} computes in channels_last only, the layout of every mobile runtime. "
                "Call keras.config.set_image_data_format('channels_last') first."
            )
        if normalization not in ("batch", None):
            raise ValueError(f"`normalization` must be 'batch' or None. Received: normalization={normalization!r}")
        check_numbers("[0, 1)", momentum=momentum)
        check_numbers("(0, inf)", epsilon=epsilon)
        check_padding(padding)
        if not isinstance(activation, str):  # a function comes back from a config as a dictionary
            activation = keras.activations.get(activation) if activation is not None else None
        self.activation = activation
        self.normalization = normalization
        self.momentum = momentum
        self.epsilon = epsilon
        self.padding = padding
        self.normalization_suffix = normalization_suffix
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.depthwise_initializer = keras.initializers.get(depthwise_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.depthwise_regularizer = keras.regularizers.get(depthwise_regularizer)
        self.input_spec = keras.layers.InputSpec(ndim=4)
        self.before_training: Any = None  # see `watch`
        activation_layer(activation, self.name)  # an unknown name fails here, not at the first call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("training") and self.before_training is not None:
            self.before_training()
        return super().__call__(*args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        serialize_activation = callable(self.activation)
        return {
            **super().get_config(),
            "activation": keras.activations.serialize(self.activation) if serialize_activation else self.activation,
            "normalization": self.normalization,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "padding": self.padding,
            "normalization_suffix": self.normalization_suffix,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "depthwise_initializer": keras.initializers.serialize(self.depthwise_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "depthwise_regularizer": keras.regularizers.serialize(self.depthwise_regularizer),
        }

    def pointwise(self, filters: int, name: str, activation: Activation = None) -> list[keras.layers.Layer]:
        """A 1x1 convolution with its normalization and activation."""
        return [self.product(filters, name, use_bias=self.normalization is None), *self._normalized(name, activation)]

    def product(self, filters: int, name: str, *, use_bias: bool = False) -> Conv2D:
        """A 1x1 convolution with nothing behind it."""
        return Conv2D(
            filters,
            1,
            padding="same",
            use_bias=use_bias,
            kernel_initializer=self._fresh(self.kernel_initializer),
            kernel_regularizer=self.kernel_regularizer,
            name=name,
            trainable=self.trainable,
            dtype=self.dtype_policy,
        )

    def depthwise(self, name: str, activation: Activation, *, bare: bool = False, **kwargs: Any) -> list:
        """A depthwise convolution with its normalization and activation; `bare`: with nothing behind it, no bias."""
        pads = [padding_layer(kwargs["kernel_size"], name)] if is_padded(self.padding, kwargs["strides"]) else []
        convolution = keras.layers.DepthwiseConv2D(
            padding="valid" if pads else "same",
            use_bias=self.normalization is None and not bare,
            depthwise_initializer=self._fresh(self.depthwise_initializer),
            depthwise_regularizer=self.depthwise_regularizer,
            name=name,
            trainable=self.trainable,
            dtype=self.dtype_policy,
            **kwargs,
        )
        return [*pads, convolution] if bare else [*pads, convolution, *self._normalized(name, activation)]

    def _normalized(self, name: str, activation: Activation) -> list[keras.layers.Layer]:
        layers = []
        if self.normalization is not None:
            batch_norm = BatchNormalization(
                momentum=self.momentum,
                epsilon=self.epsilon,
                name=f"{name}_{self.normalization_suffix}",
                trainable=self.trainable,
                dtype=self.dtype_policy,
            )
            layers.append(batch_norm)
        activated = activation_layer(activation, name, self.dtype_policy)
        return layers if activated is None else [*layers, activated]

    def drop_path_layers(self, rate: float) -> list[keras.layers.Layer]:
        """Stochastic depth at the end of a residual branch; nothing where the rate is 0."""
        if not rate:
            return []
        # Dropout of whole samples: one draw each, whatever height, width and channels.
        noise_shape = (None, 1, 1, 1)
        return [keras.layers.Dropout(rate, noise_shape, name=f"{self.name}_drop_path", dtype=self.dtype_policy)]

    @staticmethod
    def _fresh(initializer: keras.initializers.Initializer) -> keras.initializers.Initializer:
        """A new instance: the same instance gives the same numbers each time that it is called."""
        return keras.initializers.get(keras.initializers.serialize(initializer))


def check_padding(padding: str) -> None:
    """Refuses what is no padding of strided convolutions."""
    if padding not in ("same", "symmetric"):
        raise ValueError(f"`padding` must be 'same' or 'symmetric'. Received: padding={padding!r}")


def is_padded(padding: str, strides: int) -> bool:
    """Whether a convolution needs zeros that it does not add itself; without strides both paddings are the same."""
    return padding == "symmetric" and strides > 1


def padding_layer(kernel_size: int | tuple[int, int], name: str) -> keras.layers.Layer:
    """Half a kernel of zeros on each side of what the convolution `name` reads."""
    size = (kernel_size,) * 2 if isinstance(kernel_size, int) else kernel_size
    return keras.layers.ZeroPadding2D(tuple(one // 2 for one in size), name=f"{name}_pad")


def run(layers: list[keras.layers.Layer], x: Any, training: bool | None) -> Any:
    """Applies layers in sequence, with `training` for those that behave differently in it.

    Where a normalization has fixed statistics it becomes part of the convolution before it: TensorFlow then computes
    both, and the ReLU behind them, in one operation.
    """
    left = list(layers)
    while left:
        layer = left.pop(0)
        if left and isinstance(left[0], BatchNormalization) and _can_fold(layer, left[0], x, training):
            x = _folded(layer, left.pop(0), x)
        else:
            x = layer(x, training=training) if takes_training(layer) else layer(x)
    return x


def _can_fold(layer: Any, norm: BatchNormalization, x: Any, training: bool | None) -> bool:
    symbolic = isinstance(x, keras.KerasTensor)  # a flat view shows every layer
    fixed = not (training and norm.trainable)
    return fixed and not symbolic and layer.compute_dtype == "float32" and keras.backend.backend() == "tensorflow"


def _folded(layer: Any, norm: BatchNormalization, x: Any) -> Any:
    """A convolution without bias, and the normalization of what it gives."""
    import tensorflow as tf

    scale = norm.gamma * ops.rsqrt(norm.moving_variance + norm.epsilon)
    is_depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
    of_kernel = ops.reshape(scale, (-1, layer.depth_multiplier)) if is_depthwise else scale
    x = convolve(layer, x, layer.kernel * of_kernel)
    return tf.nn.bias_add(x, norm.beta - norm.moving_mean * scale)


def takes_training(layer: keras.layers.Layer) -> bool:
    """Whether a layer's `call` has an argument `training`."""
    return "training" in inspect.signature(layer.call).parameters


def build_chain(layers: list[keras.layers.Layer], input_shape: tuple) -> tuple:
    """Builds layers that follow each other, and returns the shape that leaves the last."""
    for layer in layers:
        if not layer.built:
            layer.build(input_shape)
        input_shape = layer.compute_output_shape(input_shape)
    return tuple(input_shape)


def known_channels(layer: keras.layers.Layer, input_shape: tuple) -> int:
    """The number of input channels, which a layer with kernels must know to be built."""
    channels = input_shape[-1]
    if channels is None:
        raise ValueError(f"{layer.name}: the number of input channels must be known. Received: {input_shape}")
    return int(channels)
