"""Reads a Keras model into steps."""

from __future__ import annotations

import math
from typing import Any

import keras

from keras_mobilenets.analysis.program import (
    CONNECTED,
    NORMALIZATION,
    POINTWISE,
    POOLING,
    Program,
    Shape,
    Step,
    kind_by_shape,
    with_kinds_of_use,
)
from keras_mobilenets.layers import inline

IMAGE = (224, 224)  # where a model takes images of any size: what MobileNets were published for

CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
SEPARABLE = (keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)
TRANSPOSED = (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose)
PRODUCTS = ("Conv", "DepthwiseConv", "Dot", "Einsum", "Matmul", "Tensordot")  # operations of keras.ops
WITH_KERNEL = (*CONVOLUTIONS, *DEPTHWISE, *SEPARABLE, *TRANSPOSED, keras.layers.Dense)


def keras_program(model: keras.Model, image_size: int | tuple[int, int] | None) -> Program:
    """The steps of the flat view of a model.

    Args:
        model: functional, sequential, or a subclass whose `call` applies layers and `keras.ops`.
        image_size: side of a square or (height, width), for a model that takes images of any size.

    Raises:
        ValueError: `image_size` is no size, an input has none, or `call` of a subclass cannot be followed.
    """
    size = IMAGE if image_size is None else (image_size,) * 2 if isinstance(image_size, int) else tuple(image_size)
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise ValueError(f"`image_size` must be a side or (height, width), > 0. Received: image_size={image_size!r}")
    flat = _without_foreign_parts(_functional(model, size))
    reader = _Reader()
    inputs = keras.tree.map_structure(  # one image: a layer that folds another axis into the batch gives its number
        lambda one: keras.Input(batch_shape=(1, *_sized(one.shape[1:], size)), dtype=one.dtype), flat.input
    )
    outputs = keras.models.clone_model(
        flat, input_tensors=inputs, clone_function=lambda layer: layer, call_function=reader.call
    ).output
    program = Program(
        name=model.name,
        steps=tuple(reader.steps),
        shapes=reader.shapes,
        inputs=reader.numbers(inputs),
        outputs=reader.numbers(outputs),
    )
    return with_kinds_of_use(program)


def _sized(shape: Shape, size: tuple[int, ...]) -> Shape:
    """A shape with the unknown height and width filled in."""
    known = (*size, None) if len(shape) == 3 else shape
    sized = tuple(asked if one is None else one for one, asked in zip(shape, known, strict=True))
    if None in sized:
        raise ValueError(f"`model` must have an input of known size. Received: shape {shape}")
    return sized


def _functional(model: Any, size: tuple[int, ...]) -> keras.Model:
    if isinstance(model, keras.Function | keras.Sequential):
        return inline(model)
    if not isinstance(model, keras.Model):
        raise ValueError(f"`model` must be a Keras model or a .tflite file. Received: {model!r}")
    inputs = keras.Input((*size, 3))
    return inline(keras.Model(inputs, _parts(model, model, inputs), name=model.name))


def _parts(model: Any, layer: Any, *args: Any, **kwargs: Any) -> Any:
    """What a layer computes, as the layers inside of it."""
    try:
        return layer.call(*args, **kwargs)
    except Exception as error:  # whatever is in somebody else's `call`
        raise ValueError(
            f"{model.name!r} cannot be followed: `call` of {layer.name!r} must consist of layers and `keras.ops` "
            f"({error})"
        ) from error


def _without_foreign_parts(flat: keras.Model) -> keras.Model:
    """The model with the layers inside of layers that this package does not know, where they can be followed."""
    closed: set[int] = set()

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if _is_foreign(layer) and id(layer) not in closed:
            try:
                result = _parts(flat, layer, *args, **kwargs)
            except ValueError:
                result = None
            if result is not None and _holds_all_weights(layer, (args, kwargs), result):
                return result
            closed.add(id(layer))
        return layer(*args, **kwargs)

    while any(_is_foreign(one) and id(one) not in closed for one in flat.operations):
        copy = keras.models.clone_model(
            flat, input_tensors=flat.input, clone_function=lambda layer: layer, call_function=call
        )
        flat = inline(keras.Model(copy.input, copy.output, name=flat.name))
    return flat


def _holds_all_weights(layer: Any, given: Any, result: Any) -> bool:
    """Whether the layers between the two have the layer's weights, which an operation inside would hide."""
    tensors = [one for one in keras.tree.flatten(given) if isinstance(one, keras.KerasTensor)]
    operations = keras.Function(tensors, result).operations
    held = {id(weight) for one in operations for weight in getattr(one, "weights", ())}
    return held.issuperset(map(id, layer.weights))


