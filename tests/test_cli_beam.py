"""`predict --runner beam`: pictures by the glob, answered by Beam's local runner as they are without it."""

import json
import sys

import keras
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from keras_mobilenets.cli import app
from keras_mobilenets.export import export_tflite

needs_beam = pytest.mark.needs("apache_beam", "pyarrow")


def call(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A model of 8 x 8 pixels with its labels; 20 whole pictures, one that is cut short, one that is none."""
    folder = tmp_path_factory.mktemp("beam")
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(4, 8), keras.layers.Flatten(), keras.layers.Softmax()]
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Rescaling(1 / 255), *layers])
    export_tflite(model, folder / "model.tflite", verbose=False)
    (folder / "labels.txt").write_text("a\nb\nc\nd\n")
    random = np.random.default_rng(0)
    for index in range(20):
        path = folder / "pictures" / str(index % 2) / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (16, 16, 3), np.uint8)).save(path)
    (folder / "pictures" / "0" / "short.png").write_bytes(path.read_bytes()[:200])
    (folder / "pictures" / "1" / "page.png").write_text("<html>")
    return folder


def lines(folder, pattern):
    return [json.loads(line) for path in sorted(folder.glob(pattern)) for line in path.read_text().splitlines()]


@needs_beam
def test_a_job_answers_as_the_plain_command_and_names_what_is_broken(work, tmp_path):
    whole = sorted((work / "pictures").glob("*/[0-9]*.png"))
    plain = [json.loads(line) for line in call("predict", work / "model.tflite", *whole, "--json").output.splitlines()]
    globs = [work / "pictures" / "0" / "*.png", work / "pictures" / "1" / "*.png"]
    job = ("predict", work / "model.tflite", *globs, "--runner", "beam")
    result = call(*job, "--output", tmp_path / "answers.jsonl", "--direct_num_workers", "1")
    assert result.exit_code == 0, result.output
    answers = sorted(lines(tmp_path, "answers-*.jsonl"), key=lambda one: one["image"])
    assert answers == sorted(plain, key=lambda one: one["image"]) and len(answers) == 20
    broken = {one["image"].rpartition("/")[2]: one["reason"] for one in lines(tmp_path, "answers.broken-*.jsonl")}
    assert broken.keys() == {"short.png", "page.png"}
    assert broken["page.png"] == "not a picture in a known format" and "truncated" in broken["short.png"]
    assert "20 pictures answered" in result.output and "2 broken" in result.output
    again = call(*job, "--output", tmp_path / "answers.jsonl")
    assert again.exit_code == 1 and "choose another --output" in again.output  # nothing is mixed with old parts

    from pyarrow import dataset

    assert call(*job, "--output", tmp_path / "table.parquet").exit_code == 0
    found = sorted(tmp_path.glob("table-*.parquet"))
    rows = dataset.dataset(found).sort_by("image").to_table().to_pylist()
    assert [row["image"] for row in rows] == [one["image"] for one in answers]
    for row, one in zip(rows, answers, strict=True):
        assert [best["name"] for best in row["classes"]] == [best["name"] for best in one["classes"]]
        # Parquet holds float32, which JSON's digits are of.
        assert [best["score"] for best in row["classes"]] == [best["score"] for best in one["classes"]]


@needs_beam
def test_vectors_of_a_job_are_those_of_the_plain_command_and_are_searched(work, tmp_path):
    layers = [keras.layers.Conv2D(4, 8), keras.layers.Flatten(name="embedding")]
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Rescaling(1 / 255), *layers])
    export_tflite(model, tmp_path / "vectors.tflite", verbose=False)
    folder, job = work / "pictures", ("embed", tmp_path / "vectors.tflite")
    assert call(*job, folder, tmp_path / "plain.parquet").exit_code == 0
    done = call(*job, folder, tmp_path / "parts.parquet", "--runner", "beam", "--direct_num_workers", "1")
    assert done.exit_code == 0 and "20 pictures answered" in done.output and "2 broken" in done.output, done.output
    asked = sorted(folder.glob("*/[0-9]*.png"))[3:5]
    plain, parts = (
        [json.loads(line) for line in call("search", job[1], known, *asked, "--json").output.splitlines()]
        for known in (tmp_path / "plain.parquet", tmp_path / "parts.parquet")
    )
    assert plain == parts and [one["nearest"][0]["image"] for one in parts] == [str(path) for path in asked]
    assert call(*job, folder, tmp_path / "parts.npz", "--runner", "beam").exit_code == 2
    assert "options of Beam need --runner" in call(*job, folder, tmp_path / "a.npz", "--regoin", "x").output


@needs_beam
@pytest.mark.parametrize("failures", [1, 2, 3])
def test_a_read_that_fails_is_tried_again(work, monkeypatch, failures):
    from keras_mobilenets.cli import beam

    path, tries = str(next((work / "pictures" / "0").glob("[0-9]*.png"))), []

    def unsteady(name, real=beam.FileSystems.open):
        tries.append(name)
        if len(tries) <= failures:
            raise OSError("connection reset")
        return real(name)

    monkeypatch.setattr(beam.FileSystems, "open", unsteady)
    (found,) = beam.ReadPictures((8, 8), pauses=(0.0, 0.0)).process(path)
    assert len(tries) == min(failures + 1, 3)
    if failures < 3:
        assert found[0] == path and found[1].shape == (8, 8, 3)
    else:
        assert found.tag == "broken" and found.value == {"image": path, "reason": "connection reset"}


@needs_beam
def test_what_no_worker_could_mend_is_said_before_the_job(work, tmp_path):
    def fails(*arguments):
        result = call("predict", work / "model.tflite", *arguments, "--output", tmp_path / "a.jsonl")
        assert result.exit_code == 1 and not any(tmp_path.iterdir()), result.output
        return result.output

    picture = work / "pictures" / "0" / "00.png"
    assert "There is no file" in fails(work / "*.gif", "--runner", "beam")
    assert "is a folder: write" in fails(work / "pictures", "--runner", "beam")
    assert "--runner Spork: Unexpected pipeline runner" in fails(picture, "--runner", "Spork")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{model}", "*.png", "--runner", "beam"), "must be given, and end in .jsonl or .parquet"),
        (("{model}", "*.png", "--runner", "beam", "--output", "a.csv"), "end in .jsonl or .parquet"),
        (("{labels}", "*.png", "--runner", "beam", "--output", "a.jsonl"), "must end in .tflite or .keras"),
        (("{model}", "--region", "*.png", "--runner", "beam", "--output", "a.jsonl"), "write the pictures before"),
        (("{model}", "{labels}", "--regoin", "x"), "there is no option --regoin"),
    ],
)
def test_mistakes(work, arguments, message):
    names = {"model": work / "model.tflite", "labels": work / "labels.txt"}
    result = call("predict", *(one.format(**names) for one in arguments))
    assert result.exit_code == 2 and message in " ".join(result.output.replace("│", " ").split())


def test_without_beam_the_extra_is_named(work, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    result = call("predict", work / "model.tflite", "*.png", "--runner", "beam", "--output", "a.jsonl")
    assert result.exit_code == 1 and "pip install 'keras_mobilenets[beam]'" in " ".join(result.output.split())
