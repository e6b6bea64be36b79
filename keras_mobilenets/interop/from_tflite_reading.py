"""A file's operations as steps, whatever its converter's habits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_mobilenets.interop.from_tflite_steps import KERNELS, Foreign, Step, behind_scales, same_padding
from keras_mobilenets.tflite.file import Graph, Operator, Tensor

MOVES = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "QUANTIZE", "DEQUANTIZE")
ENDS = ("ARG_MAX", "TFLite_Detection_PostProcess")  # what is done with answers, no part of the network
SIMPLE = {
    "HARD_SWISH": "hard_swish",
    "LOGISTIC": "sigmoid",
    "SOFTMAX": "softmax",
    "CONCATENATION": "concatenation",
}
LINEAR = ("addition", "mean", "concatenation", "resize")  # what is n times as large as its sources are
TRUE_SIZE = ("hard_sigmoid", "hard_swish", "softmax", "sigmoid")
THREE = 3.0


def steps_of_file(graph: Graph) -> list[Step]:
    """The steps of a file's graph, in order, each with its factor.

    Raises:
        Foreign: an operation, or a use of one, that no MobileNet has.
    """
    steps = _Reader(graph).steps
    _find_gates(steps)
    for step in steps:
        if step.kind == "shift":
            raise Foreign(f"operation {step.operator.index} adds {step.constant:g}, and nothing makes a gate of it")
        if step.kind == "product" and _is_hard_swish(step):
            step.kind = "hard_swish"
    _solve_factors(steps)
    for step in steps:
        if step.kind == "hard_swish":
            step.written = step.sources if len(step.sources) > 1 else []
            step.sources = [_swished(step)]
    read = {behind_scales(source) for step in steps if step.kind != "scale" for source in step.sources}
    return [step for step in steps if step.kind != "hard_sigmoid" or step in read]  # others are part of a hard-swish


def kernel_of(graph: Graph, operator: Operator) -> np.ndarray:
    """The real values in Keras' order."""
    values = graph.operand(operator, 1).dequantized()
    # The file has (out, height, width, in), for depthwise (1, height, width, channels), for dense (out, in).
    return values.T if values.ndim == 2 else np.transpose(values, (1, 2, 3, 0))


