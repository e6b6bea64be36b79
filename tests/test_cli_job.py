"""`keras-mobilenets train` on JAX, as a job of two processes: one run, from the pictures to the `.tflite`."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest
from runs import RUN_FILES

BOUND = 180  # seconds in which both end, on a machine that does much else
OPTIONS = "train --data digits --model MobileNet --alpha 0.25 --image-size 16 --batch-size 128 --epochs 2 --seed 1"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.needs("jax"),
]


def start(cwd, **environment):
    """The command that a launcher starts again and again; on JAX."""
    command = [sys.executable, "-m", "keras_mobilenets", *OPTIONS.split(), "--quantize-epochs", "1", "--resume"]
    inherited = {**os.environ, "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}
    # Half of the time goes into making the program fast.
    jax = {"KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    return subprocess.Popen(
        [*command, "--output", "one"],
        cwd=cwd,
        env={**inherited, **jax, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_job(cwd):
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{one.getsockname()[1]}"
    job = {"COORDINATOR_ADDRESS": address, "NUM_PROCESSES": "2"}
    return [start(cwd, **job, JOB_COMPLETION_INDEX=str(index)) for index in range(2)]


def until(process, text):
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(process.stderr.read()[-3000:])


def test_two_processes_are_one_run(tmp_path):
    run = tmp_path / "one"
    first, second = start_job(tmp_path)
    until(first, "epoch 1/2")
    second.send_signal(signal.SIGTERM)  # one is told to end, both do, and nothing is lost
    outputs = [one.communicate(timeout=BOUND) for one in (first, second)]
    assert [one.returncode for one in (first, second)] == [143, 143], outputs
    assert "To go on: keras-mobilenets train --resume --output one" in outputs[0][0] and "epoch" not in outputs[1][0]
    saved = max(path.name for path in (run / "checkpoints" / "float").glob("*.npz"))
    assert saved >= "00001-00000000.npz"

    both = start_job(tmp_path)
    outputs = [one.communicate() for one in both]
    assert [one.returncode for one in both] == [0, 0], outputs
    assert "Look at one/report.html" in outputs[0][0] and outputs[1][1] == "", outputs
    # The one line is of Gloo, which stands in for the network of GPUs on a CPU.
    assert [line for line in outputs[1][0].splitlines() if not line.startswith("[Gloo]")] == []
    assert {path.name for path in run.iterdir()} == RUN_FILES
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["tflite"]["is_integer"] and metrics["agreement"]["qat"] >= 0.95
    assert [len(metrics["history"][name]) for name in ("float", "quantized")] == [2, 1]
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [(line["run"], line["epoch"]) for line in lines] == [("float", 1), ("float", 2), ("quantized", 1)]
