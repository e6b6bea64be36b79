"""What is inside a `.tflite` file: operations, whatever is not integer, where the bytes go, what it costs to run."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from keras_mobilenets.tflite.arena import arena_bytes
from keras_mobilenets.tflite.edit.answers import POSTPROCESS
from keras_mobilenets.tflite.file import Graph, Operator, Source, Tensor, TFLiteFile, read_tflite
from keras_mobilenets.tflite.runner import make_interpreter
from keras_mobilenets.tflite.sizes import KERNEL_OPERATIONS, bytes_by_use
from keras_mobilenets.tflite.targets import lacking

CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")
DECODES = (POSTPROCESS,)


@dataclass(frozen=True)
class Audit:
    """What `audit` found in a `.tflite` file.

    Attributes:
        operations: how often each operation occurs.
        float_operations: operations that compute in floating point, as "NAME -> tensor".
        float_tensors: floating-point tensors, apart from the graph's own inputs and outputs.
        conversions_inside: QUANTIZE and DEQUANTIZE that do not stand at the border of the graph.
        depthwise_per_channel: whether each integer depthwise kernel has a scale per channel; None without any.
        input, output: dtype and shape of the first input and output.
        partitions: in how many pieces the runtime's delegate (XNNPACK) runs the graph; 1 is best, None if unknown.
        undelegated: operations that stay outside those pieces.
        size_bytes: of the file.
        bytes_by_use: the same, by what it is spent on.
        arena_bytes: for the tensors that are alive at the same time: see `arena_bytes`.
        madds: multiply-accumulates of one run, convolutions and dense layers.
        lacking: for microcontrollers ("tflite-micro") and "edgetpu" the operations that they do not have.
    """

    operations: dict[str, int]
    float_operations: tuple[str, ...]
    float_tensors: tuple[str, ...]
    conversions_inside: tuple[str, ...]
    depthwise_per_channel: bool | None
    input: str
    output: str
    partitions: int | None
    undelegated: tuple[str, ...]
    size_bytes: int
    bytes_by_use: dict[str, int]
    arena_bytes: int
    madds: int
    lacking: dict[str, tuple[str, ...]]

    @property
    def is_integer(self) -> bool:
        """Whether everything from the input to the network's outputs is integer; boxes may be chosen in float."""
        return not self.float_operations and not self.float_tensors

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON takes them."""
        return {**dataclasses.asdict(self), "is_integer": self.is_integer}

    def rows(self) -> Iterator[tuple[str, str]]:
        """What a table of it shows, line by line."""
        yield "operations", ", ".join(f"{count} {name}" for name, count in self.operations.items())
        yield "input, output", f"{self.input}, {self.output}"
        yield "integer", "yes" if self.is_integer else self._what_is_float()
        if self.conversions_inside and self.is_integer:
            yield "conversions inside", _several("", self.conversions_inside)
        if self.depthwise_per_channel is not None:
            yield "depthwise scales", "per channel" if self.depthwise_per_channel else "per tensor"
        if self.partitions is not None:
            outside = _several("; outside:", self.undelegated) if self.undelegated else ""
            yield "delegated partitions", f"{self.partitions}{outside}"
        uses = ", ".join(f"{use} {size:,}" for use, size in self.bytes_by_use.items() if size)
        yield "size", f"{self.size_bytes:,} bytes ({uses})"
        yield "arena", f"{self.arena_bytes:,} bytes"
        if self.is_integer:
            needs = {"tflite-micro": f"flash {self.size_bytes:,} bytes, arena {self.arena_bytes:,}; "}
            for target, names in self.lacking.items():
                found = f"lacks {', '.join(names)}" if names else "has all operations"
                yield target, needs.get(target, "") + found
        yield "MAdds", f"{self.madds / 1e6:,.1f} M"

    def _what_is_float(self) -> str:
        """All of it in one word; what is left over in an integer file by name."""
        if len(self.float_operations) == sum(self.operations.values()):
            return "no, float"
        found = self.float_operations or self.float_tensors
        return _several(f"no, {len(found)} of {sum(self.operations.values())}:", found)

    def __rich__(self) -> Table:
        return two_columns("Audit", self.rows())


def audit(source: Source) -> Audit:
    """Looks into a `.tflite` file.

    Args:
        source: path of the file, its content, or what `read_tflite` gave.

    Returns:
        An `Audit`; `rich.print` shows it as a table.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a `.tflite` file, or it is truncated or damaged.

    Example:

    >>> layers = [keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 8), keras.layers.Flatten(), keras.layers.Softmax()]
    >>> model = keras.Sequential(layers, name="cat_or_dog")
    >>> _ = export_tflite(model, "model.tflite", verbose=False)
    >>> audit("model.tflite").operations
    {'CONV_2D': 1, 'RESHAPE': 1, 'SOFTMAX': 1}
    """
    file = read_tflite(source)
    partitions, undelegated = _partitions(file)
    found = [(graph, operator) for graph in file.graphs for operator in graph.operators]
    main = file.graph
    return Audit(
        operations=dict(Counter(operator.name for _, operator in found).most_common()),
        float_operations=tuple(
            _label(graph, operator) for graph, operator in found if _computes_float(graph, operator)
        ),
        float_tensors=tuple(_tensor_label(graph, tensor) for graph in file.graphs for tensor in _float_tensors(graph)),
        conversions_inside=tuple(_label(graph, operator) for graph, operator in found if _inside(graph, operator)),
        depthwise_per_channel=_depthwise_per_channel(found),
        input=_signature(main.tensors[main.inputs[0]]),
        output=_signature(main.tensors[main.outputs[0]]),
        partitions=partitions,
        undelegated=undelegated,
        size_bytes=file.size_bytes,
        bytes_by_use=bytes_by_use(file),
        arena_bytes=arena_bytes(main),
        madds=sum(multiply_adds(graph, operator) for graph, operator in found),
        lacking=lacking(_as_needed(graph, operator) for graph, operator in found),
    )


def two_columns(title: str, rows: Iterator[tuple[str, str]]) -> Table:
    """A table of names and values."""
    table = Table(title=title, show_header=False, title_justify="left", title_style="bold")
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _several(prefix: str, names: tuple[str, ...], shown: int = 4) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return f"{prefix} {', '.join(names[:shown])}{more}".strip()


def _border(graph: Graph) -> set[int]:
    """Where the network ends: at the graph's inputs and outputs, and in front of what makes answers of its outputs."""
    decoded = [set(one.inputs) for one in graph.operators if one.name in DECODES]
    return set(graph.inputs).union(graph.outputs, *decoded)


