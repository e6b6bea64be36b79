"""The plan: where the deployed integer graph will requantize, and so where fake quantization belongs."""

from __future__ import annotations

from collections.abc import Callable

import keras

from keras_mobilenets.graph import Graph, Item, Node
from keras_mobilenets.layers import LayerScale
from keras_mobilenets.quantization.config import QuantizeConfig
from keras_mobilenets.quantization.forms import Scaling
from keras_mobilenets.quantization.fronts import fronts_of
from keras_mobilenets.quantization.lower import is_relu
from keras_mobilenets.quantization.operations import Readers
from keras_mobilenets.quantization.regions import insert_entries
from keras_mobilenets.quantization.roles import PASSING, Role, is_plain_resize, role_of

PROBABILITY = (0.0, 255.0 / 256.0)
"""The range that TFLite prescribes for softmax and sigmoid: scale 1/256, zero point -128."""
TANH = (-1.0, 127.0 / 128.0)
"""Likewise for tanh: scale 1/128, zero point 0."""

_COMPUTES = (
    Role.KERNEL,
    Role.NORM,
    Role.SCALE,
    Role.RELU,
    Role.HARD_SWISH,
    Role.COMBINE,
    Role.JOIN,
    Role.AVERAGE,
    Role.REQUANTIZE,
    Role.PRODUCT,
)


