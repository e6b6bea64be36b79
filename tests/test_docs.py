"""The pages in docs/: their code runs, their commands parse, their messages are ours, links lead somewhere."""

from __future__ import annotations

import ast
import re

import keras
import numpy as np
import pytest
import typer
import yaml
from documents import ROOT, blocks, commands, links, run
from PIL import Image

from keras_mobilenets import MobileNet
from keras_mobilenets.cli import app
from keras_mobilenets.training import devices

PAGES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))
WITH_COMMANDS = [*PAGES, "README.md", "applications/README.md"]
WITH_CODE = [page for page in PAGES if blocks(page, "python") and "tfmot" not in page]  # test_tfmot.py runs that one
# What needs the network or a large machine, made small. README.md's own test loads weights="imagenet".
INSTEAD = {
    'weights="imagenet"': "weights=None",
    "224": "32",
    "160": "32",
    '"MobileNetV2", classes': '"MobileNet", classes',
    '"MobileNetV2", **network': '"MobileNet", **network',
    "epochs=2": "epochs=1",
}


@pytest.fixture
def names(rng, tmp_path, monkeypatch):
    """What the pages take for granted: a model, images and labels, a folder of flowers, a file."""
    monkeypatch.chdir(tmp_path)
    pixels = rng.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    for number, picture in enumerate(pixels):
        path = tmp_path / "flowers" / ("rose" if number % 2 else "tulip") / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    Image.fromarray(pixels[0]).save("rose.jpg")
    images = pixels.astype("float32") / 127.5 - 1
    model = MobileNet((32, 32, 3), alpha=0.25, weights=None, classes=5)
    return {"keras": keras, "pixels": pixels, "images": images, "labels": np.arange(16) % 5, "model": model}


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_CODE)
def test_code_runs(page, names):
    if "deploying" in page:
        from keras_mobilenets import export_tflite

        images = names["images"]
        export_tflite(names["model"], "flowers.tflite", quantize="int8", calibration=images, labels=list("abcde"))
    assert run(page, names, INSTEAD) > 0


def parse(name, arguments):
    """Refuses unknown options, values of a wrong kind, missing and superfluous arguments; looks for no file."""
    command = typer.main.get_command(app).commands[name]
    arguments = list(arguments)
    while hasattr(command, "commands"):
        name = arguments.pop(0)
        command = command.commands[name]
    for parameter in command.params:
        parameter.callback = None
    command.make_context(name, arguments)


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_commands_parse(page):
    for name, *arguments in commands(page):
        parse(name, arguments)


def test_the_kubernetes_job_is_one_of_four_processes():
    service, job = yaml.safe_load_all(blocks("docs/scaling.md", "yaml")[0])
    pods = job["spec"]["template"]["spec"]
    (container,) = pods["containers"]
    given = {one["name"]: one["value"] for one in container["env"]}
    for index in range(job["spec"]["completions"]):
        found = devices.job({**given, "JOB_COMPLETION_INDEX": str(index)})
        assert found == devices.Job(f"{job['metadata']['name']}-0.{service['metadata']['name']}:12345", 4, index)
    assert pods["subdomain"] == service["metadata"]["name"] and given["KERAS_BACKEND"] == "jax"
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    name, *arguments = container["command"][1:]
    parse(name, arguments)


def test_wrong_commands_do_not_parse():
    assert sum(len(commands(page)) for page in WITH_COMMANDS) > 30
    for arguments in (["--wrong"], ["--max-size-mb", "two"], ["one too many"]):
        with pytest.raises(Exception, match="wrong|valid|too many"):
            parse("choose", arguments)


@pytest.mark.parametrize("page", [*WITH_COMMANDS, "CONTRIBUTING.md"])
def test_links_lead_somewhere(page):
    generated = ROOT / "docs" / "reference"
    missing = [target for target in links(page) if target.parent != generated and not target.exists()]
    assert not missing


def test_messages_are_the_packages_own():
    """What stands between two `…` of a message stands in the sources."""
    texts = set()
    for path in (ROOT / "keras_mobilenets").rglob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text()))
        texts.update(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
    messages = blocks("docs/troubleshooting.md", "text")
    assert len(messages) > 30
    for message in messages:
        for piece in filter(None, re.split(r"\s*…[.\s]*", message.strip())):
            assert any(piece.strip() in text for text in texts), f"{piece!r} of {message!r}"
