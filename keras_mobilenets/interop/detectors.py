"""Detectors of TensorFlow's detection API have a column of scores for the background, which nobody reads."""

from __future__ import annotations

import re
from typing import Any

import keras

from keras_mobilenets.layers import inline
from keras_mobilenets.tflite.edit.answers import POSTPROCESS
from keras_mobilenets.tflite.file import Graph

SCORES, ROWS = re.compile(r"scores_\d+"), re.compile(r"scores_\d+_rows")


def without_background(model: keras.Model, graph: Graph) -> keras.Model:
    """The same detector with the columns of scores that a file chooses from, where each is a sigmoid of its own.

    Args:
        model: that has all columns of the file, the background first.
        graph: of the file; without a choice of boxes the model stays as it is.
    """
    choice = next((one for one in graph.operators if one.name == POSTPROCESS), None)
    slots = model.output["scores"].shape[-1] if choice is not None else 0
    classes = int(choice.options["num_classes"]) if choice is not None else 0
    if classes == slots or any(operator.name == "SOFTMAX" for operator in graph.operators):
        return model

    def narrow(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if SCORES.fullmatch(layer.name):
            config["filters"] = config["filters"] // slots * classes
        elif ROWS.fullmatch(layer.name):
            config["target_shape"] = (-1, classes)
        return type(layer).from_config(config)

    narrowed = keras.models.clone_model(model, clone_function=narrow)
    for old, new in zip(inline(model).layers, inline(narrowed).layers, strict=True):
        weights = old.get_weights()
        new.set_weights([_columns(one, slots, classes) for one in weights] if SCORES.fullmatch(old.name) else weights)
        new.trainable = old.trainable
    return narrowed


def _columns(values: Any, slots: int, classes: int) -> Any:
    """Of each anchor's columns the last ones."""
    *leading, last = values.shape
    return values.reshape(*leading, last // slots, slots)[..., slots - classes :].reshape(*leading, -1)
