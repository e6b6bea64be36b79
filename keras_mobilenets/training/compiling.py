"""From a recipe to a compiled model: Keras' own optimizers, schedules, weight decay and averages."""

from __future__ import annotations

import contextlib
from typing import Any

import keras

from keras_mobilenets.layers import inline
from keras_mobilenets.tasks import Embedding, Task, task_of
from keras_mobilenets.training.recipes import Recipe


def compile_model(
    model: keras.Model,
    recipe: Recipe,
    *,
    epochs: int,
    steps_per_epoch: int,
    batch_size: int,
    learning_rate: float | None = None,
    task: Task | None = None,
) -> None:
    """Compiles a model, or a distiller of one, to be trained as a recipe says. `fit` does this by itself.

    Args:
        model: its dropout and batch normalization are as they are.
        recipe: from `keras_mobilenets.training.recipe`.
        epochs: of the run; the recipe's schedule is stretched or shortened to it.
        steps_per_epoch: batches in an epoch.
        batch_size: that the recipe is scaled to.
        learning_rate: the highest one, in place of the recipe's.
        task: what it is for; by its form if None, see `keras_mobilenets.tasks.task_of`.

    Raises:
        ValueError: nobody says what the model is for.

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
    losses = task_to_train(model, task).losses(recipe)
    # TensorFlow's XLA trains depthwise convolutions about ten times slower on a CPU; JAX is nothing without it.
    on_tensorflow = keras.backend.backend() == "tensorflow"
    model.compile(optimizer, jit_compile=keras.backend.backend() == "jax", **losses)
    # Keras would make the optimizer's variables inside of the traced step, which is then traced twice: 3 times as long.
    with model.distribute_strategy.scope() if on_tensorflow else contextlib.nullcontext():
        optimizer.build(model.trainable_variables)


def task_to_train(model: keras.Model, task: Task | None) -> Task:
    """The given task, or that which the model's form says: of a distiller's student, which gives logits, its form.

    What learns a teacher's features gives an embedding.

    Raises:
        ValueError: neither says what the model is for.
    """
    student = trained_part(model)
    if matches_features(model):
        return Embedding(student.output_shape[-1], outputs=tuple(student.output_names))
    found = task if task is not None and student is model else task_of(student)
    if found is None:
        raise ValueError(
            f"The outputs of {model.name!r} do not say what it is for: pass `task`, see keras_mobilenets.tasks"
        )
    return found


def matches_features(model: keras.Model) -> bool:
    """Whether a model learns a teacher's features, and no labels."""
    return isinstance(model, keras.distillation.Distiller) and isinstance(
        model.distillation_losses[0], keras.distillation.FeatureDistillation
    )


def trained_part(model: keras.Model) -> keras.Model:
    """What of a model is trained: of a distiller the student."""
    return model.student if isinstance(model, keras.distillation.Distiller) else model


def _schedule(recipe: Recipe, rate: float, steps: int, decay_steps: float) -> Any:
    if recipe.decay == 1.0:
        return rate
    if recipe.power is not None:
        return keras.optimizers.schedules.PolynomialDecay(rate, steps, end_learning_rate=0.0, power=recipe.power)
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
