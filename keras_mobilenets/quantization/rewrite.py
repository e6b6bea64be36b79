"""`quantize_model`: a finished model in, the same model with fake quantization out; and the way back."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import keras

from keras_mobilenets.layers import HardSigmoid, HardSwish, inline
from keras_mobilenets.quantization.quantizers import FakeQuant, InputQuant
from keras_mobilenets.quantization.graph import Graph, Node
from keras_mobilenets.quantization.layers import (
    QuantBatchNormalization,
    QuantConv2D,
    QuantDense,
    QuantDepthwiseConv2D,
    QuantHardSigmoid,
    QuantHardSwish,
    QuantKernel,
)
from keras_mobilenets.quantization.lower import lower
from keras_mobilenets.quantization.model import QuantizedModel
from keras_mobilenets.quantization.observers import Observer
from keras_mobilenets.quantization.plan import PROBABILITY, TANH, Plan, Role

NORMALIZED_RANGE = (-1.0, 1.0)
"""What `preprocess_input` of MobileNet and MobileNetV2 gives."""
PIXEL_RANGE = (0.0, 255.0)

UNFUSED_HARD_SWISH = ("xnnpack",)
"""Targets that have no integer operation for hard-swish."""
TARGETS = (*UNFUSED_HARD_SWISH, "tflite-micro", "edgetpu", "npu")

_QUANTIZED = {quantized.float_class: quantized for quantized in (QuantConv2D, QuantDepthwiseConv2D, QuantDense)}
_FLOAT = {QuantHardSigmoid: HardSigmoid, QuantHardSwish: HardSwish}


def quantize_model(
    model: keras.Model,
    *,
    skip: Collection[str] = (),
    input_range: tuple[float, float] | dict[str, tuple[float, float] | None] | None = None,
    weight_bits: int = 8,
    observer: str | Observer = "moving_average",
    target: str = "xnnpack",
) -> keras.Model:
    """Makes the quantization-aware twin of a model.

    The twin is flat and has weights of its own, copied from `model`. Feature maps are rounded to 8 bits exactly where
    the deployed integer graph will round them, kernels for each output channel. It compiles, fits, saves and loads as
    any other model; either train it (a few epochs at a hundredth of the learning rate) or give it ranges with
    `calibrate`, then export it.

    Args:
        model: a functional or sequential model, with composite layers and nested models as it likes. It stays
            unchanged.
        skip: names of layers that stay in float.
        input_range: (low, high) of pixel 0 and pixel 255 at the model's input; for several inputs a dictionary by
            input name, None observes the range. By default (0, 255) where a `Rescaling` follows the input, as in
            MobileNetV3, else (-1, 1). Inputs that are no images are always observed.
        weight_bits: width of the kernels' integers, 2 to 8. Fewer than 8 is a simulation: no converter stores them.
        observer: how ranges of feature maps are found: "moving_average", "min_max", "percentile", or an observer with
            arguments, for instance `Percentile(99.9)`.
        target: what will run the integer model: "xnnpack" (phones and computers), or "tflite-micro", "edgetpu" or
            "npu", which have an integer operation for hard-swish.

    Returns:
        A functional `QuantizedModel`, not compiled.

    Raises:
        ValueError: a layer cannot be quantized (it is named, with what to do), or an argument is out of its range.

    Example:

    >>> quantized = quantize_model(MobileNetV2(weights="imagenet"))
    >>> calibrate(quantized, images)
    >>> quantized.predict(images).shape
    (64, 1000)
    """
    if target not in TARGETS:
        raise ValueError(f"`target` must be one of {list(TARGETS)}. Received: target={target!r}")
    if is_quantized(model):
        raise ValueError(f"Model {model.name!r} is quantized already.")
    plan = Plan(lower(Graph.of(inline(model))), skip)
    rewriter = _Rewriter(plan, input_range, weight_bits, observer, target)
    quantized = plan.graph.build(rewriter.call, first=rewriter.quantize_input, cls=QuantizedModel)
    rewriter.layers.copy_weights()
    return quantized


class Copies:
    """New layers for old ones: one for each, however often the model uses it.

    Args:
        make: gives the new layer for a node.
    """

    def __init__(self, make: Callable[[Node], Any]):
        self.make = make
        self.pairs: dict[int, tuple[Any, Any]] = {}

    def __getitem__(self, node: Node) -> Any:
        layer = node.layer
        if not isinstance(layer, keras.layers.Layer):
            return layer  # an operation has no state
        if id(layer) not in self.pairs:
            self.pairs[id(layer)] = layer, self.make(node)
        return self.pairs[id(layer)][1]

    def copy_weights(self) -> None:
        """Copies the weights, once the new layers are built."""
        for old, new in self.pairs.values():
            if old.weights:
                new.set_weights(old.get_weights())


class _Rewriter:
    """Makes the layers of the quantized model, and calls them in the order of the graph."""

    def __init__(self, plan: Plan, input_range: Any, weight_bits: int, observer: Any, target: str):
        self.plan = plan
        self.input_range = input_range
        self.weight_bits = weight_bits
        self.observer = observer
        self.target = target
        self.layers = Copies(self.make)
        self.names: dict[str, int] = {}
        self.quantizers: dict[Node, Any] = {}  # the layer behind each node that has one
        self.input_of = {last: node for node, (last, _, _) in plan.normalized.items()}

    def call(self, node: Node, args: tuple, kwargs: dict[str, Any]) -> Any:
        value = self.layers[node](*args, **kwargs)
        if node in self.plan.quantized:
            value = self.quantize(node, value)
        return self.quantize_input(node, value)

    def make(self, node: Node) -> Any:
        layer, role = node.layer, self.plan.roles[node]
        config = layer.get_config()
        if role is Role.KERNEL:
            config["activation"] = None  # a node of its own since `lower`
        if node.name in self.plan.skip:
            return type(layer).from_config(config)
        if role is Role.KERNEL:
            config |= {"weight_bits": self.weight_bits, **self.surroundings(node)}
            return _QUANTIZED[type(layer)].from_config(config)
        if role is Role.NORM:
            config |= {"kernel_layer": node.inputs[0].name, "bias_offset": self.bias_offset(node)}
            return QuantBatchNormalization.from_config(config)
        if role is Role.HARD_SIGMOID:
            return QuantHardSigmoid.from_config(config)
        if role is Role.HARD_SWISH and self.target in UNFUSED_HARD_SWISH:
            return QuantHardSwish.from_config(config)
        return type(layer).from_config(config)

    def surroundings(self, node: Node) -> dict[str, Any]:
        """What a layer with a kernel needs to know about the layers around it."""
        if sum(other.layer is node.layer for other in self.plan.graph.nodes) > 1:
            return {}  # a shared layer has several surroundings
        source = node.inputs[0]
        while source not in self.quantizers and not source.is_input and self.plan.roles[source] in (Role.MOVE, Role.TRAINING):
            source = source.inputs[0]
        quantizer = self.quantizers.get(source)
        return {
            "input_quantizer": quantizer and quantizer.name,
            "input_shift": quantizer.shift if isinstance(quantizer, InputQuant) else 0.0,
            "bias_offset": self.bias_offset(node),
        }

    def bias_offset(self, node: Node) -> float:
        readers = self.plan.consumers[node]
        return 3.0 if self.plan.fuses(node) and self.plan.roles[readers[0]] is Role.HARD_SIGMOID else 0.0

    def quantize(self, node: Node, value: Any) -> Any:
        fixed_range = self.plan.quantized[node]
        is_prediction = fixed_range in (PROBABILITY, TANH) and node in self.plan.outputs
        layer = FakeQuant(
            fixed_range=fixed_range,
            observer=self.observer,
            in_training=not is_prediction,
            name=self.unique_name(f"{node.name}_quant"),
            dtype=node.layer.dtype_policy,
        )
        self.quantizers[node] = layer
        return layer(value)

    def quantize_input(self, node: Node, value: Any) -> Any:
        """Puts the input's quantizer behind the last node of its normalization."""
        if node not in self.input_of:
            return value
        source = self.input_of[node]
        _, scale, offset = self.plan.normalized[source]
        name = self.unique_name(f"{source.name}_quant")
        given = self.range_of(source, (scale, offset) != (1.0, 0.0))
        if given is None:
            self.quantizers[node] = FakeQuant(observer=self.observer, name=name)
            return self.quantizers[node](value)
        low, high = sorted(scale * end + offset for end in given)
        self.quantizers[node] = InputQuant(low, high, (scale, offset), name=name)
        return self.quantizers[node](value)

    def range_of(self, source: Node, is_normalized: bool) -> tuple[float, float] | None:
        """The range at an input of the model; None where it is to be observed."""
        given = self.input_range
        if isinstance(given, dict):
            given = given.get(source.name, ())
            if given is None:
                return None
        if given:
            return given
        if len(source.tensor.shape) != 4:
            return None
        return PIXEL_RANGE if is_normalized else NORMALIZED_RANGE

    def unique_name(self, name: str) -> str:
        self.names[name] = self.names.get(name, 0) + 1
        return name if self.names[name] == 1 else f"{name}_{self.names[name] - 1}"


