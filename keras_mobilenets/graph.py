"""A flat model as a list of nodes that can be read and rewritten."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import keras


class Node:
    """One application of a layer (or of an operation such as `keras.ops.add`) to the values of other nodes.

    Args:
        layer: the layer or operation; an `InputLayer` for an input of the model.
        args: what it is called with; tensors are nodes.
        kwargs: likewise.
        tensor: the symbolic value of the node in the model that it was read from, or one like it for a node that was
            added. A layer with several outputs has their structure; each is the value of an `Item` node that reads it.
    """

    def __init__(self, layer: Any, args: tuple = (), kwargs: dict[str, Any] | None = None, tensor: Any = None):
        self.layer = layer
        self.args = args
        self.kwargs = kwargs or {}
        self.tensor = tensor

    @property
    def inputs(self) -> list[Node]:
        return [leaf for leaf in keras.tree.flatten((self.args, self.kwargs)) if isinstance(leaf, Node)]

    @property
    def is_input(self) -> bool:
        return isinstance(self.layer, keras.layers.InputLayer)

    @property
    def name(self) -> str:
        return self.layer.name

    def substitute(self, replace: Callable[[Node], Any]) -> tuple[tuple, dict[str, Any]]:
        """The arguments with `replace(node)` in place of each node."""
        return keras.tree.map_structure(
            lambda leaf: replace(leaf) if isinstance(leaf, Node) else leaf, (self.args, self.kwargs)
        )


class Item:
    """Takes one of the tensors that a layer with several outputs gives.

    Args:
        index: its place in the flattened structure.
        name: of the node.
    """

    def __init__(self, index: int, name: str):
        self.index = index
        self.name = name

    def __call__(self, values: Any) -> Any:
        return keras.tree.flatten(values)[self.index]


class Graph:
    """The nodes of a flat functional model, each one after those that it reads.

    Args:
        inputs: the model's inputs, in the model's structure (one, a list, a dictionary).
        outputs: likewise.
        nodes: all nodes in order, inputs included.
        name: the model's name.
    """

    def __init__(self, inputs: Any, outputs: Any, nodes: list[Node], name: str):
        self.inputs = inputs
        self.outputs = outputs
        self.nodes = nodes
        self.name = name
        self.output_names: list[str] = []

    @classmethod
    def of(cls, model: keras.Model) -> Graph:
        """Reads a flat functional model."""
        nodes: list[Node] = []
        by_tensor: dict[int, Node] = {}
        tensors = []  # kept alive, so that no other tensor gets the id of one of them

        def add(node: Node) -> None:
            nodes.append(node)
            by_tensor[id(node.tensor)] = node
            tensors.append(node.tensor)

        def record(layer, *args, **kwargs):
            value = layer(*args, **kwargs)
            args, kwargs = keras.tree.map_structure(lambda leaf: by_tensor.get(id(leaf), leaf), (args, kwargs))
            node = Node(layer, args, kwargs, value)
            add(node)
            if not isinstance(value, keras.KerasTensor):
                for index, tensor in enumerate(keras.tree.flatten(value)):
                    add(Node(Item(index, f"{layer.name}_{index}"), (node,), tensor=tensor))
            return value

        layers = {id(layer.output): layer for layer in model.layers if isinstance(layer, keras.layers.InputLayer)}
        for tensor in keras.tree.flatten(model.input):
            add(Node(layers[id(tensor)], tensor=tensor))
        read = keras.models.clone_model(
            keras.Model(model.input, model.output),
            input_tensors=model.input,
            clone_function=lambda layer: layer,
            call_function=record,
        )
        inputs, outputs = keras.tree.map_structure(lambda tensor: by_tensor[id(tensor)], (model.input, read.output))
        graph = cls(inputs, outputs, nodes, model.name)
        graph.output_names = list(model.output_names)
        return graph

    def consumers(self) -> dict[Node, list[Node]]:
        """The nodes that read each node."""
        consumers: dict[Node, list[Node]] = {node: [] for node in self.nodes}
        for node in self.nodes:
            for source in dict.fromkeys(node.inputs):
                consumers[source].append(node)
        return consumers

    def output_nodes(self) -> set[Node]:
        return set(keras.tree.flatten(self.outputs))

    def redirect(self, old: Node, new: Node, keep: Iterable[Node] = ()) -> None:
        """Lets all readers of `old`, those in `keep` excepted, read `new`."""

        def swap(node):
            return new if node is old else node

        kept = set(keep)
        for node in self.nodes:
            if node not in kept and old in node.inputs:
                node.args, node.kwargs = node.substitute(swap)
        self.outputs = keras.tree.map_structure(swap, self.outputs)

    def insert_after(self, node: Node, new: Node) -> None:
        """Puts `new`, which reads `node`, between it and its readers."""
        self.nodes.insert(self.nodes.index(node) + 1, new)
        self.redirect(node, new, keep=[new])

    def expand(self, node: Node, model: keras.Model) -> list[Node]:
        """Puts the nodes of a flat functional model of one output in the place of a node, and gives them."""
        part = Graph.of(model)
        sources = dict(zip(keras.tree.flatten(part.inputs), node.inputs, strict=True))
        new = [one for one in part.nodes if not one.is_input]
        for one in new:
            one.args, one.kwargs = one.substitute(lambda leaf: sources.get(leaf, leaf))
        place = self.nodes.index(node)
        self.nodes[place : place + 1] = new
        self.redirect(node, part.outputs)
        return new

    def prune(self) -> None:
        """Drops the nodes that no output needs; inputs stay."""
        needed = self.output_nodes()
        for node in reversed(self.nodes):
            if node in needed:
                needed.update(node.inputs)
        self.nodes = [node for node in self.nodes if node in needed or node.is_input]

    def build(
        self,
        make: Callable[[Node, tuple, dict[str, Any]], Any],
        first: Callable[[Node, Any], Any] = lambda node, value: value,
        make_input: Callable[[Node], Any] | None = None,
        cls: type[keras.Model] = keras.Model,
    ) -> keras.Model:
        """Makes a functional model on new inputs.

        Args:
            make: `make(node, args, kwargs)` gives the value of a node; called for each but the inputs, in order.
            first: `first(node, value)` gives what the readers of an input get.
            make_input: `make_input(node)` gives the new input for an old one; one like it by default.
            cls: class of the model.
        """
        inputs: dict[Node, Any] = {}
        values: dict[Node, Any] = {}
        for node in self.nodes:
            if node.is_input:
                inputs[node] = (make_input or _like)(node)
                values[node] = first(node, inputs[node])
            else:
                values[node] = make(node, *node.substitute(values.__getitem__))
        model = cls(
            keras.tree.map_structure(inputs.__getitem__, self.inputs),
            keras.tree.map_structure(values.__getitem__, self.outputs),
            name=self.name,
        )
        if self.output_names:  # Keras names an output after its layer, which may be another one now
            model.output_names = list(self.output_names)
        return model


def _like(node: Node) -> Any:
    return keras.Input(batch_shape=node.tensor.shape, dtype=node.tensor.dtype, name=node.name)
