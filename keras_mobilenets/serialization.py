"""Tells Keras of this package's layers, so that `keras.models.load_model` knows them."""

from __future__ import annotations

import importlib

_MODULES = (
    *("applications.variants", "quantization.config"),
    *("quantization.deploy", "quantization.layers", "quantization.twin", "quantization.observers"),
    *("quantization.quantizers", "integer.layer", "integer.convolution", "integer.arithmetic"),
    *("integer.tables", "integer.moving", "integer.windows", "tasks.crossentropy"),
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

    for name in layers.__all__:  # each is imported when it is looked up
        getattr(layers, name)
    for module in _MODULES:
        importlib.import_module(f"keras_mobilenets.{module}")
    # What builders returned up to 0.1.0: a functional model, in files under a name of its own.
    keras.saving.get_custom_objects().setdefault("keras_mobilenets>ImageModel", keras.Model)
