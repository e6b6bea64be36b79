"""The plan: where the deployed integer graph will requantize, and so where fake quantization belongs."""

from __future__ import annotations

import enum
from collections.abc import Collection
from typing import Any

import keras

from keras_mobilenets.layers import HardSigmoid, HardSwish
from keras_mobilenets.quantization.graph import Graph, Node
from keras_mobilenets.quantization.lower import KERNEL_LAYERS, is_relu

PROBABILITY = (0.0, 255.0 / 256.0)
"""The range that TFLite prescribes for softmax and sigmoid: scale 1/256, zero point -128."""
TANH = (-1.0, 127.0 / 128.0)
"""Likewise for tanh: scale 1/128, zero point 0."""


class Role(enum.Enum):
    """What a node does, as far as quantization is concerned."""

    INPUT = enum.auto()
    KERNEL = enum.auto()  # a convolution or matrix product: int8 kernel, int32 accumulator
    NORM = enum.auto()  # batch normalization, which is folded into a kernel
    RELU = enum.auto()  # clipping, which the operation before it does on its way out
    HARD_SIGMOID = enum.auto()
    HARD_SWISH = enum.auto()
    COMBINE = enum.auto()  # addition, multiplication
    AVERAGE = enum.auto()  # global average: a requantizing operation of its own
    BOUNDED = enum.auto()  # the range of the result is prescribed
    MOVE = enum.auto()  # only moves values: the result is on the grid of the input
    TRAINING = enum.auto()  # does nothing at inference
    SCALING = enum.auto()  # scale * x + offset, as normalization of the input only


_L = keras.layers
# At inference each of these gives back what it got. By name, as some are younger than the oldest Keras that is known.
_TRAINING_ONLY = tuple(
    getattr(_L, name)
    for name in (
        *("Dropout", "SpatialDropout2D", "GaussianDropout", "AlphaDropout", "GaussianNoise", "ActivityRegularization"),
        *("Identity", "RandomFlip", "RandomRotation", "RandomTranslation", "RandomZoom", "RandomContrast"),
        *("RandomBrightness", "RandomColorDegeneration", "RandomColorJitter", "RandomElasticTransform", "RandomErasing"),
        *("RandomGaussianBlur", "RandomGrayscale", "RandomHue", "RandomInvert", "RandomPerspective"),
        *("RandomPosterization", "RandomSaturation", "RandomSharpness", "RandomShear", "RandAugment", "AugMix"),
        *("MixUp", "CutMix"),
    )
    if hasattr(_L, name)
)
_ROLES: tuple[tuple[Role, tuple[type, ...]], ...] = (
    (Role.HARD_SIGMOID, (HardSigmoid,)),
    (Role.HARD_SWISH, (HardSwish,)),
    (Role.NORM, (_L.BatchNormalization,)),
    (Role.RELU, (_L.ReLU,)),
    (Role.COMBINE, (_L.Add, _L.Multiply)),
    (Role.AVERAGE, (_L.GlobalAveragePooling2D,)),
    (Role.BOUNDED, (_L.Softmax, _L.Activation)),  # of Activation only sigmoid and tanh are left after `lower`
    (Role.MOVE, (_L.Reshape, _L.Flatten, _L.Permute, _L.ZeroPadding2D, _L.Cropping2D)),
    (Role.MOVE, (_L.MaxPooling2D, _L.GlobalMaxPooling2D)),
    (Role.TRAINING, _TRAINING_ONLY),
    (Role.SCALING, (_L.Rescaling,)),
)
_OPERATION_ROLES = {"Reshape": Role.MOVE, "Squeeze": Role.MOVE, "ExpandDims": Role.MOVE, "Cast": Role.TRAINING}


def role_of(layer: Any) -> Role | None:
    """The role of a layer; None where it is not known."""
    if layer is None:
        return Role.INPUT
    if type(layer) in KERNEL_LAYERS:
        return Role.KERNEL
    for role, classes in _ROLES:
        if isinstance(layer, classes):
            return role
    return _OPERATION_ROLES.get(type(layer).__name__)


