"""Fitting a classifier: Adam with warm-up and cosine, a head on a frozen network, and what to freeze."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import keras
import numpy as np

from keras_mobilenets.layers import inline
from keras_mobilenets.training.checkpoint import Checkpoint

WARM_UP = 0.1  # share of all steps in which the learning rate rises from 0


class TrainingData(Protocol):
    """What `fit` trains on; `keras_mobilenets.data.load` gives it."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""

    @property
    def val(self) -> Any:
        """Batches of the held-out examples, or all of them."""

    def train_from(self, epoch: int) -> Any:
        """An endless stream of batches from the given epoch on."""


def fit(
    model: keras.Model,
    data: TrainingData,
    *,
    epochs: int,
    learning_rate: float = 1e-3,
    checkpoint: Checkpoint | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    verbose: int = 0,
) -> list[dict[str, float]]:
    """Trains a classifier with Adam; the learning rate rises over a tenth of the steps and falls as a cosine to 0.

    With a checkpoint, a run that was interrupted goes on after its last whole epoch, to the weights that it would
    have had: an epoch's pictures, order and crops depend on its number alone.

    Args:
        model: takes the data's images and ends in a softmax, float or quantized.
        data: what to train on and to validate with.
        epochs: in all, those before an interruption included.
        learning_rate: the highest one.
        checkpoint: where to save after each epoch, and to go on from.
        callbacks: further Keras callbacks.
        verbose: of Keras' `fit`.

    Returns:
        For each epoch, the earlier ones of an interrupted run included: accuracy, loss, val_accuracy, val_loss.

    Raises:
        FloatingPointError: the loss is no longer a number.

    Example:

    >>> history = fit(model, load("digits", image_size=32), epochs=10)  # doctest: +SKIP
    """
    steps = data.steps_per_epoch
    _compile(model, learning_rate=learning_rate, steps=epochs * steps)
    done = checkpoint.restore(model) if checkpoint else 0
    before = checkpoint.history if checkpoint else []
    if done >= epochs:
        return before
    saved = [checkpoint] if checkpoint else []
    history = model.fit(
        data.train_from(done),
        validation_data=data.val,
        initial_epoch=done,
        epochs=epochs,
        steps_per_epoch=steps,
        shuffle=False,  # the data come shuffled
        callbacks=[_Diverged(), *saved, *callbacks],
        verbose=verbose,
    ).history
    return before + [
        dict(zip(history, map(float, values), strict=True)) for values in zip(*history.values(), strict=True)
    ]


def fit_head(
    model: keras.Model,
    data: TrainingData,
    *,
    epochs: int = 30,
    passes: int = 2,
    learning_rate: float = 1e-3,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, float]]:
    """Trains the last layer alone, on features that the network before it computes once.

    The first half of transfer learning: with a network that is not trained, an epoch costs milliseconds. A few
    differently augmented passes over the pictures are enough to start from.

    Args:
        model: ends in a Dense layer; from `build_classifier` with weights.
        data: what to train on and to validate with.
        epochs: over the features of all passes.
        passes: how often the training pictures run through the network, each time augmented anew.
        learning_rate: the highest one.
        callbacks: further Keras callbacks.
        progress: called with (batches done, all) while the features are computed, which takes most of the time.

    Returns:
        As `fit`.

    Example:

    >>> model = build_classifier("MobileNetV2", classes=5, image_size=160, weights="imagenet")  # doctest: +SKIP
    >>> history = fit_head(model, data)  # doctest: +SKIP
    """
    dense = model.layers[-1]
    if not isinstance(dense, keras.layers.Dense):
        raise ValueError(f"`model` must end in a Dense layer. Received: {model.name!r}, which ends in {dense.name!r}")
    body = keras.Model(model.inputs, dense.input)
    inputs = keras.Input(body.output_shape[1:])
    return fit(
        keras.Model(inputs, dense(inputs)),
        _Features(body, data, passes, progress),
        epochs=epochs,
        learning_rate=learning_rate,
        callbacks=callbacks,
    )


def freeze_normalization(model: keras.Model) -> None:
    """Keeps the statistics of all batch normalizations as they are, and uses them in training as in inference.

    For fine-tuning: statistics of a few small batches would undo what they were on millions of images. Frozen Keras
    normalizations work in inference mode; their gamma and beta are not trained either.

    Args:
        model: changed in place; composite layers and nested models are looked into.

    Example:

    >>> freeze_normalization(model)  # doctest: +SKIP
    """
    for layer in inline(model).layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def _compile(model: keras.Model, *, learning_rate: float, steps: int) -> None:
    warm_up = max(round(steps * WARM_UP), 1)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, max(steps - warm_up, 1), warmup_target=learning_rate, warmup_steps=warm_up
    )
    model.compile(
        keras.optimizers.Adam(schedule),
        keras.losses.SparseCategoricalCrossentropy(),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=False,  # XLA trains depthwise convolutions about ten times slower on a CPU
    )


def _features(
    body: keras.Model, batches: Iterable[tuple[Any, Any]], progress: Callable[[int], None] = lambda done: None
) -> tuple[np.ndarray, np.ndarray]:
    features, labels = [], []
    for done, (images, classes) in enumerate(batches, 1):
        features.append(body.predict_on_batch(images))
        labels.append(np.asarray(classes))
        progress(done)
    return np.concatenate(features), np.concatenate(labels)


class _Features:
    """`TrainingData` as the last layer sees it: what the network before it makes of the pictures."""

    batch_size = 32

    def __init__(
        self, body: keras.Model, data: TrainingData, passes: int, progress: Callable[[int, int], None]
    ) -> None:
        steps = passes * data.steps_per_epoch
        batches = itertools.islice(data.train_from(0), steps)  # each pass is augmented otherwise
        self.train = _features(body, batches, lambda done: progress(done, steps))
        self.val = _features(body, data.val)

    @property
    def steps_per_epoch(self) -> int:
        return max(len(self.train[0]) // self.batch_size, 1)

    def train_from(self, epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        features, labels = self.train
        while True:
            order = np.random.default_rng(epoch).permutation(len(features))
            for step in range(self.steps_per_epoch):
                batch = order[step * self.batch_size : (step + 1) * self.batch_size]
                yield features[batch], labels[batch]
            epoch += 1


class _Diverged(keras.callbacks.Callback):
    """Stops at once when the loss is no number: what follows could only be worse."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if logs and not math.isfinite(logs["loss"]):
            raise FloatingPointError(
                f"The loss is {logs['loss']} in epoch {self.epoch + 1}, step {batch + 1}. "
                "A lower learning rate helps in most cases"
            )
