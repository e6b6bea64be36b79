"""Builds the quantized model from the plan."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import keras
import numpy as np

from keras_mobilenets.graph import Node
from keras_mobilenets.layers import HardSwish, inline
from keras_mobilenets.layers.convolution import Conv2D
from keras_mobilenets.layers.plain import give_weights
from keras_mobilenets.pixels import PixelScale
from keras_mobilenets.quantization.config import QuantizeConfig, QuantWeights
from keras_mobilenets.quantization.exact import ExactInference
from keras_mobilenets.quantization.fold import integer_operations
from keras_mobilenets.quantization.grid import grid_around, symmetric_range
from keras_mobilenets.quantization.layers import (
    LORA,
    QuantBatchNormalization,
    QuantConv2D,
    QuantConv2DTranspose,
    QuantDense,
    QuantDepthwiseConv2D,
    QuantHardSigmoid,
    QuantHardSwish,
    QuantKernel,
    QuantReLU,
)
from keras_mobilenets.quantization.operations import Operation
from keras_mobilenets.quantization.plan import PROBABILITY, TANH, Plan
from keras_mobilenets.quantization.quantizers import FakeQuant, InputQuant, Quantizer
from keras_mobilenets.quantization.regions import another, float_layers
from keras_mobilenets.quantization.roles import Role
from keras_mobilenets.quantization.settings import UNFUSED_HARD_SWISH, Ends, Settings, check_target

UNTIL_SEEN = (-1.0, 1.0)
"""The range of an input of which nothing says it; `InputQuant.check` refuses images that lie in another."""

_WIDER = 129.0 / 128.0

KERNELS: dict[type, Any] = {
    keras.layers.Conv2D: QuantConv2D,
    Conv2D: QuantConv2D,
    keras.layers.DepthwiseConv2D: QuantDepthwiseConv2D,
    keras.layers.Conv2DTranspose: QuantConv2DTranspose,
    keras.layers.Dense: QuantDense,
}


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class QuantizedModel(ExactInference, keras.Model):
    """A functional model whose quantized layers know each other.

    An integer bias is a multiple of the input's scale times the kernel's: to round it as the integer model does, a
    convolution has to know what quantized its input, and a batch normalization the convolution before it. Both have
    the name of that layer; here, when the model is made or loaded, names become layers. At inference it computes with
    the integers of its file: see `exact`. Everything else is `keras.Model`.

    Args:
        *args, **kwargs: of a functional `keras.Model`.

    Attributes:
        settings: what the model was quantized for, a frozen record of the arguments of `quantize_model`: target,
            observer, bit widths, input range. A saved, loaded or cloned model has it too.
        integer_operations: what the integer graph computes as one operation each: frozen records of a kernel with what
            is folded into it, its activation or gate, the quantizer behind it, and the factor by which it is larger.
        exact: whether inference computes in the runtime's integer arithmetic, to the last bit of the file. True as soon
            as there are ranges, where all layers have an integer form; False gives the fake-quantized forward back.
        float_layers: names of the layers that stay in float, as they were asked to or as runtimes have no integer form
            of them.

    Example:

    >>> model = MobileNet(input_shape=(32, 32, 3), alpha=0.25, weights=None)
    >>> isinstance(quantize_model(model), QuantizedModel)
    True
    >>> quantize_model(model, target="npu").settings.target
    'npu'
    """

    output_names: list[str]

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        layers = {layer.name: layer for layer in self.layers}
        for layer in layers.values():
            if isinstance(layer, QuantKernel | QuantBatchNormalization):
                layer.wire(layers)
        self.output_names = [getattr(layers.get(name), "output_name", None) or name for name in self.output_names]

    def __dir__(self) -> list[str]:
        # Keras gets all that `dir` names where it saves or loads, and to compute these takes as long as all the rest.
        computed = {"exact", "inexact_reason", "integer_operations", "float_layers"}
        return [name for name in super().__dir__() if name not in computed]

    @property
    def settings(self) -> Settings:
        return settings_of(self)

    @cached_property
    def integer_operations(self) -> tuple[Operation, ...]:
        return integer_operations(self, self.settings.unfused_hard_swish)

    @property
    def float_layers(self) -> tuple[str, ...]:
        return float_layers(self)


# Keras writes the bare name of a model's class into `.h5` files.
keras.saving.get_custom_objects()["QuantizedModel"] = QuantizedModel


def settings_of(model: keras.Model) -> Settings:
    """What a model was quantized for, wholly or in a nested model.

    A model that was saved before this was kept shows its target by its hard-swish.
    """
    layers = inline(model).layers
    for layer in layers:
        if isinstance(layer, Quantizer) and layer.settings is not None:
            return layer.settings
    fused = not any(isinstance(layer, QuantHardSwish) for layer in layers) and any(
        isinstance(layer, HardSwish) for layer in layers
    )
    return Settings(
        weight_bits=next((layer.weight_bits for layer in layers if isinstance(layer, QuantKernel)), 8),
        activation_bits=next((layer.bits for layer in layers if isinstance(layer, FakeQuant)), 8),
        target="npu" if fused else "xnnpack",
    )


def target_for(model: keras.Model, target: str | None = None) -> str:
    """What shall run the file of a model: `target`, or by default what the model was quantized for.

    Raises:
        ValueError: there is no such target, or it rounds hard-swish in other places than the model does.
    """
    if target is not None:
        check_target(target)
    layers = inline(model).layers if isinstance(model, keras.Function | keras.Sequential) else []
    if not any(isinstance(layer, Quantizer | QuantKernel) for layer in layers):
        return target or Settings.target
    own = settings_of(model)
    if target is None:
        return own.target
    differs = own.unfused_hard_swish != (target in UNFUSED_HARD_SWISH)
    if differs and any(isinstance(layer, QuantHardSwish | HardSwish) for layer in layers):
        raise ValueError(
            f"{model.name} was quantized for target={own.target!r}, and {target!r} rounds hard-swish in other places. "
            f"Quantize for it: quantize_model(strip_quantization(model), target={target!r}), then calibrate or train. "
            f"Received: target={target!r}"
        )
    return target


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
            weights = old.get_weights()
            if getattr(old, "lora_enabled", False) and not new.lora_enabled:
                weights = [np.asarray(one) for one in (old.kernel, old.bias) if one is not None]
            if weights:
                give_weights(new, weights)


class Rewriter:
    """Makes the layers of the quantized model, and calls them in the order of the graph."""

    def __init__(self, plan: Plan, settings: Settings):
        self.plan = plan
        self.settings = settings
        self.layers = Copies(self.make)
        self.names: dict[str, int] = {}
        self.input_of = {front.end: start for start, front in plan.fronts.items()}
        self.quantizers: dict[Node, Any] = {}  # the layer behind each node that has one

    def call(self, node: Node, args: tuple, kwargs: dict[str, Any]) -> Any:
        value = self.layers[node](*args, **kwargs)
        if node in self.plan.quantized:
            value = self.quantize(node, value)
        if node in self.plan.tied:
            value = self.round_to_grid_of(self.plan.tied[node], node, value)
        return self.quantize_input(node, value)

    def make(self, node: Node) -> Any:
        layer, role = node.layer, self.plan.roles[node]
        config = layer.get_config()
        if role is Role.KERNEL and config["activation"] != "linear":  # it is a node of its own since `lower`
            config |= {"activation": None, "activity_regularizer": None}
        if node in self.plan.floating:
            return another(layer, config)
        if role is Role.KERNEL:
            config |= {"weight_bits": self.weight_bits(node), **self.surroundings(node)}
            config = {key: value for key, value in config.items() if key not in LORA}
            return KERNELS[type(layer)].from_config(config)
        if role is Role.NORM:
            # Keras drops a `training=False` of the call when the model around it is trained.
            config |= {"inference_only": node.kwargs.get("training") is False}
            config |= {"kernel_layer": node.inputs[0].name, "bias_offset": self.bias_offset(node)}
            return QuantBatchNormalization.from_config(config)
        if role is Role.HARD_SIGMOID:
            return QuantHardSigmoid.from_config({**config, "bits": self.activation_bits(node)})
        if role is Role.HARD_SWISH and self.settings.unfused_hard_swish:
            return QuantHardSwish.from_config({**config, "bits": self.activation_bits(node)})
        if role is Role.RELU and self.is_clipped_by_quantizer(node):
            return QuantReLU.from_config(config)
        own = self.plan.config_of(node)
        new = type(layer).from_config(config)
        if role is Role.OWN and own is not None and own.weights:
            return QuantWeights(new, own.weights, self.weight_bits(node), name=layer.name)
        return new

    def is_clipped_by_quantizer(self, node: Node) -> bool:
        """Whether behind each place of the node's layer there is a quantizer that begins at 0."""
        places = [other for other in self.plan.graph.nodes if other.layer is node.layer]
        symmetric = any(self.is_symmetric(place, self.activation_bits(place)) for place in places)
        return not symmetric and all(place in self.plan.quantized for place in places)

    def is_symmetric(self, node: Node, bits: int) -> bool:
        return self.settings.symmetric or bits > 8 or node in self.plan.symmetric

    def weight_bits(self, node: Node) -> int:
        config = self.plan.config_of(node) or QuantizeConfig()
        return config.weight_bits or self.settings.weight_bits

    def activation_bits(self, node: Node) -> int:
        config = self.plan.config_of(node) or QuantizeConfig()
        return config.activation_bits or self.settings.activation_bits

    def surroundings(self, node: Node) -> dict[str, Any]:
        """What a layer with a kernel needs to know about the layers around it."""
        if sum(other.layer is node.layer for other in self.plan.graph.nodes) > 1:
            return {}  # a shared layer has several surroundings
        quantizer = self.quantizers.get(self.plan.grid_of(node.inputs[0]))
        return {
            "input_quantizer": quantizer and quantizer.name,
            "input_shift": quantizer.shift if isinstance(quantizer, InputQuant) else 0.0,
            "bias_offset": self.bias_offset(node),
            "normalized": self.fused_role(node) is Role.NORM,
        }

    def bias_offset(self, node: Node) -> float:
        return 3.0 if self.fused_role(node) is Role.HARD_SIGMOID else 0.0

    def fused_role(self, node: Node) -> Role | None:
        """What is computed together with the node, behind it."""
        reader = self.plan.readers.fused(node)
        return None if reader is None else self.plan.roles[reader]

    def quantize(self, node: Node, value: Any) -> Any:
        """Puts a quantizer behind a node."""
        fixed_range, bits = self.plan.quantized[node], self.activation_bits(node)
        is_prediction = fixed_range in (PROBABILITY, TANH) and node in self.plan.outputs
        if fixed_range in (PROBABILITY, TANH) and bits > 8:
            fixed_range = grid_around(0.0, 1.0 - 2.0 ** (1 - bits), bits)  # scale 2**(1 - bits), as TFLite prescribes
        self.quantizers[node] = self.quantizer(node, fixed_range, bits, not is_prediction)
        return self.quantizers[node](value)

    def quantizer(self, node: Node, fixed_range: Any, bits: int, in_training: bool = True) -> FakeQuant:
        config = self.plan.config_of(node) or QuantizeConfig()
        clips = self.plan.roles[node] is Role.RELU and self.is_clipped_by_quantizer(node)
        return FakeQuant(
            bits=bits,
            symmetric=self.is_symmetric(node, bits),
            fixed_range=fixed_range,
            observer=config.observer or self.settings.observer,
            in_training=in_training,
            activation=("relu" if node.layer.max_value is None else "relu6") if clips else None,
            name=self.unique_name(f"{node.name}_quant"),
            dtype=node.layer.dtype_policy if isinstance(node.layer, keras.layers.Layer) else None,
        )

    def round_to_grid_of(self, source: Node, node: Node, value: Any) -> Any:
        """Rounds a value to the grid that another one is on."""
        quantizer = self.quantizers.get(source)
        if isinstance(quantizer, FakeQuant):
            return quantizer(value, observe=False)
        if isinstance(quantizer, InputQuant):
            ends = quantizer.grid()
        else:  # a gate, which needs no quantizer behind it
            ends = grid_around(0.0, 1.0, self.activation_bits(source))
        name = self.unique_name(f"{node.name}_quant")
        return FakeQuant(self.activation_bits(source), fixed_range=ends, name=name)(value)

    def quantize_input(self, node: Node, value: Any) -> Any:
        """Puts the input's quantizer behind the last node of its normalization."""
        if node not in self.input_of:
            return value
        source = self.input_of[node]
        scale, offset = self.plan.fronts[source].affine
        name = self.unique_name(f"{source.name}_quant")
        given = self.range_of(source)
        if given is None:
            bits, symmetric = self.settings.activation_bits, self.settings.symmetric
            observer = self.settings.observer
            quantizer: Any = FakeQuant(bits, symmetric or bits > 8, observer=observer, name=name)
        else:
            black, white = (scale * np.asarray(end) + offset for end in given)
            if np.size(black) > 1 or not black <= 0 <= white > black:
                return self.quantize_channels(node, value, PixelScale.between(black, white))
            quantizer = InputQuant(black, white, (scale, offset), name=name)
        self.quantizers[node] = quantizer
        return quantizer(value)

    def quantize_channels(self, node: Node, value: Any, scale: PixelScale) -> Any:
        """Rounds to pixels what has another scale in each channel, or no 0; then an integer operation scales them.

        Folded into the first kernel they would need another value in each channel to pad with.
        """
        name, bits, channels = self.input_of[node].name, self.settings.activation_bits, value.shape[-1]
        pixels = InputQuant(0.0, 255.0, name=f"{name}_quant")
        value = pixels(keras.layers.Rescaling(scale.std, scale.mean, name=f"{name}_pixels", dtype="float32")(value))
        scaling = QuantDepthwiseConv2D(1, name=f"{name}_scale", input_quantizer=pixels.name, trainable=False)
        value = scaling(value)
        kernel, bias = (np.broadcast_to(part, channels) for part in (scale.scale, scale.offset))
        scaling.set_weights([kernel.reshape(1, 1, channels, 1), bias])
        # A little wider, as on a grid with the step of the pixels each of them may lie half-way between two values.
        ends = min(0.0, scale.range[0]) * _WIDER, max(0.0, scale.range[1]) * _WIDER
        if self.settings.symmetric or bits > 8:
            ends = symmetric_range(*ends, bits)
        self.quantizers[node] = FakeQuant(bits, fixed_range=ends, name=self.unique_name(f"{name}_scale_quant"))
        return self.quantizers[node](value)

    def range_of(self, source: Node) -> Ends | None:
        """The range at an input of the model; None where it is to be observed."""
        given = self.settings.input_range
        if isinstance(given, dict):
            if source.name in given:
                return given[source.name]
        elif given is not None:
            return given
        if len(source.tensor.shape) != 4:
            return None
        found = PixelScale.known(self.plan.graph, image=source.name)
        return found.ends if found else UNTIL_SEEN

    def unique_name(self, name: str) -> str:
        self.names[name] = self.names.get(name, 0) + 1
        return name if self.names[name] == 1 else f"{name}_{self.names[name] - 1}"
