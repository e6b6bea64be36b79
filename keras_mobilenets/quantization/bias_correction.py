"""Biases that make up for what rounding does to the mean of a channel."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_mobilenets.graph import Graph, Node
from keras_mobilenets.layers import inline
from keras_mobilenets.quantization.operations import Operation, operations_of

IMAGES = 64  # of these the widest feature maps of MobileNetV2 at 224 x 224 are 310 MB
LEAST_VALUES = 256  # of a channel: of fewer, as in gates and heads of one pixel, the mean is more noise than shift
BATCH = 16
LEAST_ACTIVE = 0.1  # share of a channel that its bias still moves, where ReLU6 cuts off nearly all of it

Visit = Callable[[Node, list[Any]], list[Any]]


def channel_means(model: keras.Model, images: np.ndarray) -> dict[str, np.ndarray]:
    """The mean of each channel behind each bias, and behind the ReLU that follows it.

    Args:
        model: functional, float or quantized.
        images: as the model takes them; the first 64 are used.

    Returns:
        By the name of the layer that adds the bias: a convolution, a dense layer, or the batch normalization behind.
    """
    graph = Graph.of(inline(model))
    biases, means = _biases(graph), {}

    def visit(node: Node, values: list[Any]) -> list[Any]:
        if node in biases:
            means[node.name], _ = _moments(values, biases[node][1].activation)
        return values

    _walk(graph, images, visit)
    return means


def correct_biases(model: keras.Model, means: dict[str, np.ndarray], images: np.ndarray) -> None:
    """Shifts biases, from the first layer to the last, until the means of the channels are the wanted ones.

        bias += (wanted mean - mean) / share of the values that the ReLU6 behind it does not cut off

    Rounded kernels shift the mean of a channel; rounded feature maps add noise, and ReLU6 makes more of a noisy value
    than of the value. Channels with fewer than 256 values in all images stay as they are.

    Args:
        model: its biases are changed.
        means: as `channel_means` gives them.
        images: as the model takes them; the first 64 are used.

    Reference:
        arXiv:1906.04721, section 4.2.
    """
    graph = Graph.of(inline(model))
    biases = _biases(graph)

    def visit(node: Node, values: list[Any]) -> list[Any]:
        if node not in biases or node.name not in means:
            return values
        if sum(math.prod(value.shape[:-1]) for value in values) < LEAST_VALUES:
            return values
        bias, operation = biases[node]
        mean, active = _moments(values, operation.activation)
        shift = (means[node.name] - mean) / np.maximum(active, LEAST_ACTIVE)
        bias.assign_add(shift)
        return [value + shift for value in values]

    _walk(graph, images, visit)


def _biases(graph: Graph) -> dict[Node, tuple[Any, Operation]]:
    """Each node that adds a bias to a convolution or dense layer, the bias, and its operation."""
    layers = [node.layer for node in graph.nodes]
    return {
        node: (bias, operation)
        for operation in operations_of(graph)
        if operation.bias is not None and layers.count(operation.nodes[0].layer) == 1
        for node, bias in [operation.bias]
    }


def _walk(graph: Graph, images: np.ndarray, visit: Visit) -> None:
    """Computes one node after the other; `visit(node, values)` sees the batches of its value, and may change them."""
    consumers = graph.consumers()
    left = {node: len(readers) for node, readers in consumers.items()}
    arrays = [np.asarray(one[:IMAGES], "float32") for one in keras.tree.flatten(images)]
    starts = range(0, len(arrays[0]), BATCH)
    inputs = dict(zip(keras.tree.flatten(graph.inputs), arrays, strict=True))
    values: dict[Node, list[Any]] = {}
    for node in graph.nodes:
        if node.is_input:
            values[node] = [inputs[node][start : start + BATCH] for start in starts]
            continue
        computed = []
        for number in range(len(starts)):
            args, kwargs = node.substitute(partial(_entry, values, number))
            computed.append(node.layer(*args, **kwargs))
        values[node] = visit(node, computed)
        for source in dict.fromkeys(node.inputs):
            left[source] -= 1
            if not left[source]:
                del values[source]


def _entry(values: dict[Node, list[Any]], number: int, node: Node) -> Any:
    return values[node][number]


def _moments(values: list[Any], relu: Node | None) -> tuple[np.ndarray, np.ndarray]:
    """For each channel the mean behind the ReLU, if one reads the values, and the share that it leaves as it is."""
    ends = -np.inf, np.inf
    if relu is not None:
        ends = 0.0, np.inf if relu.layer.max_value is None else relu.layer.max_value
    sums = []
    for value in values:
        before = keras.ops.convert_to_numpy(value).astype("float32")
        after = before.clip(*ends)
        axes = tuple(range(1, before.ndim - 1))
        sums.append(np.stack([after.mean(axes), (before == after).mean(axes)]).sum(1))
    mean, active = sum(sums) / sum(len(value) for value in values)
    return mean, active