class Plan:
    """What becomes of each node of a lowered graph.

    Args:
        graph: the lowered graph.
        stays_float: tells of the layer of a node whether it was asked to stay in float.
        config_of: gives the `QuantizeConfig` of the layer of a node, or None.
        by_first: whether the first layer of what becomes one operation decides for all (convolution, normalization,
            ReLU); else each layer that stays in float keeps the others with it.

    Attributes:
        roles: what each node does.
        quantized: the nodes behind which a feature map is quantized, with a fixed range or None where it is observed.
        symmetric: the nodes whose grid has 0 in its middle, as XNNPACK's product of two feature maps has no zero point
            of the second.
        tied: the nodes whose output is rounded to the grid of another node.
        left_in_float: the nodes that stay in float without having been asked to: the runtimes have no integer form of
            them.
        fronts: of each input of the model that is quantized, what is in front of the quantizer.

    Raises:
        ValueError: a `QuantizeConfig` does not fit its layer.
    """

    def __init__(
        self,
        graph: Graph,
        stays_float: Callable[[Node], bool] = lambda node: False,
        config_of: Callable[[Node], QuantizeConfig | None] = lambda node: None,
        by_first: bool = False,
    ):
        self.graph = graph
        self.config_of = config_of
        fronts = fronts_of(graph, stays_float)
        self._in_front = {node for front in fronts.values() for node in front.nodes}
        self.roles = {node: self._role(node) for node in graph.nodes}
        self._read()
        self.left_in_float: list[Node] = []
        self.floating = self._floating(stays_float, by_first)
        self.fronts = {
            start: front
            for start, front in fronts.items()
            if self._is_read_as_integers(start) or self._is_only_moved(start)
        }
        self._in_front = {node for front in self.fronts.values() for node in front.nodes}
        self.floating.update(node for node in graph.nodes if self._is_front(node) and node not in self._in_front)
        insert_entries(graph, self.floating)
        self.roles = {node: self.roles.get(node) for node in graph.nodes}
        self._read()
        self._ends_of_fronts = {front.end for front in self.fronts.values()}
        for node in graph.nodes:
            if self._joins_one_grid(node):
                self.roles[node] = Role.MOVE
        tied = [node for node in graph.nodes if self._keeps_grid(node) or self._is_moved_into_join(node)]
        self.tied = {node: self.grid_of(node.inputs[0]) for node in tied}
        products = [node for node in graph.nodes if self.roles[node] is Role.PRODUCT and node not in self.floating]
        self.symmetric = {self.grid_of(part) for node in products for part in _need_symmetry(node)}
        self.quantized = {node: fixed for node in graph.nodes for fixed in self._quantizer(node)}

    def _read(self) -> None:
        self.readers = Readers(self.graph, lambda node: self.roles[node])
        self.consumers, self.outputs = self.readers.consumers, self.readers.outputs

    def _role(self, node: Node) -> Role | None:
        role = role_of(node.layer)
        if isinstance(node.layer, keras.layers.Resizing | keras.layers.CenterCrop) and node not in self._in_front:
            crops = isinstance(node.layer, keras.layers.CenterCrop)
            role = Role.MOVE if crops else Role.SAME_GRID if is_plain_resize(node.layer) else None
        if role is Role.FRONT and node not in self._in_front and len(node.tensor.shape) != 4:
            role = None  # a table whose columns differ in range is normalized in float
        if role is Role.RELU and not is_relu(node.layer, None, 6.0):
            role = None
        config = self.config_of(node)
        if config is not None and config.weights and role is not None:
            raise ValueError(
                f"The QuantizeConfig of {node.name!r} names weights, but what to quantize of a "
                f"{type(node.layer).__name__} is known. `weights` is for layers of your own."
            )
        return Role.OWN if role is None and config is not None else role

    def _floating(self, stays_float: Callable[[Node], bool], by_first: bool) -> set[Node]:
        """The nodes that stay in float: of what becomes one operation all or none."""
        floating: set[Node] = set()
        for node in self.graph.nodes:
            operation = self.readers.chain(node)
            if any(self.fuses(source) for source in node.inputs):
                continue  # it is not the first one of its operation
            asked = any(stays_float(part) for part in (operation[:1] if by_first else operation))
            lacking = [part for part in operation if not self._has_integer_form(part)]
            item_of_float = isinstance(node.layer, Item) and node.inputs[0] in floating
            if asked or lacking or item_of_float:
                floating.update(operation)
            if not asked:
                self.left_in_float.extend(lacking)
        return floating

    def fuses(self, node: Node) -> bool:
        """Whether the integer graph computes the node and its only reader in one operation."""
        return self.readers.fused(node) is not None

    def _is_read_as_integers(self, node: Node) -> bool:
        """Whether something that is quantized computes with the value."""
        for reader in self.consumers[node]:
            if self.roles[reader] in (*PASSING, Role.FRONT):
                if self._is_read_as_integers(reader):
                    return True
            elif reader not in self.floating:
                return True
        return False

    def _is_only_moved(self, node: Node) -> bool:
        """Whether the value goes to an output of the model as it is, but for its place."""
        readers = [one for one in self.consumers[node] if self.roles[one] in (*PASSING, Role.FRONT, Role.SAME_GRID)]
        moved = [one for one in readers if one not in self.floating]
        return node in self.outputs or any(self._is_only_moved(one) for one in moved)

    def _is_front(self, node: Node) -> bool:
        return self.roles[node] is Role.FRONT

    def _has_integer_form(self, node: Node) -> bool:
        role = self.roles[node]
        if role is Role.NORM:
            return self.fuses(node.inputs[0])
        if role is Role.FRONT:
            return node in self._in_front
        if isinstance(node.layer, keras.layers.Dense):
            return len(node.tensor.shape) <= 4  # beyond, converters part the bias from the product
        if role is Role.PRODUCT:
            return len(node.inputs) == 2 and all(map(self._may_be_symmetric, _need_symmetry(node)))
        if role is Role.COMBINE:
            return len(node.inputs) == 2 or isinstance(node.layer, Scaling)
        if isinstance(node.layer, LayerScale):
            return any(self.fuses(source) for source in node.inputs)
        if isinstance(node.layer, keras.layers.Softmax):
            return isinstance(node.layer.axis, int)
        return role is not None

    def _may_be_symmetric(self, node: Node) -> bool:
        """Whether the grid of a value is free to have 0 in its middle."""
        while self.roles[node] in (*PASSING, Role.SAME_GRID) and node.inputs:
            node = node.inputs[0]
        return self.roles[node] in _COMPUTES or not self._has_integer_form(node)

    def _keeps_grid(self, node: Node) -> bool:
        return self.roles[node] is Role.SAME_GRID and node not in self.floating and node not in self._in_front

    def _is_moved_into_join(self, node: Node) -> bool:
        """Whether a converter would round what it moves to the grid of a whole behind it, for all readers."""
        moves = self.roles[node] in PASSING and node not in self.floating and node not in self._in_front
        return moves and any(self._is_join(reader) for reader in self.consumers[node])

    def grid_of(self, node: Node) -> Node:
        """The node behind whose quantizer the values of this one got their grid."""
        while node not in self._ends_of_fronts and self.roles[node] in (*PASSING, Role.SAME_GRID):
            node = node.inputs[0]
        return node

    def _joins_one_grid(self, node: Node) -> bool:
        """Whether all that the node joins is on one grid already, as a gray image that is repeated."""
        return self._is_join(node) and len({self.grid_of(part) for part in node.inputs}) == 1

    def _is_join(self, node: Node) -> bool:
        return self.roles[node] is Role.JOIN and node not in self.floating

    def _quantizer(self, node: Node) -> list[tuple[float, float] | None]:
        """Nothing, or one range: fixed, or None for an observed one."""
        role = self.roles[node]
        keeps = role in (*PASSING, Role.SAME_GRID) and not (isinstance(node.layer, Item) and node in self.floating)
        if node.is_input or node in self._in_front or keeps or self.fuses(node):
            return []
        if not isinstance(node.tensor, keras.KerasTensor):
            return []  # several outputs: each has a node of its own
        if node in self.floating:  # what integers are computed from must be integers
            return [None] if self._is_read_as_integers(node) else []
        if self._is_joined(node):
            return []
        if role is Role.OWN:
            output = self.config_of(node).output  # type: ignore[union-attr]
            return [] if output is False else [None if output is True else output]
        if role is Role.BOUNDED:
            is_tanh = (
                isinstance(node.layer, keras.layers.Activation) and node.layer.activation is keras.activations.tanh
            )
            return [TANH if is_tanh else PROBABILITY]
        return [None] if role in _COMPUTES else []

    def _is_joined(self, node: Node) -> bool:
        """Whether the node needs no grid of its own, as nothing reads it but what rounds it to the grid of a whole."""
        reader, config = self.readers.sole(node), self.config_of(node)
        has_own = config is not None and (config.activation_bits is not None or config.observer is not None)
        return reader is not None and not has_own and self.roles[node] in _COMPUTES and self._is_join(reader)


def _need_symmetry(product: Node) -> list[Node]:
    """The operands of a product that must have 0 in the middle of their grids: the second, of an einsum either."""
    return product.inputs if type(product.layer).__name__ == "Einsum" else product.inputs[1:]
