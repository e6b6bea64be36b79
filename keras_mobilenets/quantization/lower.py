"""Brings the many ways to write the same thing into one form, before the plan is made.

Activations become layers of their own, operations on tensors become layers, and a hard-sigmoid or hard-swish that was
written out is recognized.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_mobilenets.graph import Graph, Item, Node
from keras_mobilenets.layers import HardSigmoid, HardSwish
from keras_mobilenets.quantization.forms import Clip, Scaling
from keras_mobilenets.quantization.fronts import Affine, affine_of, is_scalar_scaling
from keras_mobilenets.quantization.kinds import lower_kinds, unwrap
from keras_mobilenets.quantization.roles import KERNEL_LAYERS

_ACTIVATIONS = {
    "relu": keras.layers.ReLU,
    "relu6": lambda **kwargs: keras.layers.ReLU(6.0, **kwargs),
    "hard_silu": HardSwish,
    "hard_swish": HardSwish,
    "hard_sigmoid": HardSigmoid,
    "softmax": keras.layers.Softmax,
    "sigmoid": lambda **kwargs: keras.layers.Activation("sigmoid", **kwargs),
    "silu": lambda **kwargs: keras.layers.Activation("silu", **kwargs),
    "leaky_relu": lambda **kwargs: keras.layers.LeakyReLU(0.2, **kwargs),
    "hard_tanh": lambda **kwargs: Clip(-1.0, 1.0, **kwargs),
    "tanh": lambda **kwargs: keras.layers.Activation("tanh", **kwargs),
}
_WITH_ACTIVATION = (
    *KERNEL_LAYERS,
    *(getattr(keras.layers, name) for name in ("SeparableConv2D", "Conv1D", "DepthwiseConv1D", "SeparableConv1D")),
)
_MERGES = ("Add", "Multiply", "Maximum", "Minimum")
_ARITHMETIC = ("Add", "Multiply", "Subtract", "TrueDivide", "Divide")
_UNARY_OPERATIONS = {
    "Relu": "relu",
    "Relu6": "relu6",
    "HardSilu": "hard_silu",
    "HardSwish": "hard_silu",
    "HardSigmoid": "hard_sigmoid",
    "Sigmoid": "sigmoid",
    "Silu": "silu",
    "Tanh": "tanh",
}


def lower(graph: Graph, derived: Callable[[Any, Any], None] = lambda old, new: None) -> Graph:
    """Rewrites the graph in place into the plan's vocabulary, and returns it.

    Args:
        graph: of a flat model.
        derived: called with the old and the new layer where one takes the place of another or is split off it.

    """
    unwrap(graph, derived)
    lower_operations(graph, derived)
    _lower_activations(graph, derived)
    find_hard_activations(graph)
    lower_kinds(graph, derived)
    _lower_composed(graph, derived)
    return graph


def lower_operations(graph: Graph, derived: Callable[[Any, Any], None] = lambda old, new: None) -> None:
    """Puts layers in place of operations on tensors, where there are such layers."""
    for node in list(graph.nodes):
        if type(node.layer).__name__ == "ConvertToTensor":  # what is left of the border of a nested model
            graph.redirect(node, node.inputs[0])
        elif not node.is_input and not isinstance(node.layer, keras.layers.Layer | Item):
            operation = node.layer
            _lower_operation(node)
            derived(operation, node.layer)
        elif isinstance(node.layer, keras.layers.Normalization) and (affine := affine_of(node)) is not None:
            normalization = node.layer
            node.layer = _rescaling(*affine, name=node.name, dtype=normalization.dtype_policy)
            derived(normalization, node.layer)


def find_hard_activations(graph: Graph) -> None:
    """Puts `HardSigmoid` and `HardSwish` in place of what was written out, and drops what nothing reads any more."""
    _find_hard_sigmoid(graph)
    _find_hard_swish(graph)
    graph.prune()


def _lower_activations(graph: Graph, derived: Callable[[Any, Any], None]) -> None:
    """Gives every activation a layer of its own."""
    made: dict[int, Any] = {}  # a layer that is used twice gets one activation layer

    def activation_of(layer: Any, name: str) -> Any:
        if id(layer) not in made:
            made[id(layer)] = _activation_layer(layer, name)
            derived(layer, made[id(layer)])
        return made[id(layer)]

    for node in list(graph.nodes):
        if isinstance(node.layer, keras.layers.Activation):
            if _activation_name(node.layer) == "linear":
                graph.redirect(node, node.inputs[0])
            else:
                node.layer = activation_of(node.layer, node.layer.name)
        elif type(node.layer) in _WITH_ACTIVATION and _activation_name(node.layer) != "linear":
            activation = activation_of(node.layer, f"{node.name}_{_activation_name(node.layer)}")
            graph.insert_after(node, Node(activation, (node,), tensor=node.tensor))


def _lower_composed(graph: Graph, derived: Callable[[Any, Any], None]) -> None:
    """Takes apart what integer runtimes compute in two steps: separable convolutions, and silu."""
    halves: dict[int, tuple[Any, Any]] = {}
    for node in list(graph.nodes):
        layer = node.layer
        if isinstance(layer, keras.layers.Activation) and _activation_name(layer) == "silu":
            gate = keras.layers.Activation("sigmoid", name=f"{layer.name}_sigmoid", dtype=layer.dtype_policy)
            gate_node = Node(gate, node.args, tensor=node.tensor)
            graph.nodes.insert(graph.nodes.index(node), gate_node)
            node.layer = keras.layers.Multiply(name=layer.name, dtype=layer.dtype_policy)
            node.args = ([node.inputs[0], gate_node],)
            new = gate, node.layer
        elif type(layer) is keras.layers.SeparableConv2D:
            new = halves.setdefault(id(layer), _split_separable(layer))
            shape = new[0].compute_output_shape(node.inputs[0].tensor.shape)
            depthwise = Node(new[0], node.args, tensor=keras.KerasTensor(shape, node.tensor.dtype))
            graph.nodes.insert(graph.nodes.index(node), depthwise)
            node.layer, node.args = new[1], (depthwise,)
        else:
            continue
        for part in new:
            derived(layer, part)


def _split_separable(layer: Any) -> tuple[Any, Any]:
    shared = {"trainable": layer.trainable, "dtype": layer.dtype_policy}
    depthwise = keras.layers.DepthwiseConv2D(
        layer.kernel_size,
        strides=layer.strides,
        padding=layer.padding,
        dilation_rate=layer.dilation_rate,
        depth_multiplier=layer.depth_multiplier,
        use_bias=False,
        depthwise_regularizer=layer.depthwise_regularizer,
        depthwise_constraint=layer.depthwise_constraint,
        name=f"{layer.name}_depthwise",
        **shared,
    )
    pointwise = keras.layers.Conv2D(
        layer.filters,
        1,
        use_bias=layer.use_bias,
        kernel_regularizer=layer.pointwise_regularizer,
        kernel_constraint=layer.pointwise_constraint,
        bias_regularizer=layer.bias_regularizer,
        bias_constraint=layer.bias_constraint,
        activity_regularizer=layer.activity_regularizer if _activation_name(layer) == "linear" else None,
        name=layer.name,
        **shared,
    )
    depthwise.build((None, None, None, layer.depthwise_kernel.shape[2]))
    pointwise.build((None, None, None, layer.pointwise_kernel.shape[2]))
    depthwise_kernel, *pointwise_weights = layer.get_weights()
    depthwise.set_weights([depthwise_kernel])
    pointwise.set_weights(pointwise_weights)
    return depthwise, pointwise


def _activation_name(layer: Any) -> str:
    name = "linear" if layer.activation is None else keras.activations.serialize(layer.activation)
    return name if isinstance(name, str) else getattr(layer.activation, "__name__", str(layer.activation))


def _activation_layer(layer: Any, name: str) -> Any:
    made = _ACTIVATIONS.get(_activation_name(layer), partial(keras.layers.Activation, layer.activation))
    # What penalizes the output of a layer penalizes that of its activation.
    return made(name=name, dtype=layer.dtype_policy, activity_regularizer=layer.activity_regularizer)


def _lower_operation(node: Node) -> None:
    """Puts a layer in place of an operation that has one; others stay, and the plan may refuse them."""
    kind, operands = type(node.layer).__name__, [*node.args, *node.kwargs.values()]
    tensors = [operand for operand in operands if isinstance(operand, Node)]
    name = f"{node.layer.name}_layer"
    if kind == "Softmax" and isinstance(node.layer.axis, int):
        node.layer = keras.layers.Softmax(node.layer.axis, name=name, dtype=node.tensor.dtype)
    elif kind in _UNARY_OPERATIONS and len(tensors) == 1:
        node.layer = _ACTIVATIONS[_UNARY_OPERATIONS[kind]](name=name, dtype=node.tensor.dtype)
        node.args, node.kwargs = (tensors[0],), {}
    elif kind in _MERGES and len(tensors) == 2 and len({len(t.tensor.shape) for t in tensors}) == 1:
        node.layer = getattr(keras.layers, kind)(name=name, dtype=node.tensor.dtype)
        node.args, node.kwargs = (tensors,), {}
    elif kind == "Square" or (kind == "Power" and operands[1:] == [2]):
        node.layer = keras.layers.Multiply(name=name, dtype=node.tensor.dtype)
        node.args, node.kwargs = ([tensors[0], tensors[0]],), {}
    elif (scaling := _scaling(kind, operands, node)) is not None:
        node.layer = _rescaling(*scaling, name=name, dtype=node.tensor.dtype)
        node.args, node.kwargs = (tensors[0],), {}


def _rescaling(scale: Any, offset: Any, **kwargs: Any) -> keras.layers.Rescaling:
    return keras.layers.Rescaling(*(np.asarray(one).tolist() for one in (scale, offset)), **kwargs)


def _scaling(kind: str, operands: list[Any], node: Node) -> Affine | None:
    """(scale, offset) of an operation between a tensor and a number, or one for each channel; None for others."""
    if kind not in _ARITHMETIC or len(operands) != 2:
        return None
    shape = node.inputs[0].tensor.shape
    constants = [None if isinstance(operand, Node) else _constant(operand, shape) for operand in operands]
    if sum(one is not None for one in constants) != 1 or shape != node.tensor.shape:
        return None
    second = constants[1] is not None
    number: Any = constants[1] if second else constants[0]
    forms = {
        "Add": (1.0, number),
        "Multiply": (number, 0.0),
        "Subtract": (1.0, -number) if second else (-1.0, number),
        **({"TrueDivide": (1.0 / number, 0.0), "Divide": (1.0 / number, 0.0)} if second and np.all(number) else {}),
    }
    return forms.get(kind)


def _constant(operand: Any, shape: tuple[int | None, ...]) -> Any:
    """A number, or an array of one for each channel; None of anything else."""
    if isinstance(operand, numbers.Real):
        return float(operand)
    if not (isinstance(operand, list | tuple | np.ndarray) or keras.ops.is_tensor(operand)):
        return None
    try:
        values = np.asarray(keras.ops.convert_to_numpy(operand), "float64")
    except (TypeError, ValueError):  # a list with feature maps in it
        return None
    if values.size == 1 and values.ndim <= len(shape):
        return float(values.ravel()[0])
    is_row = values.ndim and values.ndim <= len(shape) and values.shape[-1] == values.size == shape[-1]
    return values.ravel() if is_row else None


def is_scaling(node: Node, scale: float, offset: float) -> bool:
    """Whether the node computes `scale * x + offset`."""
    layer = node.layer
    if isinstance(layer, Scaling) or not is_scalar_scaling(layer):
        return False  # the first is in its integer form already
    return abs(layer.scale - scale) < 1e-6 and abs(layer.offset - offset) < 1e-6


def is_relu(layer: Any, *maxima: float | None) -> bool:
    """Whether the layer is a ReLU that clips above at one of `maxima` (None: not at all)."""
    if not isinstance(layer, keras.layers.ReLU):
        return False
    return layer.max_value in maxima and layer.negative_slope == 0 and layer.threshold == 0


def _find_hard_sigmoid(graph: Graph) -> None:
    """`relu6(x + 3) / 6`, as keras.applications' MobileNetV3 writes it."""
    consumers = graph.consumers()
    for node in graph.nodes:
        if not is_scaling(node, 1.0 / 6.0, 0.0) or not is_relu(node.inputs[0].layer, 6.0):
            continue
        clipped = node.inputs[0]
        shifted = clipped.inputs[0]
        if is_scaling(shifted, 1.0, 3.0) and len(consumers[clipped]) == 1:
            node.layer = HardSigmoid(name=node.name, dtype=node.layer.dtype_policy)
            node.args = (shifted.inputs[0],)


def _find_hard_swish(graph: Graph) -> None:
    """`x * hard_sigmoid(x)`."""
    consumers = graph.consumers()
    for node in graph.nodes:
        if not isinstance(node.layer, keras.layers.Multiply) or len(node.inputs) != 2:
            continue
        for x, gate in (node.inputs, node.inputs[::-1]):
            if isinstance(gate.layer, HardSigmoid) and gate.inputs == [x] and consumers[gate] == [node]:
                node.layer = HardSwish(name=node.name, dtype=node.layer.dtype_policy)
                node.args = (x,)
                break
