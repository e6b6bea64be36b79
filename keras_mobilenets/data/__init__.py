"""Pictures in, batches out: TensorFlow Datasets, image folders and the bundled digits, read the same way everywhere.

Importing this module registers the bundled data sets, so that `tfds.load("digits")` finds them.
"""

import importlib.util

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

if importlib.util.find_spec("tensorflow_datasets"):  # 0.3 s and no TensorFlow yet; absent, only names are missing
    for _module in ("digits", "scattered"):
        importlib.import_module(f"keras_mobilenets.data.{_module}")
