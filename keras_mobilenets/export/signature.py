"""What a model takes and gives, by name: one order and one set of names for converter, file, data and answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

AUTOMATIC = re.compile(r"(keras_tensor|input_layer|input)(_?\d+)?")
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Input:
    """One input of a model.

    Attributes:
        name: of the input.
        shape: without the batch; None for a size of any number, where the model brings pictures to size.
        dtype: "float32" or the integers that it takes.
        computed: the shape that the model computes with, where it brings pictures to size.
    """

    name: str
    shape: Shape
    dtype: str = "float32"
    computed: Shape | None = None

    @property
    def example(self) -> Shape:
        """The shape of one example, all of whose sizes are known."""
        return self.computed if self.computed and None in self.shape else self.shape

    @property
    def is_image(self) -> bool:
        """Whether it is (height, width, channels)."""
        return len(self.shape) == 3

    def fits(self, values: Any) -> bool:
        """Whether values are a batch for this input."""
        shape = np.shape(values)[1:]
        return np.ndim(values) == len(self.shape) + 1 and all(
            own in (None, given) for own, given in zip(self.shape, shape, strict=True)
        )

    def __str__(self) -> str:
        return f"{self.dtype} ? x {' x '.join(map(str, self.shape))}"


@dataclass(frozen=True)
class Signature:
    """All inputs in the order in which `keras.tree` flattens them, and likewise all outputs: their shapes by name.

    Example:

    >>> image, table = keras.Input((8, 8, 3), name="image"), keras.Input((4,), name="table")
    >>> pooled = keras.layers.GlobalAveragePooling2D()(image)
    >>> model = keras.Model([image, table], keras.layers.Concatenate(name="features")([pooled, table]))
    >>> [str(one) for one in Signature.of(model).inputs], Signature.of(model).outputs
    (['float32 ? x 8 x 8 x 3', 'float32 ? x 4'], {'features': (7,)})
    """

    inputs: tuple[Input, ...]
    outputs: Mapping[str, Shape]

    @classmethod
    def of(cls, model: keras.Model, given: Any = None, computed: Sequence[Shape | None] = ()) -> Signature:
        """Reads it off a model.

        Args:
            model: functional, sequential or subclassed; the latter takes one input.
            given: the shape of the one input, or of the one image; several in a dictionary by name. Needed where the
                model leaves sizes open.
            computed: for each input the shape that pictures are brought to, where the model does that.

        Raises:
            ValueError: `given` does not fit, or a size is known to nobody.
        """
        tensors, names = _inputs_of(model), []
        for (name, tensor), size in zip(tensors.items(), computed or [None] * len(tensors), strict=True):
            shape = _shape_for(model, name, tensor, given, tensors, size)
            floats = "float" in keras.backend.standardize_dtype(tensor.dtype)
            dtype = "float32" if floats else keras.backend.standardize_dtype(tensor.dtype)
            names.append(Input(name, shape, dtype, size))
        if not tensors:
            if not isinstance(given, tuple | list):
                raise ValueError(f"{model.name} does not know its input: pass `input_shape=(height, width, channels)`.")
            names = [Input("image" if len(given) == 3 else "input", tuple(map(int, given)))]
        inputs = tuple(names)
        return cls(inputs, _outputs_of(model, inputs))

    def behind(self, model: keras.Model) -> Signature:
        """The same for a model on the same inputs in another shape, such as what is converted."""
        tensors = keras.tree.flatten(getattr(model, "inputs", None) or [])
        return replace(self, inputs=tuple(map(_as_taken, self.inputs, tensors)) if tensors else self.inputs)

    @property
    def image(self) -> Input:
        """The one image input.

        Raises:
            ValueError: there is none, or another input besides.
        """
        if len(self.inputs) != 1 or not self.inputs[0].is_image:
            shapes = {one.name: one.shape for one in self.inputs}
            raise ValueError(f"One image input (height, width, channels) is needed. The model takes: {shapes}")
        return self.inputs[0]

    def arrays(self, batch: Any) -> list[Any] | None:
        """A batch in whatever form `fit` takes it, as one array for each input; None if it does not fit.

        That is inputs alone or a tuple that begins with them, and inputs are an array, a list of them or a dictionary
        by name.
        """
        candidates = [batch, batch[0]] if isinstance(batch, tuple | list) and len(batch) else [batch]
        for one in candidates:
            if isinstance(one, Mapping):
                arrays = [one[each.name] for each in self.inputs if each.name in one]
            else:
                arrays = list(one) if isinstance(one, tuple | list) else [one]
            if len(arrays) == len(self.inputs) and all(map(Input.fits, self.inputs, arrays)):
                return arrays
        return None


def call(model: keras.Model, arrays: Sequence[Any]) -> list[Any]:
    """A model's answers at inference, flat in and flat out."""
    functional = isinstance(model, keras.Function) and not isinstance(model, keras.Sequential)
    given = keras.tree.pack_sequence_as(model.input, list(arrays)) if functional else arrays[0]
    return keras.tree.flatten(model(given, training=False))


