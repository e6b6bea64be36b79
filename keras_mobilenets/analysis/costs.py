"""What the papers' layers cost, as formulas: with them a design can be reckoned before anything is built."""

from __future__ import annotations

from dataclasses import dataclass

from keras_mobilenets.layers.divisible import make_divisible


@dataclass(frozen=True)
class LayerCost:
    """Weights of the kernels, without biases and normalization, and multiply-adds for one image."""

    parameters: int
    madds: int

    def __add__(self, other: LayerCost) -> LayerCost:
        return LayerCost(self.parameters + other.parameters, self.madds + other.madds)


def standard_conv_cost(kernel_size: int, channels: int, filters: int, size: int) -> LayerCost:
    """A standard convolution: D_K D_K M N weights, D_K D_K M N D_F D_F multiply-adds.

    Args:
        kernel_size: D_K, side of the kernel.
        channels: M, of the input.
        filters: N, channels of the output.
        size: D_F, side of the output.

    Returns:
        Parameters and multiply-adds.

    Reference:
        Howard et al., MobileNets, arXiv:1704.04861, equation 2.

    Example: the layer of the paper's Table 3.

    >>> standard_conv_cost(3, 512, 512, 14)
    LayerCost(parameters=2359296, madds=462422016)
    """
    parameters = kernel_size**2 * channels * filters
    return LayerCost(parameters, parameters * size**2)


def depthwise_conv_cost(kernel_size: int, channels: int, size: int) -> LayerCost:
    """A depthwise convolution: D_K D_K M weights, D_K D_K M D_F D_F multiply-adds.

    Args:
        kernel_size: D_K, side of the kernel.
        channels: M, of input and output.
        size: D_F, side of the output.

    Returns:
        Parameters and multiply-adds.

    Reference:
        Howard et al., MobileNets, arXiv:1704.04861, equation 4.

    Example:

    >>> depthwise_conv_cost(3, 512, 14)
    LayerCost(parameters=4608, madds=903168)
    """
    return standard_conv_cost(kernel_size, channels, 1, size)


def depthwise_separable_cost(
    kernel_size: int, channels: int, filters: int, size: int, *, alpha: float = 1.0, rho: float = 1.0
) -> LayerCost:
    """A depthwise and a pointwise convolution: D_K D_K aM rD_F rD_F + aM aN rD_F rD_F multiply-adds.

    Args:
        kernel_size: D_K, side of the kernel.
        channels: M, of the input.
        filters: N, channels of the output.
        size: D_F, side of the output.
        alpha: the width multiplier a, which scales M and N; fractions of a channel are cut off.
        rho: the resolution multiplier r, which scales D_F to the nearest pixel.

    Returns:
        Parameters and multiply-adds.

    Reference:
        Howard et al., MobileNets, arXiv:1704.04861, equations 5 to 7.

    Example: the last row of the paper's Table 3.

    >>> depthwise_separable_cost(3, 512, 512, 14, alpha=0.75, rho=0.714)
    LayerCost(parameters=150912, madds=15091200)
    """
    channels, filters, size = int(alpha * channels), int(alpha * filters), round(rho * size)
    return depthwise_conv_cost(kernel_size, channels, size) + standard_conv_cost(1, channels, filters, size)


def depthwise_separable_ratio(kernel_size: int, filters: int) -> float:
    """What is left of a standard convolution's cost when it is made depthwise separable: 1/N + 1/(D_K D_K).

    Args:
        kernel_size: D_K, side of the kernel.
        filters: N, channels of the output.

    Returns:
        The ratio, of parameters as well as of multiply-adds.

    Reference:
        Howard et al., MobileNets, arXiv:1704.04861, section 3.1.

    Example: "between 8 to 9 times less computation".

    >>> 1 / depthwise_separable_ratio(3, 512)
    8.844529...
    """
    return 1 / filters + 1 / kernel_size**2


def bottleneck_cost(
    channels: int, filters: int, size: int, *, expansion: float = 6, kernel_size: int = 3, stride: int = 1
) -> LayerCost:
    """An inverted residual block: with stride 1, h w d' t (d' + k k + d'') multiply-adds.

    Args:
        channels: d', of the input.
        filters: d'', channels of the output.
        size: h = w, side of the input.
        expansion: t; 1 stands for a block without an expansion.
        kernel_size: k, side of the depthwise kernel.
        stride: of the depthwise convolution, behind which maps are smaller.

    Returns:
        Parameters and multiply-adds.

    Reference:
        Sandler et al., MobileNetV2, arXiv:1801.04381, section 3.3.

    Example:

    >>> bottleneck_cost(64, 64, 14)
    LayerCost(parameters=52608, madds=10311168)
    """
    expanded, output_size = round(channels * expansion), -(-size // stride)
    expand = standard_conv_cost(1, channels, expanded, size) if expansion != 1 else LayerCost(0, 0)
    depthwise = depthwise_conv_cost(kernel_size, expanded, output_size)
    return expand + depthwise + standard_conv_cost(1, expanded, filters, output_size)


def squeeze_excite_cost(channels: int, *, ratio: float = 0.25) -> LayerCost:
    """Squeeze-and-excite: 2 C S multiply-adds and as many weights, with S = make_divisible(C ratio).

    Args:
        channels: C, of the feature map.
        ratio: of the channels between the two convolutions.

    Returns:
        Parameters and multiply-adds.

    Reference:
        Howard et al., Searching for MobileNetV3, arXiv:1905.02244, section 5.3.

    Example:

    >>> squeeze_excite_cost(72)
    LayerCost(parameters=3456, madds=3456)
    """
    weights = 2 * channels * make_divisible(channels * ratio)
    return LayerCost(weights, weights)
