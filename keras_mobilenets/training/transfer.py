"""Transfer learning: a head on a frozen network, then the network stage by stage, its statistics always frozen."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from keras_mobilenets.layers import inline
from keras_mobilenets.tasks import Task
from keras_mobilenets.training.checkpoint import Checkpoint
from keras_mobilenets.training.fitting import TrainingData, fit
from keras_mobilenets.training.logs import history_of, rows_of
from keras_mobilenets.training.recipes import Recipe
from keras_mobilenets.training.recipes import recipe as named


def fine_tune(
    model: keras.Model,
    data: TrainingData,
    *,
    task: Task | None = None,
    recipe: Recipe | str = "finetune",
    epochs: int | None = None,
    learning_rate: float | None = None,
    teacher: keras.Model | None = None,
    checkpoints: str | os.PathLike[str] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
    tell: Callable[[str], None] = lambda text: None,
) -> keras.callbacks.History:
    """Trains a classifier that has pretrained weights: its head, and then its stages from the end on.

    The head is trained on the features of the frozen network (`fit_head`), then the recipe's stages, each at its rate
    (`unfreeze`). Batch normalization stays in inference mode throughout. Interrupted, it goes on as `fit` does.

    Args:
        model: from `build_classifier` with weights.
        data: what to train on and to validate with.
        task: what the model is for; by its form if None.
        recipe: "finetune" or one's own; one without stages trains the whole network after the head.
        epochs: of all stages together; the recipe's if None.
        learning_rate: the highest one, in place of the recipe's.
        teacher: a model to learn from, see `distiller`.
        checkpoints: folder where each stage has its own.
        callbacks: further Keras callbacks, for the stages.
        progress: of `fit_head`.
        tell: called with a line about each part as it begins.

    Returns:
        As `fit`, for the stages' epochs in a row.

    Raises:
        ValueError: there is no such recipe, or `model` does not end in a Dense layer.

    Example:

    >>> model = build_classifier("MobileNetV2", classes=5, image_size=160, weights="imagenet")  # doctest: +SKIP
    >>> history = fine_tune(model, data)  # doctest: +SKIP
    """
    recipe = named(recipe) if isinstance(recipe, str) else recipe
    epochs = recipe.epochs if epochs is None else epochs
    rate = recipe.rate(data.batch_size) if learning_rate is None else learning_rate
    saved = [Checkpoint(os.path.join(checkpoints, f"stage-{index}")) if checkpoints else None for index in range(9)]
    if saved[0] is None or saved[0].position() == (0, 0):  # else everything that follows is restored anyway
        tell("the classifier alone, on the features of the network as it was given")
        tell(f"held out {fit_head(model, data, progress=progress).history['val_accuracy'][-1]:6.1%}")
    rows: list[dict[str, float]] = []
    ends = [round(epochs * share) for share in itertools.accumulate(share for _, share, _ in recipe.stages)]
    plan = [*zip(recipe.stages, ends, strict=True)] or [((None, 1.0, 1.0), epochs)]
    for ((stages, _, factor), end), checkpoint in zip(plan, saved, strict=False):
        if end > len(rows):
            unfreeze(model, stages)
            tell("the whole network" if stages is None else f"its last {stages} stages")
            history = fit(
                model,
                data,
                recipe=recipe,
                epochs=end - len(rows),
                learning_rate=rate * factor,
                task=task,
                teacher=teacher,
                checkpoint=checkpoint,
                callbacks=callbacks,
            )
            rows += rows_of(history)
    return history_of(model, rows)


def fit_head(
    model: keras.Model,
    data: TrainingData,
    *,
    epochs: int = 30,
    passes: int = 2,
    learning_rate: float = 1e-3,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> keras.callbacks.History:
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

    Raises:
        ValueError: `model` does not end in a Dense layer.

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


def unfreeze(model: keras.Model, stages: int | None) -> None:
    """Lets the last stages of a network be trained, and freezes those before; batch normalization is always frozen.

    A stage ends where a convolution halves the feature map: a MobileNet has five, and what is before the first.

    Args:
        model: changed in place, before it is compiled.
        stages: how many from the end, the head included; None for the whole network, 0 for none of it.

    Raises:
        ValueError: `stages` is negative.

    Example:

    >>> model = build_classifier("MobileNet", classes=2, image_size=224, alpha=0.25)
    >>> unfreeze(model, 1)
    >>> [layer.name for layer in inline(model).layers if layer.trainable and layer.weights]
    ['conv_dw_12', 'conv_pw_12', 'conv_dw_13', 'conv_pw_13', 'predictions']
    """
    if stages is not None and stages < 0:
        raise ValueError(f"`stages` must be None or >= 0. Received: stages={stages}")
    model.trainable = True
    number, of = 0, {}
    layers = inline(model).layers
    for layer in layers:
        number += max(getattr(layer, "strides", (1,))) > 1
        of[layer] = number
    for layer in layers:
        layer.trainable = stages is None or of[layer] > number - stages
    freeze_normalization(model)


def _features(
    body: keras.Model, batches: Iterable[tuple[Any, Any]], progress: Callable[[int], None] = lambda done: None
) -> tuple[np.ndarray, np.ndarray]:
    features, labels = [], []
    for done, (images, classes) in enumerate(batches, 1):
        features.append(body.predict_on_batch(np.asarray(images)))
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

    @property
    def val_count(self) -> int:
        return len(self.val[0])

    def train_from(self, epoch: int, step: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        features, labels = self.train
        while True:
            order = np.random.default_rng(epoch).permutation(len(features))
            for start in range(step, self.steps_per_epoch):
                batch = order[start * self.batch_size : (start + 1) * self.batch_size]
                yield features[batch], labels[batch]
            epoch, step = epoch + 1, 0
