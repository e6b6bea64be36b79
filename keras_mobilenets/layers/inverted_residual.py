"""The block of MobileNetV2 and V3."""

from __future__ import annotations

from typing import Any

import keras

from keras_mobilenets.arguments import check_integers, check_numbers, check_sizes
from keras_mobilenets.layers.composite import CompositeLayer, build_chain, known_channels, run
from keras_mobilenets.layers.divisible import make_divisible
from keras_mobilenets.layers.squeeze_excite import SqueezeExcite


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class InvertedResidual(CompositeLayer):
    """Expands thin features, filters them depthwise, and projects them back without an activation.

    `BN(project(squeeze_excite(activation(BN(depthwise(activation(BN(expand(x)))))))))`, plus `x` where strides are 1
    and input and output have the same number of channels. The projection is linear because a ReLU would lose what few
    channels hold.

    Args:
        filters: number of output channels, > 0.
        expansion: channels inside the block as a multiple of the input's, rounded by `make_divisible`; > 0. The
            expanding convolution is left out where None is given.
        kernel_size: of the depthwise convolution, an integer or a pair; None leaves it out.
        strides: of the depthwise convolution, an integer.
        dilation_rate: of the depthwise convolution, an integer; with strides 1 only.
        se_ratio: squeezed channels as a share of the expanded ones; None leaves squeeze-excite out (V2).
        drop_path: probability with which, in training, a sample skips the block where it has a residual connection
            (stochastic depth, arXiv:1603.09382); in [0, 1).
        residual: None for the rule above; False never adds the input, as for a block that had strides before its
            network was given a smaller output stride.
        **kwargs: of `CompositeLayer`: activation, normalization, momentum, epsilon, initializers, regularizers, name.

    Input shape: (batch, height, width, channels), any range.
    Output shape: (batch, ceil(height / strides), ceil(width / strides), filters).

    Sub-layers of a layer `block_1`: `block_1_expand`, `block_1_depthwise`, `block_1_squeeze_excite`,
    `block_1_project`, each convolution followed by its normalization and activation (`block_1_expand_bn`,
    `block_1_expand_relu`), and `block_1_add`.

    Raises:
        ValueError: an argument is out of its range.

    Reference:
        MobileNetV2, arXiv:1801.04381, section 3.3 and Table 1; MobileNetV3, arXiv:1905.02244, Figure 4.

    Example:

    >>> InvertedResidual(24, strides=2)(np.zeros((1, 32, 32, 16), "float32")).shape
    TensorShape([1, 16, 16, 24])
    """

    def __init__(
        self,
        filters: int,
        expansion: float | None = 6,
        kernel_size: int | tuple[int, int] | None = 3,
        strides: int = 1,
        dilation_rate: int = 1,
        se_ratio: float | None = None,
        drop_path: float = 0.0,
        residual: bool | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_integers("(0, inf)", filters=filters, strides=strides, dilation_rate=dilation_rate)
        if kernel_size is not None:  # a subclass may leave the depthwise convolution out
            check_sizes(kernel_size=kernel_size)
        check_numbers("[0, 1)", drop_path=drop_path)
        check_numbers("(0, inf)", optional=True, expansion=expansion, se_ratio=se_ratio)
        self.filters = filters
        self.expansion = expansion
        self.kernel_size = kernel_size
        self.strides = strides
        self.dilation_rate = dilation_rate
        self.se_ratio = se_ratio
        self.drop_path = drop_path
        self.residual = residual

    def build(self, input_shape):
        channels = known_channels(self, input_shape)
        prefix = self.name
        self.stages = self.start()
        if self.expansion is not None:
            expanded = make_divisible(channels * self.expansion)
            self.stages += self.pointwise(expanded, f"{prefix}_expand", self.activation)
        if self.kernel_size is not None:
            self.stages += self.depthwise(
                f"{prefix}_depthwise",
                self.activation,
                kernel_size=self.kernel_size,
                strides=self.strides,
                dilation_rate=self.dilation_rate,
            )
        if self.se_ratio is not None:
            self.stages.append(self._squeeze_excite(self.se_ratio, f"{prefix}_squeeze_excite"))
        self.stages += [*self.pointwise(self.filters, f"{prefix}_project"), *self.end()]
        self.add = None
        if self._adds(channels):
            self.stages += self.drop_path_layers(self.drop_path)
            self.add = keras.layers.Add(name=f"{prefix}_add", dtype=self.dtype_policy)
        output_shape = build_chain(self.stages, input_shape)
        if self.add is not None:
            self.add.build([input_shape, output_shape])

    def start(self) -> list[keras.layers.Layer]:
        """What a subclass puts before the expansion."""
        return []

    def end(self) -> list[keras.layers.Layer]:
        """What a subclass puts behind the projection."""
        return []

    def call(self, inputs, training=None):
        outputs = run(self.stages, inputs, training)
        return outputs if self.add is None else self.add([inputs, outputs])

    def compute_output_shape(self, input_shape):
        batch, height, width, _ = input_shape
        strided = (None if size is None else -(-size // self.strides) for size in (height, width))
        return (batch, *strided, self.filters)

    def _adds(self, channels: int) -> bool:
        fits = self.strides == 1 and channels == self.filters
        if self.residual and not fits:
            raise ValueError(
                f"{self.name}: `residual=True` needs strides 1 and as many filters as input channels. "
                f"Received: strides={self.strides}, filters={self.filters}, input channels={channels}"
            )
        return fits if self.residual is None else self.residual

    def _squeeze_excite(self, ratio: float, name: str) -> SqueezeExcite:
        return SqueezeExcite(
            ratio,
            kernel_initializer=self._fresh(self.kernel_initializer),
            kernel_regularizer=self.kernel_regularizer,
            name=name,
            trainable=self.trainable,
            dtype=self.dtype_policy,
        )

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "expansion": self.expansion,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "dilation_rate": self.dilation_rate,
            "se_ratio": self.se_ratio,
            "drop_path": self.drop_path,
            "residual": self.residual,
        }
