"""The models of this package that a file's steps may belong to, and their steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras

from keras_mobilenets import applications
from keras_mobilenets.graph import Graph, Node
from keras_mobilenets.interop.from_tflite_reading import kernels, without_ones
from keras_mobilenets.interop.from_tflite_steps import Foreign, Match, Step, behind_scales, same_padding
from keras_mobilenets.layers import HardSigmoid, HardSwish, inline, make_divisible
from keras_mobilenets.quantization.lower import lower

ALPHAS = (1.0, 0.75, 0.5, 0.25, 0.35, 1.3, 1.4, 1.25, 1.5, 2.0)
"""Those that are tried first; of others one that gives the width as it stands."""
STRIDE_OF_BLOCKS = 8  # of 32, the rest is the stem's


@dataclass(frozen=True)
class Trunk:
    """By what a network is told from the others.

    Attributes:
        depthwise: how many depthwise convolutions it has.
        width: of the convolution behind the last of them, for alpha 1.
        rounding: the width for another alpha.
    """

    builder: str
    depthwise: int
    width: int
    rounding: Callable[[float], int]

    def alphas(self, width: int) -> list[float]:
        """Those that give a width."""
        tried = dict.fromkeys((*ALPHAS, width / self.width))
        return [alpha for alpha in tried if self.rounding(self.width * alpha) == width]


TRUNKS = (
    Trunk("MobileNet", 13, 1024, int),
    Trunk("MobileNetV2", 17, 320, make_divisible),
    Trunk("MobileNetV3Small", 11, 96, make_divisible),
    Trunk("MobileNetV3Large", 15, 160, make_divisible),
)
_KINDS: dict[type, str] = {
    keras.layers.Add: "addition",
    keras.layers.Multiply: "product",
    keras.layers.Concatenate: "concatenation",
    keras.layers.UpSampling2D: "resize",
    keras.layers.Softmax: "softmax",
    keras.layers.Activation: "sigmoid",  # all others are layers of their own
    HardSigmoid: "hard_sigmoid",
    HardSwish: "hard_swish",
}


def matching_model(steps: list[Step], shape: tuple[int, ...]) -> tuple[keras.Model, list[tuple[Step, Step]]]:
    """Builds the model that has a file's steps, with random weights.

    Args:
        steps: of the file.
        shape: of its image.

    Returns:
        The model, and the file's step and the model's for each step.

    Raises:
        Foreign: there is none; says where the nearest one differs first.
    """
    best: Match | None = None
    for builder, options in _candidates(steps):
        try:
            model = _build(builder, steps, shape, options)
        except ValueError as reason:
            raise Foreign(str(reason)) from None
        expected = steps_of_model(model)
        match = Match(steps, expected, model.name)
        if match.difference is None and match.left:
            rest = match.left[0]
            match.difference = f"{model.name} is in it, but operation {rest.operator.index} is one more: {rest}"
        elif match.difference is not None:
            match.difference += f"; before it {len(match.pairs)} of {len(expected)} steps are {model.name}'s"
        if match.difference is None:
            return model, match.pairs
        if best is None or len(match.pairs) > len(best.pairs):
            best = match
    raise Foreign(best.difference if best else "it is none of them")


def _candidates(steps: list[Step]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Builders, and their options."""
    depthwise = [step for step in steps if step.kind == "depthwise"]
    trunk = next((one for one in TRUNKS if one.depthwise == len(depthwise)), None)
    if trunk is None:
        known = ", ".join(f"{one.builder} {one.depthwise}" for one in TRUNKS)
        raise Foreign(f"it has {len(depthwise)} depthwise convolutions, of those known {known}")
    readers = [one for one in kernels(steps) if _reads(one, depthwise[-1])]  # a squeeze, and the projection at last
    width = readers[-1].shape[-1] if readers else 0
    alphas = trunk.alphas(width)
    if not alphas:
        widths = {alpha: trunk.rounding(trunk.width * alpha) for alpha in sorted(ALPHAS)}
        raise Foreign(f"its last block gives {width} channels, of {trunk.builder} it is one of {widths}")
    options: dict[str, Any] = _strides(depthwise[-1], steps)
    if trunk.builder.startswith("MobileNetV3"):
        swishes = any(step.kind == "hard_swish" for step in steps)
        options |= {"minimalistic": not swishes, "include_preprocessing": False}
    heads: list[dict[str, Any]] = [{}]
    if _is_map(steps):  # which looks at the last map or at the last block's; of V2 < 1 no width was rounded
        rounded: list[dict[str, Any]] = [{}, {"divisor": 1}] if trunk.builder == "MobileNetV2" else [{}]
        heads = [{"neck": neck, **one} for neck in (False, True) for one in rounded]
    for alpha in alphas:
        for head in heads:
            yield trunk.builder, {"alpha": alpha, **options, **head}


