"""Kinds of layers that are known ones in another shape: one row of pixels, a chain of pairs, a kernel of ones."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import keras
import numpy as np

from keras_mobilenets.graph import Graph, Node
from keras_mobilenets.layers import HardSigmoid, HardSwish, LayerScale, MultiQueryAttention
from keras_mobilenets.quantization.forms import ArgMax, Clip, Scaling
from keras_mobilenets.quantization.fronts import fronts_of, is_scalar_scaling
from keras_mobilenets.quantization.roles import KERNEL_LAYERS, Role, role_of

_L = keras.layers
Derived = Callable[[Any, Any], None]

_IN_TWO_DIMENSIONS = {
    _L.Conv1D: _L.Conv2D,
    _L.DepthwiseConv1D: _L.DepthwiseConv2D,
    _L.SeparableConv1D: _L.SeparableConv2D,
    _L.MaxPooling1D: _L.MaxPooling2D,
    _L.AveragePooling1D: _L.AveragePooling2D,
}
_IN_THREE_DIMENSIONS = {_L.MaxPooling3D: _L.MaxPooling2D, _L.AveragePooling3D: _L.AveragePooling2D}
_FOR_EACH_VALUE = (_L.ReLU, _L.LeakyReLU, _L.Activation, _L.Dropout, HardSwish, HardSigmoid, Scaling, Clip)
"""What may as well be done before a `Reshape` as behind it."""


def unwrap(graph: Graph, derived: Derived) -> None:
    """Puts `Dense` in place of what computes the same along the last axis, and the parts of an attention in its."""
    made: dict[int, Any] = {}
    for node in list(graph.nodes):
        layer = node.layer
        if isinstance(layer, MultiQueryAttention) and None not in node.tensor.shape[1:]:
            inputs = [keras.Input(batch_shape=one.tensor.shape) for one in node.inputs]
            for part in graph.expand(node, keras.Model(inputs, layer.in_keras_layers(*inputs))):
                derived(layer, part.layer)
            continue
        if isinstance(layer, _L.TimeDistributed) and isinstance(layer.layer, _L.Dense):
            new = made.setdefault(id(layer), _dense(layer.layer, layer.name, node))
        elif type(layer) is _L.EinsumDense and _is_dense(layer):
            new = made.setdefault(id(layer), _dense(layer, layer.name, node))
        else:
            continue
        node.layer, node.kwargs = new, {}
        derived(layer, new)


def lower_kinds(graph: Graph, derived: Derived) -> None:
    """Rewrites the graph in place: one-dimensional and three-dimensional layers, merges of more than two, and so on."""
    made: dict[int, Any] = {}
    fronts = fronts_of(graph).values()
    in_front, ends = {node for front in fronts for node in front.nodes}, {front.end for front in fronts}
    for node in list(graph.nodes):
        if node in in_front:
            continue
        old = node.layer
        for layers in filter(None, (_in_two_dimensions(node, made), _in_three_dimensions(node), _other_form(node))):
            chain(graph, node, layers)
            for new in layers:
                derived(old, new)
            break
    for node in list(graph.nodes):
        if isinstance(node.layer, _L.Add | _L.Multiply | _L.Average | _L.Maximum | _L.Minimum):
            _in_pairs(graph, node, derived)
        elif isinstance(node.layer, _L.BatchNormalization | LayerScale | _L.Conv2DTranspose):
            _give_kernel(graph, node, derived, ends)
    _move_reshapes(graph)
    graph.prune()


def convertible(flat: keras.Model) -> keras.Model:
    """The flat model itself, or the same layers with `ArgMax` in place of operations that no converter knows."""
    graph = Graph.of(flat)
    indices = [node for node in graph.nodes if type(node.layer).__name__ in ("Argmax", "Argmin")]
    for node in indices:
        chain(graph, node, _other_form(node) or [node.layer])
    return graph.build(lambda node, args, kwargs: node.layer(*args, **kwargs)) if indices else flat


def chain(graph: Graph, node: Node, layers: list[Any]) -> None:
    """The node becomes the last of `layers`, each of which reads the one before."""
    source = node.inputs[0]
    for layer in layers[:-1]:
        shape = layer.compute_output_shape(source.tensor.shape)
        new = Node(layer, (source,), tensor=keras.KerasTensor(shape, node.tensor.dtype))
        graph.nodes.insert(graph.nodes.index(node), new)
        source = new
    node.layer, node.args, node.kwargs = layers[-1], (source,), {}


def _is_dense(layer: Any) -> bool:
    given, result = layer.equation.replace(" ", "").split("->")
    values, _, kernel = given.partition(",")
    fits = len(kernel) == 2 and values[-1:] == kernel[0] and result == values[:-1] + kernel[1]
    return fits and layer.bias_axes in (None, kernel[1:])


def _dense(layer: Any, name: str, node: Node) -> Any:
    units = layer.kernel.shape[-1]
    parts = ("activation", "kernel_regularizer", "bias_regularizer", "kernel_constraint", "bias_constraint")
    given = {part: getattr(layer, part) for part in parts}
    use_bias = layer.bias is not None
    new = _L.Dense(units, use_bias=use_bias, name=name, trainable=layer.trainable, dtype=layer.dtype_policy, **given)
    new.build(node.inputs[0].tensor.shape)
    new.set_weights(layer.get_weights())
    return new


def _in_two_dimensions(node: Node, made: dict[int, Any]) -> list[Any] | None:
    """A row of values as an image of one row."""
    layer = node.layer
    if type(layer) not in _IN_TWO_DIMENSIONS or layer.data_format != "channels_last":
        return None
    length, channels = node.inputs[0].tensor.shape[1:]
    config, is_pool = layer.get_config(), isinstance(layer, _L.MaxPooling1D | _L.AveragePooling1D)
    for key in ("pool_size", "kernel_size", "strides", "dilation_rate"):
        if key in config:
            (size,) = config[key] if isinstance(config[key], tuple | list) else (config[key],)
            same = key == "strides" and not is_pool  # depthwise kernels know no other, and one row needs none
            config[key] = (size if same else 1, size)
    front: list[Any] = [_L.Reshape((1, -1 if length is None else length, channels))]
    if config["padding"] == "causal":
        config["padding"] = "valid"
        before = (config["kernel_size"][1] - 1) * config["dilation_rate"][1]
        front.append(_L.ZeroPadding2D(((0, 0), (before, 0))))
    if id(layer) not in made:
        new = _IN_TWO_DIMENSIONS[type(layer)].from_config(config)
        new.build((None, 1, length, channels))
        new.set_weights([weight[None] if weight.ndim == 3 else weight for weight in layer.get_weights()])
        made[id(layer)] = new
    length, channels = node.tensor.shape[1:]
    return [*front, made[id(layer)], _L.Reshape((-1 if length is None else length, channels))]


def _in_three_dimensions(node: Node) -> list[Any] | None:
    """A pool over three dimensions as one over two and one over the third, which are free to reshape."""
    layer = node.layer
    if type(layer) not in _IN_THREE_DIMENSIONS or None in node.inputs[0].tensor.shape[1:]:
        return None
    if layer.data_format != "channels_last":
        return None
    pool = _IN_THREE_DIMENSIONS[type(layer)]
    depth, height, width, channels = node.inputs[0].tensor.shape[1:]
    sizes, strides = layer.pool_size, layer.strides
    result = node.tensor.shape[1:]
    return [
        _L.Reshape((depth, height, width * channels)),
        pool(sizes[:2], strides[:2], layer.padding, name=layer.name),
        _L.Reshape((result[0] * result[1], width, channels)),
        pool((1, sizes[2]), (1, strides[2]), layer.padding, name=f"{layer.name}_width"),
        _L.Reshape(result),
    ]


def _other_form(node: Node) -> list[Any] | None:
    """One or two layers in place of a layer or an operation of one feature map."""
    layer, kind = node.layer, type(node.layer).__name__
    if len(node.inputs) != 1 or not isinstance(node.tensor, keras.KerasTensor):
        return None
    is_layer = isinstance(layer, _L.Layer)
    same = {
        "name": node.name if is_layer else f"{node.name}_layer",
        "dtype": layer.dtype_policy if is_layer else node.tensor.dtype,
    }
    if isinstance(layer, _L.Rescaling):
        return _scalings(node, same)
    if isinstance(layer, _L.ReLU):
        return _relu(layer, same)
    if is_layer:
        return None
    if kind in ("Argmax", "Argmin"):
        return [ArgMax(layer.axis, layer.keepdims, kind == "Argmin", name=same["name"])]
    if kind == "Clip" and all(isinstance(end, float | int) for end in (layer.x_min, layer.x_max)):
        return [Clip(float(layer.x_min), float(layer.x_max), **same)]
    if kind == "LeakyRelu":
        return [_L.LeakyReLU(layer.negative_slope, **same)]
    forms = {
        "HardTanh": lambda: Clip(-1.0, 1.0, **same),
        "Exp": lambda: _L.Activation("exponential", **same),
        "Negative": lambda: Scaling(-1.0, **same),
    }
    return [forms[kind]()] if kind in forms else None


def _scalings(node: Node, same: dict[str, Any]) -> list[Any] | None:
    layer, source = node.layer, node.inputs[0]
    if source.is_input and len(source.tensor.shape) != 4 and not is_scalar_scaling(layer):
        return None  # the columns of a table differ in range, and one grid for all of them would hold none
    times = Scaling(layer.scale, 0.0, **same)
    if np.all(np.asarray(layer.offset) == 0):
        return [times]
    plus = Scaling(1.0, layer.offset, **same)
    if np.all(np.asarray(layer.scale) == 1):
        return [plus]
    return [Scaling(layer.scale, 0.0, **{**same, "name": f"{layer.name}_scale"}), plus]


def _relu(layer: Any, same: dict[str, Any]) -> list[Any] | None:
    if layer.threshold != 0 or (layer.negative_slope == 0 and layer.max_value in (None, 6.0)):
        return None
    if layer.negative_slope == 0:
        return [Clip(0.0, layer.max_value, **same)]
    leaky = _L.LeakyReLU(layer.negative_slope, **same)
    if layer.max_value is None:
        return [leaky]
    first = _L.LeakyReLU(layer.negative_slope, **{**same, "name": f"{layer.name}_leaky"})
    return [first, Clip(None, layer.max_value, **same)]


def _in_pairs(graph: Graph, node: Node, derived: Derived) -> None:
    """A merge of more than two feature maps as merges of two; an average as a sum that is divided."""
    layer, parts = node.layer, node.inputs
    is_average = isinstance(layer, _L.Average)
    kind = _L.Add if is_average else type(layer)
    if len(parts) < 2 or (len(parts) == 2 and not is_average):
        return
    so_far, pairs = parts[0], len(parts) - 1
    for index, part in enumerate(parts[1:]):
        is_last = index == pairs - 1 and not is_average
        new = kind(name=layer.name if is_last else f"{layer.name}_{index}", dtype=layer.dtype_policy)
        derived(layer, new)
        if is_last:
            node.layer, node.args = new, ([so_far, part],)
            return
        pair = Node(new, ([so_far, part],), tensor=node.tensor)
        graph.nodes.insert(graph.nodes.index(node), pair)
        so_far = pair
    node.layer, node.args = Scaling(1.0 / len(parts), name=layer.name, dtype=layer.dtype_policy), (so_far,)
    derived(layer, node.layer)


def _give_kernel(graph: Graph, node: Node, derived: Derived, ends: Collection[Node]) -> None:
    """A normalization or factor that no kernel stands before gets one of ones, into which it is folded.

    So does a transposed convolution of pixels, which is one that reads what is in `ends`: not every output sees all of
    its kernel, which is what makes up for `InputQuant.shift`.
    """
    layer, source = node.layer, node.inputs[0]
    shape = source.tensor.shape
    if isinstance(layer, _L.Conv2DTranspose) and source not in ends:
        return
    is_last = getattr(layer, "axis", -1) in (-1, len(shape) - 1)
    sole = graph.consumers()[source] == [node] and source not in graph.output_nodes()
    has_kernel = type(source.layer) in (*KERNEL_LAYERS, _L.SeparableConv2D) or _is_reshaped_kernel(source)
    has_kernel = has_kernel or (isinstance(layer, LayerScale) and role_of(source.layer) is Role.NORM)
    if not is_last or (sole and has_kernel) or not 2 <= len(shape) <= 4 or None in shape[1:]:
        return
    ones = _L.DepthwiseConv2D(
        1,
        use_bias=False,
        depthwise_initializer="ones",
        trainable=False,
        name=f"{layer.name}_ones",
        dtype=layer.dtype_policy,
    )
    image = (*(1,) * (4 - len(shape)), *shape[1:])
    ones.build((None, *image))
    derived(layer, ones)
    as_image = [_L.Reshape(image)] if len(shape) < 4 else []
    back = [_L.Reshape(shape[1:])] if len(shape) < 4 else []
    inserted = source
    for new in [*as_image, ones, *back]:
        result = new.compute_output_shape(inserted.tensor.shape)
        inserted = Node(new, (inserted,), tensor=keras.KerasTensor(result, node.tensor.dtype))
        graph.nodes.insert(graph.nodes.index(node), inserted)
    node.args = (inserted,)


def _is_reshaped_kernel(node: Node) -> bool:
    """Whether the node brings a row that was computed as an image back into its shape."""
    is_back = isinstance(node.layer, _L.Reshape) and len(node.tensor.shape) == 3
    kernels = (*KERNEL_LAYERS, _L.SeparableConv2D)
    return is_back and type(node.inputs[0].layer) in kernels and node.inputs[0].tensor.shape[1] == 1


def _move_reshapes(graph: Graph) -> None:
    """Moves each `Reshape` behind what is done for each value, and drops those that undo each other."""
    for node in list(graph.nodes):
        if not isinstance(node.layer, _L.Reshape):
            continue
        readers, outputs = graph.consumers()[node], graph.output_nodes()
        while len(readers) == 1 and node not in outputs and _may_move(node, readers[0]):
            _swap(graph, node, readers[0])
            readers, outputs = graph.consumers()[node], graph.output_nodes()
        for reader in readers:
            source = node.inputs[0]
            if isinstance(reader.layer, _L.Reshape) and reader.tensor.shape == source.tensor.shape:
                graph.redirect(reader, source)


def _may_move(node: Node, reader: Node) -> bool:
    before, after = node.inputs[0].tensor.shape, node.tensor.shape
    if isinstance(reader.layer, _L.BatchNormalization):
        return before[-1] == after[-1] and reader.layer.axis in (-1, len(after) - 1) and len(before) == 4
    for_each_value = type(reader.layer) in _FOR_EACH_VALUE and role_of(reader.layer) is not None
    return for_each_value and getattr(reader.layer, "noise_shape", None) is None


def _swap(graph: Graph, node: Node, reader: Node) -> None:
    source = node.inputs[0]
    graph.redirect(reader, node)
    reader.args, reader.tensor = (source,), keras.KerasTensor(source.tensor.shape, reader.tensor.dtype)
    node.args = (reader,)
    graph.nodes.remove(node)
    graph.nodes.insert(graph.nodes.index(reader) + 1, node)
    if isinstance(reader.layer, _L.BatchNormalization) and reader.layer.axis != -1:
        moved = _L.BatchNormalization.from_config({**reader.layer.get_config(), "axis": -1})
        moved.build(source.tensor.shape)
        moved.set_weights(reader.layer.get_weights())
        reader.layer = moved
