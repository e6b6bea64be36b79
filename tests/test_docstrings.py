"""The examples in the docstrings run and print what they say."""

import contextlib
import doctest
import importlib
import pkgutil

import keras
import numpy as np
import pytest

import keras_mobilenets

NEED = {".cli.beam": "apache_beam", ".interop.tfmot.": "tensorflow_model_optimization"}


def modules():
    for module in pkgutil.walk_packages(keras_mobilenets.__path__, "keras_mobilenets."):
        if not module.name.endswith("__main__"):
            needed = next((package for part, package in NEED.items() if part in module.name), None)
            marks = pytest.mark.needs(needed) if needed else ()
            yield pytest.param(module.name, marks=marks, id=module.name)


@pytest.mark.parametrize("name", list(modules()))
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # examples may write files
    module = importlib.import_module(name)
    part = importlib.import_module(".".join(name.split(".")[:2]))
    public = {}
    for of in (keras_mobilenets, part):
        for public_name in getattr(of, "__all__", []):
            with contextlib.suppress(ImportError):  # what needs an extra
                public[public_name] = getattr(of, public_name)
    names = {"np": np, "keras": keras, **public, **vars(module)}
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS, verbose=False)
    report: list[str] = []
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name, globs=names):
        runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)
