"""The network that NetAdapt cuts and trains: built and traced once, whatever is cut of it."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mobilenets.export import export_tflite
from keras_mobilenets.layers import inline
from keras_mobilenets.search.widths import Channels, Weights, give, weights_of
from keras_mobilenets.tasks import Task
from keras_mobilenets.tflite import TFLiteModel
from keras_mobilenets.training import distiller, freeze_normalization
from keras_mobilenets.training.compiling import compile_model
from keras_mobilenets.training.fitting import TrainingData, held_out_score
from keras_mobilenets.training.recipes import recipe

COMPARED, CALIBRATED, VERIFIED = 256, 64, 8


class Student:
    """A network of the seed's size in which a channel is cut by making its weights zero, and keeping them so.

    So TensorFlow traces its training once, where each narrower network would be traced for longer than it is trained.
    A narrower network answers the same, and takes its place where it is measured.

    Args:
        seed: what all learn from.
        data: pictures.
        task: what the seed is for.
        channels: of the seed.
        learning_rate: of the short fine-tunings; None for that of the recipe "finetune".
    """

    def __init__(
        self, seed: keras.Model, data: TrainingData, task: Task, channels: Channels, learning_rate: float | None
    ) -> None:
        self.data, self.task, self.channels = data, task, channels
        student, teacher = (copy_of(seed) for _ in range(2))
        freeze_normalization(student)
        self.network = student
        self._trained = distiller(student, teacher)
        constant = dataclasses.replace(recipe("finetune"), decay=1.0)
        options: dict[str, Any] = {"epochs": 1, "steps_per_epoch": 1, "batch_size": data.batch_size}
        self._masks = self._constrain()
        compile_model(self._trained, constant, learning_rate=learning_rate, **options)
        self._variables = [*self._trained.variables, *self._trained.optimizer.variables]
        self._begin = [keras.ops.convert_to_numpy(one).copy() for one in self._variables]
        batches = itertools.islice(self.data.val, -(-COMPARED // data.batch_size))
        self._pictures = np.concatenate([np.asarray(images, "float32") for images, _ in batches])[:COMPARED]
        self._said = _log_softmax(self._trained.teacher.predict(self._pictures, verbose=0))

    def _constrain(self) -> dict[str, list[keras.Variable]]:
        """A mask for each weight, which the optimizer multiplies it by after each step."""
        masks = {}
        for layer in inline(self.network).layers:
            masks[layer.name] = [
                keras.Variable(np.ones(one.shape, "float32"), trainable=False) for one in layer.weights
            ]
            for weight, mask in zip(layer.weights, masks[layer.name], strict=True):
                weight.constraint = _Masked(mask)
        return masks

    def cut(self, widths: Mapping[str, int], weights: Weights) -> Weights:
        """The weights with what falls to narrower widths made zero, in the size of the seed."""
        return _product(weights, self._masks_of(widths, weights))

    def _masks_of(self, widths: Mapping[str, int], weights: Weights) -> Weights:
        kept = self.channels.kept(self.channels.counts(self.channels.rebuilt(widths)), weights)
        return self.channels.masks(kept, weights)

    def tuned(self, widths: Mapping[str, int], weights: Weights, *, epoch: int, steps: int) -> Weights:
        """The weights after some steps on the pictures of an epoch; what was trained before makes no difference."""
        for variable, value in zip(self._variables, self._begin, strict=True):
            variable.assign(value)
        masks = self._masks_of(widths, weights)
        for name, arrays in masks.items():
            for variable, mask in zip(self._masks[name], arrays, strict=True):
                variable.assign(mask)
        give(self.network, _product(weights, masks))
        for images, targets in itertools.islice(self.data.train_from(epoch), steps):
            self._trained.train_on_batch(images, self.task.encode(targets))
        return weights_of(self.network)

    def divergence(self, weights: Weights) -> float:
        """How far the answers are from the seed's, in float: KL(seed || student) on held-out pictures."""
        give(self.network, weights)
        said = _log_softmax(self._trained.student.predict(self._pictures, verbose=0))
        return float((np.exp(self._said) * (self._said - said)).sum(-1).mean())

    def score(self, model: keras.Model) -> float:
        """The task's headline of the held-out pictures, by a network's file as post-training quantization makes it."""
        batches = itertools.islice(self.data.train_from(0), -(-CALIBRATED // self.data.batch_size))
        images = np.concatenate([np.asarray(images) for images, _ in batches])[:CALIBRATED]
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of lost answers: that is what is measured
            path = Path(folder) / "model.tflite"
            options: dict[str, Any] = {"calibration": images, "verify": images[:VERIFIED]}
            export_tflite(model, path, quantize="int8", verbose=False, **options)
            found = held_out_score(TFLiteModel(path).predict, self.data, self.task)[self.task.headline]
        return float(found or 0.0)


class _Masked(keras.constraints.Constraint):
    def __init__(self, mask: keras.Variable) -> None:
        self.mask = mask

    def __call__(self, w: Any) -> Any:
        return w * self.mask


def _product(weights: Weights, masks: Weights) -> Weights:
    return {name: [a * m for a, m in zip(arrays, masks[name], strict=True)] for name, arrays in weights.items()}


def copy_of(model: keras.Model) -> keras.Model:
    """The same network with weights of its own."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits.astype("float64") - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
