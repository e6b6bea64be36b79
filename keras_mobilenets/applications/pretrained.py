"""The ImageNet weights of keras.applications: which file, where from, and what to do when it cannot be had."""

from __future__ import annotations

import os
import warnings
from typing import Any

import keras

from keras_mobilenets.applications.variants import FAMILIES, published

_BASE_URL = "https://storage.googleapis.com/tensorflow/keras-applications"
_CLASS_INDEX_URL = "https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json"
_CLASS_INDEX_MD5 = "c2c37ea517e94d9795004a39431a14cb"


def published_size(
    builder: str, alpha: float, image: keras.KerasTensor, *, minimalistic: bool = False, stacklevel: int = 3
) -> int:
    """Chooses the image size whose published weights a model starts from.

    Args:
        builder: name of the builder.
        alpha: width multiplier; it must be a published one.
        image: what the model starts from; it must have 3 channels.
        minimalistic: of MobileNetV3.
        stacklevel: of the warning.

    Returns:
        The nearest published size to the image's; 224 where that is unknown.

    Raises:
        ValueError: there are no weights for this alpha, or this number of channels.

    Warns:
        UserWarning: the image has another size than the weights were trained for.
    """
    widths = sorted({variant.alpha for variant in published(builder, minimalistic=minimalistic)})
    if alpha not in widths:
        nearest = min(widths, key=lambda width: abs(width - alpha))
        raise ValueError(
            f"`alpha` must be one of {widths} for `weights='imagenet'`; the nearest is {nearest}. "
            f"Received: alpha={alpha}"
        )
    _, rows, columns, channels = image.shape
    if channels != 3:
        raise ValueError(
            f"The image must have 3 channels for `weights='imagenet'`. Received: input_shape={image.shape[1:]}"
        )
    sizes = sorted(variant.size for variant in published(builder, alpha=alpha, minimalistic=minimalistic))
    if rows == columns and rows in sizes:
        return rows
    # The published sizes differ by pixels, not by factors: their mean is what the nearest one is near to.
    chosen = min(sizes, key=lambda size: abs(size - (rows + columns) / 2)) if rows and columns else sizes[-1]
    warnings.warn(
        f"`input_shape` is undefined or non-square, or its size is not in {sizes}. Weights for input shape "
        f"({chosen}, {chosen}) will be loaded, the nearest published. Received: input_shape={image.shape[1:]}",
        stacklevel=stacklevel,
    )
    return chosen


def pretrained_path(builder: str, alpha: float, size: int, *, include_top: bool, minimalistic: bool = False) -> str:
    """Downloads the ImageNet weights of a published variant, unless they lie in Keras' cache.

    Args:
        builder: name of the builder.
        alpha: width multiplier.
        size: height and width of the images it was trained on.
        include_top: whether with the classifier.
        minimalistic: of MobileNetV3.

    Returns:
        The path of the weight file.

    Raises:
        ConnectionError: it can be had neither from the cache nor from the network.
    """
    file, md5 = FAMILIES[builder].weights(alpha, size, include_top=include_top, minimalistic=minimalistic)
    return _fetch(file.rpartition("/")[2], f"{_BASE_URL}/{file}", md5)


def decode_predictions(preds: Any, top: int = 5) -> list[list[tuple[str, str, float]]]:
    """Names the most probable ImageNet classes.

    Args:
        preds: array or tensor of shape (batch, 1000): what a model with ImageNet weights answers.
        top: how many classes for each image.

    Returns:
        For each image a list of (WordNet id, name, score), best first.

    Raises:
        ValueError: `preds` has another shape.
        ConnectionError: the list of names is neither in Keras' cache nor to be had from the network.
    """
    if len(preds.shape) != 2 or preds.shape[1] != 1000:
        raise ValueError(f"`preds` must have the shape (batch, 1000). Received: preds.shape={tuple(preds.shape)}")
    _fetch("imagenet_class_index.json", _CLASS_INDEX_URL, _CLASS_INDEX_MD5)  # Keras finds it in its cache
    return keras.applications.imagenet_utils.decode_predictions(preds, top=top)


def _fetch(name: str, url: str, md5: str | None) -> str:
    try:
        return keras.utils.get_file(name, url, cache_subdir="models", file_hash=md5)
    except Exception as error:  # get_file itself raises a bare Exception where there is no network
        home = os.environ.get("KERAS_HOME") or os.path.join("~", ".keras")
        cache = os.path.join(os.path.expanduser(home), "models", name)
        raise ConnectionError(
            f"Cannot download {url}: {error}\nPut the file at {cache} yourself, or build with `weights=None`, "
            "or with the path of a weight file."
        ) from error