class Plan:
    """What becomes of each node of a lowered graph.

    Args:
        graph: the lowered graph.
        skip: names of the layers that stay in float.

    Attributes:
        quantized: the nodes behind which a feature map is quantized, with a fixed range or None where it is observed.
        normalized: for each input of the model the last node of the normalization and augmentation behind it, and
            the normalization's (scale, offset).

    Raises:
        ValueError: a layer cannot be quantized, or a name in `skip` is not known.
    """

    def __init__(self, graph: Graph, skip: Collection[str] = ()):
        self.graph = graph
        self.consumers = graph.consumers()
        self.outputs = graph.output_nodes()
        self.skip = set(skip)
        self._check_skip()
        self.roles = {node: role_of(node.layer) for node in graph.nodes}
        self.normalized = {node: self._follow_input(node) for node in graph.nodes if node.is_input}
        self.front = self._front()
        self._check_layers()
        self.quantized = {node: fixed for node in graph.nodes for fixed in self._quantizer(node)}

    def _check_skip(self) -> None:
        names = [node.name for node in self.graph.nodes]
        for name in self.skip:
            if name not in names:
                raise ValueError(f"`skip` names a layer that the model does not have: {name!r}. It has: {names}")

    def _follow_input(self, node: Node) -> tuple[Node, float, float]:
        scale, offset = 1.0, 0.0
        while node not in self.outputs and len(self.consumers[node]) == 1:
            reader = self.consumers[node][0]
            if self.roles[reader] is Role.SCALING:
                layer = reader.layer
                scale, offset = scale * layer.scale, offset * layer.scale + layer.offset
            elif self.roles[reader] is not Role.TRAINING:
                break
            node = reader
        return node, scale, offset

    def _front(self) -> set[Node]:
        """The nodes between an input and its quantizer."""
        front: set[Node] = set()
        for last, _, _ in self.normalized.values():
            node = last
            while not node.is_input:
                front.add(node)
                node = node.inputs[0]
        return front

    def _check_layers(self) -> None:
        for node in self.graph.nodes:
            if node in self.front or node.name in self.skip:
                continue
            reason = self._refusal(node)
            if reason:
                raise ValueError(
                    f"Layer {node.name!r} ({type(node.layer).__name__}) cannot be quantized: {reason} "
                    f"To leave it in float: quantize_model(model, skip=[{node.name!r}])."
                )

    def _refusal(self, node: Node) -> str | None:
        role = self.roles[node]
        if role is None:
            return "its arithmetic is not known."
        if role is Role.NORM and self.roles[node.inputs[0]] is not Role.KERNEL:
            return "it does not follow a convolution or Dense layer that it could be folded into."
        if role is Role.NORM and not self.fuses(node.inputs[0]):
            return f"it is not the only one that reads {node.inputs[0].name!r}, so that it cannot be folded into it."
        if role is Role.SCALING:
            return "a scaling is known only right behind an input of the model, as its normalization."
        if role is Role.RELU and not is_relu(node.layer, None, 6.0):
            return "of ReLU layers only relu and relu6 have an integer form."
        if role is Role.COMBINE and len(node.inputs) != 2:
            return "it does not join exactly two different feature maps."
        if isinstance(node.layer, keras.layers.Softmax) and node.layer.axis != -1:
            return "its axis is not the last one."
        return None

    def fuses(self, node: Node) -> bool:
        """Whether the integer graph computes the node and its only reader in one operation."""
        if node in self.outputs or len(self.consumers[node]) != 1:
            return False
        reader = self.consumers[node][0]
        role, reader_role = self.roles[node], self.roles[reader]
        if reader_role is Role.NORM:
            return role is Role.KERNEL
        if reader_role is Role.RELU:
            return role in (Role.KERNEL, Role.NORM, Role.COMBINE)
        return reader_role is Role.HARD_SIGMOID and role in (Role.KERNEL, Role.NORM)

    def _quantizer(self, node: Node) -> list[tuple[float, float] | None]:
        """Nothing, or one range: fixed, or None for an observed one."""
        role = self.roles[node]
        if node in self.front or node.is_input or self._skipped(node):
            return []
        if role is Role.BOUNDED:
            is_tanh = isinstance(node.layer, keras.layers.Activation) and node.layer.activation is keras.activations.tanh
            return [TANH if is_tanh else PROBABILITY]
        observed = (Role.KERNEL, Role.NORM, Role.RELU, Role.HARD_SWISH, Role.COMBINE, Role.AVERAGE)
        return [None] if role in observed and not self.fuses(node) else []

    def _skipped(self, node: Node) -> bool:
        """Whether the operation that ends in this node is to stay in float."""
        if node.name in self.skip:
            return True
        return any(self.fuses(source) and self._skipped(source) for source in node.inputs)
