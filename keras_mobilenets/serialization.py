"""Tells Keras of this package's layers, so that `keras.models.load_model` knows them."""

from __future__ import annotations

import importlib
import os
import zipfile
from typing import Any

from keras_mobilenets.utils import user_path

_MODULES = (
    *("applications.variants", "quantization.config"),
    *("quantization.deploy", "quantization.layers", "quantization.twin", "quantization.observers"),
    *("quantization.quantizers", "integer.layer", "integer.convolution", "integer.arithmetic"),
    *("integer.tables", "integer.moving", "integer.windows", "tasks.box_losses", "tasks.crossentropy"),
    "tasks.pixel_losses",
    "tasks.contrastive",
)


def register_layers() -> None:
    """Imports all modules with layers that can be saved.

    `import keras_mobilenets` does it where Keras is imported already; where Keras comes later, call it before loading
    a file.

    Example:

    >>> from keras_mobilenets.serialization import register_layers
    >>> register_layers()
    >>> model = keras.models.load_model("quantized.keras")  # doctest: +SKIP
    """
    import keras

    from keras_mobilenets import layers

    for name in dir(layers):  # each is imported when it is looked up
        getattr(layers, name)
    for module in _MODULES:
        importlib.import_module(f"keras_mobilenets.{module}")
    # What builders returned up to 0.1.0: a functional model, in files under a name of its own.
    keras.saving.get_custom_objects().setdefault("keras_mobilenets>ImageModel", keras.Model)


def load_model(path: str | os.PathLike[str]) -> Any:
    """Loads a `.keras` or `.h5` file with whatever layers of this package it holds, not compiled.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or needs layers of somebody else.
    """
    import keras

    found = user_path(path)
    if not found.is_file():
        raise FileNotFoundError(f"No such .keras file: {found}")
    register_layers()
    # A .h5 file has the names of classes without their package.
    ours = {name.split(">")[1]: cls for name, cls in keras.saving.get_custom_objects().items() if ">" in name}
    try:
        return keras.models.load_model(found, custom_objects=ours, compile=False)
    except (ValueError, TypeError, KeyError, OSError, RuntimeError, zipfile.BadZipFile) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{path} cannot be loaded: it is damaged or holds layers of another package ({reason})"
        ) from error
