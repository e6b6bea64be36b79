"""Whether the file answers as the Keras model does, output by output."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_mobilenets.export.signature import call
from keras_mobilenets.tasks import Classification, Task

FLOAT_TOLERANCE = 1e-3  # of the largest output; float32 kernels differ by rounding, which stays far below that
ABSURD = 0.5  # of the spread of an output: half of what it says is not the model's. Good files stay below 0.1
POOR = 0.25  # post-training quantization on good models: 0.03 to 0.11
ROUNDING_STEPS = 16  # of 256: a step of the scores is up to 8 at the softmax; two such are rounding, be an output flat
DECODED = 0.99  # the same arithmetic in float32; a score at a threshold may fall to either side
BATCH = 16


@dataclass(frozen=True)
class OutputParity:
    """One output of a file beside the Keras model's.

    Attributes:
        name: of the output.
        agreement: share of examples with the same highest score, or as the task counts it; None of what is no score.
        max_difference, mean_difference: in its own unit.
        max_steps, mean_steps: the same in steps of the file's integers; None of a float output.
        noise: mean difference as a share of the standard deviation of the Keras model's output.
        largest: the largest absolute value that the Keras model gave.
    """

    name: str
    agreement: float | None
    max_difference: float
    mean_difference: float
    max_steps: float | None
    mean_steps: float | None
    noise: float
    largest: float

    def exceeds(self, limit: float) -> bool:
        """Whether the noise is above a limit, and more than rounding to a few steps can be."""
        if self.max_steps is None:
            return self.noise > limit and self.max_difference > self.largest / ROUNDING_STEPS
        return self.noise > limit and self.max_steps > ROUNDING_STEPS

    def __str__(self) -> str:
        parts = [] if self.agreement is None else [f"agreement {self.agreement:.1%}"]
        if self.max_steps is not None:
            parts.append(f"largest difference {self.max_steps:.3g} steps, mean {self.mean_steps:.3g}")
        else:
            parts.append(f"largest difference {self.max_difference:.3g}, mean {self.mean_difference:.3g}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Parity:
    """A file beside its Keras model, on the same examples.

    Attributes:
        images: how many.
        source: which: "calibration", "verify" or "random".
        outputs: each output.
        answers: how much the answers that a task makes of several outputs agree, in [0, 1]; None of one output.
        agreement: of the answers, or else the lowest of the outputs that are scores; None where none is.
        equal: on how many images every output, and every logit in front of a softmax, is the same to the bit; None
            where the model is not evaluated exactly, or the file computes in float.
        max_difference, max_steps, largest: the largest of all outputs; `max_steps` is None where one is float.
        mean_difference, mean_steps: the largest of the outputs' means.
    """

    images: int
    source: str
    outputs: tuple[OutputParity, ...]
    answers: float | None = None
    equal: int | None = None

    @property
    def agreement(self) -> float | None:
        if self.answers is not None:
            return self.answers
        return min((one.agreement for one in self.outputs if one.agreement is not None), default=None)

    @property
    def max_difference(self) -> float:
        return max(one.max_difference for one in self.outputs)

    @property
    def mean_difference(self) -> float:
        return max(one.mean_difference for one in self.outputs)

    @property
    def max_steps(self) -> float | None:
        steps = [one.max_steps for one in self.outputs if one.max_steps is not None]
        return max(steps) if len(steps) == len(self.outputs) else None

    @property
    def mean_steps(self) -> float | None:
        steps = [one.mean_steps for one in self.outputs if one.mean_steps is not None]
        return max(steps) if len(steps) == len(self.outputs) else None

    @property
    def largest(self) -> float:
        return max(one.largest for one in self.outputs)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON takes it."""
        names = ("agreement", "max_difference", "mean_difference", "max_steps", "mean_steps", "largest")
        return {**dataclasses.asdict(self), **{name: getattr(self, name) for name in names}}

    def __str__(self) -> str:
        kind = {"calibration": "calibration images", "verify": "given images", "random": "random images"}[self.source]
        if self.equal == self.images:
            return f"equal on {self.equal} of {self.images} {kind}, to the bit"
        named = [f"{one.name}: {one}" for one in self.outputs] if len(self.outputs) > 1 else [str(self.outputs[0])]
        if self.answers is not None:
            named.insert(0, f"answers agree to {self.answers:.1%}")
        equal = "" if self.equal is None else f"equal on {self.equal} of {self.images}; "
        return f"{equal}{'; '.join(named)} ({self.images} {kind})"