def is_quantized(model: keras.Model) -> bool:
    """Whether a model has been through `quantize_model`, wholly or in a nested model.

    Example:

    >>> is_quantized(quantize_model(model))
    True
    """
    return any(
        isinstance(layer, FakeQuant | InputQuant | QuantKernel)
        or (isinstance(layer, keras.Model) and is_quantized(layer))
        for layer in model.layers
    )


def strip_quantization(model: keras.Model) -> keras.Model:
    """Gives the float model back, with the weights that quantization-aware training found.

    Args:
        model: a model from `quantize_model`.

    Returns:
        A flat functional model with weights of its own.

    Raises:
        ValueError: `model` is not quantized.

    Example:

    >>> is_quantized(strip_quantization(quantize_model(model)))
    False
    """
    if not is_quantized(model):
        raise ValueError(f"Model {model.name!r} is not quantized: there is nothing to strip.")
    layers = Copies(lambda node: float_layer(node.layer))

    def call(node, args, kwargs):
        if isinstance(node.layer, FakeQuant | InputQuant):
            return args[0]
        return layers[node](*args, **kwargs)

    stripped = Graph.of(inline(model)).build(call)
    layers.copy_weights()
    return stripped


def float_layer(layer: Any) -> Any:
    """A layer without quantization; its weights are not copied."""
    if isinstance(layer, QuantKernel | QuantBatchNormalization):
        return layer.float_class.from_config(layer.float_config())
    return _FLOAT.get(type(layer), type(layer)).from_config(layer.get_config())
