"""Which channels of a network belong together, and the same network with fewer of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_mobilenets.graph import Graph, Node
from keras_mobilenets.layers import DepthwiseSeparableConv, InvertedResidual, LayerScale, inline, make_divisible
from keras_mobilenets.layers.activations import HardSigmoid, HardSwish

Weights = dict[str, list[np.ndarray]]
"""The arrays of each layer of a flat view, by its name."""

MAKING = (keras.layers.Conv2D, keras.layers.Dense)
PASSING = (  # what a channel of the value depends on is one channel of what is read, and 0 stays 0
    keras.layers.DepthwiseConv2D,
    keras.layers.BatchNormalization,
    LayerScale,
    *(keras.layers.Add, keras.layers.Multiply),
    *(keras.layers.ReLU, keras.layers.Activation, HardSwish, HardSigmoid),
    *(keras.layers.GlobalAveragePooling2D, keras.layers.Dropout, keras.layers.Reshape, keras.layers.Flatten),
)
V3_NECK, V3_NECK_RATIO = "conv_1", 6  # its builder makes this convolution 6 times as wide as the last block


class Channels:
    """Groups of channels that can only be cut together: what is added or multiplied, normalized, filtered depthwise.

    A group is named after the first convolution that makes its channels.

    Args:
        model: functional; layers of this package, or flat.

    Attributes:
        sizes: of all groups that can be cut, in the order of the network.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self.flat = inline(model)
        graph = Graph.of(self.flat)
        self._configs: dict[str, dict[str, Any]] = {}
        self._parent: dict[str, str] = {}
        self._fixed: set[str] = set()
        self._sizes: dict[str, int] = {}
        self._axes: dict[str, tuple[str, str]] = {}  # of each layer with weights: the group that it reads, and its own
        groups: dict[Node, str] = {}
        for node in graph.nodes:
            groups[node] = self._group(node, [groups[source] for source in node.inputs])
        for node in graph.output_nodes():
            self._fixed.add(self._root(groups[node]))
        self._norm_behind = self._normalizations(graph)
        settable = {group for layer in model.layers for group in self._settable(layer)} - self.fixed
        self.sizes = {name: size for name, size in self._sizes.items() if name in settable}

    def _settable(self, layer: Any) -> set[str]:
        """The groups whose width stands in the configuration of one of the model's own layers."""
        if isinstance(layer, InvertedResidual | DepthwiseSeparableConv):
            return {self.of(name) for name in self._made(layer)}
        own = isinstance(layer, keras.layers.Conv2D) and layer.name not in self.following
        return {self.of(layer.name)} if own else set()

    @staticmethod
    def _made(layer: Any) -> list[str]:
        """The convolutions of a block: its expansion, if it has one, and the last, which makes what leaves it."""
        return [part.name for part in layer.stages if isinstance(part, keras.layers.Conv2D)]

    @property
    def fixed(self) -> set[str]:
        """Groups that cannot be cut: pixels, answers, and what passes through a layer that is not understood."""
        return {self._root(name) for name in self._fixed}

    def of(self, layer: str) -> str:
        """The group of the channels that a layer of the flat view gives out."""
        return self._root(self._axes[layer][1])

    def into(self, layer: str) -> str:
        """The group of the channels that it reads."""
        return self._root(self._axes[layer][0])

    def _group(self, node: Node, sources: list[str]) -> str:
        shape: tuple[Any, ...] = getattr(node.tensor, "shape", (None,))
        alike = all(source.tensor is not None and source.tensor.shape[-1] == shape[-1] for source in node.inputs)
        layer, own = node.layer, sources[0] if sources else node.name
        if isinstance(layer, MAKING) and getattr(layer, "groups", 1) == 1:
            own = node.name
        elif isinstance(layer, PASSING) and alike and getattr(layer, "depth_multiplier", 1) == 1:
            for other in sources[1:]:
                first, second = sorted((self._root(own), self._root(other)), key=list(self._sizes).index)
                if first != second:
                    self._parent[second] = first
        else:
            self._fixed.update([*sources, node.name])
            own = node.name
        self._sizes.setdefault(own, shape[-1])
        if getattr(layer, "weights", ()):
            self._axes[layer.name] = (sources[0], own)
        return own

    def _root(self, name: str) -> str:
        while name in self._parent:
            name = self._parent[name]
        return name

    @staticmethod
    def _normalizations(graph: Graph) -> dict[str, str]:
        """The batch normalization that reads a convolution, by the convolution's name."""
        return {
            node.name: reader.name
            for node, readers in graph.consumers().items()
            for reader in readers
            if isinstance(reader.layer, keras.layers.BatchNormalization)
        }

    def groups_of(self, layer: str, array: np.ndarray) -> list[str | None]:
        """For each axis of one of a layer's arrays the group whose channels it counts, None for pixels of a kernel."""
        read, own = self.into(layer), self.of(layer)
        both: list[str | None] = [read, own]
        if array.ndim < 4:
            return both[-array.ndim :]
        depthwise = isinstance(self.flat.get_layer(layer), keras.layers.DepthwiseConv2D)
        return [None, None, own, None] if depthwise else [None, None, read, own]

    def norms(self, group: str, weights: Weights) -> np.ndarray:
        """L2 norm of the kernels that make each channel, with the factor of the normalization behind.

        Gates, which have none behind, count only where nothing is normalized.
        """
        makers = [
            name for name in self._axes if self.of(name) == group and isinstance(self.flat.get_layer(name), MAKING)
        ]
        normalized = [name for name in makers if name in self._norm_behind]
        squares = 0.0
        for name in normalized or makers:
            kernel = weights[name][0]
            square = (kernel.astype("float64") ** 2).sum(tuple(range(kernel.ndim - 1)))
            if name in self._norm_behind:
                norm = self.flat.get_layer(self._norm_behind[name])
                arrays = {one.name: array for one, array in zip(norm.weights, weights[norm.name], strict=True)}
                square = square * arrays.get("gamma", 1.0) ** 2 / (arrays["moving_variance"] + norm.epsilon)
            squares = squares + square
        return np.sqrt(squares)

    def kept(self, counts: Mapping[str, int], weights: Weights) -> dict[str, np.ndarray]:
        """The channels with the largest norm, in their order; of equal ones the first."""
        return {
            group: np.sort(np.argsort(-self.norms(group, weights), kind="stable")[:count])
            for group, count in counts.items()
        }

    def counts(self, narrower: keras.Model) -> dict[str, int]:
        """How many channels of each group are left in a network that `rebuilt` made."""
        found: dict[str, int] = {}
        for layer in inline(narrower).layers:
            for array in layer.get_weights():
                for group, size in zip(self.groups_of(layer.name, array), array.shape, strict=True):
                    if group is not None:
                        found[group] = size
        return {group: size for group, size in found.items() if group not in self.fixed}

    def rebuilt(self, widths: Mapping[str, int]) -> keras.Model:
        """The network with fewer channels in the given groups, and random weights."""

        def clone(layer: Any) -> Any:
            return type(layer).from_config(self.config(layer, widths))

        return keras.models.clone_model(self.model, clone_function=clone)

    def narrowed(self, widths: Mapping[str, int], weights: Weights) -> keras.Model:
        """The narrower network, with the weights that are left."""
        model = self.rebuilt(widths)
        give(model, self.sliced(weights, self.kept(self.counts(model), weights)))
        return model

    def config(self, layer: Any, widths: Mapping[str, int]) -> dict[str, Any]:
        """The configuration of one of the model's own layers, with its new widths."""

        width = partial(self.width, widths)
        if layer.name not in self._configs:  # a search asks thousands of times
            self._configs[layer.name] = layer.get_config()
        config = dict(self._configs[layer.name])
        if isinstance(layer, InvertedResidual | DepthwiseSeparableConv):
            made = self._made(layer)
            config["filters"] = width(self.of(made[-1]))
            if isinstance(layer, InvertedResidual):
                config["residual"] = layer.add is not None  # also where narrower widths happen to be equal, or not
                if layer.expansion is not None:
                    config["expansion"] = width(self.of(made[0])) / width(self.into(made[0]))
        elif isinstance(layer, keras.layers.Conv2D):
            config["filters"] = width(self.of(layer.name))
        return config

    def ambiguous(self, widths: Mapping[str, int]) -> bool:
        """Whether a block without residual connection would get one from a builder, by widths that come to agree.

        Those of networks for small pictures agree from the beginning, where the stride is taken away.
        """
        blocks = [one for one in self.model.layers if isinstance(one, InvertedResidual)]
        return any(
            self._keeps_width(one, widths) and not self._keeps_width(one, {})
            for one in blocks
            if one.strides == 1 and one.add is None and one.expansion is not None
        )

    def _keeps_width(self, block: Any, widths: Mapping[str, int]) -> bool:
        first, *_, last = self._made(block)
        return self.width(widths, self.into(first)) == self.width(widths, self.of(last))

    def leaving(self, layer: Any, entering: str | None) -> str | None:
        """The group that one of the model's own layers gives out, of the one that goes in; None for pixels."""
        if isinstance(layer, InvertedResidual | DepthwiseSeparableConv):
            return self.of(self._made(layer)[-1])
        return self.of(layer.name) if isinstance(layer, MAKING) else entering

    def width(self, widths: Mapping[str, int], group: str) -> int:
        """The new width of a group."""
        if group in self.following:
            return make_divisible(V3_NECK_RATIO * self.width(widths, self.into(group)))
        return widths.get(group, self._sizes[group])

    @property
    def following(self) -> set[str]:
        """Convolutions whose width is the builder's rule, not the table's."""
        names = {layer.name for layer in self.flat.layers}
        return {V3_NECK} & names if "expanded_conv_depthwise" in names and "Conv_1" not in names else set()

    def sliced(self, weights: Weights, kept: Mapping[str, np.ndarray]) -> Weights:
        """The weights of the channels that are kept."""
        result: Weights = {}
        for name, arrays in weights.items():
            result[name] = []
            for array in arrays:
                for axis, group in enumerate(self.groups_of(name, array)):
                    if group is not None and group in kept:
                        array = np.take(array, kept[group], axis)
                result[name].append(array)
        return result

    def masks(self, kept: Mapping[str, np.ndarray], weights: Weights) -> Weights:
        """Of each weight 1 where its channels are kept, and 0 where one is cut."""
        result: Weights = {}
        for name, arrays in weights.items():
            result[name] = []
            for array in arrays:
                mask = np.ones_like(array)
                for axis, group in enumerate(self.groups_of(name, array)):
                    if group is not None and group in kept:
                        cut = np.setdiff1d(np.arange(array.shape[axis]), kept[group])
                        mask[(slice(None),) * axis + (cut,)] = 0
                result[name].append(mask)
        return result


