"""Nothing lost: killed at random, terminated, out of disk, and resumed to the same weights."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from runs import write_colours

KILLS = 20


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Two classes that differ in colour: 48 pictures to train on in 12 steps, 12 held out."""
    return write_colours(tmp_path_factory.mktemp("colours"), 30)


def weights(path):
    import h5py

    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, one: found.update({name: one[()]}) if isinstance(one, h5py.Dataset) else None)
    return found


@pytest.mark.slow
def test_killed_twenty_times_it_ends_where_an_uninterrupted_run_does(pictures, tmp_path):
    script = Path(__file__).with_name("interrupted_script.py")
    run = subprocess.run(
        [sys.executable, script, tmp_path, pictures, str(KILLS)],
        env={**os.environ, "KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["ends"] == [-signal.SIGKILL] * KILLS + [-signal.SIGTERM, 0], run.stderr[-3000:]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected, got = weights(whole / "final.weights.h5"), weights(killed / "final.weights.h5")
    assert set(expected) == set(got) and len(expected) > 10
    for name in expected:
        assert np.array_equal(expected[name], got[name]), name  # to the bit
    for name in ("history.json", "log.jsonl"):
        assert (killed / name).read_text() == (whole / name).read_text()
    assert len((whole / "log.jsonl").read_text().splitlines()) == 10 * (12 + 1)
    # What SIGTERM left: the two newest, the best and its mark, and nothing half-written.
    assert ".lock" in found["left"] and "best.json" in found["left"]
    assert all(re.fullmatch(r"\.lock|best\.json|\d{5}-\d{8}\.npz", name) for name in found["left"]), found["left"]
    assert 2 <= len([name for name in found["left"] if name.endswith(".npz")]) <= 3


def trained(folder, pictures, epochs=2, **options):
    from keras_mobilenets.data import load
    from keras_mobilenets.training import Checkpoint, fit

    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 127.5, -1)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))
    checkpoint = Checkpoint(folder, **options)
    history = fit(model, load(pictures, image_size=16, batch_size=4), epochs=epochs, checkpoint=checkpoint)
    return model, checkpoint, history.history


def test_a_full_disk_leaves_the_checkpoints_whole(pictures, tmp_path):
    """The kernel refuses to write more than 20 kB to a file; a checkpoint has 25."""
    trained(tmp_path, pictures, epochs=1)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(OSError, match=r"File too large: .*00001-00000012.npz could not be written.*are whole"):
            trained(tmp_path, pictures)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert len(trained(tmp_path, pictures)[2]["loss"]) == 2  # goes on once there is room


def test_a_folder_in_use_is_refused(pictures, tmp_path):
    code = (
        "import sys\nfrom keras_mobilenets.utils import locked\n"
        f"with locked({str(tmp_path)!r}):\n    print('locked', flush=True)\n    sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as other:
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(BlockingIOError, match=f"{tmp_path} is in use by another process"):
            trained(tmp_path, pictures)
        other.kill()
    assert len(trained(tmp_path, pictures)[2]["loss"]) == 2  # free as soon as the process is gone


def test_the_last_and_the_best_are_kept(pictures, tmp_path):
    model, checkpoint, history = trained(tmp_path, pictures, epochs=5, keep=1, every=5, monitor="loss")
    losses = history["loss"]
    best = losses.index(min(losses)) + 1
    mark = json.loads((tmp_path / "best.json").read_text())
    assert mark == {"file": f"{best:05}-00000000.npz", "epoch": best, "loss": min(losses)}
    assert {path.name for path in tmp_path.glob("*.npz")} == {mark["file"], "00005-00000000.npz"}
    assert checkpoint.position() == (5, 0)
    assert checkpoint.restore(model, best=True) == (best, 0)
    assert model.optimizer.iterations == 12 * best
    with pytest.raises(ValueError, match="keep=0"):
        trained(tmp_path, pictures, keep=0)
