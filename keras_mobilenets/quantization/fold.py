"""Arithmetic of deployment: what is folded into kernels and biases, and which scale each value may have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np

from keras_mobilenets.graph import Graph, Node
from keras_mobilenets.layers import HardSwish, LayerScale, inline
from keras_mobilenets.quantization.layers import QuantHardSigmoid, QuantHardSwish, QuantKernel
from keras_mobilenets.quantization.lower import is_relu
from keras_mobilenets.quantization.operations import Operation, operations_of
from keras_mobilenets.quantization.quantizers import FakeQuant
from keras_mobilenets.quantization.roles import Role, role_of

NEAR_ONE = 1e-6
"""A normalization that does nothing, as `from_tflite` makes it, still differs from 1 by rounding its epsilon."""


def folded_weights(layer: Any, norm: Any = None, scale: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of a layer with its `input_shift`, and the batch normalization and the factor behind it.

    Args:
        layer: a layer with a kernel; of a `QuantKernel` the kernel on its integer grid is taken. A factor for each
            output channel leaves the integers of that grid as they are.
        norm: the batch normalization; None for none.
        scale: the `LayerScale` or `Scaling`; None for none.

    Returns:
        (kernel, bias) in float64, the bias of one value for each output channel.
    """
    quantized = isinstance(layer, QuantKernel)
    kernel = np.asarray(layer.quantized_kernel() if quantized else layer.kernel, "float64")
    channels = kernel.shape[2:] if isinstance(layer, keras.layers.DepthwiseConv2D) else kernel.shape[-1:]
    if isinstance(layer, keras.layers.Conv2DTranspose):
        channels = (kernel.shape[2], 1)
    bias = np.asarray(layer.bias, "float64") if layer.use_bias else np.zeros(np.prod(channels))
    if quantized:
        bias = bias + layer.input_shift * kernel.sum(axis=layer.kernel_axes).ravel()
    if norm is not None:
        factor = _normalizing_factor(norm)
        kernel, bias = kernel * factor.reshape(channels), (bias - np.asarray(norm.moving_mean, "float64")) * factor
        bias = bias + np.asarray(norm.beta, "float64") if norm.center else bias
    if scale is not None:
        number = scale.gamma if isinstance(scale, LayerScale) else scale.scale
        factor = np.broadcast_to(np.asarray(number, "float64"), bias.shape)
        kernel, bias = kernel * factor.reshape(channels), bias * factor
    return kernel, bias


def _normalizing_factor(norm: Any) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):  # deployment refuses what comes of a variance below 0
        factor = 1.0 / np.sqrt(np.asarray(norm.moving_variance, "float64") + norm.epsilon)
    if norm.scale:
        factor = factor * np.asarray(norm.gamma, "float64")
    return np.where(np.abs(factor - 1) < NEAR_ONE, 1.0, factor)


def integer_operations(model: keras.Model, unfused_hard_swish: bool) -> tuple[Operation, ...]:
    """The operations of a quantized model, with their factors.

    Args:
        model: from `quantize_model`.
        unfused_hard_swish: whether the target has no operation for hard-swish.
    """
    graph = Graph.of(inline(model))
    operations = operations_of(graph)
    factors = Factors(graph, operations, fused_hard_swish=not unfused_hard_swish)
    return tuple(replace(operation, factor=factors[operation.end]) for operation in operations)


class Factors:
    """How many times larger than in the model each value is computed, so that divisions by 6 need no operation.

    Hard-swish without its 1/6, `x * relu6(x + 3)`, is 6 times too large, and so is hard-sigmoid as `relu6(x + 3)`. The
    kernels that read the value make up for it: integer kernels stay the same integers, and so do feature maps whose
    range is 6 times as wide. Pooling and ReLU pass a factor on, an addition needs the same one on all sides, a
    multiplication multiplies them. Where a value must have its true size (an output, a ReLU6), the division is done.

    Args:
        graph: of a quantized model.
        operations: of that graph.
        fused_hard_swish: whether the target has an operation for hard-swish.
    """

    def __init__(self, graph: Graph, operations: Sequence[Operation], fused_hard_swish: bool):
        self.graph = graph
        self.folded = {node for one in operations for node in (one.norm, one.scale) if node is not None}
        self.fused_hard_swish = fused_hard_swish
        self.parent = {node: node for node in graph.nodes}
        self.true_size: set[Node] = set()
        for node in graph.nodes:
            self._relate(node)
        for node in graph.output_nodes():
            self.true_size.add(self._root(node))
        self._factors = self._solve()
        while (conflict := self._conflict()) is not None:
            self.true_size.update(conflict)
            self._factors = self._solve()

    def __getitem__(self, node: Node) -> float:
        return self._factors.get(self._root(node), 1.0)

    def _root(self, node: Node) -> Node:
        while self.parent[node] is not node:
            node = self.parent[node]
        return node

    def _relate(self, node: Node) -> None:
        """Joins values that need the same factor, and marks those that need their true size."""
        layer = node.layer
        passes_on = (
            isinstance(layer, FakeQuant | keras.layers.Add | keras.layers.Subtract)
            or node in self.folded
            or is_relu(layer, None)
            or role_of(layer) in (Role.MOVE, Role.TRAINING, Role.AVERAGE, Role.SAME_GRID, Role.JOIN)
        )
        if passes_on:
            for source in node.inputs:
                merged, kept = self._root(source), self._root(node)
                self.parent[merged] = kept
                if merged in self.true_size:
                    self.true_size.add(kept)
        elif role_of(layer) is not Role.KERNEL and not isinstance(layer, keras.layers.Multiply):
            self.true_size.update(self._root(source) for source in node.inputs)
            if not self._offers_six(node):
                self.true_size.add(self._root(node))

    def _offers_six(self, node: Node) -> bool:
        if isinstance(node.layer, QuantHardSwish | HardSwish):
            return not self.fused_hard_swish and isinstance(node.layer, QuantHardSwish)
        return isinstance(node.layer, QuantHardSigmoid)

    def _solve(self) -> dict[Node, float]:
        """Factors of the groups of values that were joined; those that are not named have 1."""
        factors: dict[Node, float] = {}
        for node in self.graph.nodes:
            root = self._root(node)
            if root in self.true_size:
                continue
            if self._offers_six(node):
                factors.setdefault(root, 6.0)
            elif isinstance(node.layer, keras.layers.Multiply):
                factors.setdefault(root, self._product(node, factors))
        return factors

    def _product(self, node: Node, factors: dict[Node, float]) -> float:
        return float(np.prod([factors.get(self._root(source), 1.0) for source in node.inputs]))

    def _conflict(self) -> set[Node] | None:
        """Groups that cannot have the factors that they were given; None where all is well."""
        for node in self.graph.nodes:
            given, root = self[node], self._root(node)
            if self._offers_six(node) and root not in self.true_size and given != 6.0:
                return {root}
            if isinstance(node.layer, keras.layers.Multiply) and given != self._product(node, self._factors):
                return {root, *(self._root(source) for source in node.inputs)}
        return None
