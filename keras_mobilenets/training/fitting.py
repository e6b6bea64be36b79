"""Fitting a model: by a recipe, from where an interrupted run stopped, and only while the loss is a number."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import keras
import numpy as np

from keras_mobilenets.layers.replicas import processes
from keras_mobilenets.pixels import check_input_range
from keras_mobilenets.tasks import Embedding, Task
from keras_mobilenets.tasks.task import each
from keras_mobilenets.training.checkpoint import Checkpoint
from keras_mobilenets.training.compiling import compile_model, matches_features, task_to_train, trained_part
from keras_mobilenets.training.devices import process, replicas, whole_batches
from keras_mobilenets.training.distillation import distiller
from keras_mobilenets.training.logs import history_of, rows_of
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
    keep_best: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 0,
) -> keras.callbacks.History:
    """Trains a model as a recipe says.

    With a checkpoint, a run that was interrupted anywhere goes on to the weights that it would have had: a batch
    depends on the numbers of its epoch and step alone. To the bit, if the operations are deterministic
    (`tf.config.experimental.enable_op_determinism()`).

    Args:
        model: takes the data's images, float or quantized.
        data: what to train on and to validate with.
        task: what the model is for; by its form if None, see `keras_mobilenets.tasks.task_of`.
        recipe: one of `keras-mobilenets list recipes` or one's own, scaled to the data's batch size.
        epochs: in all, those before an interruption included; the recipe's if None.
        learning_rate: the highest one, in place of the recipe's.
        teacher: a model to learn from, see `distiller`.
        checkpoint: where to save, and to go on from.
        keep_best: leave the weights of the best epoch by the task's headline, not of the last; needs a checkpoint.
        callbacks: further Keras callbacks.
        verbose: of Keras' `fit`.

    Returns:
        Keras' History, the epochs of an interrupted run before it included: loss, val_loss, and the task's headline
        and val_ headline.

    Raises:
        ValueError: there is no such recipe, the checkpoint is another model's, or nobody says what the model is for.
        FloatingPointError: the loss is no longer a number.
        BlockingIOError: another process uses the checkpoint's folder.

    Warns:
        UserWarning: the held-out images, where they are arrays, are not in the range that the model takes.

    Example:

    >>> history = fit(model, load("digits", image_size=32), epochs=10)  # doctest: +SKIP
    """
    recipe = named(recipe) if isinstance(recipe, str) else recipe
    epochs = recipe.epochs if epochs is None else epochs
    if data.batch_size % replicas():
        raise ValueError(f"A batch of {data.batch_size} pictures cannot be split evenly among {replicas()} devices")
    if keep_best and checkpoint is None:
        raise ValueError("`keep_best` needs a `checkpoint`, which the best epoch is kept in")
    if teacher is None:
        trained = model
    else:
        trained = distiller(model, teacher, embeddings=isinstance(task_to_train(model, task), Embedding))
    task = task_to_train(trained, task)
    compile_model(
        trained,
        recipe,
        epochs=epochs,
        steps_per_epoch=data.steps_per_epoch,
        batch_size=data.batch_size,
        learning_rate=learning_rate,
        task=task,
    )
    checks: list[keras.callbacks.Callback] = [_Diverged(data)]
    if task.headline not in _metric_names(task, recipe):
        checks.append(_Scored(task, data))  # before the averaged weights are swapped back
    if trained.optimizer.use_ema:
        checks.append(keras.callbacks.SwapEMAWeights())
    if checkpoint is None:
        return history_of(model, rows_of(_fit(trained, data, task, (0, 0), epochs, [*checks, *callbacks], verbose)))
    checkpoint.monitor = checkpoint.monitor or f"val_{'loss' if matches_features(trained) else task.headline}"
    with checkpoint.running():
        done = checkpoint.restore(trained)
        if done[0] < epochs:
            _fit(trained, data, task, done, epochs, [*checks, *callbacks, checkpoint], verbose)
        else:
            trained.optimizer.finalize_variable_values(trained.trainable_variables)  # as Keras does at the end
        history = checkpoint.history
        if keep_best:
            checkpoint.restore(trained, best=True)
        return history_of(model, history)


def _metric_names(task: Task, recipe: Recipe) -> set[str]:
    return {getattr(one, "name", one) for one in keras.tree.flatten(task.losses(recipe).get("metrics"))}


def _fit(
    model: keras.Model,
    data: TrainingData,
    task: Task,
    done: tuple[int, int],
    epochs: int,
    callbacks: Sequence[keras.callbacks.Callback],
    verbose: int,
) -> keras.callbacks.History:
    """Keras' own `fit`, from `done` epochs and steps on."""
    epoch, step = done
    on_tensorflow = keras.backend.backend() == "tensorflow"
    val = data.val
    if isinstance(val, tuple):  # data that are read from files have the range that they are read in
        check_input_range(trained_part(model), val, stacklevel=3)
    if step and on_tensorflow:
        _build_metrics(model, next(iter(_encoded(data.train_from(epoch, step), task))))
    with whole_batches(trained_part(model)):
        return model.fit(
            _encoded(data.train_from(epoch, step), task) if on_tensorflow else _Stream(data, task, epoch, step),
            validation_data=_encoded(val, task) if on_tensorflow else _HeldOut(data, task),
            initial_epoch=epoch,
            epochs=epochs,
            steps_per_epoch=data.steps_per_epoch,
            shuffle=False,  # the data come shuffled
            callbacks=list(callbacks),
            verbose=verbose,
        )


