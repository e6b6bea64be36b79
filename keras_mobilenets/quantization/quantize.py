"""`quantize_model`: a finished model in, the same model with fake quantization out; and the way back."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from typing import Any

import keras

from keras_mobilenets.graph import Graph, Node
from keras_mobilenets.layers import HardSigmoid, HardSwish, inline
from keras_mobilenets.quantization.annotate import see_through
from keras_mobilenets.quantization.config import QuantizeConfig, QuantWeights
from keras_mobilenets.quantization.layers import (
    QuantBatchNormalization,
    QuantHardSigmoid,
    QuantHardSwish,
    QuantKernel,
    QuantReLU,
)
from keras_mobilenets.quantization.lower import lower
from keras_mobilenets.quantization.observers import Observer
from keras_mobilenets.quantization.plan import Plan
from keras_mobilenets.quantization.quantizers import FakeQuant, InputQuant, Quantizer
from keras_mobilenets.quantization.regions import FloatEntry, another
from keras_mobilenets.quantization.roles import Role
from keras_mobilenets.quantization.settings import InputRange, Settings
from keras_mobilenets.quantization.twin import KERNELS, Copies, QuantizedModel, Rewriter

_FLOAT: dict[type, Any] = {QuantHardSigmoid: HardSigmoid, QuantHardSwish: HardSwish, QuantReLU: keras.layers.ReLU}


def quantize_model(
    model: keras.Model,
    *,
    skip: Collection[str] = (),
    configs: Mapping[str | type, QuantizeConfig] | None = None,
    input_range: InputRange = None,
    weight_bits: int = 8,
    activation_bits: int = 8,
    symmetric: bool = False,
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
        skip: names of layers that stay in float; the activation and normalization around a skipped convolution stay
            with it.
        configs: settings for single layers, by the layer's name or class; for layers of your own, what of them is
            quantized.
        input_range: (low, high) of pixel 0 and pixel 255 at the model's input, numbers or tuples with one for each
            channel; for several inputs a dictionary by input name, where None observes the range. By default what
            `PixelScale.of` reads off the model; where that does not say, (-1, 1), and images in another range are
            refused with the one to pass. Inputs that are no images are observed by default.
        weight_bits: width of the kernels' integers, 2 to 8. Fewer than 8 is a simulation: no converter stores them.
        activation_bits: width of the feature maps' integers, 2 to 16. TFLite knows 8 and 16.
        symmetric: whether feature maps have 0 in the middle of the grid, as 16-bit ones always have.
        observer: how ranges of feature maps are found: "moving_average", "min_max", "percentile", "least_error", or an
            observer with arguments, for instance `Percentile(99.9)`.
        target: what will run the integer model: "xnnpack" (phones and computers), "edgetpu", "tflite-micro" or "npu";
            the last two have an integer operation for hard-swish, which the others get as an addition and a product.

    Returns:
        A functional `QuantizedModel`, not compiled.

    Raises:
        ValueError: a layer cannot be quantized (it is named, with what to do), `skip` or `configs` names a layer that
            is not there, or an argument is out of its range.

    Example:

    >>> model = MobileNetV2(input_shape=(32, 32, 3), alpha=0.35, weights=None, classes=5)
    >>> images = np.random.uniform(-1, 1, (8, 32, 32, 3)).astype("float32")
    >>> quantized = quantize_model(model)
    >>> calibrate(quantized, images)
    >>> quantized(images).shape
    TensorShape([8, 5])
    """
    settings = Settings(input_range, weight_bits, activation_bits, symmetric, observer, target)
    if isinstance(skip, str) or not (isinstance(skip, Collection) and all(isinstance(one, str) for one in skip)):
        raise ValueError(f"`skip` must be names of layers, in a list. Received: skip={skip!r}")
    if not isinstance(configs, Mapping | None):
        raise ValueError(f"`configs` must be a dictionary of `QuantizeConfig`. Received: configs={configs!r}")
    flat, annotations = see_through(model)
    _refuse(flat)
    graph = Graph.of(flat)
    known, floating = dict(configs or {}), set(skip)
    names = [node.name for node in graph.nodes]

    def inherit(old, new):
        if old.name in floating:
            floating.add(new.name)

    lower(graph, inherit)
    configured = [key for key in known if isinstance(key, str)]
    _check_names([*names, *(node.name for node in graph.nodes)], [*skip, *configured])

    def config_of(node: Node) -> QuantizeConfig | None:
        return known.get(node.name) or known.get(type(node.layer)) or annotations.get(id(node.layer))

    plan = Plan(graph, lambda node: node.name in floating, config_of)
    return _rewrite(plan, settings)


