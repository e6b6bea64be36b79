"""`deployable`: a quantized model as the plain float graph from which a converter makes an integer file."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from keras_mobilenets.graph import Graph, Node
from keras_mobilenets.integer.layer import NotInteger
from keras_mobilenets.layers import HardSwish, inline
from keras_mobilenets.layers.plain import give_weights
from keras_mobilenets.quantization.config import QuantWeights
from keras_mobilenets.quantization.fold import Factors, folded_weights
from keras_mobilenets.quantization.fronts import fronts_of
from keras_mobilenets.quantization.grid import grid_around
from keras_mobilenets.quantization.layers import QuantHardSigmoid, QuantHardSwish, QuantKernel
from keras_mobilenets.quantization.operations import operations_of
from keras_mobilenets.quantization.quantize import is_quantized
from keras_mobilenets.quantization.quantizers import FakeQuant, InputQuant, Quantizer
from keras_mobilenets.quantization.regions import FloatEntry, another
from keras_mobilenets.quantization.roles import Role, role_of
from keras_mobilenets.quantization.settings import UNFUSED_HARD_SWISH
from keras_mobilenets.quantization.twin import target_for

_TOO_LARGE = 1e9  # a weight that diverged: requantizing multiplies by 2**31 at most


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class ConstantFakeQuant(keras.layers.Layer):
    """Fake quantization with a constant range, as one TensorFlow operation that converters know.

    Args:
        low, high: the range.
        bits: width of the integers.
        requantizes: whether the inputs are on another grid already.

    Input shape: any. Output shape: the same.

    Example:

    >>> ConstantFakeQuant(0.0, 2.55)(np.array([0.016], "float32")).numpy()
    array([0.02], dtype=float32)
    """

    def __init__(self, low: float, high: float, bits: int = 8, requantizes: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.low = low
        self.high = high
        self.bits = bits
        self.requantizes = requantizes

    def call(self, inputs):
        import tensorflow as tf

        values = _pooled(inputs) if self.requantizes else inputs
        return tf.quantization.fake_quant_with_min_max_args(values, self.low, self.high, num_bits=self.bits)

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, inputs.dtype)

    def get_config(self):
        own = ("low", "high", "bits", "requantizes")
        return {**super().get_config(), **{name: getattr(self, name) for name in own}}


def _pooled(values: Any) -> Any:
    """The values themselves, behind an operation that parts two quantizers, of which converters would see one.

    They lose a reshape again before they have quantized, and mix up the grids then.
    """
    pixels = values if len(values.shape) == 4 else keras.ops.reshape(values, (1, 1, -1, values.shape[-1]))
    return keras.ops.reshape(keras.ops.max_pool(pixels, 1, 1), keras.ops.shape(values))


def deployable(model: keras.Model, *, target: str | None = None) -> keras.Model:
    """Makes the inference graph of a quantized model, ready for conversion to a full-integer file.

    Only plain float32 layers and fake quantization with constant ranges are in it. Batch normalization is folded into
    kernels and biases, kernels lie on their integer grid, so that a converter finds the very integers that were
    trained. Normalization and augmentation in front of the model are gone: they are part of the input's scale. The
    graph takes normalized images on the grid of `InputQuant`: pixel value `p` (0 to 255) of range [-1, 1] is
    `(p - 128) / 127.5` there, half a grey level below `p / 127.5 - 1`, because an integer grid has to hold 0; the bias
    of the first convolution makes up for it, here as in the quantized model. So uint8 pixels go into the converted
    file as they are.

    Args:
        model: a trained or calibrated model from `quantize_model`.
        target: what will run it; None for what the model was quantized for. "xnnpack" (phones and computers) and
            "edgetpu" have no integer hard-swish: it becomes `x * relu6(x + 3)`, and the kernels that read it are
            divided by 6. "tflite-micro" and "npu" have one, and get it.

    Returns:
        A functional model on the same inputs, in float32.

    Raises:
        ValueError: `model` is not quantized, has no ranges yet, has seen inputs outside the range that it is quantized
            for, or has kernels of fewer than 8 bits or feature maps of other than 8 or 16 bits, which no converter
            knows; or `target` is not known, or rounds hard-swish in other places than the model.
        RuntimeError: the backend is not TensorFlow.

    Example:

    >>> quantized = quantize_model(MobileNet(input_shape=(32, 32, 3), alpha=0.25, weights=None))
    >>> calibrate(quantized, np.random.uniform(-1, 1, (4, 32, 32, 3)).astype("float32"))
    >>> any(isinstance(layer, keras.layers.BatchNormalization) for layer in deployable(quantized).layers)
    False
    """
    if keras.backend.backend() != "tensorflow":
        raise RuntimeError(
            "A model is deployed from the TensorFlow backend: save it, set KERAS_BACKEND=tensorflow, load it."
        )
    if not is_quantized(model):
        raise ValueError(f"Model {model.name!r} is not quantized. Call quantize_model first.")
    target = target_for(model, target)
    graph = Graph.of(inline(model))
    bits = check(graph)
    deployment = Deployment(graph, bits, fused_hard_swish=target not in UNFUSED_HARD_SWISH)
    deployed = graph.build(deployment.call, make_input=deployment.make_input)
    for layer, weights in deployment.weights:
        give_weights(layer, weights)
    return deployed


def check(graph: Graph) -> int:
    """Raises a `NotInteger` if the model cannot be deployed; returns the width of its feature maps in bits."""
    widths = set()
    for node in graph.nodes:
        layer = node.layer
        if isinstance(layer, FakeQuant | InputQuant):
            layer.check()
        if isinstance(layer, FakeQuant):
            widths.add(layer.bits)
        if isinstance(layer, QuantKernel | QuantWeights) and layer.weight_bits != 8:
            raise NotInteger(
                f"Layer {layer.name!r} has weights of {layer.weight_bits} bits, which is a simulation: no converter "
                "stores such weights. Quantize with weight_bits=8 to deploy."
            )
    widths = widths or {8}  # where only pixels are rounded
    if widths not in ({8}, {16}):
        raise NotInteger(
            "Runtimes compute with feature maps of 8 bits or of 16, the same throughout. "
            f"This model has {sorted(widths)}."
        )
    return widths.pop()


class Deployment:
    """Makes the layers of the deployed model, and calls them in the order of the graph."""

    def __init__(self, graph: Graph, bits: int, fused_hard_swish: bool):
        self.bits = bits
        self.consumers = graph.consumers()
        self.fused_hard_swish = fused_hard_swish
        operations = operations_of(graph)
        self.operations = {node: operation for operation in operations for node in operation.nodes}
        self.factors = Factors(graph, operations, fused_hard_swish)
        self.fronts = {
            start: front
            for start, front in fronts_of(graph).items()
            if any(isinstance(reader.layer, Quantizer) for reader in self.consumers[front.end])
        }
        self.front = {node for front in self.fronts.values() for node in front.nodes}
        self.weights: list[tuple[Any, list[np.ndarray]]] = []
        self.names: set[str] = set()

    def call(self, node: Node, args: tuple, kwargs: dict[str, Any]) -> Any:
        layer = node.layer
        if node in self.front or role_of(layer) is Role.TRAINING or node in self.factors.folded:
            return args[0]
        if isinstance(layer, InputQuant):
            return self.fake_quant(node, args[0], *layer.grid(self.bits))
        if isinstance(layer, FakeQuant):
            return self.fake_quant(node, args[0], *self.range_of(node))
        if isinstance(layer, FloatEntry):
            return self.enter_float(node, args[0])
        if role_of(layer) is Role.JOIN:
            return self.join(node, args[0])
        if role_of(layer) is Role.KERNEL:
            return self.kernel(node, args[0])
        if isinstance(layer, QuantHardSigmoid):
            return self.hard_sigmoid(node, args[0])
        if isinstance(layer, QuantHardSwish):
            return self.hard_swish(node, args[0])
        return self.plain(node, args, kwargs)

    def plain(self, node: Node, args: tuple, kwargs: dict[str, Any]) -> Any:
        """The same layer, in float32 and with the same weights."""
        layer = node.layer
        if not isinstance(layer, keras.layers.Layer):
            return layer(*args, **kwargs)
        weights = layer.get_weights()
        if isinstance(layer, QuantWeights):
            rounded = {id(getattr(layer.layer, name)): value for name, value in layer.quantized_weights().items()}
            weights = [np.asarray(rounded.get(id(weight), weight)) for weight in layer.layer.weights]
            layer = layer.layer
        config = {**layer.get_config(), "dtype": "float32", "name": self.unique_name(layer.name)}
        new = layer.float_class.from_config(config) if hasattr(layer, "float_class") else another(layer, config)
        if weights:
            self.weights.append((new, weights))
        return new(*args, **kwargs)

    def enter_float(self, node: Node, value: Any) -> Any:
        """What keeps a converter from making integer operations of those that read the value."""
        is_rounded = not node.inputs[0].is_input and "float" in value.dtype
        return -(value * -1.0) if is_rounded else value

    def join(self, node: Node, values: Any) -> Any:
        """A concatenation: it has no arithmetic, so that all that it joins must be on one grid already."""
        whole = self.operations[node].quantizer
        if whole is not None:
            ends = self.range_of(whole)
            values = [
                self.fake_quant(node, value, *ends, suffix="_part", requantizes=self._is_on_grid(source))
                for source, value in zip(node.inputs, values, strict=True)
            ]
        return self.plain(node, (values,), {})

    def range_of(self, node: Node) -> tuple[float, float]:
        """The range of a quantizer in units of the deployed model."""
        low, high = node.layer.range
        return low * self.factors[node], high * self.factors[node]

    def input_shape(self, node: Node) -> tuple[int, ...]:
        """Of an input of the deployed model: behind normalization and cropping."""
        return self.fronts[node].shape if node in self.fronts else tuple(node.tensor.shape[1:])

    def make_input(self, node: Node) -> Any:
        """The input of the deployed model."""
        given = (self.fronts[node].end if node in self.fronts else node).tensor.dtype
        return keras.Input(self.input_shape(node), dtype="float32" if "float" in given else given, name=node.name)

    def kernel(self, node: Node, value: Any) -> Any:
        """A layer with a kernel: with the normalization behind it, and everything that a kernel can make up for."""
        layer = node.layer
        if value.shape[-1] is None:
            raise ValueError(
                f"Layer {layer.name!r} cannot be deployed: a layer in front of it that stays in float does not tell "
                "the shape of its output. Give that layer's class `compute_output_shape`, or replace it."
            )
        norm, scale, gate = (getattr(self.operations[node], part) for part in ("norm", "scale", "gate"))
        kernel, bias = folded_weights(layer, norm and norm.layer, scale and scale.layer)
        factor = self.factors[node]
        kernel, bias = kernel * factor / self.factors[node.inputs[0]], bias * factor
        if gate is not None:
            bias = bias + 3.0
        if isinstance(layer, keras.layers.Conv2DTranspose) and not bias.any():
            bias[0] = np.finfo("float32").tiny  # zeros a converter drops, and leaves the layer and its ReLU in float
        quantized = isinstance(layer, QuantKernel)
        cls = layer.float_class if quantized else type(layer)
        config = layer.float_config() if quantized else layer.get_config()
        weights = [kernel.astype("float32"), _not_uniform(bias.astype("float32"))]
        if not all(np.all(np.abs(one) < _TOO_LARGE) for one in weights):  # of which, and of NaN, runtimes die
            raise NotInteger(
                f"Layer {layer.name!r} has weights that are not finite numbers, once the normalization behind it is "
                "folded in: moving variances below 0, or numbers that are too large. Train the model anew."
            )
        return self.make(cls, config.pop("name"), value, weights, **{**config, "use_bias": True})

    def make(self, cls: Any, name: str, value: Any, weights: list[np.ndarray] | None = None, **config: Any) -> Any:
        """A layer of the deployed model, called on a value."""
        layer = cls.from_config({**config, "dtype": "float32", "name": self.unique_name(name)})
        if weights:
            self.weights.append((layer, weights))
        return layer(value)

    def hard_sigmoid(self, node: Node, value: Any) -> Any:
        shifted = value if self.operations[node].gate is node else value + 3.0
        gate = self.gate(node, shifted)
        if self.factors[node] == 6.0:
            return gate
        return self.fake_quant(node, gate * (1.0 / 6.0), *grid_around(0.0, 1.0, self.bits), suffix="_sixth")

    def hard_swish(self, node: Node, value: Any) -> Any:
        if self.fused_hard_swish:
            return self.make(HardSwish, node.name, value)
        gate = self.gate(node, value + 3.0)
        if self.factors[node] != 6.0:
            # The sixth of the input is on the same integers, at a sixth of the scale: nothing is lost here.
            source = self._behind(node.inputs[0]).layer
            low, high = source.grid(self.bits) if isinstance(source, InputQuant) else source.range
            value = self.fake_quant(node, value * (1.0 / 6.0), low / 6.0, high / 6.0, suffix="_sixth")
        return self.make(keras.layers.Multiply, node.name, [value, gate])

    def gate(self, node: Node, shifted: Any) -> Any:
        clipped = self.make(keras.layers.ReLU, f"{node.name}_relu6", shifted, max_value=6.0)
        return self.fake_quant(node, clipped, *grid_around(0.0, 6.0, self.bits), suffix="_gate")

    def fake_quant(self, node: Node, value: Any, low: float, high: float, suffix: str = "", requantizes=False) -> Any:
        config = {"low": low, "high": high, "bits": self.bits, "requantizes": requantizes}
        return self.make(ConstantFakeQuant, f"{node.name}{suffix}", value, **config)

    def _is_on_grid(self, node: Node) -> bool:
        return isinstance(self._behind(node).layer, FakeQuant | InputQuant | QuantHardSigmoid)

    def unique_name(self, name: str) -> str:
        """A shared layer is several layers here: its places may differ in scale."""
        unique, count = name, 0
        while unique in self.names:
            count += 1
            unique = f"{name}_{count}"
        self.names.add(unique)
        return unique

    def _behind(self, node: Node) -> Node:
        """The node that gave the value its grid."""
        while role_of(node.layer) in (Role.MOVE, Role.TRAINING):
            node = node.inputs[0]
        return node


def _not_uniform(bias: np.ndarray) -> np.ndarray:
    """The bias, its first value moved by one float32 step if all are equal and not 0.

    TensorFlow's converter stores a uniform constant as one value and then quantizes it for all channels by the scale
    of the first one (seen in 2.21 on the `+ 3` of an untrained squeeze-excite).
    """
    if bias[0] != 0.0 and np.all(bias == bias[0]):
        bias[0] = np.nextafter(bias[0], np.float32(np.inf))
    return bias
