"""The house rules, held by a test: direction of imports, light imports, the public API."""

import ast
import importlib
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import keras_mobilenets

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "keras_mobilenets"
GOLDEN_API = Path(__file__).parent / "goldens" / "public_api.txt"

FLOORS = [  # imports run downwards only: a part may import what stands on a floor below, `utils`, and itself
    {"utils", "arguments", "pages"},
    {"layers"},
    {"graph", "serialization"},
    {"pixels"},
    {"tflite"},
    {"integer"},
    {"applications"},
    {"tasks"},
    {"quantization"},
    {"export"},
    {"interop", "data"},
    {"diagnosis", "training", "analysis", "loaders", "apps"},
    {"search"},
    {"cli"},
    {"__main__"},
]
MAY_IMPORT = {part: set().union(*FLOORS[:floor]) for floor, parts in enumerate(FLOORS) for part in parts}


@pytest.mark.skipif("KERAS_MOBILENETS_INSTALLED" not in os.environ, reason="of .ci/run: an editable install is fine")
def test_what_is_tested_is_what_is_installed():
    code = "import keras_mobilenets; print(keras_mobilenets.__file__)"
    for file in (keras_mobilenets.__file__, command(sys.executable, "-c", code).stdout):
        assert Path(file).parts[-3] == "site-packages"


def command(*arguments, **environment):
    environment = {**os.environ, **environment}
    return subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_downwards(path):
    part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write the import in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            assert not name.startswith("keras.src"), f"{path}:{node.lineno}: public Keras API only"
            root, *rest = name.split(".")
            if root == "keras_mobilenets" and part != "__init__" and rest:
                allowed = {part, "utils", "__version__", *MAY_IMPORT[part]}
                assert rest[0] in allowed, f"{path}:{node.lineno}: {part} must not import {rest[0]}"


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_files_and_functions_are_short(path):
    source = path.read_text()
    assert source.count("\n") <= 400
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            docstring = ast.get_docstring(node, clean=False) or ""
            statements = node.end_lineno - node.body[0].lineno + 1 - docstring.count("\n") - bool(docstring)
            assert statements <= 50, f"{path}:{node.lineno} {node.name}: {statements} lines"


HEAVY = ["tensorflow", "keras", "jax", "tensorflow_datasets", "tensorflow_model_optimization", "matplotlib", "sklearn"]


@pytest.mark.parametrize(
    "module", ["keras_mobilenets", "keras_mobilenets.cli", "keras_mobilenets.applications.variants"]
)
def test_light_imports(module):
    code = f"import sys, {module}; print(sorted(set({HEAVY}) & set(sys.modules)))"
    run = command(sys.executable, "-c", code)
    assert run.stdout.strip() == "[]", run.stdout + run.stderr


def test_files_load_where_keras_is_imported_first():
    """Every class that Keras can save, and no more than `import keras_mobilenets`."""
    found = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
        if "\n@keras.saving.register_keras_serializable" in path.read_text() and "bridge" not in path.name  # Keras 2's
    }
    code = "import sys, keras, keras_mobilenets; print(sorted(sys.modules))"
    run = command(sys.executable, "-c", code, TF_CPP_MIN_LOG_LEVEL="3")
    missing = found - set(ast.literal_eval(run.stdout))
    assert len(found) > 10 and not missing


def test_works_where_optional_packages_cannot_be_imported():
    absent = [
        "tensorflow_datasets",
        "tensorflow_model_optimization",
        "tf_keras",
        "pandas",
        "matplotlib",
        "sklearn",
        "jax",
        "torch",
    ]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent}))\n"
        "import keras_mobilenets as km\n"
        "model = km.MobileNet(input_shape=(32, 32, 3), alpha=0.25, weights=None, classes=2)\n"
        "print(len([getattr(km, name) for name in km.__all__]), model(km.layers.inline(model).input).shape)"
    )
    run = command(sys.executable, "-c", code, KERAS_BACKEND="tensorflow")
    assert run.stdout.strip() == f"{len(keras_mobilenets.__all__)} (None, 2)", run.stderr[-2000:]


def public_api():
    """Every public name with its stub's module: `keras_mobilenets.layers.inline`."""
    yield from (f"keras_mobilenets.{name}" for name in keras_mobilenets.__all__)
    for part in pkgutil.iter_modules(keras_mobilenets.__path__):
        if part.ispkg:
            module = importlib.import_module(f"keras_mobilenets.{part.name}")
            yield from (f"{module.__name__}.{name}" for name in getattr(module, "__all__", []))


def test_public_api_is_the_golden_list():
    """To change the public API, run `python tests/test_repository.py` and say so in CHANGELOG.md."""
    assert sorted(public_api()) == GOLDEN_API.read_text().splitlines()


@pytest.mark.needs("tf_keras")  # for the names of the tfmot bridge
def test_every_public_name_can_be_imported_and_has_a_docstring():
    for name in public_api():
        module, _, attribute = name.rpartition(".")
        value = getattr(importlib.import_module(module), attribute)
        if callable(value):
            assert value.__doc__, name


if __name__ == "__main__":
    GOLDEN_API.parent.mkdir(exist_ok=True)
    GOLDEN_API.write_text("\n".join(sorted(public_api())) + "\n")
