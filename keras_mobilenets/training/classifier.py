"""A MobileNet with a head for classes of one's own, which takes pixels as they are."""

from __future__ import annotations

import os

import keras

from keras_mobilenets.tasks import Classification
from keras_mobilenets.training.building import build_model


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
