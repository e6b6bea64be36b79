"""The README's code runs as it stands, in order, in one session; its test command is the one that CI runs."""

import functools
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from documents import run

import keras_mobilenets

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


@pytest.fixture
def imagenet_cache(tmp_path, monkeypatch):
    """A weights file of keras.applications' name and layout where `weights="imagenet"` looks first: no network."""
    monkeypatch.setattr(keras.utils, "get_file", functools.partial(keras.utils.get_file, cache_dir=tmp_path))
    (tmp_path / "models").mkdir()
    theirs = keras.applications.MobileNetV2(alpha=0.35, input_shape=(96, 96, 3), include_top=False, weights=None)
    name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.35_96_no_top.h5"
    theirs.save_weights(tmp_path / "models" / "whole.weights.h5")
    (tmp_path / "models" / "whole.weights.h5").rename(tmp_path / "models" / name)


@pytest.mark.slow
def test_code_blocks_run(imagenet_cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {
        "images": np.random.default_rng(0).uniform(-1, 1, (16, 96, 96, 3)).astype("float32"),
        "labels": np.arange(16) % 5,
    }
    assert run("README.md", names) == 3
    report = names["report"]
    assert report.audit.is_integer
    assert keras_mobilenets.tflite.TFLiteModel("flowers.tflite").labels[0] == "daisy"


def test_ci_runs_the_readmes_command():
    script = (ROOT / ".ci" / "run").read_text()
    assert "/<!-- tests -->/" in script
    assert re.search(r"<!-- tests -->\n```sh\n(.*pytest.*)\n```", README)
