"""The layers of a quantized model whose arithmetic differs from the float layer's."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_mobilenets.quantization.grid import fake_quant, fake_quant_kernel


class QuantKernel(keras.layers.Layer):
    """Mixed into a Keras layer with a kernel: the kernel is fake-quantized each time that it is used.

    The kernel that is trained, saved and loaded stays the float one: overriding the `kernel` property instead would
    write the rounded kernel into files and lose what training had accumulated below half a step.

    Args:
        weight_bits: width of the kernel's integers, 2 to 8.
    """

    float_class: type[keras.layers.Layer]
    """The layer that this one is without quantization."""
    kernel_axes: tuple[int, ...]
    """The axes of the kernel that share a grid; the others are the output channels."""

    def __init__(self, *args: Any, weight_bits: int = 8, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if not 2 <= weight_bits <= 8:
            raise ValueError(f"`weight_bits` must be from 2 to 8. Received: weight_bits={weight_bits}")
        self.weight_bits = weight_bits

    def add_weight(self, *args: Any, **kwargs: Any) -> Any:
        # float16 has too few digits to tell the integers of a kernel: round first, cast then.
        return super().add_weight(*args, **{**kwargs, "autocast": False})

    def quantized_kernel(self) -> Any:
        """The kernel in float32, on its integer grid."""
        return fake_quant_kernel(ops.cast(self.kernel, "float32"), self.kernel_axes, self.weight_bits)

    def linear(self, inputs: Any, kernel: Any) -> Any:
        """The layer's operation without bias and activation."""
        raise NotImplementedError

    def call(self, inputs, training=None):
        outputs = self.linear(inputs, ops.cast(self.quantized_kernel(), inputs.dtype))
        if self.use_bias:
            outputs = outputs + ops.cast(self.bias, outputs.dtype)
        return outputs if self.activation is None else self.activation(outputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "weight_bits": self.weight_bits}


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class QuantConv2D(QuantKernel, keras.layers.Conv2D):
    """`keras.layers.Conv2D` with a fake-quantized kernel: one symmetric grid for each filter.

    Args:
        weight_bits: width of the kernel's integers, 2 to 8.
        **kwargs: of `keras.layers.Conv2D`.

    Input shape: (batch, height, width, channels). Output shape: as `keras.layers.Conv2D`.

    Example:

    >>> QuantConv2D(16, 3, weight_bits=4)(np.ones((1, 8, 8, 3), "float32")).shape
    TensorShape([1, 6, 6, 16])
    """

    float_class = keras.layers.Conv2D
    kernel_axes = (0, 1, 2)

    def linear(self, inputs, kernel):
        return self.convolution_op(inputs, kernel)


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class QuantDepthwiseConv2D(QuantKernel, keras.layers.DepthwiseConv2D):
    """`keras.layers.DepthwiseConv2D` with a fake-quantized kernel: one symmetric grid for each channel.

    Args:
        weight_bits: width of the kernel's integers, 2 to 8.
        **kwargs: of `keras.layers.DepthwiseConv2D`.

    Input shape: (batch, height, width, channels). Output shape: as `keras.layers.DepthwiseConv2D`.

    Example:

    >>> QuantDepthwiseConv2D(3)(np.ones((1, 8, 8, 3), "float32")).shape
    TensorShape([1, 6, 6, 3])
    """

    float_class = keras.layers.DepthwiseConv2D
    kernel_axes = (0, 1)

    def linear(self, inputs, kernel):
        return ops.depthwise_conv(
            inputs,
            kernel,
            strides=self.strides,
            padding=self.padding,
            data_format=self.data_format,
            dilation_rate=self.dilation_rate,
        )


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class QuantDense(QuantKernel, keras.layers.Dense):
    """`keras.layers.Dense` with a fake-quantized kernel: one symmetric grid for each unit.

    Args:
        weight_bits: width of the kernel's integers, 2 to 8.
        **kwargs: of `keras.layers.Dense`.

    Input shape: (batch, ..., channels). Output shape: (batch, ..., units).

    Example:

    >>> QuantDense(10)(np.ones((1, 64), "float32")).shape
    TensorShape([1, 10])
    """

    float_class = keras.layers.Dense
    kernel_axes = (0,)

    def linear(self, inputs, kernel):
        return ops.matmul(inputs, kernel)


class _GatedSix(keras.layers.Layer):
    """What hard-sigmoid and hard-swish share: `relu6(x + 3)` on the grid of [0, 6]."""

    def gate(self, inputs):
        six = fake_quant(ops.relu6(ops.cast(inputs, "float32") + 3.0), 0.0, 6.0)
        return ops.cast(six, inputs.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config()  # the automatic one refuses a dtype policy that is an object


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class QuantHardSigmoid(_GatedSix):
    """Hard-sigmoid as integer runtimes compute it: `fake_quant(relu6(x + 3), 0, 6) / 6`.

    Input shape: any. Output shape: the same, in [0, 1], on a grid of 256 values.

    Example:

    >>> QuantHardSigmoid()(np.array([-4.0, 1.5, 4.0], "float32")).numpy()
    array([0.  , 0.7490196, 1.  ], dtype=float32)
    """

    def call(self, inputs):
        return self.gate(inputs) * (1.0 / 6.0)


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class QuantHardSwish(_GatedSix):
    """Hard-swish as integer runtimes without an operation for it compute it: `x * fake_quant(relu6(x + 3), 0, 6) / 6`.

    Input shape: any. Output shape: the same.

    Example:

    >>> QuantHardSwish()(np.array([-4.0, 0.0, 3.0], "float32")).numpy()
    array([-0.,  0.,  3.], dtype=float32)
    """

    def call(self, inputs):
        return inputs * self.gate(inputs) * (1.0 / 6.0)
