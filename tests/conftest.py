"""What all tests share: seeds, the folder with real images and weights, and small models that are built once."""

from __future__ import annotations

import functools
import gc
import importlib.util
import os
import sys
import typing
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("PYTHONSAFEPATH", "1")  # processes of their own import the package that is installed, too
if "PYTEST_XDIST_WORKER" in os.environ:  # one thread each: the workers are the parallelism
    for variable in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
if sys.version_info < (3, 12):  # as later ones do by themselves: TensorFlow asks for it with every operation it traces
    typing._get_protocol_attrs = functools.cache(typing._get_protocol_attrs)

import keras
import numpy as np
import pytest

gc.freeze()  # what is imported stays; and tracing makes many objects of which few are garbage: 5 % of all time
gc.set_threshold(100_000, 20, 50)

TESTDATA = "KERAS_MOBILENETS_TESTDATA"
# Files that take longest, begun first, so that no process is left alone with one at the end.
LONGEST = [
    "test_tfmot_models",
    "test_backends",
    "test_examples",
    "test_docs",
    "test_mobilenet",
    "test_tfmot",
    "test_quantization_files",
    "test_cli",
    "test_integer",
    "test_export_tflite",
    "test_docstrings",
    "test_quantization_report",
    "test_catalog",
    "test_training",
    "test_profile",
    "test_detection",
    "test_quantization",
]


def pytest_collection_modifyitems(items):
    place = {name: index for index, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))


def pytest_runtest_setup(item):
    for marker in item.iter_markers("needs"):
        missing = [package for package in marker.args if importlib.util.find_spec(package) is None]
        if missing:
            pytest.skip(f"needs {', '.join(missing)}")


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state, alone or in any order."""
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="module")
def eagerly():
    """TensorFlow's functions run as they are, for modules whose subject is not `fit`: `usefixtures("eagerly")`.

    `predict` on a new quantized MobileNetV3 takes 7 s of tracing, or half a second.
    """
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="session")
def testdata() -> Path:
    """The folder with real photographs, weights and published files; tests that need it are skipped without it."""
    folder = os.environ.get(TESTDATA)
    if not folder:
        pytest.skip(f"needs real images and weights: set {TESTDATA} to their folder")
    return Path(folder)


# The small models that many tests look at, made once in a process. Who changes a model makes his own.


@pytest.fixture(scope="session")
def tiny_model() -> keras.Model:
    """Stem, two blocks, pooling and a softmax of 5 classes: export_models.py."""
    import export_models

    keras.utils.set_random_seed(0)
    return export_models.tiny()


@pytest.fixture(scope="session")
def tiny_twin(tiny_model) -> keras.Model:
    """The same, quantized and calibrated."""
    import export_models

    from keras_mobilenets.quantization import calibrate, quantize_model

    twin = quantize_model(tiny_model)
    calibrate(twin, export_models.images(64))
    return twin


@pytest.fixture(scope="session")
def tiny_export(tiny_twin, tmp_path_factory):
    """The twin's integer file with labels, and the report of its export, verified on 32 images."""
    import export_models

    from keras_mobilenets.export import export_tflite

    path = tmp_path_factory.mktemp("tiny") / "model.tflite"
    options = {"verify": export_models.images(32), "strict": True, "verbose": False}
    return path, export_tflite(tiny_twin, path, labels=export_models.LABELS, **options)


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded random numbers for inputs whose values do not matter."""
    return np.random.default_rng(0)