def _computes_float(graph: Graph, operator: Operator) -> bool:
    """QUANTIZE and DEQUANTIZE at the border are the way in and out; all else in the network must not touch floats."""
    touched = [one for one in [*graph.operands(operator), *graph.results(operator)] if one is not None]
    floats = [one for one in touched if one.is_float]
    if operator.name in CONVERSIONS:
        return any(one.index not in _border(graph) for one in floats)
    return bool(floats) and operator.name not in DECODES


def _float_tensors(graph: Graph) -> list[Tensor]:
    used = {index for operator in graph.operators for index in operator.inputs + operator.outputs}
    return [one for one in graph.tensors if one.is_float and one.index in used and one.index not in _border(graph)]


def _inside(graph: Graph, operator: Operator) -> bool:
    at_border = not _border(graph).isdisjoint(operator.inputs + operator.outputs)
    return operator.name in CONVERSIONS and not at_border


def _depthwise_per_channel(found: list[tuple[Graph, Operator]]) -> bool | None:
    kernels = [graph.operands(operator)[1] for graph, operator in found if operator.name == "DEPTHWISE_CONV_2D"]
    integer = [kernel for kernel in kernels if kernel is not None and not kernel.is_float and len(kernel.scales)]
    return all(len(kernel.scales) == kernel.shape[-1] for kernel in integer) if integer else None


def _partitions(file: TFLiteFile) -> tuple[int | None, tuple[str, ...]]:
    """The number of delegated pieces, and the operations outside them.

    The runtime appends a node DELEGATE for each piece, and says which tensors go in and out of it; what lies between
    is found by walking back from the ones to the others.
    """
    graph = file.graph
    details = getattr(make_interpreter(file.content, file.source), "_get_ops_details", None)
    if details is None:
        return None, ()
    pieces = [node for node in details() if node["op_name"] == "DELEGATE"]
    covered: set[int] = set()
    for piece in pieces:
        enters, waiting = set(map(int, piece["inputs"])), list(map(int, piece["outputs"]))
        while waiting:
            operator = graph.producers.get(waiting.pop())
            if operator is not None and operator.index not in covered:
                covered.add(operator.index)
                waiting.extend(index for index in operator.inputs if index not in enters)
    return len(pieces), tuple(_label(graph, one) for one in graph.operators if one.index not in covered)


def multiply_adds(graph: Graph, operator: Operator) -> int:
    """Of one run of an operation: convolutions and dense layers, and none for everything else."""
    if operator.name not in KERNEL_OPERATIONS:
        return 0
    kernel, result = graph.operand(operator, 1), graph.results(operator)[0]
    if operator.name == "TRANSPOSE_CONV":  # each input element meets the whole kernel of its channel
        return graph.operand(operator, 2).size * kernel.size // kernel.shape[-1]
    per_output = kernel.size // kernel.shape[-1 if operator.name == "DEPTHWISE_CONV_2D" else 0]
    return result.size * per_output


def _as_needed(graph: Graph, operator: Operator) -> str:
    """The operation's name; with the dtype for CAST, which no small target has for pixels."""
    is_pixels = operator.name == "CAST" and graph.operand(operator, 0).dtype == "uint8"
    return "CAST of uint8" if is_pixels else operator.name


def _label(graph: Graph, operator: Operator) -> str:
    return f"{operator.name} -> {graph.results(operator)[0].name or operator.outputs[0]}"


def _tensor_label(graph: Graph, tensor: Tensor) -> str:
    if tensor.name:
        return tensor.name
    readers = graph.consumers.get(tensor.index, [])
    return f"constant of {_label(graph, readers[0])}" if readers else f"tensor {tensor.index}"


def _signature(tensor: Tensor) -> str:
    sizes = " x ".join("?" if size < 0 else str(size) for size in tensor.signature)
    return f"{tensor.dtype} {sizes}"
