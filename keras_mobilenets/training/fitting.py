"""Fitting a classifier: by a recipe, from where an interrupted run stopped, and only while the loss is a number."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Protocol

import keras
import numpy as np

from keras_mobilenets.training.checkpoint import Checkpoint
from keras_mobilenets.training.compiling import compile_model, trained_part
from keras_mobilenets.training.devices import bound_together, process, processes, replicas, whole_batches
from keras_mobilenets.training.distillation import distiller
from keras_mobilenets.training.recipes import Recipe
from keras_mobilenets.training.recipes import recipe as named


class TrainingData(Protocol):
    """What `fit` trains on; `keras_mobilenets.data.load` gives it."""

    @property
    def batch_size(self) -> int:
        """Examples in a batch."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""

    @property
    def val(self) -> Any:
        """Batches of the held-out examples, or all of them."""

    def train_from(self, epoch: int, step: int = 0) -> Any:
        """An endless stream of batches from the given step of the given epoch on, both counted from 0."""


def fit(
    model: keras.Model,
    data: TrainingData,
    *,
    recipe: Recipe | str = "scratch",
    epochs: int | None = None,
    learning_rate: float | None = None,
    teacher: keras.Model | None = None,
    checkpoint: Checkpoint | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 0,
) -> list[dict[str, float]]:
    """Trains a classifier as a recipe says.

    With a checkpoint, a run that was interrupted anywhere goes on to the weights that it would have had: a batch
    depends on the numbers of its epoch and step alone. To the bit, if the operations are deterministic
    (`tf.config.experimental.enable_op_determinism()`).

    Args:
        model: takes the data's images and ends in a softmax, float or quantized.
        data: what to train on and to validate with.
        recipe: one of `keras-mobilenets list recipes` or one's own, scaled to the data's batch size.
        epochs: in all, those before an interruption included; the recipe's if None.
        learning_rate: the highest one, in place of the recipe's.
        teacher: a model to learn from, see `distiller`.
        checkpoint: where to save, and to go on from.
        callbacks: further Keras callbacks.
        verbose: of Keras' `fit`.

    Returns:
        For each epoch, the earlier ones of an interrupted run included: accuracy, loss, val_accuracy, val_loss.

    Raises:
        ValueError: there is no such recipe, or the checkpoint is another model's.
        FloatingPointError: the loss is no longer a number.
        BlockingIOError: another process uses the checkpoint's folder.

    Example:

    >>> history = fit(model, load("digits", image_size=32), epochs=10)  # doctest: +SKIP
    """
    recipe = named(recipe) if isinstance(recipe, str) else recipe
    epochs = recipe.epochs if epochs is None else epochs
    if data.batch_size % replicas():
        raise ValueError(f"A batch of {data.batch_size} pictures cannot be split evenly among {replicas()} devices")
    trained = model if teacher is None else distiller(model, teacher)
    steps = data.steps_per_epoch
    compile_model(
        trained,
        recipe,
        epochs=epochs,
        steps_per_epoch=steps,
        batch_size=data.batch_size,
        learning_rate=learning_rate,
        soft_labels=getattr(data, "soft_labels", False),
    )
    checks = [_Diverged(data)] + ([keras.callbacks.SwapEMAWeights()] if trained.optimizer.use_ema else [])
    if checkpoint is None:
        return _fit(trained, data, (0, 0), epochs, [*checks, *callbacks], verbose)
    with checkpoint.running():
        done = checkpoint.restore(trained)
        before = checkpoint.history
        if done[0] >= epochs:
            trained.optimizer.finalize_variable_values(trained.trainable_variables)  # as Keras does at the end
            return before
        return before + _fit(trained, data, done, epochs, [*checks, *callbacks, checkpoint], verbose)


def _fit(
    model: keras.Model,
    data: TrainingData,
    done: tuple[int, int],
    epochs: int,
    callbacks: Sequence[keras.callbacks.Callback],
    verbose: int,
) -> list[dict[str, float]]:
    """Keras' own `fit`, from `done` epochs and steps on."""
    epoch, step = done
    with whole_batches(trained_part(model)), bound_together():
        history = model.fit(
            _batches(data, epoch, step),
            validation_data=_held_out(data),
            initial_epoch=epoch,
            epochs=epochs,
            steps_per_epoch=data.steps_per_epoch,
            shuffle=False,  # the data come shuffled
            callbacks=list(callbacks),
            verbose=verbose,
        ).history
    return [dict(zip(history, map(float, values), strict=True)) for values in zip(*history.values(), strict=True)]


def _batches(data: TrainingData, epoch: int, step: int) -> Any:
    """What is left of the data."""
    return data.train_from(epoch, step) if keras.backend.backend() == "tensorflow" else _Stream(data, epoch, step)


class _Stream(keras.utils.PyDataset):
    """Begins anew when batch 0 is asked for, which Keras does after it has looked at the data.

    On torch Keras takes a batch also for each step that the checkpoint passes over: the first one stands for those.
    """

    def __init__(self, data: TrainingData, epoch: int, step: int) -> None:
        super().__init__()
        self.data, self.epoch, self.step = data, epoch, step

    @property
    def num_batches(self) -> None:
        """Endless."""

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        if index == 0:
            passed_over = self.step if keras.backend.backend() == "torch" else 0
            first = next(iter(self.data.train_from(self.epoch, self.step)))
            left = self.data.train_from(self.epoch, self.step)
            self.batches = itertools.chain(itertools.repeat(first, passed_over), left)
        return tuple(_share(np.asarray(part)) for part in next(self.batches))


def _share(batch: Any) -> Any:
    """What this process has of a batch."""
    size = len(batch) // processes()
    return batch[process() * size : (process() + 1) * size]


def _held_out(data: TrainingData) -> Any:
    """The held-out batches; where JAX splits them among devices, without the last pictures that do not go around."""
    count = replicas()
    if keras.backend.backend() != "jax" or count == 1:
        return data.val
    import tensorflow as tf

    val = data.val
    if not isinstance(val, tf.data.Dataset):
        val = tf.data.Dataset.from_tensor_slices(val).batch(data.batch_size)

    def share(*batch: Any) -> tuple[Any, ...]:
        size = tf.shape(batch[0])[0] // count * count // processes()
        return tuple(part[process() * size : (process() + 1) * size] for part in batch)

    return val.map(share).filter(lambda *batch: tf.shape(batch[0])[0] > 0)


class _Diverged(keras.callbacks.Callback):
    """Stops at once when the loss is no number, before it is saved: what follows could only be worse."""

    def __init__(self, data: TrainingData) -> None:
        super().__init__()
        self.data = data
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if logs and not math.isfinite(logs["loss"]):
            raise FloatingPointError(
                f"The loss is {float(logs['loss'])} in epoch {self.epoch + 1}, step {batch + 1}. {self._advice(batch)}"
            )

    def _advice(self, step: int) -> str:
        images, labels = (np.asarray(part) for part in next(iter(self.data.train_from(self.epoch, step))))
        where = f"its batch, train_from({self.epoch}, {step}),"
        if not np.isfinite(images).all():
            return f"The images of {where} are not all numbers: look at the data and its preprocessing"
        return (
            f"The images of {where} are in [{images.min():g}, {images.max():g}], its labels in "
            f"[{labels.min():g}, {labels.max():g}]. If that is right, a lower learning rate helps in most cases; "
            "checkpoints from before are whole"
        )
