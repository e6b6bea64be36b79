"""MobileNets in Keras 3, from the first layer to a full-integer `.tflite` that answers as the Keras model did.

Nothing heavy is imported until a name is used: `import keras_mobilenets` takes milliseconds. Only where Keras is
imported already, Keras is told of this package's layers, so that `keras.models.load_model` knows them. The public names
are listed once, in the stub beside this file (`__init__.pyi`), which type checkers and `lazy_loader` both read.
"""

import sys

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"

if "keras" in sys.modules:
    from keras_mobilenets.serialization import register_layers

    register_layers()
    del register_layers
