"""Finds the operations of a float model in an integer `.tflite` file.

Files that `export_tflite` wrote from a quantized model say which operation made which tensor (`TFLiteFile.origin`). In
those of other makers kernels are told by likeness, and what has none by its kind, size and order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_mobilenets.diagnosis.simulation import Grid, Simulation, as_array, has_kernel
from keras_mobilenets.export.sizing import Sizing
from keras_mobilenets.graph import Node
from keras_mobilenets.layers import HardSwish
from keras_mobilenets.quantization import FakeQuant, InputQuant, is_quantized, quantize_model
from keras_mobilenets.quantization.layers import QuantKernel
from keras_mobilenets.quantization.operations import Operation
from keras_mobilenets.tflite.edit.slim import pack
from keras_mobilenets.tflite.file import Operator, Tensor, read_tflite, unpack
from keras_mobilenets.tflite.runner import TFLiteModel, make_interpreter

KERNEL_OPERATIONS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0}
"""Each with the axis of its kernel that counts the output channels."""
_BEHIND_KERNEL = ("RELU", "RELU6", "RESHAPE", "QUANTIZE")
SAME_KERNEL = 0.7
"""Least mean cosine between a kernel and its integers: 4 bits still give .99, two random 3 x 3 kernels .3."""
FACTORS = (1.0, 6.0, 36.0)
"""How many times larger a value may be in the file than in the model: see `quantization.fold.Factors`."""
TINY = 1e-30

_L = keras.layers
_OPERATIONS: tuple[tuple[type, tuple[str, ...]], ...] = (
    (_L.Add, ("ADD",)),
    (_L.Subtract, ("SUB",)),
    (_L.Multiply, ("MUL",)),
    (HardSwish, ("HARD_SWISH", "MUL")),
    (_L.GlobalAveragePooling2D, ("MEAN", "AVERAGE_POOL_2D", "SUM")),
    (_L.AveragePooling2D, ("AVERAGE_POOL_2D",)),
    (_L.UpSampling2D, ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")),
    (_L.Softmax, ("SOFTMAX",)),
    (_L.Activation, ("LOGISTIC", "TANH")),
    (_L.Concatenate, ("CONCATENATION",)),
    (_L.ReLU, ("RELU", "RELU6")),
)


class FileSimulation(Simulation):
    """A float model with the kernels and ranges of a `.tflite` file.

    Args:
        model: the float model, or the quantized one, that the file was made from.
        content: of the file.
        images: a few, as the model takes them, to find what the file does not say.

    Attributes:
        tensors: the file's tensor for each operation that was found in it.
        factors: how many times larger than in the model each of them is.

    Raises:
        ValueError: the file has no layer of the model.
    """

    def __init__(self, model: keras.Model, content: bytes, images: Any):
        file = read_tflite(content)
        self.file = file.graph
        operations = {operator.name for operator in self.file.operators}
        target = "npu" if "HARD_SWISH" in operations else "xnnpack"
        super().__init__(model if is_quantized(model) else quantize_model(model, target=target))
        self.tensors: dict[Operation, Tensor] = {}
        given, self.kernels = self.kernels, {}
        nodes = [node for node in given if isinstance(node.layer, QuantKernel)]
        if file.origin:
            self.factors = self._read_origin(file.origin)
        else:
            self._match_kernels(nodes)
            self._match_others()
        if not self.kernels:
            raise ValueError("`quantized` must be a file of this model: none of the model's kernels is in it.")
        self.missing = tuple(site.name for site in self.sites if site not in self.tensors and self._operations(site))
        self._engine, self._sizing = _Tapped(content, [*self.tensors.values()]), Sizing(model)
        if not file.origin:
            self.factors = self._find_factors(images)
        self.grids |= {node: None for node in self.grids if isinstance(node.layer, FakeQuant)}
        for site, tensor in self.tensors.items():
            if site.end in self.grids and len(tensor.scales) == 1:
                self.grids[site.end] = _grid(tensor, self.factors[site])

    def measure(self, given: Any) -> tuple[list[np.ndarray], dict[Operation, np.ndarray]]:
        """What the runtime computes: the file's outputs, and the value of each operation."""
        outputs, inner = self._measure(given)
        return outputs, {site: values / self.factors[site] for site, values in inner.items()}

    def _measure(self, given: Any) -> tuple[list[np.ndarray], dict[Operation, np.ndarray]]:
        arrays = [keras.ops.convert_to_numpy(one) for one in self.inputs(given).values()]
        values = self._engine.answers(self._sizing(arrays))
        outputs = values[: len(self.file.outputs)]
        return outputs, dict(zip(self.tensors, values[len(outputs) :], strict=True))

    def _read_origin(self, origin: Mapping[int, tuple[str, float]]) -> dict[Operation, float]:
        """Takes what the file says; the factors of the operations that are in it."""
        found: dict[str, tuple[Tensor, float]] = {}
        for index, (name, factor) in origin.items():
            tensor = self.file.tensors[index]
            if name not in found or len(tensor.scales) >= len(found[name][0].scales):  # of one operation the last
                found[name] = tensor, factor
        sites = [site for site in self.sites if site.name in found and not isinstance(site.end.layer, InputQuant)]
        for site in sites:
            tensor = self.tensors[site] = found[site.name][0]
            operator = self.file.producers.get(tensor.index)
            while operator is not None and operator.name in _BEHIND_KERNEL:
                operator = self.file.producers.get(operator.inputs[0])
            if site.kernel is not None and operator is not None and operator.name in KERNEL_OPERATIONS:
                self._take_kernel(site.kernel, operator)
        return {site: found[site.name][1] for site in sites}

    def _find_factors(self, images: Any) -> dict[Operation, float]:
        found = self._measure(images)[1]
        ends = {site.end: site for site in found}
        factors = {}
        for node, values in self.walk(self.inputs(images)):
            if node in ends:
                true = max(float(np.linalg.norm(as_array(values[node]))), TINY)
                ratio = max(float(np.linalg.norm(found[ends[node]])), TINY) / true
                factors[ends[node]] = FACTORS[int(np.argmin(np.abs(np.log(np.divide(FACTORS, ratio)))))]
        return factors

    def _take_kernel(self, node: Node, operator: Operator) -> None:
        """Rounds the kernel of a node as the one of an operation is."""
        stored = self._stored(operator)
        kernel = self._kernel(node)
        if kernel.size != stored.size:
            raise ValueError(f"`quantized` must be a file of this model: the kernel of {node.name!r} is another one.")
        rounded = _unfolded(stored, kernel)[0]
        if isinstance(node.layer, _L.Conv2DTranspose):
            rounded = np.swapaxes(rounded, 2, 3)
        self.kernels[node] = [(self.floats[node.name].kernel, rounded)]
        if len(self.file.operand(operator, 1).scales) == 1 < stored.shape[-1]:
            self.per_tensor.add(node)

    def _kernel(self, node: Node) -> np.ndarray:
        """The kernel of a node, output channels last."""
        kernel = np.asarray(self.floats[node.name].kernel, "float32")
        return np.swapaxes(kernel, 2, 3) if isinstance(node.layer, _L.Conv2DTranspose) else kernel

    def _stored(self, operator: Operator) -> np.ndarray:
        """The kernel of an operation, output channels last."""
        return np.moveaxis(self.file.operand(operator, 1).dequantized(), KERNEL_OPERATIONS[operator.name], -1)

    def _match_kernels(self, nodes: list[Node]) -> None:
        sites = {site.kernel: site for site in self.sites}
        for operator in self.file.operators:
            if operator.name not in KERNEL_OPERATIONS or not self.file.operand(operator, 1).is_constant:
                continue
            stored, candidates = self._stored(operator), []
            for node in nodes:
                kernel = self._kernel(node)
                if kernel.size == stored.size:
                    candidates.append((_unfolded(stored, kernel)[1], node))
            if not candidates:
                continue
            likeness, node = max(candidates, key=lambda one: one[0])
            if likeness >= SAME_KERNEL:
                nodes.remove(node)
                self._take_kernel(node, operator)
                self.tensors[sites[node]] = self._result(operator)

    def _result(self, operator: Operator) -> Tensor:
        """What an operation gives, with the activation behind it where that is an operation of its own."""
        readers = self.file.consumers.get(operator.outputs[0], [])
        if len(readers) == 1 and readers[0].name in ("RELU", "RELU6"):
            operator = readers[0]
        return self.file.results(operator)[0]

    def _match_others(self) -> None:
        """Operations without a kernel come in the same order in the file; their kind and size tell them apart."""
        taken = {tensor.index for tensor in self.tensors.values()}
        operators = [one for one in self.file.operators if not self._has_constant(one)]
        for site in [one for one in self.sites if one not in self.tensors]:
            kinds = self._operations(site)
            for operator in operators:
                tensor = self._result(operator)
                same_size = tensor.size == _size(site.end.tensor.shape) * tensor.shape[0]
                if operator.name in kinds and same_size and tensor.index not in taken:
                    self.tensors[site] = tensor
                    taken.add(tensor.index)
                    break

    def _has_constant(self, operator: Operator) -> bool:
        """Whether the first two operands are not both computed: `x + 3` belongs to a hard-swish."""
        operands = self.file.operands(operator)[:2]
        binary = operator.name in ("ADD", "SUB", "MUL", *KERNEL_OPERATIONS)
        return binary and any(operand is not None and operand.is_constant for operand in operands)

    def _operations(self, site: Operation) -> tuple[str, ...]:
        if site.kernel is not None and has_kernel(site.kernel):
            return tuple(KERNEL_OPERATIONS)
        layers = [self.floats.get(node.name) for node in site.nodes]
        return next((names for layer in layers for kind, names in _OPERATIONS if isinstance(layer, kind)), ())