def weights_of(model: keras.Model) -> Weights:
    """The weights of a model, by the layers of its flat view."""
    return {layer.name: layer.get_weights() for layer in inline(model).layers if layer.weights}


def give(model: keras.Model, weights: Weights) -> None:
    """Sets the weights of a model by the layers of its flat view."""
    flat = inline(model)
    for name, arrays in weights.items():
        flat.get_layer(name).set_weights(arrays)


def narrow(model: keras.Model, widths: Mapping[str, int]) -> keras.Model:
    """Makes a network narrower: of each group of channels those with the largest norm stay, with their weights.

    Channels that are added belong together: residual partners get one width. So do an expansion, the depthwise
    convolution behind it and its squeeze-excite, whose inner width follows by its ratio. Removing channels whose
    weights are zero leaves the answers as they are.

    Args:
        model: a network of this package's builders, with any head. It stays as it is.
        widths: new numbers of channels by the name of the first convolution of `inline(model)` that makes them,
            each from 1 to what it has. Expansions are multiples of 8, which `InvertedResidual` rounds to.

    Returns:
        A functional model of the same layers.

    Raises:
        ValueError: an unknown name, or a width out of its range.

    Reference:
        Yang et al., NetAdapt, arXiv:1804.03230, section 3.3.2.

    Example:

    >>> model = MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=5)
    >>> narrow(model, {"block_1_expand": 24, "block_3_project": 8}).get_layer("block_3").filters
    8
    """
    channels = Channels(model)
    for name, width in widths.items():
        if name not in channels.sizes:
            raise ValueError(f"`widths` must name one of {list(channels.sizes)}. Received: {name!r}")
        if not 1 <= width <= channels.sizes[name]:
            raise ValueError(f"`widths` of {name!r} must be from 1 to {channels.sizes[name]}. Received: {width}")
    return channels.narrowed(widths, weights_of(model))
