"""The whole catalogue on the other backends of Keras, each in a process of its own."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import catalog
import pytest


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_catalogue_on_backend(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    script = Path(__file__).with_name("backend_script.py")
    environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu"}
    run = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.strip() == f"{backend}: {len(catalog.LAYERS + catalog.BUILDERS)} rows"