def without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a kernel of which dense layers and 1x1 convolutions have the same."""
    return shape[2:] if len(shape) == 4 and shape[:2] == (1, 1) else shape


class _Reader:
    """Goes through a graph; knows which step's value each tensor is, and how it was padded."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.steps: list[Step] = []
        self.value: dict[int, Step | None] = {graph.inputs[0]: None}
        self.padded: dict[int, tuple[int, ...]] = {}
        for operator in graph.operators:
            if operator.name not in ENDS:
                self._read(operator)

    def _read(self, operator: Operator) -> None:
        name, special = operator.name, self._special()
        if all(tensor.dtype in ("int32", "int64") for tensor in self.graph.results(operator)):
            return  # computes a shape
        if name in MOVES:
            self._same(operator)
        elif name in SIMPLE:
            self._add(operator, SIMPLE[name])
        elif name in special:
            special[name](operator)
        else:
            raise Foreign(f"operation {operator.index} is {name}, and they have none such")

    def _special(self) -> dict[str, Callable[[Operator], None]]:
        return {
            "CONV_2D": self._kernel,
            "DEPTHWISE_CONV_2D": self._kernel,
            "FULLY_CONNECTED": self._kernel,
            "ADD": self._merge,
            "SUB": self._merge,
            "MUL": self._merge,
            "RELU": self._clamp,
            "RELU6": self._clamp,
            "PAD": self._pad,
            "RESIZE_BILINEAR": self._resize,
            "MEAN": self._mean,
            "AVERAGE_POOL_2D": self._mean,
        }

    def _add(self, operator: Operator, kind: str, **details) -> None:
        read = [one for one in operator.inputs if one >= 0 and not self.graph.tensors[one].is_constant]
        details.setdefault("sources", [self._source(operator, one) for one in read])
        details.setdefault("activation", operator.options.get("fused_activation_function", "NONE"))
        step = Step(kind, operator=operator, tensor=self.graph.results(operator)[0], **details)
        self.steps.append(step)
        self.value[operator.outputs[0]] = step

    def _source(self, operator: Operator, index: int) -> Step | None:
        if index not in self.value:
            raise Foreign(f"operation {operator.index}, {operator.name}, reads what nothing wrote")
        if index in self.padded and operator.name not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            raise Foreign(f"operation {operator.index}, {operator.name}, reads a padded map")
        return self.value[index]

    def _same(self, operator: Operator) -> None:
        self.value[operator.outputs[0]] = self._source(operator, operator.inputs[0])

    def _kernel(self, operator: Operator) -> None:
        kernel = self.graph.operands(operator)[1]
        dtype = kernel.dtype if kernel is not None and kernel.is_constant else "computed"
        if dtype not in ("int8", "uint8"):
            raise Foreign(f"the kernel of operation {operator.index}, {operator.name}, is {dtype}, not int8 or uint8")
        kind = "depthwise" if operator.name == "DEPTHWISE_CONV_2D" else "convolution"
        shape, window = without_ones(kernel_of(self.graph, operator).shape), dict[str, Any]()
        options = operator.options
        strides, dilation = (
            (options.get(f"{name}_h{end}", 1), options.get(f"{name}_w{end}", 1))
            for name, end in (("stride", ""), ("dilation", "_factor"))
        )
        if len(shape) > 2:
            window = {
                "strides": strides,
                "dilation": dilation,
                "padding": self._padding(operator, shape, strides, dilation),
            }
        elif strides != (1, 1):
            window = {"strides": strides}
        self._add(operator, kind, shape=shape, sources=[self._source(operator, operator.inputs[0])], **window)

    def _padding(self, operator: Operator, shape, strides, dilation) -> tuple[int, ...]:
        _, *sizes, _ = self.graph.operand(operator, 0).shape
        explicit = self.padded.get(operator.inputs[0], (0, 0, 0, 0))
        if operator.options.get("padding") == "VALID":
            return explicit
        same = same_padding(sizes, shape[:2], strides, dilation)
        return tuple(one + other for one, other in zip(explicit, same, strict=True))

    def _pad(self, operator: Operator) -> None:
        ends = np.asarray(self.graph.operand(operator, 1).data)
        if ends.shape != (4, 2) or ends[[0, 3]].any():
            raise Foreign(f"operation {operator.index}, PAD, pads other axes than height and width")
        self._same(operator)
        self.padded[operator.outputs[0]] = tuple(int(end) for end in ends[1:3].ravel())

    def _merge(self, operator: Operator) -> None:
        computed = [index for index in operator.inputs if not self.graph.tensors[index].is_constant]
        if len(computed) == 2 and operator.name != "SUB":
            self._add(operator, "addition" if operator.name == "ADD" else "product")
            return
        constant = self.graph.operand(operator, 1)
        if len(computed) == 2 or (operator.name == "SUB" and not constant.is_constant):
            raise Foreign(f"operation {operator.index} is SUB from a map, and they have none such")
        values = (constant if constant.is_constant else self.graph.operand(operator, 0)).dequantized()
        if np.ptp(values) > 1e-3 * np.abs(values).max():
            raise Foreign(f"operation {operator.index}, {operator.name}, has a constant for each channel")
        source = self._source(operator, computed[0])
        kind = "front" if source is None or source.kind == "front" else "scale" if operator.name == "MUL" else "shift"
        self._add(operator, kind, constant=float(values.mean()) * (-1 if operator.name == "SUB" else 1))

    def _clamp(self, operator: Operator) -> None:
        """Belongs to what it clamps, as if it were written in one operation."""
        source = self._source(operator, operator.inputs[0])
        if source is None or source.activation not in ("NONE", operator.name):
            raise Foreign(f"operation {operator.index}, {operator.name}, clamps what is clamped already or an image")
        source.activation, source.tensor = operator.name, self.graph.results(operator)[0]
        self._same(operator)

    def _resize(self, operator: Operator) -> None:
        """What lays corners on corners is done with answers, as DeepLab's files do it, and no part of the network."""
        source, result = self.graph.operand(operator, 0).shape, self.graph.results(operator)[0].shape
        if source == result or (operator.options.get("align_corners") and source[1:3] != (1, 1)):
            self._same(operator)
        else:
            self._add(operator, "resize")

    def _mean(self, operator: Operator) -> None:
        shape, result = self.graph.operand(operator, 0).shape, self.graph.results(operator)[0]
        height, width = shape[1:3] if len(shape) == 4 else (0, 0)
        if operator.name == "MEAN":
            axes = sorted(int(axis) % 4 for axis in np.ravel(np.asarray(self.graph.operand(operator, 1).data)))
            whole = axes == [1, 2] and len(shape) == 4
        else:
            windows = operator.options.get("filter_height"), operator.options.get("filter_width")
            whole = windows == (height, width) and result.size == result.shape[-1]
        if not whole:
            raise Foreign(f"operation {operator.index}, {operator.name}, is no mean over the whole map")
        if height * width == 1:
            self._same(operator)
        else:
            self._add(operator, "mean")