def structured(model: keras.Model, arrays: Sequence[Any]) -> Any:
    """One array for each input as `fit` takes them for this model."""
    if len(arrays) == 1:
        return arrays[0]
    return keras.tree.pack_sequence_as(model.input, list(arrays))


def _inputs_of(model: keras.Model) -> dict[str, Any]:
    """The symbolic inputs by name; none of a model that is not built, or subclassed."""
    if not (isinstance(model, keras.Function | keras.Sequential) and model.built):
        return {}
    tensors = list(model.inputs)
    if len(tensors) == 1 and AUTOMATIC.fullmatch(tensors[0].name):
        return {"image" if len(tensors[0].shape) == 4 else "input": tensors[0]}
    structure = None if isinstance(model, keras.Sequential) else model.input
    names = sorted(structure) if isinstance(structure, dict) else [one.name for one in tensors]
    if isinstance(structure, dict):
        tensors = [structure[name] for name in names]
    return dict(zip(_unique(names), tensors, strict=True))


def _as_taken(one: Input, tensor: Any) -> Input:
    sizes = zip(tensor.shape[1:], one.example, strict=True)
    return replace(one, shape=tuple(given if own is None else own for own, given in sizes))


def _shape_for(
    model: keras.Model, name: str, tensor: Any, given: Any, tensors: Mapping[str, Any], computed: Shape | None
) -> Shape:
    known = tuple(tensor.shape[1:])
    images = [other for other, one in tensors.items() if len(one.shape) == 4]
    if isinstance(given, Mapping):
        if strange := set(given) - set(tensors):
            raise ValueError(f"`input_shape` names no input of {model.name}: {strange}. It has: {list(tensors)}")
        wanted = given.get(name, known)
    else:
        is_meant = given is not None and (len(tensors) == 1 or images == [name])
        wanted = given if is_meant else known
    shape = tuple(wanted)
    if len(shape) == len(known) and any(own not in (None, size) for own, size in zip(known, shape, strict=True)):
        raise ValueError(f"`input_shape` must fit the model's {known}. Received: input_shape={shape}")
    if len(shape) == len(known) and computed is not None:
        return shape
    if len(shape) != len(known) or None in shape:
        example = "input_shape=(224, 224, 3)" if len(known) == 3 else f"input_shape={{{name!r}: (...)}}"
        raise ValueError(
            f"{model.name} takes inputs of any size: {name} {known}. A file needs one: pass "
            f"`input_shape=(height, width, channels)`, for instance {example}."
        )
    return tuple(int(size) for size in shape)


def _outputs_of(model: keras.Model, inputs: Sequence[Input]) -> dict[str, Shape]:
    """Shapes by name, in the order in which `keras.tree` flattens the outputs."""
    if isinstance(model, keras.Sequential) and model.built:
        structure, names = model.outputs[0], [model.layers[-1].name]
    elif isinstance(model, keras.Function):
        structure, names = model.output, list(model.output_names)
    else:
        structure = model(np.zeros((1, *inputs[0].shape), inputs[0].dtype), training=False)
        names = ["output"] * len(keras.tree.flatten(structure))
    if len({id(one) for one in keras.tree.flatten(structure)}) < len(keras.tree.flatten(structure)):
        raise ValueError(f"{model.name} gives one output twice, {names}, which a file cannot. Give each once.")
    names = _unique(sorted(structure) if isinstance(structure, dict) else names)
    return {name: tuple(one.shape[1:]) for name, one in zip(names, keras.tree.flatten(structure), strict=True)}


def _unique(names: Iterable[str]) -> list[str]:
    """A layer that is called twice has two outputs of one name."""
    found: list[str] = []
    for name in map(str, names):
        count = sum(re.fullmatch(rf"{re.escape(name)}(_\d+)?", one) is not None for one in found)
        found.append(f"{name}_{count}" if name in found else name)
    return found
