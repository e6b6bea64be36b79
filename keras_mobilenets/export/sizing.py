"""What brings pictures to size in front of a model, and is no part of a file: the app does it."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from keras_mobilenets.export.signature import Signature, call
from keras_mobilenets.graph import Graph, Node
from keras_mobilenets.layers import inline
from keras_mobilenets.quantization.fronts import SIZING, Front, fronts_of
from keras_mobilenets.quantization.lower import lower_operations
from keras_mobilenets.quantization.roles import is_plain_resize


class Sizing:
    """Resizing and cropping in front of a model, of all inputs.

    Args:
        model: float or quantized. Of a subclassed one it is not known.

    Attributes:
        fronts: for each input in the order of `Signature`; none where no picture is brought to size.
    """

    def __init__(self, model: keras.Model):
        self.fronts: tuple[Front, ...] = ()
        if not (isinstance(model, keras.Function | keras.Sequential) and model.built):
            return
        flat = inline(model)
        if any(isinstance(layer, SIZING) for layer in flat.layers):
            self.graph = Graph.of(flat)
            lower_operations(self.graph)  # scaling by arithmetic may stand before
            found = fronts_of(self.graph)
            self.fronts = tuple(found[start] for start in keras.tree.flatten(self.graph.inputs))
            _refuse_idle(model, self.fronts)

    def __bool__(self) -> bool:
        return any(front.sizing for front in self.fronts)

    def __call__(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What a model takes, brought to size, in the same range."""
        if not self:
            return list(arrays)
        return [front.to_size(values) for front, values in zip(self.fronts, arrays, strict=True)]

    @property
    def shapes(self) -> tuple[tuple[int, ...] | None, ...]:
        """The shape of each input that is brought to size; None of others."""
        return tuple(front.shape if front.sizing else None for front in self.fronts)

    @property
    def is_convertible(self) -> bool:
        """Whether runtimes do all of it as Keras does; they round what is made of integers."""
        nodes = [node for front in self.fronts for node in front.sizing]
        resized = [node for node in nodes if isinstance(node.layer, keras.layers.Resizing)]
        return all(is_plain_resize(node.layer) and "float" in node.inputs[0].tensor.dtype for node in resized)

    def without(self) -> keras.Model:
        """The model behind it: the same layers but these, on pictures of the right size."""
        left_out = {node for front in self.fronts for node in front.sizing}
        fronts = {front.start: front for front in self.fronts}

        def make_input(node: Node):
            given = fronts[node].sizing[-1:] or (node,)
            return keras.Input(fronts[node].shape, dtype=given[0].tensor.dtype, name=node.name)

        return self.graph.build(
            lambda node, args, kwargs: args[0] if node in left_out else node.layer(*args, **kwargs),
            make_input=make_input,
        )

    def note(self, signature: Signature) -> str | None:
        """What the app has to do for a file that takes what `signature` says; None where there is nothing."""
        if not self:
            return None
        parts = []
        for one, front in zip(signature.inputs, self.fronts, strict=True):
            if front.sizing:
                layers = " and ".join(f"{node.name!r} ({type(node.layer).__name__})" for node in front.sizing)
                parts.append(f"{one.name!r} as {' x '.join(map(str, one.shape))}, as it is behind {layers}")
        return f"The app has to bring pictures to size: the file takes {'; '.join(parts)}."


def _refuse_idle(model: keras.Model, fronts: Sequence[Front]) -> None:
    """Raises a ValueError if a crop that is done in training only leaves pictures on which the model does not run."""
    if not any(front.is_idle for front in fronts) or any(None in front.shape for front in fronts):
        return
    try:
        call(model, [np.zeros((1, *front.shape), front.start.tensor.dtype) for front in fronts])
    except Exception as error:  # of whatever layer gets another size than it was made for
        crops = [
            node.name for front in fronts for node in front.nodes if isinstance(node.layer, keras.layers.RandomCrop)
        ]
        raise ValueError(
            f"{model.name} does not run at inference, as RandomCrop crops in training only in this release of Keras: "
            f"put keras.layers.CenterCrop(height, width) behind {crops}."
        ) from error
