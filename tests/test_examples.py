"""Every example runs, says something, draws a picture, and is short; the notebook runs from top to bottom."""

import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FOLDER = Path(__file__).parent.parent / "examples"
EXAMPLES = sorted(FOLDER.glob("*.py"))
NOTEBOOK = FOLDER / "mobilenets.ipynb"


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    quick = ["--epochs", "1"] if "--epochs" in path.read_text() else []
    monkeypatch.setattr(sys, "argv", [str(path), "drawn.png", *quick])
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.strip()
    with Image.open("drawn.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    assert min(pixels.shape) >= 400
    assert 0.01 < np.mean(pixels != 255) < 0.9, "an empty picture, or one without a margin"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_is_short(path):
    _, _, code = path.read_text().split('"""', 2)
    assert sum(1 for line in code.splitlines() if line.strip()) <= 40


def test_readme_names_every_example():
    named = re.findall(r"^\| \[(\S+)\]\(\1\) \|", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(path.name for path in [*EXAMPLES, NOTEBOOK])


def test_notebook_is_committed_without_outputs():
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


jupyter = pytest.mark.needs("nbclient", "ipykernel")


def run_notebook(folder, monkeypatch, **environment):
    """All that the cells print, run by this very Python."""
    import nbclient
    import nbformat

    monkeypatch.setenv("JUPYTER_DATA_DIR", str(folder))  # a kernel of the user's own would be another Python
    for name, value in environment.items():
        monkeypatch.setenv(name, str(value))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    return "".join(output.get("text", "") for output in outputs)


@pytest.mark.slow
@jupyter
def test_notebook_offline(tmp_path, monkeypatch):
    text = run_notebook(tmp_path, monkeypatch, DATA="digits", EPOCHS=1)
    assert "digits: 1438 pictures to train on, 359 held out" in text
    assert "integer file: " in text and (tmp_path / "runs" / "notebook" / "model.tflite").is_file()


@pytest.mark.slow
@jupyter
def test_notebook_on_photographs_with_published_weights(tmp_path, monkeypatch, testdata):
    """What `DATA=tf_flowers` does online: here from files."""
    for source in (testdata / "data" / "flowers" / "train").glob("*/*"):
        target = tmp_path / "flowers" / source.parent.name / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if len(list(target.parent.iterdir())) < 20:
            shutil.copy(source, target)
    (weights,) = (testdata / "weights").glob("mobilenet_2_5_128*.h5")
    text = run_notebook(tmp_path, monkeypatch, DATA=tmp_path / "flowers", WEIGHTS=weights, EPOCHS=1)
    assert "flowers: 80 pictures to train on, 20 held out" in text
