"""Warnings where layers were frozen as in keras.applications, and a block is one layer here."""

from __future__ import annotations

import warnings
import weakref

import keras

from keras_mobilenets.layers.composite import CompositeLayer
from keras_mobilenets.layers.flatten import inline


def watch(model: keras.Model) -> None:
    """Lets the first block of a model look, when it is called in training, whether the model was frozen by halves.

    Two loops that people bring along mean something else here. `if isinstance(layer, BatchNormalization)` over
    `model.layers` does not meet the normalizations inside of blocks, whose statistics go on moving; and
    `model.layers[:100]` is all of the model.

    Args:
        model: a functional model of composites; it is not kept alive.
    """
    network = weakref.ref(model)
    for layer in model.layers:
        if isinstance(layer, CompositeLayer):
            layer.before_training = lambda told=set(): _check(network(), told)  # type: ignore[misc]
            return


def _check(model: keras.Model | None, told: set[str]) -> None:
    """Warns once of each."""
    if model is None:
        return
    weighted = [layer for layer in model.layers if layer.weights]
    norms = [layer for layer in weighted if isinstance(layer, keras.layers.BatchNormalization)]
    others = [layer for layer in weighted if layer not in norms]
    by_halves = norms and all(layer.trainable for layer in others) and not any(layer.trainable for layer in norms)
    one_by_one = model.trainable and not any(layer.trainable for layer in weighted)
    if by_halves and "halves" not in told:
        told.add("halves")
        normalizations = (layer for layer in inline(model).layers if isinstance(layer, keras.layers.BatchNormalization))
        if inside := sum(layer.trainable for layer in normalizations):
            warnings.warn(
                f"{len(norms)} batch normalizations of {model.name} are frozen, and the {inside} inside of its blocks "
                "are not: a block is one layer. To freeze all: keras_mobilenets.training.freeze_normalization(model).",
                stacklevel=2,
            )
    if one_by_one and "all" not in told:
        told.add("all")
        warnings.warn(
            f"All layers of {model.name} were frozen one by one. It has {len(model.layers)}, as a block is one, so "
            "that `layers[:100]` is more than in keras.applications: "
            "keras_mobilenets.training.unfreeze(model, stages) trains the last stages. If nothing of it shall be "
            "trained, say so by `model.trainable = False`.",
            stacklevel=2,
        )
