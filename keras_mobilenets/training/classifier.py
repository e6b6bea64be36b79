"""A MobileNet with a head for one's own task, which takes pixels as they are."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import keras

from keras_mobilenets import applications
from keras_mobilenets.applications.variants import FAMILIES, check_builder
from keras_mobilenets.layers import inline
from keras_mobilenets.tasks import Classification, Task

# The published .999 averages over thousands of steps: a run of a few hundred would be evaluated with statistics that
# are half of the initial ones.
SHORT_RUN_MOMENTUM = 0.9
SMALLEST_MAP = 4  # height of the last feature map that a stem is chosen for: 3x3 kernels see little in a smaller one


def build_classifier(
    builder: str = "MobileNetV2",
    *,
    classes: int,
    image_size: int | tuple[int, int],
    alpha: float = 1.0,
    weights: str | os.PathLike[str] | None = None,
    dropout: float = 0.2,
    momentum: float | None = None,
    stem_stride: int | None = None,
) -> keras.Model:
    """Builds a MobileNet for classes of one's own.

    The model takes RGB pixels in [0, 255] whatever the family: what a family scales outside of the network is scaled
    inside here, which costs nothing in the integer model. All its layers are in one functional model; those of the
    head are named `dropout` and `predictions`.

    Args:
        builder: its name, one of `applications.variants.BUILDERS`.
        classes: how many classes.
        image_size: side of a square in pixels, or (height, width).
        alpha: width multiplier.
        weights: None (random), "imagenet", or a weight file of this network with or without its top.
        dropout: rate before the classifier.
        momentum: of the moving averages of batch normalization. By default the published one with weights, and .9,
            for runs of a few hundred steps, without.
        stem_stride: strides of the first layers, 4 as published, 2 or 1 for small images. By default 4, or what
            leaves a last feature map of at least 4 x 4, if the weights are random.

    Returns:
        A functional model: (batch, height, width, 3) in [0, 255] to (batch, classes) probabilities.

    Raises:
        ValueError: an argument is out of its range, or the weights do not fit.

    Example:

    >>> build_classifier("MobileNetV2", classes=5, image_size=32, alpha=0.35).output_shape
    (None, 5)
    """
    if classes < 2:
        raise ValueError(f"`classes` must be at least 2. Received: classes={classes}")
    model = build_model(
        builder,
        Classification(classes, dropout=dropout),
        image_size=image_size,
        alpha=alpha,
        weights=weights,
        momentum=momentum,
        stem_stride=stem_stride,
    )
    model.name = f"{builder.lower()}_classifier"
    return model


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
    """Builds a MobileNet for a task: its trunk with the task's head. Arguments as of `build_classifier`."""
    scales_pixels = FAMILIES[check_builder(builder)].scales_pixels
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if stem_stride is None:
        stem_stride = 4 if weights is not None else _stem_stride(min(height, width))
    inputs = keras.Input((height, width, 3), name="image")
    scaled = inputs if scales_pixels else keras.layers.Rescaling(1 / 127.5, -1, name="rescaling")(inputs)
    if momentum is None and weights is None:
        momentum = SHORT_RUN_MOMENTUM
    options = {} if momentum is None else {"momentum": momentum}
    base = _base(builder, scaled, weights, alpha=alpha, stem_stride=stem_stride, **options)
    return keras.Model(inputs, task.head(base.output), name=f"{builder.lower()}_{task.name}")


def _stem_stride(size: int) -> int:
    """The largest stem stride that leaves the last feature map at least 4 pixels high; 1 for the smallest images."""
    return next((stride for stride in (4, 2) if size // (8 * stride) >= SMALLEST_MAP), 1)


def _base(
    builder: str, image: keras.KerasTensor, weights: str | os.PathLike[str] | None, **options: Any
) -> keras.Model:
    """The network up to its pooled features."""
    build = getattr(applications, builder)
    known = weights if weights == "imagenet" else None
    base = build(input_tensor=image, include_top=False, pooling="avg", weights=known, **options)
    if weights is not None and known is None:
        _load(base, lambda: build(input_shape=tuple(image.shape[1:]), weights=None, **options), weights)
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
