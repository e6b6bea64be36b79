"""What the integer graph computes as one operation: decided here, for the plan and for all who read its result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from keras_mobilenets.graph import Graph, Node
from keras_mobilenets.quantization.config import QuantWeights
from keras_mobilenets.quantization.roles import PASSING, Role, role_of

_TAKEN_IN: dict[Role | None, tuple[Role, ...]] = {
    Role.NORM: (Role.KERNEL,),
    Role.SCALE: (Role.KERNEL, Role.NORM),
    Role.RELU: (Role.KERNEL, Role.NORM, Role.SCALE, Role.COMBINE),
    Role.HARD_SIGMOID: (Role.KERNEL, Role.NORM),
}
"""What is computed together with what stands before it."""


@dataclass(frozen=True, eq=False)
class Operation:
    """What the integer graph computes as one operation: a layer, and what is computed together with it.

    Attributes:
        name: of the layer; of an input of the model the input's.
        nodes: all that is computed, in order: the layer, the normalization and the factor that are folded into it, the
            activation or gate behind it, and the quantizer that rounds the result.
        quantizer: what rounds the result: the last node, or the quantizer of the concatenation that alone reads it;
            None for what stays in float, only moves values, or is a gate, which has a grid of its own.
        factor: how many times larger than in the model the result is computed.
    """

    name: str
    nodes: tuple[Node, ...]
    quantizer: Node | None
    factor: float = 1.0

    @property
    def role(self) -> Role | None:
        return role_of(self.nodes[0].layer)

    @property
    def kernel(self) -> Node | None:
        """The node with the kernel, or with the weights of a user's own layer."""
        has_one = self.role is Role.KERNEL or isinstance(self.nodes[0].layer, QuantWeights)
        return self.nodes[0] if has_one else None

    @property
    def norm(self) -> Node | None:
        """The normalization that is folded into the kernel."""
        return self._behind_kernel(Role.NORM)

    @property
    def scale(self) -> Node | None:
        """The factor that is folded into the kernel."""
        return self._behind_kernel(Role.SCALE)

    @property
    def gate(self) -> Node | None:
        """The hard-sigmoid whose `+ 3` is in the bias of the kernel."""
        return self._behind_kernel(Role.HARD_SIGMOID)

    @property
    def activation(self) -> Node | None:
        """The ReLU that the operation does on its way out."""
        return next((node for node in self.nodes if role_of(node.layer) is Role.RELU), None)

    @property
    def bias(self) -> tuple[Node, Any] | None:
        """The node that adds a kernel's bias, and the bias; None where there is none, or an activation in the layer."""
        if self.role is not Role.KERNEL:
            return None
        if self.norm is not None:
            return (self.norm, self.norm.layer.beta) if self.norm.layer.center else None
        layer = self.nodes[0].layer
        is_linear = getattr(layer.activation, "__name__", "linear") == "linear"
        return (self.nodes[0], layer.bias) if layer.use_bias and is_linear else None

    @property
    def end(self) -> Node:
        """The node whose value is the operation's."""
        return self.nodes[-1]

    @property
    def sources(self) -> list[Node]:
        """What the operation reads."""
        return [source for node in self.nodes for source in node.inputs if source not in self.nodes]

    def _behind_kernel(self, role: Role) -> Node | None:
        found = (node for node in self.nodes[1:] if role_of(node.layer) is role)
        return next(found, None) if self.role is Role.KERNEL else None


class Readers:
    """Who reads what in a graph, and what is computed together.

    Args:
        graph: a lowered one, or that of a quantized model.
        role: gives the role of a node.
    """

    def __init__(self, graph: Graph, role: Callable[[Node], Role | None] = lambda node: role_of(node.layer)):
        self.consumers: Mapping[Node, list[Node]] = graph.consumers()
        self.outputs = graph.output_nodes()
        self.role = role

    def sole(self, node: Node) -> Node | None:
        """The node that alone reads the value; None where several do, or the value leaves the model."""
        readers = self.consumers[node]
        return readers[0] if len(readers) == 1 and node not in self.outputs else None

    def fused(self, node: Node) -> Node | None:
        """The reader that is computed in one operation with the node, if there is one."""
        reader = self.sole(node)
        if reader is None or self.role(node) not in _TAKEN_IN.get(self.role(reader), ()):
            return None
        if self.role(reader) is Role.NORM and reader.layer.axis not in (-1, len(node.tensor.shape) - 1):
            return None  # a kernel has one factor for each of its output channels, which are the last axis
        return reader

    def chain(self, node: Node) -> list[Node]:
        """The node, and what is computed in one operation behind it."""
        chain = [node]
        while (reader := self.fused(chain[-1])) is not None:
            chain.append(reader)
        return chain


def operations_of(graph: Graph) -> tuple[Operation, ...]:
    """The operations of a flat model, quantized or float, each behind those that it reads."""
    readers, taken, chains = Readers(graph), set[Node](), []
    for node in graph.nodes:
        if node.is_input or node in taken:
            continue
        chain = readers.chain(node)
        quantizer = readers.sole(chain[-1])
        if quantizer is not None and _rounds(quantizer) and role_of(node.layer) not in (*PASSING, Role.FRONT):
            chain.append(quantizer)
        taken.update(chain)
        chains.append(chain)
    places, uses = {node: place for place, node in enumerate(graph.nodes)}, Counter[str]()
    chains.sort(key=lambda chain: places[chain[-1]])
    quantizers = _quantizers(chains, readers)
    operations = []
    for chain in chains:
        name = chain[0].name.removesuffix("_quant") if _rounds(chain[0]) else chain[0].name
        uses[name] += 1  # a shared layer is one operation for each use
        name = name if uses[name] == 1 else f"{name} ({uses[name]})"
        operations.append(Operation(name, tuple(chain), quantizers[chain[-1]]))
    return tuple(operations)


def _rounds(node: Node) -> bool:
    return role_of(node.layer) is Role.QUANTIZER


def _quantizers(chains: list[list[Node]], readers: Readers) -> dict[Node, Node | None]:
    """What rounds the result of each chain, by its last node."""
    found: dict[Node, Node | None] = {}
    end_of = {node: chain[-1] for chain in chains for node in chain}
    for *_, end in reversed(chains):
        reader = readers.sole(end)
        if _rounds(end):
            found[end] = end
        else:
            joined = reader if reader is not None and role_of(reader.layer) is Role.JOIN else None
            found[end] = found[end_of[joined]] if joined is not None else None
    return found