def _is_foreign(layer: Any) -> bool:
    parts = keras.tree.flatten(list(vars(layer).values()))
    return not isinstance(layer, WITH_KERNEL) and any(
        isinstance(one, keras.layers.Layer) and one.weights for one in parts
    )


class _Reader:
    """Notes each layer as the model is run through; the maps are kept, so that their identities stay unique."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.shapes: dict[int, Shape] = {}
        self._numbers: dict[int, int] = {}
        self._maps: list[Any] = []
        self._weights: set[int] = set()
        self._biased: dict[int, bool] = {}  # map of a layer with a kernel -> whether it has a bias

    def numbers(self, tensors: Any) -> tuple[int, ...]:
        return tuple(self._number(one) for one in keras.tree.flatten(tensors) if isinstance(one, keras.KerasTensor))

    def _number(self, tensor: Any) -> int:
        if id(tensor) not in self._numbers:
            self._numbers[id(tensor)] = len(self._maps)
            shape = tuple(1 if size is None else size for size in tensor.shape)
            self.shapes[len(self._maps)] = shape[1:] if shape[:1] == (1,) else shape
            self._maps.append(tensor)
        return self._numbers[id(tensor)]

    def call(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        result = layer(*args, **kwargs)
        inputs, outputs = self.numbers((args, kwargs)), self.numbers(result)
        shapes = [self.shapes[one] for one in inputs]
        output = self.shapes[outputs[0]]
        new = [one for one in getattr(layer, "weights", ()) if id(one) not in self._weights]
        self._weights.update(map(id, new))
        after = inputs[0] if inputs else -1
        if isinstance(layer, WITH_KERNEL):
            self._biased[outputs[0]] = bool(layer.use_bias)
        step = Step(
            name=layer.name,
            operation=type(layer).__name__,
            kind=_kind(layer, shapes, output),
            inputs=inputs,
            outputs=outputs,
            parameters=sum(math.prod(one.shape) for one in new),
            madds=_madds(layer, shapes, output),
            weight_bytes=(sum(4 * math.prod(one.shape) for one in new), self._integer_bytes(layer, new, after)),
            is_counted=_is_counted(layer),
        )
        self.steps.append(step)
        return result

    def _integer_bytes(self, layer: Any, weights: list[Any], after: int) -> int:
        """A byte for each element of a kernel, four of a bias; normalization becomes the bias of a convolution."""
        if isinstance(layer, keras.layers.BatchNormalization):
            return 0 if not weights or self._biased.get(after) else 4 * math.prod(weights[0].shape)
        return sum(math.prod(one.shape) * {0: 0, 1: 4}.get(len(one.shape), 1) for one in weights)


def _kind(layer: Any, inputs: list[Shape], output: Shape) -> str:
    if isinstance(layer, keras.layers.Dense):
        return CONNECTED
    if isinstance(layer, WITH_KERNEL):
        kernel = "x".join(map(str, layer.kernel_size))
        if isinstance(layer, CONVOLUTIONS):
            return POINTWISE if kernel == "1x1" else f"conv {kernel}"
        name = "depthwise" if isinstance(layer, DEPTHWISE) else "separable" if isinstance(layer, SEPARABLE) else None
        return f"{name or 'transposed conv'} {kernel}"
    if isinstance(layer, keras.layers.BatchNormalization):
        return NORMALIZATION
    if "Pool" in type(layer).__name__:
        return POOLING
    return kind_by_shape(inputs, output)


def _is_counted(layer: Any) -> bool:
    if isinstance(layer, (*WITH_KERNEL, keras.layers.Embedding)):
        return True
    return type(layer).__name__ not in PRODUCTS and all(len(one.shape) < 2 for one in getattr(layer, "weights", ()))


def _madds(layer: Any, inputs: list[Shape], output: Shape) -> int:
    """What each output number sums up, times how many there are."""
    elements = math.prod(output)
    if isinstance(layer, DEPTHWISE):
        return elements * math.prod(layer.kernel_size)
    if isinstance(layer, SEPARABLE):
        channels = layer.pointwise_kernel.shape[-2]
        return elements // output[-1] * channels * math.prod(layer.kernel_size) + elements * channels
    if isinstance(layer, TRANSPOSED):  # each input number meets the whole kernel of its channel
        return math.prod(inputs[0]) * math.prod(layer.kernel_size) * layer.filters
    if isinstance(layer, CONVOLUTIONS):
        return elements * math.prod(layer.kernel.shape[:-1])
    if isinstance(layer, keras.layers.Dense):
        return elements * layer.kernel.shape[0]
    return 0
