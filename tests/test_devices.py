"""Training on several devices and in several processes: what one device makes of the whole batch, and no hanging."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from runs import write_colours

from keras_mobilenets.training import job
from keras_mobilenets.training.devices import Job

SCRIPT = Path(__file__).with_name("devices_script.py")
# Sums over parts of a batch are taken in another order, which rounding carries on for 15 steps.
TOLERANCE = 1e-4
BOUND = 60  # seconds in which the others of a killed process end, on a slow machine; JAX would need 100 to miss it


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two classes that differ in colour: 42 pictures to train on in 5 steps of 8, 10 held out, the last 2 a batch."""
    return write_colours(tmp_path_factory.mktemp("colours"), 26)


def start(*arguments, backend="jax", **environment):
    environment = {**os.environ, "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", **environment}
    command = [sys.executable, SCRIPT, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def run(*arguments, **options):
    started = start(*arguments, **options)
    output = started.communicate()[0]
    assert started.returncode == 0, output[-3000:]
    return output


def same(one, other):
    first, second = np.load(one), np.load(other)
    assert first.files == second.files and len(first.files) == 20
    for name in first.files:
        assert np.abs(first[name] - second[name]).max() <= TOLERANCE, name


@pytest.mark.slow
def test_two_devices_train_as_one(pictures, tmp_path):
    """On JAX: backend_checks.py."""
    assert "devices 1" in run(pictures, tmp_path / "one.npz", 1, backend="tensorflow")
    assert "devices 2" in run(pictures, tmp_path / "two.npz", 2, backend="tensorflow")
    same(tmp_path / "one.npz", tmp_path / "two.npz")


@pytest.mark.slow
def test_the_command_line_trains_on_two_devices_and_exports(pictures, tmp_path):
    code = (
        "import tensorflow as tf\n"
        "cpu = tf.config.list_physical_devices('CPU')[0]\n"
        "tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)\n"
        "from keras_mobilenets.cli import main\nmain()"
    )
    options = "--model MobileNet --alpha 0.25 --epochs 1 --quantize-epochs 1 --batch-size 8 --image-size 16 --devices"
    command = [sys.executable, "-c", code, "train", "--data", pictures, "--output", tmp_path / "run", *options.split()]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    for devices, message in (("3", "There are 2 devices"), ("all", "Look at")):
        run = subprocess.run([*command, devices], env=environment, capture_output=True, text=True, check=False)
        assert (run.returncode == 0) == (devices == "all") and message in run.stdout + run.stderr, run.stderr[-3000:]
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["tflite"]["is_integer"] and metrics["agreement"]["qat"] >= 0.9


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start_job(pictures, folder, *, die=None):
    """Two processes of one job, described to one as Keras does it and to the other as Kubernetes would."""
    host = f"127.0.0.1:{free_port()}"
    by_keras = {f"KERAS_DISTRIBUTION_{name}": value for name, value in (("NUM_PROCESSES", "2"), ("PROCESS_ID", "0"))}
    by_keras["KERAS_DISTRIBUTION_JOB_ADDRESSES"] = host
    kubernetes = {"COORDINATOR_ADDRESS": host, "NUM_PROCESSES": "2", "JOB_COMPLETION_INDEX": "1"}
    return [
        start(pictures, folder / f"{index}.npz", "all", folder / "checkpoints", die if index == 1 and die else 0, **env)
        for index, env in enumerate((by_keras, kubernetes))
    ]


@pytest.mark.slow
@pytest.mark.needs("jax")
def test_two_processes_train_as_one_and_end_together(pictures, tmp_path):
    run(pictures, tmp_path / "alone.npz", "all", tmp_path / "alone")
    first, second = start_job(pictures, tmp_path, die=7)  # in the second epoch
    second.communicate()
    killed = time.monotonic()
    output = first.communicate(timeout=BOUND)[0]
    assert second.returncode == -signal.SIGKILL
    assert first.returncode == 1 and "Process 0 has lost another one of its job" in output, output[-3000:]
    print(f"ended {time.monotonic() - killed:.1f} s after the other was killed")
    saved = [path.name for path in (tmp_path / "checkpoints").glob("*.npz")]
    assert max(saved) >= "00001-00000001.npz" and not list(tmp_path.glob("[01].npz"))
    both = start_job(pictures, tmp_path)
    outputs = [one.communicate()[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], outputs
    for index in (0, 1):
        same(tmp_path / "alone.npz", tmp_path / f"{index}.npz")
    written = lambda folder: sorted(path.name for path in (tmp_path / folder).iterdir())  # noqa: E731
    assert written("checkpoints") == written("alone")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (
            {"KERAS_DISTRIBUTION_JOB_ADDRESSES": "a:1,b:2", "KERAS_DISTRIBUTION_NUM_PROCESSES": "2"}
            | {"KERAS_DISTRIBUTION_PROCESS_ID": "1"},
            Job("a:1", 2, 1),
        ),
        (
            {"COORDINATOR_ADDRESS": "job-0", "COORDINATOR_PORT": "77", "NUM_PROCESSES": "3", "PROCESS_ID": "0"},
            Job("job-0:77", 3, 0),
        ),
        ({"SLURM_PROCID": "2", "SLURM_NTASKS": "4", "SLURM_STEP_NODELIST": "gpu[03-05,9],x"}, Job(None, 4, 2)),
        # A batch script itself.
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2", "SLURM_JOB_ID": "1", "SLURM_NODELIST": "n1,n2"}, None),
    ],
)
def test_the_job_is_read_off_the_environment(environment, expected):
    assert job(environment) == expected


@pytest.mark.parametrize(
    "environment",
    [
        {"COORDINATOR_ADDRESS": "a", "NUM_PROCESSES": "2"},
        {"COORDINATOR_ADDRESS": "a", "NUM_PROCESSES": "2", "PROCESS_ID": "2"},
        {"SLURM_STEP_NODELIST": "a", "SLURM_NTASKS": "many", "SLURM_PROCID": "0"},
    ],
)
def test_half_a_job_is_refused(environment):
    with pytest.raises(ValueError, match="describes a job, but not completely|cannot be one of 2"):
        job(environment)


def test_what_tensorflow_cannot_do_is_said(monkeypatch):
    import keras

    from keras_mobilenets.training import distribute

    if keras.backend.backend() != "tensorflow":
        pytest.skip("about TensorFlow")
    with pytest.raises(ValueError, match="devices=0"), distribute(0):
        pass
    with pytest.raises(ValueError, match="There are 1 devices, .*devices=2"), distribute(2):
        pass
    for name, value in {"COORDINATOR_ADDRESS": "a", "NUM_PROCESSES": "2", "PROCESS_ID": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"KERAS_BACKEND=jax.*MultiWorkerMirroredStrategy \(.*20585"), distribute():
        pass


def test_jax_finds_slurm_itself():
    """What `distribute` leaves open for it: the address."""
    pytest.importorskip("jax")
    code = (
        "import jax, keras\n"
        "told = []\n"
        "jax.distributed.initialize = lambda *args, **kwargs: told.append((args, kwargs))\n"
        "keras.distribution.initialize(None, 2, 1)\n"
        "print(told[0][1].get('coordinator_address', 'missing'), told[0][1]['num_processes'], told[0][1]['process_id'])"
    )
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert run.stdout.split() == ["None", "2", "1"], run.stderr[-2000:]