def _is_map(steps: list[Step]) -> bool:
    """Whether the answers are for pixels: nothing is done with what is joined but convolutions."""
    ends = {step.kind for step in steps}
    return "concatenation" in ends and not ends & {"sigmoid", "softmax"}


def _reads(step: Step, wanted: Step) -> bool:
    """Whether a step reads another, as it is or gated and activated."""
    source = behind_scales(step.sources[0])
    while source is not None and source is not wanted and source.kind in ("product", "hard_swish"):
        below = [behind_scales(one) for one in source.sources]
        source = next((one for one in below if one is not None and one.kind != "hard_sigmoid"), None)
    return source is wanted


def _build(builder: str, steps: list[Step], shape: tuple[int, ...], options: dict[str, Any]) -> keras.Model:
    ends = {step.kind for step in steps}
    if "concatenation" in ends and ends & {"sigmoid", "softmax"}:
        slots = next(step for step in steps if step.kind in ("sigmoid", "softmax")).tensor.shape[-1]
        background = "softmax" in ends
        head: dict[str, Any] = {"classes": slots - background, "background": background, "backbone_weights": None}
        return applications.SSD300(builder, shape, **head, **options)
    if _is_map(steps):
        return applications.DeepLabV3(builder, shape, **_deeplab(steps), **{"output_stride": 32, **options})
    activation = next((kind for kind in ("softmax", "sigmoid") if kind in ends), None)
    classes = kernels(steps)[-1].shape[-1]
    top = {"classes": classes, "classifier_activation": activation, "weights": None}
    return getattr(applications, builder)(shape, **top, **options)


def _deeplab(steps: list[Step]) -> dict[str, Any]:
    """Options of the head by what is behind the concatenation, and how many branches it joins."""
    place = next(number for number, step in enumerate(steps) if step.kind == "concatenation")
    behind = kernels(steps[place:])
    return {
        "classes": behind[-1].shape[-1],
        "filters": behind[0].shape[-1],
        "aspp": len(steps[place].sources) > 2,
        "resize": steps[-1].kind == "resize",
        "backbone_weights": None,
    }


def _strides(last: Step, steps: list[Step]) -> dict[str, int]:
    """`stem_stride` and `output_stride` by the strides and dilations up to the last block."""
    total, dilated = 1, False
    for step in kernels(steps[: steps.index(last) + 1]):
        total *= step.strides[0] if step.strides else 1
        dilated |= bool(step.dilation) and step.dilation != (1, 1)
    if dilated:
        return {"output_stride": min(max(total, 8), 32)}
    return {"stem_stride": min(max(total // STRIDE_OF_BLOCKS, 1), 4)}


def steps_of_model(model: keras.Model) -> list[Step]:
    """The steps of a model of this package, in order."""
    steps: list[Step] = []
    value: dict[Node, Step | None] = {}
    for node in lower(Graph.of(inline(model))).nodes:
        source: Any = None if node.is_input else value[node.inputs[0]]
        layer = node.layer
        if node.is_input:
            value[node] = None
        elif hasattr(layer, "kernel"):
            value[node] = _kernel_step(node, source)
        elif type(layer) in _KINDS:
            value[node] = Step(_KINDS[type(layer)], [value[one] for one in node.inputs], layer=layer)
        elif isinstance(layer, keras.layers.GlobalAveragePooling2D) and node.inputs[0].tensor.shape[1:3] != (1, 1):
            value[node] = Step("mean", [source], layer=layer)
        else:  # normalization and activation belong to what is before them, other layers only move
            value[node] = source
            if isinstance(layer, keras.layers.BatchNormalization):
                source.norm = layer
            elif isinstance(layer, keras.layers.ReLU):
                source.activation = "RELU6" if layer.max_value == 6 else "RELU"
        step = value[node]
        if step is not None:
            step.names.append(node.name)
            if step not in steps:
                steps.append(step)
    return steps


def _kernel_step(node: Node, source: Step | None) -> Step:
    layer = node.layer
    kind = "depthwise" if isinstance(layer, keras.layers.DepthwiseConv2D) else "convolution"
    shape, window = without_ones(tuple(layer.kernel.shape)), dict[str, Any]()
    if len(shape) > 2:
        strides, dilation = tuple(layer.strides), tuple(layer.dilation_rate)
        sizes = node.inputs[0].tensor.shape[1:3]
        padding = same_padding(sizes, shape[:2], strides, dilation) if layer.padding == "same" else (0, 0, 0, 0)
        window = {"strides": strides, "dilation": dilation, "padding": padding}
    return Step(kind, [source], shape=shape, layer=layer, **window)
