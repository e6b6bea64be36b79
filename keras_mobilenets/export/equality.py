"""Whether an integer file answers as the quantized model that is evaluated exactly, to the bit."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_mobilenets.export import parity
from keras_mobilenets.export.signature import Signature
from keras_mobilenets.quantization.twin import QuantizedModel
from keras_mobilenets.tflite.edit.endings import without_softmax
from keras_mobilenets.tflite.file import read_tflite
from keras_mobilenets.tflite.runner import TFLiteModel, make_interpreter, real


@dataclass(frozen=True)
class Run:
    """What a file was given, and what it answered, by name.

    Attributes:
        file: the runner.
        given: what it was fed: pixels, which an integer file takes without a float on the way, or what the model takes.
        taken: in the model's order, the real numbers that these stand for in the file.
        answers: what it gave.
    """

    file: TFLiteModel
    given: dict[str, np.ndarray]
    taken: list[np.ndarray]
    answers: dict[str, np.ndarray]

    @classmethod
    def of(
        cls,
        file: TFLiteModel,
        signature: Signature,
        scales: Sequence[Any],
        arrays: Sequence[Any],
        grids: Collection[str],
    ) -> Run:
        """Runs a file on arrays, those of inputs in `grids` as the pixels of their scale."""
        given, taken = {}, []
        for one, scale, values in zip(signature.inputs, scales, arrays, strict=True):
            is_image = scale is not None and one.name in grids
            given[one.name] = scale.pixels(values) if is_image else values
            taken.append(scale(given[one.name]) if is_image else file.rounded(values, one.name))
        return cls(file, given, taken, _by_name(file.predict(given), list(signature.outputs)))

    def equal(self, model: QuantizedModel, expected: Mapping[str, np.ndarray]) -> np.ndarray:
        """Of each example, whether each answer is as expected, and each logit in front of a softmax the model's."""
        same = _equal(expected, self.answers)
        logits, content = model.exact_logits(), without_softmax(self.file.file)
        if logits is None or content is None:
            return same
        prepared = [self.file.prepare(self.given[name], name) for name in self.file.input_names]
        found = dict(zip(self.answers, _run(content, prepared), strict=True))
        return same & _equal(parity.predict(logits, self.taken, list(found)), found)


def hindrance(model: QuantizedModel) -> str | None:
    """Why the file cannot be expected to answer as the model is evaluated; None where it can."""
    if model.inexact_reason is not None:
        return model.inexact_reason
    tensors = model.integer_graph().tensors
    if any(tensor.dtype == "int16" and tensor.is_constant for tensor in tensors):
        return "its kernels are on the grids of another file; this one's have a symmetric grid for each channel"
    return "its feature maps are uint8, and this file's int8" if model.settings.unsigned else None


def differences(found: parity.Parity) -> tuple[str, ...]:
    """A sentence where an exactly evaluated model is not its file; nothing where they are equal or not compared."""
    if found.equal in (None, found.images):
        return ()
    sentence = (
        f"The file answers {found.images - found.equal} of {found.images} images otherwise than the quantized model "
        f"evaluates them, where each must be equal to the bit: {found}. So `evaluate` is not exactly what the file "
        "does; `model.exact = False` gives the fake-quantized forward. Please report it with the model's layers."
    )
    return (sentence,)


def _equal(expected: Mapping[str, np.ndarray], answers: Mapping[str, np.ndarray]) -> np.ndarray:
    same = [np.asarray(answers[name]) == one for name, one in expected.items()]
    return np.logical_and.reduce([one.reshape(len(one), -1).all(-1) for one in same])


def _run(content: bytes, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """The real outputs of a file that has no names any more."""
    interpreter, file = make_interpreter(content, "the file without its softmax"), read_tflite(content)
    rows = []
    for example in zip(*arrays, strict=True):
        for index, values in zip(file.graph.inputs, example, strict=True):
            interpreter.set_tensor(index, values[np.newaxis])
        interpreter.invoke()
        rows.append([interpreter.get_tensor(index) for index in file.graph.outputs])
    tensors = [file.graph.tensors[index] for index in file.graph.outputs]
    return [real(np.concatenate(one), tensor) for one, tensor in zip(zip(*rows, strict=True), tensors, strict=True)]


def _by_name(results: Any, names: Sequence[str]) -> dict[str, np.ndarray]:
    return dict(results) if len(names) > 1 else dict.fromkeys(names, results)
