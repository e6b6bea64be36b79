"""The parts of a model that stay in float: where they begin, and how a converter is kept from rounding inside them."""

from __future__ import annotations

from typing import Any

import keras

from keras_mobilenets.graph import Graph, Item, Node
from keras_mobilenets.layers import inline
from keras_mobilenets.quantization.quantizers import FakeQuant, InputQuant
from keras_mobilenets.quantization.roles import PASSING, role_of


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class FloatEntry(keras.layers.Layer):
    """Marks where values go from integers into a part of the model that stays in float; it gives back what it got.

    A converter makes an integer operation of whatever reads rounded values and is able to: a maximum that was asked to
    stay in float would get the grid of one of its inputs. So deployment puts `-(x * -1)` here: NEG has no integer form,
    and behind it nothing is rounded. (A product with 1 is dropped; one with the float next to 1 goes into a kernel.)

    Input shape: any. Output shape: the same.

    Example:

    >>> FloatEntry()(np.ones((1, 3), "float32")).numpy()
    array([[1., 1., 1.]], dtype=float32)
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**{"autocast": False, **kwargs})
        self.supports_masking = True

    def call(self, inputs):
        return inputs

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, inputs.dtype)


def insert_entries(graph: Graph, floating: set[Node]) -> None:
    """Puts a `FloatEntry` in front of what stays in float and reads something that does not; adds it to `floating`."""
    entries: dict[Node, Node] = {}

    def entry(source: Node) -> Node:
        if source in floating or not isinstance(source.tensor, keras.KerasTensor):
            return source
        if source not in entries:
            entries[source] = Node(FloatEntry(name=f"{source.name}_float"), (source,), tensor=source.tensor)
            graph.nodes.insert(graph.nodes.index(source) + 1, entries[source])
        return entries[source]

    for node in list(graph.nodes):
        if node in floating:
            node.args, node.kwargs = node.substitute(entry)
    floating.update(entries.values())


def float_layers(model: keras.Model) -> tuple[str, ...]:
    """Names of the layers of a quantized model that stay in float, in order.

    Example:

    >>> quantized = quantize_model(MobileNet(input_shape=(32, 32, 3), alpha=0.25, weights=None), skip=["conv_preds"])
    >>> float_layers(quantized)
    ('conv_preds',)
    """
    inside: dict[Node, bool] = {}
    names = []
    for node in Graph.of(inline(model)).nodes:
        is_border = node.is_input or isinstance(node.layer, FakeQuant | InputQuant)
        is_entry = isinstance(node.layer, FloatEntry)
        inside[node] = is_entry or (not is_border and any(inside[source] for source in node.inputs))
        if inside[node] and not is_entry and not isinstance(node.layer, Item) and role_of(node.layer) not in PASSING:
            names.append(node.name)
    return tuple(names)


def another(layer: Any, config: dict[str, Any]) -> Any:
    """A layer like another one, with a config of its own; the layer itself where it cannot be made anew and needs not.

    Raises:
        ValueError: it cannot be made anew and has weights, which two models must not share.
    """
    try:
        return type(layer).from_config(config)
    except (TypeError, ValueError, NotImplementedError) as error:
        if not layer.weights:
            return layer  # a Lambda, or a layer of one's own without `get_config`
        raise ValueError(
            f"Layer {layer.name!r} ({type(layer).__name__}) cannot be copied: its `get_config` must give all arguments "
            "of its `__init__`, and its class be registered with keras.saving.register_keras_serializable."
        ) from error