class _Tapped(TFLiteModel):
    """A file whose inner tensors are read too.

    Args:
        content: of the file.
        tensors: the inner tensors.
    """

    def __init__(self, content: bytes, tensors: list[Tensor]):
        super().__init__(content)
        model = unpack(content)
        self._outputs = {str(number): one for number, one in enumerate([*self._outputs.values(), *tensors])}
        model.subgraphs[0].outputs = list(dict.fromkeys(tensor.index for tensor in self._outputs.values()))
        model.signatureDefs = []
        self._interpreter = make_interpreter(pack(model), "the file")

    def answers(self, given: list[np.ndarray]) -> list[np.ndarray]:
        """The outputs, then the inner tensors."""
        found = self.predict(given)
        return list(found.values()) if isinstance(found, dict) else [found]


def _unfolded(stored: np.ndarray, kernel: np.ndarray) -> tuple[np.ndarray, float]:
    """A file's kernel without what was folded into it, a factor for each channel; and its likeness to the model's.

    The factor is that of the largest weight, which symmetric grids hold exactly, so that it need not be known what was
    folded. A channel that is 0 in the file is lost.

    Args:
        stored: of the file, output channels last.
        kernel: of the model, with as many values.
    """
    channels = stored.shape[-1]
    found, true = (array.reshape(-1, channels).astype("float64") for array in (stored, kernel))
    largest = np.abs(true).argmax(0), np.arange(channels)
    alive = (found[largest] != 0) & (true[largest] != 0)
    if not alive.any():
        return kernel, 0.0
    factor = np.divide(found[largest], true[largest], out=np.ones(channels), where=alive)
    scaled = np.where(alive, found / factor, 0.0)
    lengths = np.linalg.norm(found, axis=0) * np.linalg.norm(true, axis=0)
    likeness = np.abs((found * true).sum(0))[alive] / lengths[alive]
    return scaled.reshape(kernel.shape).astype("float32"), float(likeness.mean())


def _grid(tensor: Tensor, factor: float) -> Grid:
    limits = np.iinfo(tensor.dtype)
    scale, zero_point = float(tensor.scales[0]) / factor, int(tensor.zero_points[0])
    return Grid((limits.min - zero_point) * scale, (limits.max - zero_point) * scale, limits.bits)


def _size(shape: tuple[int, ...]) -> int:
    return math.prod(shape[1:])