def _find_gates(steps: list[Step]) -> None:
    """Makes hard-sigmoids of `relu6(x + 3)`, also where the 3 is in the bias of a convolution that gates a map."""
    for step in steps:
        if step.kind == "shift" and abs(step.constant / THREE - 1) < 0.02 and step.clamps_like("RELU6"):
            step.kind = "hard_sigmoid"
    for product in [step for step in steps if step.kind == "product"]:
        operands = [behind_scales(source) for source in product.sources]
        if any(one is not None and one.kind == "hard_sigmoid" for one in operands):
            continue
        gate = next((one for one in reversed(operands) if one and one.kind == "convolution"), None)
        if gate is None or not gate.clamps_like("RELU6"):
            raise Foreign(f"operation {product.operator.index} multiplies two maps of which none is a gate")
        _split_gate(steps, gate)


def _split_gate(steps: list[Step], gate: Step) -> None:
    """A convolution whose bias has 3 more than Keras', and the hard-sigmoid behind it."""
    behind = Step("hard_sigmoid", [gate], operator=gate.operator, tensor=gate.tensor, activation=gate.activation)
    for step in steps:
        step.sources = [behind if source is gate else source for source in step.sources]
    gate.activation, gate.tensor, gate.offset = "NONE", None, THREE
    steps.insert(steps.index(gate) + 1, behind)


def _is_hard_swish(product: Step) -> bool:
    """Whether it is `x * hard_sigmoid(x)`."""
    operands = [behind_scales(source) for source in product.sources]
    return any(one and one.kind == "hard_sigmoid" and behind_scales(one.sources[0]) in operands for one in operands)


def _swished(step: Step) -> Step | None:
    """What goes into a hard-swish."""
    operands = [behind_scales(source) for source in step.sources]
    gates = [one for one in operands if one is not None and one.kind == "hard_sigmoid"]
    return behind_scales(gates[0].sources[0]) if gates and len(operands) == 2 else operands[0]


def _solve_factors(steps: list[Step]) -> None:
    """How many times larger than in Keras each value is, as `relu6(x + 3)` is 6 times hard-sigmoid.

    Sums and means have the factor of what they read; a convolution that is added to such a value takes it over.
    """
    group: dict[Step | None, Step | None] = {}

    def root(step: Step | None) -> Step | None:
        while step in group:
            step = group[step]
        return step

    for step in steps:
        for source in step.sources if step.kind in LINEAR else ():
            if root(source) is not root(step):
                group[root(source)] = root(step)
    factors: dict[Step | None, float] = {}
    for step in steps:
        given = [factors.get(root(source), 1.0) for source in step.sources]
        offered: dict[str, float] = {
            "hard_sigmoid": 2 * THREE,
            "product": float(np.prod(given)),
            "scale": step.constant * given[0],
        }
        offered["hard_swish"] = float(np.prod(given)) if len(given) > 1 else 1.0
        if step.kind in TRUE_SIZE and len(given) == 1 and abs(given[0] - 1) > 0.01:
            raise Foreign(f"operation {step.operator.index} reads a value that is {given[0]:g} times too large")
        if step.kind in offered:
            factor = factors.setdefault(root(step), offered[step.kind])
            if abs(factor / offered[step.kind] - 1) > 0.01:
                raise Foreign(f"operation {step.operator.index} is computed {offered[step.kind]:g} times too large")
    for step in steps:
        factor = factors.get(root(step), 1.0)
        power = 6.0 ** round(np.log(factor) / np.log(6.0)) if factor > 0 else factor
        # A sixth on a grid of 8 bits is not quite one.
        step.factor = power if abs(factor / power - 1) < 0.01 else factor


def bias_of(graph: Graph, operator: Operator) -> np.ndarray:
    """The real values; 0 where there is none."""
    bias: Tensor | None = graph.operands(operator)[2] if len(operator.inputs) > 2 else None
    return bias.dequantized() if bias is not None else np.zeros(graph.results(operator)[0].shape[-1], np.float32)


def kernels(steps: list[Step]) -> list[Step]:
    """Convolutions and dense layers."""
    return [step for step in steps if step.kind in KERNELS]
