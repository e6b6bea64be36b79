"""The ImageNet weights of keras.applications: which file, where from, and what to do when it cannot be had."""

from __future__ import annotations

import os
import warnings
from typing import Any

import keras

from keras_mobilenets.applications.variants import published

_BASE_URL = "https://storage.googleapis.com/tensorflow/keras-applications"
_CLASS_INDEX_URL = "https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json"
_CLASS_INDEX_MD5 = "c2c37ea517e94d9795004a39431a14cb"

# MD5 of MobileNetV3's files, with and without top, as in keras.applications, which has none for V1 and V2.
_MD5 = {
    "large_224_0.75_float": ("765b44a33ad4005b3ac83185abf1d0eb", "40af19a13ebea4e2ee0c676887f69a2e"),
    "large_224_1.0_float": ("59e551e166be033d707958cf9e29a6a7", "07fb09a5933dd0c8eaafa16978110389"),
    "large_minimalistic_224_1.0_float": ("675e7b876c45c57e9e63e6d90a36599c", "ec5221f64a2f6d1ef965a614bdae7973"),
    "small_224_0.75_float": ("cb65d4e5be93758266aa0a7f2c6708b7", "ebdb5cc8e0b497cd13a7c275d475c819"),
    "small_224_1.0_float": ("8768d4c2e7dee89b9d02b2d03d65d862", "d3e8ec802a04aa4fc771ee12a9a9b836"),
    "small_minimalistic_224_1.0_float": ("99cd97fb2fcdad2bf028eb838de69e37", "cde8136e733e811080d9fcd8a252f7e4"),
}


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
    md5 = None
    if builder == "MobileNet":
        folder, width = "mobilenet", {1.0: "1_0", 0.75: "7_5", 0.5: "5_0", 0.25: "2_5"}[alpha]
        name = f"mobilenet_{width}_{size}_tf{'' if include_top else '_no_top'}.h5"
    elif builder == "MobileNetV2":
        folder = "mobilenet_v2"
        top = "" if include_top else "_no_top"
        name = f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{float(alpha)}_{size}{top}.h5"
    else:
        folder = "mobilenet_v3"
        kind = builder.removeprefix("MobileNetV3").lower() + ("_minimalistic" if minimalistic else "")
        model = f"{kind}_{size}_{float(alpha)}_float"
        md5 = _MD5[model][0 if include_top else 1]
        name = f"weights_mobilenet_v3_{model}{'' if include_top else '_no_top_v2'}.h5"
    return _fetch(name, f"{_BASE_URL}/{folder}/{name}", md5)


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
