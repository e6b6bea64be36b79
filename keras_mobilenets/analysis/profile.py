"""Parameters, multiply-adds and bytes of each layer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import keras
from rich import box
from rich.table import Table

from keras_mobilenets.layers import inline

FLOAT_BYTES = 4
IMAGE = (224, 224)  # where a model takes images of any size: what MobileNets were published for


@dataclasses.dataclass(frozen=True)
class LayerProfile:
    """What one primitive layer costs.

    Attributes:
        name: of the layer.
        kind: its class.
        output_shape: without the batch.
        parameters: all of its weights.
        madds: multiply-adds for one image; of convolutions and dense layers only, as in the papers' tables.
        weight_bytes: of the weights in float32.
        activation_bytes: of the output in float32.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    madds: int
    weight_bytes: int
    activation_bytes: int


@dataclasses.dataclass(frozen=True)
class ModelProfile:
    """What a model costs.

    Attributes:
        name: of the model.
        input_shape: without the batch.
        layers: in the order of the flat view.
    """

    name: str
    input_shape: tuple[int, ...]
    layers: tuple[LayerProfile, ...]

    @property
    def parameters(self) -> int:
        """All weights, those that are not trained included."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def madds(self) -> int:
        """Multiply-adds for one image, convolutions and dense layers."""
        return sum(layer.madds for layer in self.layers)

    @property
    def weight_bytes(self) -> int:
        """Of all weights in float32."""
        return sum(layer.weight_bytes for layer in self.layers)

    def by_kind(self) -> dict[str, tuple[int, int]]:
        """(parameters, multiply-adds) by kind of layer; convolutions with a 1x1 kernel are a kind of their own."""
        kinds: dict[str, tuple[int, int]] = {}
        for layer in self.layers:
            parameters, madds = kinds.get(layer.kind, (0, 0))
            kinds[layer.kind] = parameters + layer.parameters, madds + layer.madds
        return kinds

    def to_dict(self) -> dict[str, Any]:
        """The fields and totals as JSON takes them."""
        totals = {"parameters": self.parameters, "madds": self.madds, "weight_bytes": self.weight_bytes}
        return {**dataclasses.asdict(self), **totals}

    def __rich__(self) -> Table:
        title = f"{self.name}, input {_shape(self.input_shape)}"
        table = Table(title=title, title_justify="left", show_footer=True, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column("layer", "all", overflow="fold", min_width=20)
        table.add_column("kind", overflow="ellipsis", no_wrap=True, max_width=14)
        table.add_column("output", justify="right", no_wrap=True)
        table.add_column("parameters", f"{self.parameters:,}", justify="right", no_wrap=True)
        table.add_column("MAdds", f"{self.madds:,}", justify="right", no_wrap=True)
        for layer in self.layers:
            table.add_row(
                layer.name,
                layer.kind,
                _shape(layer.output_shape),
                f"{layer.parameters:,}" if layer.parameters else "",
                f"{layer.madds:,}" if layer.madds else "",
            )
        return table


def profile(model: keras.Model, *, image_size: int | tuple[int, int] | None = None) -> ModelProfile:
    """Counts what a model costs, layer by layer of its flat view.

    A convolution of a kernel K x K from M to N channels with an output of H x W costs K K M N H W multiply-adds, a
    depthwise one K K M H W, a dense layer M N. Everything else costs none, as in the papers' tables.

    Args:
        model: a functional or sequential model, with composite layers and nested models as it likes.
        image_size: side of a square, or (height, width), for a model that takes images of any size; 224 by default.

    Returns:
        A `ModelProfile`; `rich.print` shows it as a table.

    Example:

    >>> profile(MobileNet(weights=None)).madds
    568740352

    Reference:
        Howard et al., MobileNets, arXiv:1704.04861, Table 2.
    """
    flat = _sized(inline(model), image_size)
    rows = tuple(_row(layer) for layer in flat.layers if not isinstance(layer, keras.layers.InputLayer))
    return ModelProfile(model.name, tuple(flat.inputs[0].shape[1:]), rows)


def _sized(flat: keras.Model, image_size: int | tuple[int, int] | None) -> keras.Model:
    """The model on images of a known size."""
    shapes = [tuple(one.shape[1:]) for one in flat.inputs]
    if all(None not in shape for shape in shapes):
        return flat
    height, width = IMAGE if image_size is None else (image_size,) * 2 if isinstance(image_size, int) else image_size
    inputs = [keras.Input((height, width, shape[-1])) for shape in shapes]
    return keras.models.clone_model(flat, input_tensors=inputs[0] if len(inputs) == 1 else inputs)


def _row(layer: Any) -> LayerProfile:
    shape = tuple(layer.output.shape[1:])
    parameters = layer.count_params()
    return LayerProfile(
        name=layer.name,
        kind=_kind(layer),
        output_shape=shape,
        parameters=parameters,
        madds=_madds(layer, shape),
        weight_bytes=parameters * FLOAT_BYTES,
        activation_bytes=math.prod(shape) * FLOAT_BYTES,
    )


def _kind(layer: Any) -> str:
    kind = type(layer).__name__
    return f"{kind} 1x1" if kind.endswith("Conv2D") and tuple(layer.kernel_size) == (1, 1) else kind


def _madds(layer: Any, output_shape: tuple[int, ...]) -> int:
    """What each output element sums up, times the number of them."""
    elements = math.prod(output_shape)
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return elements * math.prod(layer.kernel_size)
    if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense):
        return elements * math.prod(layer.kernel.shape[:-1])
    return 0


def _shape(shape: Iterable[int]) -> str:
    return " x ".join(map(str, shape))
