"""`keras-mobilenets app`: the programs it writes, without a network."""

from __future__ import annotations

import base64
import configparser
import hashlib
import importlib
import json
import re
from xml.etree import ElementTree

import keras
import pytest
import yaml
from runs import write_npm
from typer.testing import CliRunner

from keras_mobilenets.apps.runtime import FILES
from keras_mobilenets.apps.writing import TEMPLATES
from keras_mobilenets.cli import app
from keras_mobilenets.export import export_tflite


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A tiny classifier of cats and dogs in several forms."""
    folder = tmp_path_factory.mktemp("files")
    layers = [
        keras.layers.Rescaling(1 / 255),
        keras.layers.Conv2D(2, 8),
        keras.layers.Flatten(),
        keras.layers.Softmax(),
    ]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers], name="cat_or_dog")
    images = keras.random.uniform((4, 8, 8, 3), 0, 255, seed=0)
    forms = {"float": {}, "uint8": {"quantize": "int8"}, "int8": {"quantize": "int8", "input_dtype": "int8"}}
    for name, options in forms.items():
        calibration = {"calibration": images} if options else {}
        labels = ["cat", "<dog>"]
        export_tflite(model, folder / f"{name}.tflite", labels=labels, verbose=False, **options, **calibration)
    return folder


@pytest.fixture
def runtime(tmp_path):
    return write_npm(tmp_path / "npm")


def call(*arguments):
    result = CliRunner().invoke(app, ["app", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def contents(folder):
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("form", "mean", "std"), [("float", [0.0], [1.0]), ("uint8", None, None)])
def test_page(files, runtime, tmp_path, form, mean, std):
    page = tmp_path / "new" / "page"
    result = call("web", files / f"{form}.tflite", page, "--runtime", runtime, "--name", "<Pets> & co")
    assert result.exit_code == 0, result.output
    found = contents(page)
    assert {"index.html", "app.js", "tasks/classification.js", "worker.js", *(f"runtime/{one}" for one in FILES)} <= {
        *found
    }
    assert found["model.tflite"].read_bytes() == (files / f"{form}.tflite").read_bytes()
    about = json.loads(found["model.json"].read_text())
    # Rescaling is inside of the model: a float file takes pixels as numbers, an integer one as they are.
    assert (about["input"]["mean"], about["input"]["std"]) == (mean, std)
    assert about["labels"] == ["cat", "<dog>"] and about["task"] == "classification"
    html = found["index.html"].read_text()
    assert "<title>&lt;Pets&gt; &amp; co</title>" in html
    (script,) = re.findall('<script type="importmap">(.*?)</script>', html)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in html
    imported = json.loads(script)["imports"].values()
    assert all(path.removeprefix("./") in found for path in imported)
    for name, path in found.items():  # nothing is fetched from elsewhere; an SVG's name space is no address
        if name.endswith((".js", ".css", ".html", ".json", ".webmanifest", ".svg")):
            assert not re.search(r"(?<!xmlns=\")\bhttps?://", path.read_text()), name


def test_page_is_a_runtime_for_another(files, runtime, tmp_path):
    assert call("web", files / "uint8.tflite", tmp_path / "one", "--runtime", runtime).exit_code == 0
    assert call("web", files / "uint8.tflite", tmp_path / "two", "--runtime", tmp_path / "one").exit_code == 0


def without_npm(runtime, monkeypatch):
    monkeypatch.setenv("PATH", "")
    return []


def incomplete(runtime, monkeypatch):
    (runtime / "node_modules" / FILES[-1]).unlink()
    return ["--runtime", runtime]


def of_another_version(runtime, monkeypatch):
    (runtime / "node_modules" / "@litertjs" / "core" / "package.json").write_text('{"version": "1.0.0"}')
    return ["--runtime", runtime]


@pytest.mark.parametrize(
    ("form", "options", "message"),
    [
        ("uint8", without_npm, "npm, which brings the page's runtime, is not installed"),
        ("uint8", incomplete, f"has no {FILES[-1]}"),
        ("uint8", of_another_version, "'@litertjs/core': '1.0.0'"),
        (
            "int8",
            lambda runtime, _: ["--runtime", runtime],
            "LiteRT.js knows uint8, float32, int32, and this file takes int8",
        ),
    ],
)
def test_page_is_whole_or_not_there(files, runtime, tmp_path, monkeypatch, form, options, message):
    result = call("web", files / f"{form}.tflite", tmp_path / "page", *options(runtime, monkeypatch))
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())
    assert [path.name for path in tmp_path.iterdir()] == ["npm"]


def test_what_is_there_is_not_destroyed(files, runtime, tmp_path):
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "mine.txt").write_text("mine")
    result = call("web", files / "uint8.tflite", tmp_path / "page", "--runtime", runtime)
    assert result.exit_code == 1 and "mine.txt" in result.output
    assert [*contents(tmp_path / "page")] == ["mine.txt"]
    assert call("web", tmp_path / "page" / "mine.txt", tmp_path / "other").exit_code == 2


def test_service(files, tmp_path):
    assert call("pi", files / "int8.tflite", tmp_path / "service", "--name", "Pets").exit_code == 0
    found = contents(tmp_path / "service")
    assert {"service.py", "model.py", "task.py", "images.py", "pictures.service", "requirements.txt", "README.md"} <= {
        *found
    }
    for name in ("service.py", "model.py", "task.py", "images.py"):
        compile(found[name].read_text(), name, "exec")
    assert found["README.md"].read_text().startswith("# Pets\n")
    assert "classification of 2 classes, in pictures that it scales to 8 x 8 pixels." in found["README.md"].read_text()
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str
    unit.read_string(found["pictures.service"].read_text())
    assert unit["Service"]["Restart"] == "always" and unit["Service"]["ExecStart"].endswith("service.py")


@pytest.mark.parametrize(
    ("platform", "assets", "sources"),
    [("android", "app/src/main/assets", ["kt", "kts", "xml"]), ("ios", "App", ["swift"])],
)
def test_starts_of_apps(files, tmp_path, platform, assets, sources):
    """What can be checked without their tools: files where they belong, and sources that a parser understands."""
    folder = tmp_path / "phone"
    assert call(platform, files / "uint8.tflite", folder, "--name", 'Cats & "dogs"').exit_code == 0
    found = contents(folder)
    assert found[f"{assets}/model.tflite"].read_bytes() == (files / "uint8.tflite").read_bytes()
    assert found[f"{assets}/labels.txt"].read_text() == "cat\n<dog>\n"
    assert "Not tried" in found["README.md"].read_text()
    if platform == "ios":
        project = yaml.safe_load(found["project.yml"].read_text())
        properties = project["targets"]["Pictures"]["info"]["properties"]
        assert properties["CFBundleDisplayName"] == 'Cats & "dogs"'
    else:
        manifest = ElementTree.fromstring(found["app/src/main/AndroidManifest.xml"].read_text())
        label = "{http://schemas.android.com/apk/res/android}label"
        assert manifest.find("application").get(label) == 'Cats & "dogs"'
    kinds = [path for name, path in found.items() if name.rpartition(".")[2] in sources]
    assert len(kinds) >= 3
    assert call(platform, files / "int8.tflite", tmp_path / "other").exit_code == 1


@pytest.mark.needs("tree_sitter", "tree_sitter_kotlin", "tree_sitter_swift")
@pytest.mark.parametrize("language", ["kotlin", "swift"])
def test_sources_for_phones_parse(language):
    import tree_sitter

    grammar = importlib.import_module(f"tree_sitter_{language}")
    parser = tree_sitter.Parser(tree_sitter.Language(grammar.language()))
    endings = {"kotlin": (".kt", ".kts"), "swift": (".swift",)}[language]
    sources = [path for path in sorted(TEMPLATES.rglob("*")) if path.suffix in endings]
    assert len(sources) >= 3
    for path in sources:
        assert not parser.parse(path.read_bytes()).root_node.has_error, path
    assert parser.parse(b"fun func {{").root_node.has_error