def quantize_apply(model: keras.Model, **settings: Any) -> keras.Model:
    """Makes the quantization-aware twin of a model in which only annotated layers are quantized.

    Args:
        model: a functional or sequential model with layers from `quantize_annotate_layer`. A normalization and an
            activation that the integer graph computes together with an annotated convolution belong to it.
        **settings: of `quantize_model`: input_range, weight_bits, activation_bits, symmetric, observer, target.

    Returns:
        A functional `QuantizedModel`, not compiled.

    Raises:
        ValueError: nothing is annotated, or an annotated layer cannot be quantized.

    Example:

    >>> from keras_mobilenets.quantization import quantize_annotate_layer
    >>> def annotate(layer):
    ...     return quantize_annotate_layer(layer) if isinstance(layer, keras.layers.Dense) else layer
    >>> inputs = keras.Input((32,))
    >>> hidden = keras.layers.Dense(16, activation="relu")(inputs)
    >>> model = keras.Model(inputs, keras.layers.Dense(10)(hidden))
    >>> is_quantized(quantize_apply(keras.models.clone_model(model, clone_function=annotate)))
    True
    """
    checked = Settings(**settings)
    flat, annotations = see_through(model)
    _refuse(flat)
    if not annotations:
        raise ValueError(
            f"No layer of model {model.name!r} is annotated. Call quantize_annotate_layer on some, or quantize_model "
            "to quantize them all."
        )
    chosen = dict(annotations)

    def inherit(old, new):
        if id(old) in chosen:
            chosen[id(new)] = chosen[id(old)]

    graph = lower(Graph.of(flat), inherit)
    plan = Plan(
        graph,
        stays_float=lambda node: not node.is_input and id(node.layer) not in chosen,
        config_of=lambda node: chosen.get(id(node.layer)),
        by_first=True,
    )
    return _rewrite(plan, checked)


def _rewrite(plan: Plan, settings: Settings) -> keras.Model:
    _refuse_other_axes(plan)
    _check_something_is_quantized(plan)
    _warn_of_float_layers(plan)
    rewriter = Rewriter(plan, settings)
    quantized = plan.graph.build(rewriter.call, first=rewriter.quantize_input, cls=QuantizedModel)
    rewriter.layers.copy_weights()
    for layer in quantized.layers:
        if isinstance(layer, Quantizer):
            layer.settings = settings
    for node, name in zip(keras.tree.flatten(plan.graph.outputs), plan.graph.output_names, strict=True):
        if node in rewriter.quantizers:
            rewriter.quantizers[node].output_name = name
    return quantized


def _refuse(flat: keras.Model) -> None:
    """Raises a ValueError if the model cannot be quantized, which names all that is in the way."""
    if is_quantized(flat):
        raise ValueError(f"Model {flat.name!r} is quantized already.")
    found = [f"{layer.name!r} {reason}" for layer in flat.layers if (reason := _hindrance(layer))]
    if found:
        raise ValueError(f"Model {flat.name!r} cannot be quantized: {'; '.join(found)}.")


def _hindrance(layer: Any) -> str | None:
    if getattr(innermost(layer), "quantization_mode", None):
        return "has integer weights from Keras' own quantize(), where float ones are needed: give the model before that"
    if getattr(innermost(layer), "lora_enabled", False) and type(layer) not in KERNELS:
        return "has weights of LoRA beside its kernel: train it without"
    if getattr(layer, "renorm", False):
        return "is a BatchNormalization(renorm=True), which no integer form has: train it without"
    return None


