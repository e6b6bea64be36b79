"""Fitting a classifier: by a recipe, from where an interrupted run stopped, and only while the loss is a number."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import keras
import numpy as np

from keras_mobilenets.layers.replicas import processes
from keras_mobilenets.tasks import Task
from keras_mobilenets.training.checkpoint import Checkpoint
from keras_mobilenets.training.compiling import compile_model, trained_part
from keras_mobilenets.training.devices import process, replicas, whole_batches
from keras_mobilenets.training.distillation import distiller
from keras_mobilenets.training.recipes import Recipe
from keras_mobilenets.training.recipes import recipe as named


class TrainingData(Protocol):
    """What `fit` trains on; `keras_mobilenets.data.load` and `load_grain` give it.

    With a method `shared(process, processes)`, which gives the same data with an even part of each batch, a process of
    several need not read what the others train on.
    """

    @property
    def batch_size(self) -> int:
        """Examples in a batch."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""

    @property
    def val(self) -> Any:
        """Batches of the held-out examples, or arrays of all of them."""

    @property
    def val_count(self) -> int:
        """How many examples are held out."""

    def train_from(self, epoch: int, step: int = 0) -> Any:
        """An endless stream of batches from the given step of the given epoch on, both counted from 0."""


def fit(
    model: keras.Model,
    data: TrainingData,
    *,
    task: Task | None = None,
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
        task: what the model is for; by its form if None, see `keras_mobilenets.tasks.task_of`.
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
        task=task,
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
    on_tensorflow = keras.backend.backend() == "tensorflow"
    with whole_batches(trained_part(model)):
        history = model.fit(
            data.train_from(epoch, step) if on_tensorflow else _Stream(data, epoch, step),
            validation_data=data.val if on_tensorflow else _HeldOut(data),
            initial_epoch=epoch,
            epochs=epochs,
            steps_per_epoch=data.steps_per_epoch,
            shuffle=False,  # the data come shuffled
            callbacks=list(callbacks),
            verbose=verbose,
        ).history
    return [dict(zip(history, map(float, values), strict=True)) for values in zip(*history.values(), strict=True)]


class _Batches(keras.utils.PyDataset):
    """Of each batch what this process has, as many pictures for each of its devices."""

    def __init__(self, data: Any) -> None:
        super().__init__()
        self.is_shared = processes() == 1 or hasattr(data, "shared")
        self.data = data.shared(process(), processes()) if self.is_shared and processes() > 1 else data

    def own(self, batch: Any) -> tuple[np.ndarray, ...]:
        arrays = [np.asarray(one) for one in batch]
        size = len(arrays[0]) if self.is_shared else len(arrays[0]) // processes()
        first = 0 if self.is_shared else process() * size
        devices = max(replicas() // processes(), 1)
        return tuple(one[first : first + size // devices * devices] for one in arrays)


class _Stream(_Batches):
    """Begins anew when batch 0 is asked for, which Keras does after it has looked at the data.

    On torch Keras takes a batch also for each step that the checkpoint passes over: the first one stands for those.
    """

    def __init__(self, data: TrainingData, epoch: int, step: int) -> None:
        super().__init__(data)
        self.epoch, self.step = epoch, step

    @property
    def num_batches(self) -> None:
        """Endless."""

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        if index == 0:
            passed_over = self.step if keras.backend.backend() == "torch" else 0
            first = next(iter(self.data.train_from(self.epoch, self.step)))
            left = self.data.train_from(self.epoch, self.step)
            self.batches = itertools.chain(itertools.repeat(first, passed_over), left)
        return self.own(next(self.batches))


class _HeldOut(_Batches):
    """The held-out batches, without the last pictures that do not go around among the devices."""

    def __init__(self, data: TrainingData) -> None:
        super().__init__(data)
        self.val = self.data.val
        self.batch_size = data.batch_size
        self.length = data.val_count // data.batch_size + (data.val_count % data.batch_size >= replicas())

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        if index == 0:
            self.batches = _in_batches(self.val, self.batch_size)
        return self.own(next(self.batches))


def _in_batches(val: Any, batch_size: int) -> Iterator[Any]:
    if not isinstance(val, tuple):
        return iter(val)
    return (tuple(part[at : at + batch_size] for part in val) for at in range(0, len(val[0]), batch_size))


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
