"""The layers of a quantized model whose arithmetic differs from the float layer's."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mobilenets.arguments import check_integers, check_numbers, check_range
from keras_mobilenets.layers import BatchNormalization
from keras_mobilenets.layers.convolution import Conv2D, convolve
from keras_mobilenets.quantization.grid import (
    fake_quant,
    fake_quant_channels,
    fake_quant_kernel,
    grid_around,
    kernel_scale,
    rounding,
)

LORA = ("lora_rank", "lora_alpha")  # of weights beside a kernel, which a copy has in its kernel


class QuantKernel(keras.layers.Layer):
    """Mixed into a Keras layer with a kernel: the kernel is fake-quantized each time that it is used.

    The kernel that is trained, saved and loaded stays the float one: overriding the `kernel` property instead would
    write the rounded kernel into files and lose what training had accumulated below half a step.

    Args:
        weight_bits: width of the kernel's integers, 2 to 8.
        input_shift: what the inputs lack to their true values; `InputQuant` says why.
        input_quantizer: name of the layer that quantized the inputs. In a `QuantizedModel` the bias is then rounded as
            in the integer model, where it is an int32 in units of input scale times kernel scale.
        bias_offset: what deployment adds to the bias before it is rounded.
        normalized: whether a batch normalization follows, which rounds the bias that the two come to.
        kernel_range: (low, high) of the grid of 256 values that a file has, numbers for the whole kernel or tuples with
            one for each output channel; by default each of these has a symmetric grid that its largest value ends.
    """

    float_class: type[keras.layers.Layer]
    """The layer that this one is without quantization."""
    kernel_axes: tuple[int, ...]
    """The axes of the kernel that share a grid; the others are the output channels."""
    own_arguments = ("weight_bits", "input_shift", "input_quantizer", "bias_offset", "normalized", "kernel_range")

    def __init__(
        self,
        *args: Any,
        weight_bits: int = 8,
        input_shift: float = 0.0,
        input_quantizer: str | None = None,
        bias_offset: float = 0.0,
        normalized: bool = False,
        kernel_range: tuple[float, float] | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        check_integers("[2, 8]", weight_bits=weight_bits)
        check_numbers("(-inf, inf)", input_shift=input_shift, bias_offset=bias_offset)
        if kernel_range is not None:
            check_range(kernel_range=kernel_range)
        self.weight_bits = weight_bits
        self.input_shift = float(input_shift)
        self.input_quantizer = input_quantizer
        self.bias_offset = float(bias_offset)
        self.normalized = normalized
        self.kernel_range = kernel_range and tuple(kernel_range)
        self._quantizer: Callable[[], Any] = _nothing

    def wire(self, layers: dict[str, Any]) -> None:
        """Finds the layer `input_quantizer` among the layers of a model."""
        self._quantizer = _reference(layers, self.input_quantizer)

    def bias_unit(self) -> Any | None:
        """The step of the bias of each output channel; None where the scale of the inputs is not known."""
        quantizer = self._quantizer()
        if quantizer is None:
            return None
        scales = ops.reshape(kernel_scale(ops.cast(self.kernel, "float32"), self.kernel_axes, self.weight_bits), (-1,))
        if self.kernel_range is not None:
            scales = ops.convert_to_tensor(np.broadcast_to(self.kernel_step, scales.shape), "float32")
        return quantizer.scale * scales

    @property
    def kernel_step(self) -> Any:
        """The step of the grid that `kernel_range` gives, for the whole kernel or each output channel."""
        low, high = (np.asarray(end, "float64") for end in self.kernel_range or (0.0, 0.0))
        return (high - low) / 255.0

    def added_bias(self, kernel: Any) -> Any:
        """What is added to the sum of products, in float32: the bias and the share of `input_shift`."""
        added = ops.cast(self.bias, "float32") if self.use_bias else 0.0
        if self.input_shift:
            added = added + self.input_shift * ops.reshape(ops.sum(kernel, axis=self.kernel_axes), (-1,))
        return added

    def add_weight(self, *args: Any, **kwargs: Any) -> Any:
        # float16 has too few digits to tell the integers of a kernel: round first, cast then.
        return super().add_weight(*args, **{**kwargs, "autocast": False})

    def quantized_kernel(self) -> Any:
        """The kernel in float32, on its integer grid."""
        kernel = ops.cast(self.kernel, "float32")
        if self.kernel_range is not None:
            low, high = self.kernel_range
            if np.ndim(low) == 0:
                return fake_quant(kernel, low, high)
            shape = [1 if axis in self.kernel_axes else size for axis, size in enumerate(kernel.shape)]
            return fake_quant_channels(kernel, *(np.reshape(one, shape) for one in (low, self.kernel_step)))
        return fake_quant_kernel(kernel, self.kernel_axes, self.weight_bits)

    def linear(self, inputs: Any, kernel: Any) -> Any:
        """The layer's operation without bias and activation."""
        raise NotImplementedError

    def call(self, inputs, training=None):
        kernel = self.quantized_kernel()
        outputs = self.linear(inputs, ops.cast(kernel, inputs.dtype))
        if self.use_bias or self.input_shift:
            bias = self.added_bias(kernel)
            unit = self.bias_unit()
            if unit is not None and not self.normalized:
                bias = bias + rounding(bias + self.bias_offset, unit)
            outputs = outputs + ops.cast(bias, outputs.dtype)
        return outputs if self.activation is None else self.activation(outputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **{name: getattr(self, name) for name in self.own_arguments}}

    def float_config(self) -> dict[str, Any]:
        """The config of the float layer, whose kernel holds what LoRA adds to it."""
        return {key: value for key, value in self.get_config().items() if key not in (*self.own_arguments, *LORA)}


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class QuantConv2D(QuantKernel, Conv2D):
    """`keras.layers.Conv2D` with a fake-quantized kernel: one symmetric grid for each filter.

    Args:
        **kwargs: of `QuantKernel` and `keras.layers.Conv2D`.

    Input shape: (batch, height, width, channels). Output shape: as `keras.layers.Conv2D`.

    Example:

    >>> QuantConv2D(16, 3, weight_bits=4)(np.ones((1, 8, 8, 3), "float32")).shape
    TensorShape([1, 6, 6, 16])
    """

    float_class = Conv2D
    kernel_axes = (0, 1, 2)

    def linear(self, inputs, kernel):
        return convolve(self, inputs, kernel)


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class QuantDepthwiseConv2D(QuantKernel, keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` with a fake-quantized kernel: one symmetric grid for each channel.

    Args:
        **kwargs: of `QuantKernel` and `keras.layers.DepthwiseConv2D`.

    Input shape: (batch, height, width, channels). Output shape: as `keras.layers.DepthwiseConv2D`.

    Example:

    >>> QuantDepthwiseConv2D(3)(np.ones((1, 8, 8, 3), "float32")).shape
    TensorShape([1, 6, 6, 3])
    """

    float_class = keras.layers.DepthwiseConv2D
    kernel_axes = (0, 1)

    def linear(self, inputs, kernel):
        return convolve(self, inputs, kernel)


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class QuantConv2DTranspose(QuantKernel, keras.layers.Conv2DTranspose):
    """`keras.layers.Conv2DTranspose` with a fake-quantized kernel: one symmetric grid for each filter.

    Args:
        **kwargs: of `QuantKernel` and `keras.layers.Conv2DTranspose`.

    Input shape: (batch, height, width, channels). Output shape: as `keras.layers.Conv2DTranspose`.

    Example:

    >>> QuantConv2DTranspose(4, 2, strides=2)(np.ones((1, 8, 8, 3), "float32")).shape
    TensorShape([1, 16, 16, 4])
    """

    float_class = keras.layers.Conv2DTranspose
    kernel_axes = (0, 1, 3)

    def linear(self, inputs, kernel):
        return ops.conv_transpose(
            inputs, kernel, list(self.strides), self.padding, self.output_padding, self.data_format, self.dilation_rate
        )


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class QuantDense(QuantKernel, keras.layers.Dense):
    """`keras.layers.Dense` with a fake-quantized kernel: one symmetric grid for each unit.

    Args:
        **kwargs: of `QuantKernel` and `keras.layers.Dense`.

    Input shape: (batch, ..., channels). Output shape: (batch, ..., units).

    Example:

    >>> QuantDense(10)(np.ones((1, 64), "float32")).shape
    TensorShape([1, 10])
    """

    float_class = keras.layers.Dense
    kernel_axes = (0,)

    def linear(self, inputs, kernel):
        return ops.matmul(inputs, kernel)


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class QuantBatchNormalization(BatchNormalization):
    """Batch normalization that deployment folds into the kernel before it.

    At inference it rounds the bias that the two layers come to, as the integer model does. In training it is
    `BatchNormalization`: the integers of a per-channel kernel are the same before and after the folding.

    Args:
        kernel_layer: name of the layer before it.
        bias_offset: what deployment adds to the bias before it is rounded.
        inference_only: whether training too uses the moving averages and leaves them as they are, as for a base model
            that was called with `training=False`.
        **kwargs: of `BatchNormalization`.

    Attributes:
        frozen_statistics: the same, for as long as it is set; not saved.

    Input shape: (batch, height, width, channels). Output shape: the same.

    Example:

    >>> QuantBatchNormalization()(np.ones((1, 4, 4, 8), "float32")).shape
    TensorShape([1, 4, 4, 8])
    """

    float_class = BatchNormalization
    own_arguments = ("kernel_layer", "bias_offset", "inference_only")

    def __init__(
        self,
        *args: Any,
        kernel_layer: str | None = None,
        bias_offset: float = 0.0,
        inference_only: bool = False,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        check_numbers("(-inf, inf)", bias_offset=bias_offset)
        self.inference_only = inference_only
        self.kernel_layer = kernel_layer
        self.bias_offset = float(bias_offset)
        self.frozen_statistics = False
        self._source: Callable[[], Any] = _nothing

    def wire(self, layers: dict[str, Any]) -> None:
        """Finds the layer `kernel_layer` among the layers of a model."""
        self._source = _reference(layers, self.kernel_layer)

    def call(self, inputs, training=None, mask=None):
        training = bool(training) and not self.inference_only and not self.frozen_statistics
        source = self._source()
        unit = None if source is None else source.bias_unit()
        if unit is None or (training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        factor, bias = self.as_affine()
        # The source has added its own bias already; the sum of both is what gets rounded.
        added = source.added_bias(source.quantized_kernel())
        bias = bias + rounding(bias + added * factor + self.bias_offset, unit * ops.abs(factor))
        return inputs * ops.cast(factor, inputs.dtype) + ops.cast(bias, inputs.dtype)

    def as_affine(self) -> tuple[Any, Any]:
        """(factor, bias) of each channel at inference: the layer is `factor * x + bias`."""
        factor = ops.rsqrt(ops.cast(self.moving_variance, "float32") + self.epsilon)
        if self.scale:
            factor = factor * ops.cast(self.gamma, "float32")
        bias = -ops.cast(self.moving_mean, "float32") * factor
        return factor, bias + ops.cast(self.beta, "float32") if self.center else bias

    def get_config(self):
        return {**super().get_config(), **{name: getattr(self, name) for name in self.own_arguments}}

    def float_config(self) -> dict[str, Any]:
        """The config of the float layer."""
        return {key: value for key, value in self.get_config().items() if key not in self.own_arguments}


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class QuantReLU(keras.layers.ReLU):
    """ReLU that in training leaves the clipping to the quantizer behind it, which clips anyway.

    Args:
        **kwargs: of `keras.layers.ReLU`.

    Input shape: any. Output shape: the same.

    Example:

    >>> layer, values = QuantReLU(6.0), keras.ops.array([-1.0, 7.0])
    >>> layer(values).numpy(), layer(values, training=True).numpy()
    (array([0., 6.], dtype=float32), array([-1.,  7.], dtype=float32))
    """

    float_class = keras.layers.ReLU

    def call(self, inputs, training=None):
        return inputs if training else super().call(inputs)


def _nothing() -> None:
    return None


def _reference(layers: dict[str, Any], name: str | None) -> Callable[[], Any]:
    # Weak, and so unknown to Keras, which would count the other layer as a part of this one and save it twice.
    return _nothing if name is None or name not in layers else weakref.ref(layers[name])


class _Gate(keras.layers.Layer):
    """What hard-sigmoid and hard-swish share: `relu6(x + 3)`, rounded to the grid of [0, 6].

    Args:
        bits: width of the integers.
    """

    def __init__(self, bits: int = 8, **kwargs: Any):
        super().__init__(**kwargs)
        self.bits = bits

    def gate(self, inputs):
        six = fake_quant(ops.relu6(ops.cast(inputs, "float32") + 3.0), *grid_around(0.0, 6.0, self.bits), self.bits)
        return ops.cast(six, inputs.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "bits": self.bits}


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class QuantHardSigmoid(_Gate):
    """Hard-sigmoid as integer runtimes compute it: `fake_quant(relu6(x + 3), 0, 6) / 6`.

    Args:
        bits: width of the integers.

    Input shape: any. Output shape: the same, in [0, 1], on a grid of `2**bits` values.

    Example:

    >>> QuantHardSigmoid()(np.array([-4.0, 1.5, 4.0], "float32")).numpy()
    array([0.       , 0.7490196, 1.       ], dtype=float32)
    """

    @property
    def scale(self) -> float:
        """The step of the outputs."""
        low, high = grid_around(0.0, 1.0, self.bits)
        return (high - low) / (2**self.bits - 1)

    def call(self, inputs):
        return self.gate(inputs) * (1.0 / 6.0)


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class QuantHardSwish(_Gate):
    """Hard-swish as integer runtimes without an operation for it compute it: `x * fake_quant(relu6(x + 3), 0, 6) / 6`.

    Args:
        bits: width of the integers.

    Input shape: any. Output shape: the same.

    Example:

    >>> QuantHardSwish()(np.array([-4.0, 0.0, 3.0], "float32")).numpy()
    array([-0.,  0.,  3.], dtype=float32)
    """

    def call(self, inputs):
        return inputs * self.gate(inputs) * (1.0 / 6.0)