def measure(
    expected: Mapping[str, np.ndarray],
    answers: Mapping[str, np.ndarray],
    source: str,
    *,
    steps: Mapping[str, float] | None = None,
    scores: Collection[str] | None = None,
    task: Task | None = None,
) -> Parity:
    """Compares outputs.

    Args:
        expected: of the Keras model, by name of the output.
        answers: of the file.
        source: where the images came from.
        steps: size of one step of each integer output.
        scores: names of outputs (batch, classes) that are scores; by default those that are, of all outputs, the only
            one, or probabilities.
        task: what the outputs mean.

    Returns:
        A `Parity`.

    Raises:
        RuntimeError: a value is not a finite number.
    """
    if not all(np.isfinite(one).all() for one in [*expected.values(), *answers.values()]):
        raise RuntimeError("The model or its file gives values that are not finite numbers, so nothing was written.")
    if scores is None:
        scores = [name for name, one in expected.items() if len(expected) == 1 or _are_probabilities(one)]
    outputs = []
    for name, one in expected.items():
        kind = task if len(expected) == 1 and task else _classes(one) if name in scores else None
        outputs.append(_compared(name, one, np.asarray(answers[name], np.float32), (steps or {}).get(name), kind))
    alike = None if task is None or len(expected) == 1 else agreement(task, expected, answers)
    return Parity(len(next(iter(expected.values()))), source, tuple(outputs), alike)


def agreement(task: Task, expected: Mapping[str, np.ndarray], answers: Mapping[str, np.ndarray]) -> float:
    """How much what two models say agrees, in [0, 1]."""
    return float(task.agreement(task.decode(expected), task.decode(answers)).mean())


def _compared(name: str, left: np.ndarray, right: np.ndarray, step: float | None, task: Task | None) -> OutputParity:
    difference = np.abs(left - right)
    largest, mean = float(difference.max()), float(difference.mean())
    alike = None if task is None else task.agreement(task.decode(left), task.decode(right))
    return OutputParity(
        name=name,
        agreement=None if alike is None else float(alike.mean()),
        max_difference=largest,
        mean_difference=mean,
        max_steps=None if step is None else largest / step,
        mean_steps=None if step is None else mean / step,
        noise=mean / max(float(left.std()), 1e-12),
        largest=float(np.abs(left).max()),
    )


def _classes(values: np.ndarray) -> Task | None:
    """What scores are that nobody said more of."""
    return Classification(values.shape[-1]) if values.ndim == 2 and values.shape[-1] > 1 else None


def _are_probabilities(values: np.ndarray) -> bool:
    return values.ndim == 2 and bool(np.all(values >= 0) and np.allclose(values.sum(-1), 1, atol=1e-3))


def require_equal(found: Parity) -> None:
    """Raises a RuntimeError if a float32 file differs from its model by more than rounding."""
    for one in found.outputs:
        if one.max_difference > FLOAT_TOLERANCE * max(1.0, one.largest):
            raise RuntimeError(
                f"The file does not answer as the Keras model does, so nothing was written: {found}. Layers that "
                "behave differently when traced (Python control flow, random numbers at inference) are the usual cause."
            )


def require_alike(found: Parity) -> None:
    """Raises a RuntimeError if an output of a file says something else than the model that it was made from.

    That is, if the mean difference is more than half the standard deviation of the output, and the largest is more
    than rounding.
    """
    for one in found.outputs:
        if one.exceeds(ABSURD):
            raise RuntimeError(
                f"The file does not answer as the quantized Keras model does, so nothing was written: its output "
                f"{one.name!r} is off by {one.noise:.2f} of its standard deviation on average, where good files stay "
                "below 0.1. Leave the layers before it in float (quantize_model(model, skip=[...]); "
                "quantization_report says which), or export with quantize='float16'."
            )


def require_decoded(task: Task, outputs: Mapping[str, np.ndarray], decoded: Mapping[str, np.ndarray]) -> None:
    """Raises a RuntimeError if a file makes other answers of the outputs than the task does."""
    alike = agreement(task, outputs, decoded)
    if alike < DECODED:
        raise RuntimeError(
            f"The file does not decode as the task does, so nothing was written: their answers agree to {alike:.1%}. "
            "Export with decoded=False, and decode outside of it."
        )


def losses(found: Parity) -> tuple[str, ...]:
    """A sentence for each output that post-training quantization has changed badly."""
    return tuple(
        f"Output {one.name!r} differs from the float model's by {one.noise:.2f} of its standard deviation on average "
        f"({one}), where good models stay near 0.1: calibrate on pictures as the model takes them, or train it "
        "quantization-aware."
        for one in found.outputs
        if one.exceeds(POOR)
    )


def predict(model: keras.Model, arrays: Sequence[np.ndarray], names: Sequence[str]) -> dict[str, np.ndarray]:
    """Like `model.predict`, without tracing: for so few images that takes several times as long as running them."""
    batches = [
        [keras.ops.convert_to_numpy(one) for one in call(model, [each[start : start + BATCH] for each in arrays])]
        for start in range(0, len(arrays[0]), BATCH)
    ]
    return dict(
        zip(names, (np.concatenate(parts).astype(np.float32) for parts in zip(*batches, strict=True)), strict=True)
    )
