"""Whether the file answers as the Keras model does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_mobilenets.tflite.file import read_tflite
from keras_mobilenets.tflite.runner import TFLiteModel

FLOAT_TOLERANCE = 1e-3  # of the largest output; float32 kernels differ by rounding, which stays far below that

BATCH = 16


@dataclass(frozen=True)
class Parity:
    """A `.tflite` file beside its Keras model, on the same images.

    Attributes:
        images: how many.
        source: which: "calibration", "verify" or "random".
        agreement: share of images with the same highest score; None where the first output has no classes.
        max_difference, mean_difference: of all outputs, in their own unit.
        max_steps, mean_steps: the same in steps of the file's integer outputs; None where an output is float.
        largest: the largest absolute value that the Keras model gave.
    """

    images: int
    source: str
    agreement: float | None
    max_difference: float
    mean_difference: float
    max_steps: float | None
    mean_steps: float | None
    largest: float

    def __str__(self) -> str:
        parts = [] if self.agreement is None else [f"top-1 agreement {self.agreement:.1%}"]
        if self.max_steps is not None:
            parts.append(f"largest difference {self.max_steps:.3g} steps, mean {self.mean_steps:.3g}")
        else:
            parts.append(f"largest difference {self.max_difference:.3g}, mean {self.mean_difference:.3g}")
        kind = {"calibration": "calibration images", "verify": "given images", "random": "random images"}[self.source]
        return f"{', '.join(parts)} ({self.images} {kind})"


def compare(model: keras.Model, content: bytes, images: np.ndarray, given: np.ndarray, source: str) -> Parity:
    """Runs a file beside its Keras model.

    Args:
        model: the Keras model.
        content: of the file.
        images: as the Keras model takes them.
        given: the same images, as `TFLiteModel.predict` takes them.
        source: what to call them.

    Returns:
        A `Parity`.

    Raises:
        RuntimeError: either gives a value that is not a finite number.
    """
    answers = as_list(TFLiteModel(content).predict(given))
    graph = read_tflite(content).graph
    scales = [graph.tensors[index].scales for index in graph.outputs]
    return measure(predict(model, images), answers, source, [float(one[0]) if len(one) else None for one in scales])


def measure(
    expected: list[np.ndarray], answers: list[np.ndarray], source: str, steps: Sequence[float | None] = ()
) -> Parity:
    """Compares outputs.

    Args:
        expected: of the Keras model, one array for each output.
        answers: of the file.
        source: where the images came from.
        steps: size of one step of each output, None for a float one; all are float by default.

    Returns:
        A `Parity`.

    Raises:
        RuntimeError: a value is not a finite number.
    """
    if not all(np.isfinite(one).all() for one in [*expected, *answers]):
        raise RuntimeError("The model or its file gives values that are not finite numbers, so nothing was written.")
    pairs = list(zip(expected, answers, strict=True))
    differences = [np.abs(left - right.astype(np.float32)).ravel() for left, right in pairs]
    whole = np.concatenate(differences)
    integer = bool(steps) and None not in steps
    in_steps = np.concatenate([one / step for one, step in zip(differences, steps, strict=True)]) if integer else None
    return Parity(
        images=len(expected[0]),
        source=source,
        agreement=_agreement(expected[0], answers[0]),
        max_difference=float(whole.max()),
        mean_difference=float(whole.mean()),
        max_steps=None if in_steps is None else float(in_steps.max()),
        mean_steps=None if in_steps is None else float(in_steps.mean()),
        largest=float(max(np.abs(one).max() for one in expected)),
    )


def require_equal(found: Parity) -> None:
    """Raises a RuntimeError if a float32 file differs from its model by more than rounding."""
    if found.max_difference > FLOAT_TOLERANCE * max(1.0, found.largest):
        raise RuntimeError(
            f"The file does not answer as the Keras model does, so nothing was written: {found}. Layers that behave "
            "differently when traced (Python control flow, random numbers at inference) are the usual cause."
        )


def agreement(model: keras.Model, content: bytes, images: np.ndarray, given: np.ndarray) -> float | None:
    """Share of images on which a file and a Keras model have the same highest score; arguments as in `compare`."""
    return _agreement(predict(model, images)[0], as_list(TFLiteModel(content).predict(given))[0])


def predict(model: keras.Model, images: np.ndarray) -> list[np.ndarray]:
    """Like `model.predict`, without tracing: for so few images that takes several times as long as running them."""
    batches = [
        [keras.ops.convert_to_numpy(one) for one in as_list(model(images[start : start + BATCH], training=False))]
        for start in range(0, len(images), BATCH)
    ]
    return [np.concatenate(parts).astype(np.float32) for parts in zip(*batches, strict=True)]


def _agreement(left: np.ndarray, right: np.ndarray) -> float | None:
    if left.ndim < 2 or left.shape[-1] < 2:
        return None
    return float(np.mean(np.argmax(left, -1) == np.argmax(right, -1)))


def as_list(outputs: Any) -> list[np.ndarray]:
    """Outputs of any structure, flat."""
    return list(keras.tree.flatten(outputs))