def innermost(layer: Any) -> Any:
    """What a wrapper, such as TimeDistributed, holds; else the layer itself."""
    return innermost(layer.layer) if isinstance(layer, keras.layers.Wrapper) else layer


def _check_names(known: list[str], names: list[str]) -> None:
    unknown = [repr(name) for name in names if name not in known]
    if unknown:
        raise ValueError(f"The model has no layer {', '.join(unknown)}. It has: {list(dict.fromkeys(known))}")


def _refuse_other_axes(plan: Plan) -> None:
    """Raises a ValueError that names all layers with channels elsewhere than last."""
    norms = [node.name for node in plan.left_in_float if isinstance(node.layer, keras.layers.BatchNormalization)]
    first = [node.name for node in plan.graph.nodes if getattr(node.layer, "data_format", None) == "channels_first"]
    reasons = [f"{first} have channels first. Build them with channels last"] if first else []
    if norms:
        reasons.append(
            f"{norms} must normalize over axis -1. Build them so, or leave them in float with "
            f"quantize_model(model, skip={norms})"
        )
    if reasons:
        raise ValueError(f"Runtimes have channels last: {'; '.join(reasons)}.")


def _check_something_is_quantized(plan: Plan) -> None:
    roles = {role for node, role in plan.roles.items() if node not in plan.floating}
    # What only moves values is a model, if all of it is integer.
    found = roles - {Role.INPUT, Role.INDEX, Role.TRAINING}
    if found <= {Role.MOVE} if plan.left_in_float else not (found or plan.floating):
        names = list(dict.fromkeys(node.name for node in plan.left_in_float))
        reason = f"runtimes have no integer form of {names}" if names else "no layer of it computes at inference"
        raise ValueError(
            f"Model {plan.graph.name!r} has nothing to quantize: {reason}. Export it as it is, with quantize=None, "
            "'float16' or 'dynamic'."
        )


def _warn_of_float_layers(plan: Plan) -> None:
    """Names all layers at once that stay in float without having been asked to."""
    found = {node.name: type(node.layer).__name__ for node in plan.left_in_float}
    if found:
        named = ", ".join(f"{name!r} ({kind})" for name, kind in found.items())
        warnings.warn(
            f"Of model {plan.graph.name!r} these layers stay in float, as runtimes have no integer form of them: "
            f"{named}. All others become integer. To say that you know, pass skip={list(found)}; a layer of your own "
            "is quantized as configs={name: QuantizeConfig(...)} says.",
            stacklevel=4,
        )


def is_quantized(model: keras.Model) -> bool:
    """Whether a model has been through `quantize_model`, wholly or in a nested model.

    Example:

    >>> model = MobileNet(input_shape=(32, 32, 3), alpha=0.25, weights=None)
    >>> is_quantized(model), is_quantized(quantize_model(model))
    (False, True)
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a Keras model. Received: model={model!r}")
    return any(
        isinstance(layer, FakeQuant | InputQuant | QuantKernel | QuantWeights)
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

    >>> quantized = quantize_model(MobileNet(input_shape=(32, 32, 3), alpha=0.25, weights=None))
    >>> is_quantized(strip_quantization(quantized))
    False
    """
    if not is_quantized(model):
        raise ValueError(f"Model {model.name!r} is not quantized: there is nothing to strip.")
    layers = Copies(lambda node: float_layer(node.layer))

    def call(node, args, kwargs):
        if isinstance(node.layer, FakeQuant | InputQuant | FloatEntry):
            return args[0]
        return layers[node](*args, **kwargs)

    stripped = Graph.of(inline(model)).build(call)
    layers.copy_weights()
    return stripped


def float_layer(layer: Any) -> Any:
    """A layer without quantization; its weights are not copied."""
    if isinstance(layer, QuantWeights):
        layer = layer.layer
    if isinstance(layer, QuantKernel | QuantBatchNormalization):
        return layer.float_class.from_config(layer.float_config())
    config = layer.get_config()
    if isinstance(layer, QuantHardSigmoid | QuantHardSwish):
        del config["bits"]
    return _FLOAT[type(layer)].from_config(config) if type(layer) in _FLOAT else another(layer, config)
