"""The examples in the docstrings run and print what they say."""

import doctest
import importlib
import pkgutil

import keras
import numpy as np
import pytest

import keras_mobilenets


def modules():
    for module in pkgutil.walk_packages(keras_mobilenets.__path__, "keras_mobilenets."):
        if not module.name.endswith("__main__"):
            marks = pytest.mark.needs("apache_beam") if module.name.endswith(".cli.beam") else ()
            yield pytest.param(module.name, marks=marks, id=module.name)


@pytest.mark.parametrize("name", modules())
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # examples may write files
    module = importlib.import_module(name)
    part = importlib.import_module(".".join(name.split(".")[:2]))
    public = {name: getattr(of, name) for of in (keras_mobilenets, part) for name in getattr(of, "__all__", [])}
    names = {"np": np, "keras": keras, **public, **vars(module)}
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS, verbose=False)
    report: list[str] = []
    for test in doctest.DocTestFinder(exclude_empty=True).find(module, name, globs=names):
        runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)
