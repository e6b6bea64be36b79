"""From a recipe to a compiled model: Keras' own optimizers, schedules, weight decay and averages."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_mobilenets.layers import inline
from keras_mobilenets.training.recipes import Recipe


def compile_model(
    model: keras.Model,
    recipe: Recipe,
    *,
    epochs: int,
    steps_per_epoch: int,
    batch_size: int,
    learning_rate: float | None = None,
    soft_labels: bool = False,
) -> None:
    """Compiles a classifier, or a distiller of one, to be trained as a recipe says. `fit` does this by itself.

    Args:
        model: ends in a softmax; its dropout and batch normalization are as they are.
        recipe: from `keras_mobilenets.training.recipe`.
        epochs: of the run; the recipe's schedule is stretched or shortened to it.
        steps_per_epoch: batches in an epoch.
        batch_size: that the recipe is scaled to.
        learning_rate: the highest one, in place of the recipe's.
        soft_labels: whether labels of training are vectors with a share of each class, as of mixed pictures; integer
            labels, of the held-out pictures, are understood as well.

    Example:

    >>> model = build_classifier("MobileNet", classes=2, image_size=32, alpha=0.25)
    >>> compile_model(model, recipe("v3-paper"), epochs=5, steps_per_epoch=10, batch_size=64)
    >>> model.optimizer.use_ema
    True
    """
    steps = epochs * steps_per_epoch
    rate = recipe.rate(batch_size) if learning_rate is None else learning_rate
    stretch = epochs / recipe.epochs
    options = dict(recipe.options)
    if recipe.l2:
        # Keras takes l2 x rate off a weight at each step. In the published loss the same goes through the momentum.
        options["weight_decay"] = recipe.l2 / (1 - options.get("momentum", 0.0))
    if recipe.ema:
        ema_momentum = recipe.momentum(recipe.ema, batch_size=batch_size, steps=steps)
        options |= {"use_ema": True, "ema_momentum": ema_momentum}
    decay_steps = recipe.decay_epochs * stretch * steps_per_epoch
    optimizer = getattr(keras.optimizers, recipe.optimizer)(_schedule(recipe, rate, steps, decay_steps), **options)
    student = trained_part(model)
    if recipe.l2:
        optimizer.exclude_from_weight_decay(var_list=_without_decay(student))
    distilled = student is not model
    classifies = not distilled or isinstance(model.distillation_losses[0], keras.distillation.LogitsDistillation)
    model.compile(
        optimizer,
        _crossentropy(recipe.label_smoothing, from_logits=distilled, soft_labels=soft_labels),
        metrics=[_accuracy(soft_labels)] if classifies else None,
        # TensorFlow's XLA trains depthwise convolutions about ten times slower on a CPU; JAX is nothing without it.
        jit_compile=keras.backend.backend() == "jax",
    )


def trained_part(model: keras.Model) -> keras.Model:
    """What of a model is trained: of a distiller the student."""
    return model.student if isinstance(model, keras.distillation.Distiller) else model


def _schedule(recipe: Recipe, rate: float, steps: int, decay_steps: float) -> Any:
    if recipe.decay == 1.0:
        return rate
    if recipe.decay is not None:
        return keras.optimizers.schedules.ExponentialDecay(
            rate, max(round(decay_steps), 1), recipe.decay, staircase=True
        )
    warm_up = max(round(steps * recipe.warm_up), 1)
    return keras.optimizers.schedules.CosineDecay(
        0.0, max(steps - warm_up, 1), warmup_target=rate, warmup_steps=warm_up
    )


def _without_decay(model: keras.Model) -> list[keras.Variable]:
    """All but the kernels of convolutions that are not depthwise, and of dense layers."""
    decayed = {
        id(layer.kernel)
        for layer in inline(model).layers
        if isinstance(layer, keras.layers.Conv2D | keras.layers.Dense)
    }
    return [variable for variable in model.trainable_variables if id(variable) not in decayed]


def _crossentropy(label_smoothing: float, *, from_logits: bool, soft_labels: bool) -> keras.losses.Loss:
    if not label_smoothing and not soft_labels:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)
    return Crossentropy(from_logits=from_logits, label_smoothing=label_smoothing)


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class Crossentropy(keras.losses.Loss):
    """Crossentropy with smoothed labels, which may be vectors or integers: Keras smooths vectors only.

    Args:
        from_logits: whether the scores are logits.
        label_smoothing: in [0, 1).
        **kwargs: of `keras.losses.Loss`.
    """

    def __init__(self, from_logits: bool = False, label_smoothing: float = 0.0, **kwargs: Any):
        super().__init__(**{"name": "crossentropy", **kwargs})
        self.from_logits = from_logits
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        if not _are_soft(y_true, y_pred):
            y_true = ops.one_hot(ops.cast(ops.reshape(y_true, (-1,)), "int32"), y_pred.shape[-1])
        return keras.losses.categorical_crossentropy(y_true, y_pred, self.from_logits, self.label_smoothing)

    def get_config(self):
        return {**super().get_config(), "from_logits": self.from_logits, "label_smoothing": self.label_smoothing}


def _accuracy(soft_labels: bool) -> keras.metrics.Metric:
    if not soft_labels:
        return keras.metrics.SparseCategoricalAccuracy(name="accuracy")
    return keras.metrics.MeanMetricWrapper(accuracy, name="accuracy")


@keras.saving.register_keras_serializable(package="keras_mobilenets")
def accuracy(y_true: Any, y_pred: Any) -> Any:
    """Whether the highest score is the label's; of a mixed picture, the class with the largest share is right."""
    right = ops.argmax(y_true, -1) if _are_soft(y_true, y_pred) else y_true
    return keras.metrics.sparse_categorical_accuracy(right, y_pred)


def _are_soft(labels: Any, scores: Any) -> bool:
    return len(labels.shape) == len(scores.shape) and labels.shape[-1] == scores.shape[-1]
