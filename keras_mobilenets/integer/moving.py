"""Operations that move or pick integers, and compute nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mobilenets.integer.layer import IntegerOperation


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class IntegerMove(IntegerOperation):
    """The same integers in another place or shape, or some of them.

    Args:
        function: "reshape", "transpose", "pad", "mirror", "slice", "concatenate", "gather", "depth_to_space",
            "space_to_depth", "largest", "smallest" or "call".
        settings: what the function needs, see `MOVES`.
        target_shape: of the output, without the batch.
        **kwargs: of `IntegerOperation`.
    """

    arguments = ("function", "settings", "target_shape")

    def numbers(self):
        return {}  # nothing to compute with

    def call(self, inputs):
        return MOVES[self.function](inputs, self.target_shape, **self.settings)

    def compute_output_spec(self, inputs):
        batch = keras.tree.flatten(inputs)[0].shape[0]
        return keras.KerasTensor((batch, *self.target_shape), dtype="float32")


def _reshape(inputs: Any, shape: Any) -> Any:
    return ops.reshape(inputs, (-1, *shape))


def _transpose(inputs: Any, shape: Any, axes: Any) -> Any:
    return ops.transpose(inputs, axes)


def _pad(inputs: Any, shape: Any, paddings: Any, value: float = 0.0, mode: str = "constant") -> Any:
    if mode != "constant":
        return ops.pad(inputs, paddings, mode)
    return ops.pad(inputs, paddings, constant_values=value)


def _slice(inputs: Any, shape: Any, begin: Any, end: Any, strides: Any) -> Any:
    window = tuple(
        slice(first, last if last != -1 else None, step) for first, last, step in zip(begin, end, strides, strict=True)
    )
    return ops.reshape(inputs[(slice(None), *window)], (-1, *shape))


def _concatenate(inputs: Any, shape: Any, axis: int) -> Any:
    return ops.concatenate(inputs, axis=axis)


def _gather(inputs: Any, shape: Any, indices: Any) -> Any:
    for axis, places in indices:
        inputs = ops.take(inputs, np.asarray(places, "int32"), axis=axis)
    return inputs


def _space_to_depth(inputs: Any, shape: Any, block: int) -> Any:
    height, width, _ = shape
    parts = ops.reshape(inputs, (-1, height, block, width, block, inputs.shape[-1]))
    return ops.reshape(ops.transpose(parts, (0, 1, 3, 2, 4, 5)), (-1, *shape))


def _depth_to_space(inputs: Any, shape: Any, block: int) -> Any:
    _, height, width, _ = inputs.shape
    parts = ops.reshape(inputs, (-1, height, width, block, block, shape[-1]))
    return ops.reshape(ops.transpose(parts, (0, 1, 3, 2, 4, 5)), (-1, *shape))


def _largest(inputs: Any, shape: Any, axes: Any) -> Any:
    return ops.reshape(ops.max(inputs, axis=tuple(axes)), (-1, *shape))


def _smallest(inputs: Any, shape: Any, axes: Any) -> Any:
    return ops.reshape(ops.min(inputs, axis=tuple(axes)), (-1, *shape))


def _call(inputs: Any, shape: Any, layer: Callable[[Any], Any]) -> Any:
    return layer(inputs)


MOVES: dict[str, Callable[..., Any]] = {
    "reshape": _reshape,
    "transpose": _transpose,
    "pad": _pad,
    "slice": _slice,
    "concatenate": _concatenate,
    "gather": _gather,
    "space_to_depth": _space_to_depth,
    "depth_to_space": _depth_to_space,
    "largest": _largest,
    "smallest": _smallest,
    "call": _call,
}