def _build_metrics(model: keras.Model, batch: tuple[Any, Any]) -> None:
    """Makes the metrics that Keras would make with the first batch, for a checkpoint to fill them in."""
    images, targets = batch
    outputs = keras.tree.map_structure(
        lambda tensor: keras.ops.zeros((len(images), *tensor.shape[1:])), trained_part(model).output
    )
    if trained_part(model) is model:
        model.compute_loss(images, targets, outputs)  # each of several outputs has a loss to be noted
    model.compute_metrics(images, targets, outputs)


def _encoded(batches: Any, task: Task) -> Any:
    """Batches with their targets as the losses take them."""
    if hasattr(batches, "map"):
        return batches.map(lambda images, targets: (images, task.encode(targets)), num_parallel_calls=-1)
    if isinstance(batches, tuple):
        return batches[0], task.encode(batches[1])
    return ((images, task.encode(targets)) for images, targets in batches)


class _Batches(keras.utils.PyDataset):
    """Of each batch what this process has, as many pictures for each of its devices."""

    def __init__(self, data: Any, task: Task) -> None:
        super().__init__()
        self.task = task
        self.is_shared = processes() == 1 or hasattr(data, "shared")
        self.data = data.shared(process(), processes()) if self.is_shared and processes() > 1 else data

    def own(self, batch: Any) -> tuple[Any, Any]:
        size = len(batch[0]) if self.is_shared else len(batch[0]) // processes()
        first = 0 if self.is_shared else process() * size
        devices = max(replicas() // processes(), 1)
        last = first + size // devices * devices
        images, targets = keras.tree.map_structure(lambda one: np.asarray(one)[first:last], tuple(batch))
        return images, keras.tree.map_structure(np.asarray, self.task.encode(targets))


class _Stream(_Batches):
    """Begins anew when batch 0 is asked for, which Keras does after it has looked at the data.

    On torch Keras takes a batch also for each step that the checkpoint passes over: the first one stands for those.
    """

    def __init__(self, data: TrainingData, task: Task, epoch: int, step: int) -> None:
        super().__init__(data, task)
        self.epoch, self.step = epoch, step

    @property
    def num_batches(self) -> None:
        """Endless."""

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        if index == 0:
            passed_over = self.step if keras.backend.backend() == "torch" else 0
            first = next(iter(self.data.train_from(self.epoch, self.step)))
            left = self.data.train_from(self.epoch, self.step)
            self.batches = itertools.chain(itertools.repeat(first, passed_over), left)
        return self.own(next(self.batches))


class _HeldOut(_Batches):
    """The held-out batches, without the last pictures that do not go around among the devices."""

    def __init__(self, data: TrainingData, task: Task) -> None:
        super().__init__(data, task)
        self.val = self.data.val
        self.batch_size = data.batch_size
        self.length = data.val_count // data.batch_size + (data.val_count % data.batch_size >= replicas())

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        if index == 0:
            self.batches = _in_batches(self.val, self.batch_size)
        return self.own(next(self.batches))


def _in_batches(val: Any, batch_size: int) -> Iterator[Any]:
    if not isinstance(val, tuple):
        return iter(val)
    return (tuple(part[at : at + batch_size] for part in val) for at in range(0, len(val[0]), batch_size))


def held_out_score(predict: Callable[[np.ndarray], Any], data: TrainingData, task: Task) -> dict[str, float | None]:
    """The task's figures of the held-out pictures, by what gives a model's or a file's outputs for a batch."""
    answers, truth = [], []
    for images, targets in _in_batches(data.val, data.batch_size):
        answers += [*task.decode(predict(np.asarray(images)), tuple(images.shape[1:3]))]
        truth += [*each(keras.tree.map_structure(np.asarray, targets))]
    return task.score(answers, truth)


class _Scored(keras.callbacks.Callback):
    """Decodes and scores the held-out images after each epoch: for a headline that no metric of Keras computes."""

    def __init__(self, task: Task, data: TrainingData) -> None:
        super().__init__()
        self.task, self.data = task, data

    def on_test_end(self, logs=None):
        self.found = held_out_score(self.model.predict_on_batch, self.data, self.task)

    def on_epoch_end(self, epoch, logs=None):
        logs |= {f"val_{name}": value for name, value in self.found.items() if value is not None}


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
        images, targets = next(iter(self.data.train_from(self.epoch, step)))
        images = np.asarray(images)
        where = f"its batch, train_from({self.epoch}, {step}),"
        if not np.isfinite(images).all():
            return f"The images of {where} are not all numbers: look at the data and its preprocessing"
        parts = targets if isinstance(targets, Mapping) else {"labels": targets}
        ranges = [f"its {name} in [{np.min(part):g}, {np.max(part):g}]" for name, part in parts.items()]
        return (
            f"The images of {where} are in [{images.min():g}, {images.max():g}], {', '.join(ranges)}. If that is "
            "right, a lower learning rate helps in most cases; checkpoints from before are whole"
        )
