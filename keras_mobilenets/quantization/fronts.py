"""What stands in front of a model: layers that bring pictures to size, scale them, or do nothing at inference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np

from keras_mobilenets.graph import Graph, Node
from keras_mobilenets.layers.composite import takes_training
from keras_mobilenets.quantization.operations import Readers
from keras_mobilenets.quantization.roles import Role, role_of

_L = keras.layers
SIZING = (_L.Resizing, _L.CenterCrop, _L.RandomCrop)
BATCH = 16
Affine = tuple[Any, Any]
"""(scale, offset) of `scale * x + offset`, as numbers or with one for each channel."""


@dataclass(frozen=True, eq=False)
class Front:
    """What lies between an input of a model and what computes with it.

    Attributes:
        start: the input.
        nodes: in order; of a picture they bring it to size, scale and augment it, of other inputs they only augment.
    """

    start: Node
    nodes: tuple[Node, ...]

    @property
    def end(self) -> Node:
        """The last of it."""
        return self.nodes[-1] if self.nodes else self.start

    @property
    def affine(self) -> Affine:
        """What it does to a value."""
        return _composed(self.nodes)

    @cached_property
    def sizing(self) -> tuple[Node, ...]:
        """The nodes that bring pictures to another size at inference."""
        sizes = [self.start.tensor.shape]
        for node in self.nodes:
            sizes.append(node.tensor.shape if _brings_to_size(node.layer) else sizes[-1])
        return tuple(node for node, before, size in zip(self.nodes, sizes, sizes[1:], strict=False) if before != size)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a picture that is brought to size, without the batch."""
        return tuple((self.sizing[-1] if self.sizing else self.start).tensor.shape[1:])

    @property
    def is_idle(self) -> bool:
        """Whether pictures have another size at inference than the model says, as a crop does nothing then."""
        return self.shape != tuple(self.end.tensor.shape[1:])

    def to_size(self, pictures: np.ndarray) -> np.ndarray:
        """Pictures as the model takes them, brought to the size that it computes with, in the same range.

        Padding is not 0 everywhere, so they are scaled as the model does before, and back.
        """
        if not self.sizing:
            return pictures
        nodes = self.nodes[: self.nodes.index(self.sizing[-1]) + 1]
        scale, offset = _composed(nodes)
        parts = []
        for first in range(0, len(pictures), BATCH):
            values: Any = keras.ops.convert_to_tensor(pictures[first : first + BATCH], self.start.tensor.dtype)
            for node in nodes:
                values = _at_inference(node, values)
            parts.append(keras.ops.convert_to_numpy(keras.ops.cast(values, "float32")))
        # In the order of `PixelScale.pixels`, so that halves of pixels, as padding by 0 in [-1, 1], fall to one side.
        std, mean = 1 / np.asarray(scale, float), -np.asarray(offset, float) / np.asarray(scale, float)
        return np.concatenate(parts) * std.astype("float32") + mean.astype("float32")


def fronts_of(graph: Graph, stays_float: Callable[[Node], bool] = lambda node: False) -> dict[Node, Front]:
    """The front of each input: all up to the first that others read too, or that computes.

    Args:
        graph: of a flat model.
        stays_float: tells of a node whether it is no part of a front as it was asked to stay in float.
    """
    readers = Readers(graph)
    fronts = {}
    for start in (node for node in graph.nodes if node.is_input):
        kinds = (Role.FRONT, Role.TRAINING) if len(start.tensor.shape) == 4 else (Role.TRAINING,)
        node, nodes = start, []
        while (reader := readers.sole(node)) is not None:
            if role_of(reader.layer) not in kinds or len(reader.inputs) != 1 or stays_float(reader):
                break
            if role_of(reader.layer) is Role.FRONT and affine_of(reader) is None:
                break
            nodes.append(reader)
            node = reader
        fronts[start] = Front(start, tuple(nodes))
    return fronts


def _brings_to_size(layer: Any) -> bool:
    return isinstance(layer, SIZING) and role_of(layer) is Role.FRONT


def _at_inference(node: Node, values: Any) -> Any:
    args, kwargs = node.substitute(lambda source: values)
    training = {"training": False} if isinstance(node.layer, _L.Layer) and takes_training(node.layer) else {}
    return node.layer(*args, **{**kwargs, **training})


def affine_of(node: Node) -> Affine | None:
    """What a layer in front of a model does to a value; None where it is not the same for all values of a channel."""
    layer, channels = node.layer, node.tensor.shape[-1]
    if isinstance(layer, _L.Normalization):
        return _for_each_channel(*_normalization(layer), channels)
    if isinstance(layer, _L.Rescaling):
        return _for_each_channel(layer.scale, layer.offset, channels)
    return 1.0, 0.0


def is_scalar_scaling(layer: Any) -> bool:
    """Whether the layer is a `Rescaling` by one number, not by one for each channel."""
    return isinstance(layer, _L.Rescaling) and np.ndim(layer.scale) == np.ndim(layer.offset) == 0


def _normalization(layer: Any) -> Affine:
    mean, variance = (np.asarray(keras.ops.convert_to_numpy(one), "float64") for one in (layer.mean, layer.variance))
    deviation = np.maximum(np.sqrt(variance), keras.config.epsilon())
    return (deviation, mean) if layer.invert else (1.0 / deviation, -mean / deviation)


def _for_each_channel(scale: Any, offset: Any, channels: int | None) -> Affine | None:
    """The same as numbers or rows of `channels` numbers; None where it is neither."""
    found = []
    for values in (np.asarray(scale, "float64"), np.asarray(offset, "float64")):
        if values.size > 1 and not values.shape[-1] == values.size == channels:
            return None
        found.append(float(values.flat[0]) if values.size == 1 or np.ptp(values) == 0 else values.ravel())
    return found[0], found[1]


def _composed(nodes: Sequence[Node]) -> Affine:
    scale: Any = 1.0
    offset: Any = 0.0
    for node in nodes:
        factor, added = affine_of(node) or (1.0, 0.0)
        scale, offset = scale * factor, offset * factor + added
    return scale, offset
