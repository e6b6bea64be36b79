"""Biases that make up for what rounding does to the mean of a channel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import keras
import numpy as np

from keras_mobilenets.graph import Graph, Node
from keras_mobilenets.layers import inline
from keras_mobilenets.quantization.layers import QuantKernel
from keras_mobilenets.quantization.roles import KERNEL_LAYERS

IMAGES = 64  # of these the widest feature maps of MobileNetV2 at 224 x 224 are 310 MB
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
    consumers, means = graph.consumers(), {}
    biased = {node for node, _ in _biases(graph)}

    def visit(node: Node, values: list[Any]) -> list[Any]:
        if node in biased:
            means[node.name], _ = _moments(values, consumers[node])
        return values

    _walk(graph, images, visit)
    return means


def correct_biases(model: keras.Model, means: dict[str, np.ndarray], images: np.ndarray) -> None:
    """Shifts biases, from the first layer to the last, until the means of the channels are the wanted ones.

        bias += (wanted mean - mean) / share of the values that the ReLU6 behind it does not cut off

    Rounded kernels shift the mean of a channel; rounded feature maps add noise, and ReLU6 makes more of a noisy value
    than of the value.

    Args:
        model: its biases are changed.
        means: as `channel_means` gives them.
        images: as the model takes them; the first 64 are used.

    Reference:
        arXiv:1906.04721, section 4.2.
    """
    graph = Graph.of(inline(model))
    consumers, biases = graph.consumers(), dict(_biases(graph))

    def visit(node: Node, values: list[Any]) -> list[Any]:
        if node not in biases or node.name not in means:
            return values
        mean, active = _moments(values, consumers[node])
        shift = (means[node.name] - mean) / np.maximum(active, LEAST_ACTIVE)
        biases[node].assign_add(shift)
        return [value + shift for value in values]

    _walk(graph, images, visit)


def _biases(graph: Graph) -> Iterator[tuple[Node, Any]]:
    """Each node that adds a bias to a convolution or dense layer, with no activation in it, and the bias."""
    consumers, layers = graph.consumers(), [node.layer for node in graph.nodes]
    for node in graph.nodes:
        if not isinstance(node.layer, (QuantKernel, *KERNEL_LAYERS)) or layers.count(node.layer) > 1:
            continue
        readers = consumers[node]
        if len(readers) == 1 and isinstance(readers[0].layer, keras.layers.BatchNormalization):
            if readers[0].layer.center:
                yield readers[0], readers[0].layer.beta
        elif node.layer.use_bias and node.layer.activation is keras.activations.linear:
            yield node, node.layer.bias


def _walk(graph: Graph, images: np.ndarray, visit: Visit) -> None:
    """Computes one node after the other; `visit(node, values)` sees the batches of its value, and may change them."""
    consumers = graph.consumers()
    left = {node: len(readers) for node, readers in consumers.items()}
    images = images[:IMAGES].astype("float32")
    batches = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    values: dict[Node, list[Any]] = {}
    for node in graph.nodes:
        if node.is_input:
            values[node] = batches
            continue
        computed = []
        for number in range(len(batches)):
            args, kwargs = node.substitute(partial(_entry, values, number))
            computed.append(node.layer(*args, **kwargs))
        values[node] = visit(node, computed)
        for source in dict.fromkeys(node.inputs):
            left[source] -= 1
            if not left[source]:
                del values[source]


def _entry(values: dict[Node, list[Any]], number: int, node: Node) -> Any:
    return values[node][number]


def _moments(values: list[Any], readers: list[Node]) -> tuple[np.ndarray, np.ndarray]:
    """For each channel the mean behind the ReLU, if one reads the values, and the share that it leaves as it is."""
    layer = readers[0].layer if len(readers) == 1 else None
    ends = -np.inf, np.inf
    if isinstance(layer, keras.layers.ReLU):
        ends = 0.0, np.inf if layer.max_value is None else layer.max_value
    sums = []
    for value in values:
        before = keras.ops.convert_to_numpy(value).astype("float32")
        after = before.clip(*ends)
        axes = tuple(range(1, before.ndim - 1))
        sums.append(np.stack([after.mean(axes), (before == after).mean(axes)]).sum(1))
    mean, active = sum(sums) / sum(len(value) for value in values)
    return mean, active
