"""A MobileNet with the head of a task, which takes pixels as they are."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import keras

from keras_mobilenets import applications
from keras_mobilenets.applications import timm_weights
from keras_mobilenets.applications.variants import FAMILIES, check_builder
from keras_mobilenets.layers import inline
from keras_mobilenets.tasks import Task

# The published .999 averages over thousands of steps: a run of a few hundred would be evaluated with statistics that
# are half of the initial ones.
SHORT_RUN_MOMENTUM = 0.9
SMALLEST_MAP = 4  # height of the last feature map that a stem is chosen for: 3x3 kernels see little in a smaller one


def build_model(
    builder: str,
    task: Task,
    *,
    image_size: int | tuple[int, int],
    alpha: float = 1.0,
    weights: str | os.PathLike[str] | None = None,
    momentum: float | None = None,
    stem_stride: int | None = None,
) -> keras.Model:
    """Builds a MobileNet for a task: the trunk that the task asks for, with its head.

    Args:
        builder: its name, one of `applications.variants.BUILDERS`.
        task: what it is for, see `keras_mobilenets.tasks`.
        image_size, alpha, weights, momentum, stem_stride: see `build_classifier`.

    Returns:
        A functional model: (batch, height, width, 3) pixels in [0, 255] to the task's outputs.

    Raises:
        ValueError: an argument is out of its range, or the weights do not fit.

    Example:

    >>> from keras_mobilenets.tasks import Detection
    >>> task = Detection(3, image_size=(96, 96), alpha=0.35)
    >>> build_model("MobileNetV2", task, image_size=96, alpha=0.35).output["scores"].shape
    (None, 204, 3)
    """
    scales_pixels = FAMILIES[check_builder(builder)].scales_pixels
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if stem_stride is None:
        stem_stride = 4 if weights is not None else _stem_stride(min(height, width))
    inputs = keras.Input((height, width, 3), name="image")
    options = {"stem_stride": stem_stride, **task.trunk}
    scaled = inputs if scales_pixels else keras.layers.Rescaling(1 / 127.5, -1, name="rescaling")(inputs)
    if momentum is None and weights is None:
        momentum = SHORT_RUN_MOMENTUM
    options |= {} if momentum is None else {"momentum": momentum}
    base = _base(builder, scaled, weights, alpha=alpha, **options)
    maps = base.output if len(base.output.shape) == 2 else applications.endpoints(base)
    model = keras.Model(inputs, task.head(maps), name=f"{builder.lower()}_{task.name}")
    for layer in inline(model).layers:  # the head's, too, which begin anew: in a short run they are what lags behind
        if momentum is not None and isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum
    return model


def _stem_stride(size: int) -> int:
    """The largest stem stride that leaves the last feature map at least 4 pixels high; 1 for the smallest images."""
    return next((stride for stride in (4, 2) if size // (8 * stride) >= SMALLEST_MAP), 1)


def _base(
    builder: str, image: keras.KerasTensor, weights: str | os.PathLike[str] | None, **options: Any
) -> keras.Model:
    """The network without its top."""
    build = getattr(applications, builder)
    known = weights if weights == "imagenet" else None
    if builder.startswith("MobileNetV4") and known is None and timm_weights.is_checkpoint(weights):
        options["origin"] = "timm"
    base = build(input_tensor=image, include_top=False, weights=known, **options)
    if weights is not None and known is None:
        whole = {name: value for name, value in options.items() if name != "pooling"}
        _load(base, lambda: build(input_shape=tuple(image.shape[1:]), weights=None, **whole), weights)
    return base


def _load(base: keras.Model, build_whole: Callable[[], keras.Model], weights: str | os.PathLike[str]) -> None:
    """Loads a file of the network without its top or, where that does not fit, of the whole network."""
    try:
        applications.load_weights(base, weights)
    except ValueError as misfit:
        whole = build_whole()
        try:
            applications.load_weights(whole, weights)
        except ValueError:
            raise misfit from None
        flat = inline(whole)
        for layer in inline(base).layers:
            if layer.weights:
                layer.set_weights(flat.get_layer(layer.name).get_weights())
