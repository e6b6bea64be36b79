"""Parameters, multiply-adds and bytes of each layer."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Group
from rich.table import Table

from keras_mobilenets.analysis.program import Program, schedule
from keras_mobilenets.utils import require

if TYPE_CHECKING:
    import keras
    import pandas
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """What one layer or several cost for one image.

    Attributes:
        parameters: all weights, those that are not trained included.
        madds: multiply-adds of convolutions and dense layers, as in the papers' tables.
        weight_bytes_float32, weight_bytes_int8: of the weights; in integers four bytes for each number of a bias, which
            is also what is left of batch normalization, and one for all others.
        activation_bytes_float32, activation_bytes_int8: of the feature maps written; 0 where one overwrites another.
        moved_bytes_float32, moved_bytes_int8: of weights and feature maps read, and of feature maps written, each once.
    """

    parameters: int
    madds: int
    weight_bytes_float32: int
    weight_bytes_int8: int
    activation_bytes_float32: int
    activation_bytes_int8: int
    moved_bytes_float32: int
    moved_bytes_int8: int

    @property
    def intensity_float32(self) -> float:
        """Arithmetic intensity: multiply-adds for each byte moved, in float32."""
        return self.madds / max(self.moved_bytes_float32, 1)

    @property
    def intensity_int8(self) -> float:
        """Arithmetic intensity: multiply-adds for each byte moved, in int8."""
        return self.madds / max(self.moved_bytes_int8, 1)

    def to_dict(self) -> dict[str, Any]:
        """The fields and the arithmetic intensities as JSON takes them."""
        intensities = {"intensity_float32": self.intensity_float32, "intensity_int8": self.intensity_int8}
        return {**dataclasses.asdict(self), **intensities}


COSTS = tuple(field.name for field in dataclasses.fields(Cost))


def total(costs: Iterable[Cost]) -> Cost:
    """What several layers cost together."""
    rows = [[getattr(cost, name) for name in COSTS] for cost in costs]
    return Cost(**dict(zip(COSTS, map(sum, zip(*rows, strict=True)), strict=True)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerProfile(Cost):
    """What one primitive layer costs.

    Attributes:
        name: of the layer.
        operation: its class; in a file its operation.
        kind: "conv 3x3", "depthwise 3x3", "pointwise 1x1", "fully connected", "squeeze-excite", "normalization",
            "elementwise", "pooling" or "other".
        output_shape: without the batch.
        live_bytes_float32, live_bytes_int8: of all feature maps that exist while it runs.
    """

    name: str
    operation: str
    kind: str
    output_shape: tuple[int, ...]
    live_bytes_float32: int
    live_bytes_int8: int


@dataclasses.dataclass(frozen=True)
class ModelProfile:
    """What a model costs for one image.

    Attributes:
        name: of the model.
        input_shape: of the first input, without the batch.
        layers: in the order in which they run.
        uncounted: layers with a kernel whose multiply-adds no rule counts: recurrent ones, attention.
    """

    name: str
    input_shape: tuple[int, ...]
    layers: tuple[LayerProfile, ...]
    uncounted: tuple[str, ...] = ()

    @property
    def cost(self) -> Cost:
        """Of all layers."""
        return total(self.layers)

    @property
    def parameters(self) -> int:
        """All weights, those that are not trained included."""
        return self.cost.parameters

    @property
    def madds(self) -> int:
        """Multiply-adds, convolutions and dense layers."""
        return self.cost.madds

    @property
    def peak_activation_bytes_float32(self) -> int:
        """The most that feature maps need at once, computed layer by layer in this order: see `schedule`."""
        return max(layer.live_bytes_float32 for layer in self.layers)

    @property
    def peak_activation_bytes_int8(self) -> int:
        """The same in int8."""
        return max(layer.live_bytes_int8 for layer in self.layers)

    def by_kind(self) -> dict[str, Cost]:
        """The cost of each kind of layer, most multiply-adds first."""
        kinds = dict.fromkeys(layer.kind for layer in self.layers)
        costs = {kind: total(layer for layer in self.layers if layer.kind == kind) for kind in kinds}
        return dict(sorted(costs.items(), key=lambda entry: (-entry[1].madds, -entry[1].parameters)))

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON takes it."""
        return {
            "name": self.name,
            "input_shape": self.input_shape,
            **self.cost.to_dict(),
            "peak_activation_bytes_float32": self.peak_activation_bytes_float32,
            "peak_activation_bytes_int8": self.peak_activation_bytes_int8,
            "uncounted": self.uncounted,
            "kinds": {kind: cost.to_dict() for kind, cost in self.by_kind().items()},
            "layers": [layer.to_dict() for layer in self.layers],
        }

    def to_dataframe(self) -> pandas.DataFrame:
        """A row for each layer.

        Raises:
            ImportError: pandas is not installed.
        """
        frame = require("pandas", "pandas").DataFrame([layer.to_dict() for layer in self.layers]).set_index("name")
        return frame[["operation", "kind", "output_shape", *frame.columns.drop(["operation", "kind", "output_shape"])]]

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draws multiply-adds, weights and the memory of feature maps along the layers.

        Args:
            path: where to save the picture; None for not at all.

        Returns:
            The Matplotlib figure.
        """
        from keras_mobilenets.analysis.drawing import draw_profile

        return draw_profile(self, path)

    def __rich__(self) -> Group:
        where = max(self.layers, key=lambda layer: layer.live_bytes_int8).name
        weights, peak = self.cost.weight_bytes_int8, self.peak_activation_bytes_int8
        lines = [
            f"Weights: {weights:,} bytes in int8, {self.cost.weight_bytes_float32:,} in float32.",
            f"Feature maps at once: {peak:,} bytes in int8, {4 * peak:,} in float32, at {where}.",
        ]
        if self.uncounted:
            lines.append(f"Multiply-adds not counted: {', '.join(self.uncounted)}.")
        return Group(self._layer_table(), self._kind_table(), *lines)

    def _layer_table(self) -> Table:
        table = _table(f"{self.name}, input {_shape(self.input_shape)}", "layer", "all")
        table.add_column("kind", no_wrap=True)
        table.add_column("output", justify="right", no_wrap=True)
        table.add_column("parameters", f"{self.parameters:,}", justify="right", no_wrap=True)
        table.add_column("MAdds", f"{self.madds:,}", justify="right", no_wrap=True)
        for layer in self.layers:
            counts = [f"{count:,}" if count else "" for count in (layer.parameters, layer.madds)]
            table.add_row(layer.name, layer.kind, _shape(layer.output_shape), *counts)
        return table

    def _kind_table(self) -> Table:
        cost = self.cost
        table = _table("By kind; bytes in int8", "kind", "all")
        for name, footer in (
            ("params", ""),
            ("MAdds", ""),
            ("weights", f"{cost.weight_bytes_int8:,}"),
            ("maps", f"{cost.activation_bytes_int8:,}"),
            ("MAdds/byte", f"{cost.intensity_int8:.1f}"),
        ):
            table.add_column(name, footer, justify="right", no_wrap=True)
        for kind, one in self.by_kind().items():
            shares = (one.parameters / max(cost.parameters, 1), one.madds / max(cost.madds, 1))
            sizes = (one.weight_bytes_int8, one.activation_bytes_int8)
            intensity = f"{one.intensity_int8:.1f}" if one.madds else ""
            table.add_row(kind, *(f"{share:.2%}" for share in shares), *(f"{size:,}" for size in sizes), intensity)
        return table


def profile(
    model: keras.Model | str | os.PathLike[str] | bytes, *, image_size: int | tuple[int, int] | None = None
) -> ModelProfile:
    """Counts what a model costs, layer by layer of its flat view.

    A convolution of a kernel K x K from M to N channels with an output of H x W costs K K M N H W multiply-adds, a
    depthwise one K K M H W, a dense layer M N. Everything else costs none, as in the papers' tables. What lies between
    a global pooling and the product of its result with a feature map is squeeze-excite; a 1x1 convolution behind any
    other global pooling is a fully connected layer.

    Args:
        model: a Keras model, with composite layers and nested models as it likes, or a `.tflite` file or its content,
            which is read without TensorFlow. A subclass of `keras.Model` must apply layers and `keras.ops` alone.
        image_size: side of a square, or (height, width), for a Keras model that takes images of any size; 224 by
            default.

    Returns:
        A `ModelProfile`; `rich.print` shows it as tables.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is neither a Keras model that can be followed nor a `.tflite` file.

    Example:

    >>> found = profile(MobileNet(weights=None))
    >>> found.madds, found.peak_activation_bytes_int8
    (568740352, 1204224)
    >>> found.by_kind()["pointwise 1x1"].madds
    539492352

    Reference:
        Howard et al., MobileNets, arXiv:1704.04861, Table 2.
    """
    if isinstance(model, str | bytes | os.PathLike):
        from keras_mobilenets.analysis.tflite_program import tflite_program

        program = tflite_program(model)
    else:
        from keras_mobilenets.analysis.keras_program import keras_program

        program = keras_program(model, image_size)
    uncounted = tuple(step.name for step in program.steps if not step.is_counted)
    return ModelProfile(program.name, program.shapes[program.inputs[0]], tuple(_layers(program)), uncounted)


def _layers(program: Program) -> Iterator[LayerProfile]:
    for step, (live, overwrites) in zip(program.steps, schedule(program), strict=True):
        written = 0 if overwrites else program.elements(step.outputs)
        moved = 0 if overwrites else written + program.elements(step.inputs)
        float32, int8 = step.weight_bytes
        yield LayerProfile(
            name=step.name,
            operation=step.operation,
            kind=step.kind,
            output_shape=program.shapes[step.outputs[0]],
            parameters=step.parameters,
            madds=step.madds,
            weight_bytes_float32=float32,
            weight_bytes_int8=int8,
            activation_bytes_float32=4 * written,
            activation_bytes_int8=written,
            moved_bytes_float32=4 * moved + float32,
            moved_bytes_int8=moved + int8,
            live_bytes_float32=4 * live,
            live_bytes_int8=live,
        )


def _table(title: str, first: str, footer: str) -> Table:
    table = Table(title=title, title_justify="left", show_footer=True, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(first, footer, overflow="fold", min_width=18)
    return table


def _shape(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape))
