"""LiteRT.js, which runs `.tflite` files in a browser: from npm's registry, or from a folder that has it."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

from keras_mobilenets.apps.writing import Folder
from keras_mobilenets.utils import user_path

PACKAGES = {"@litertjs/core": "2.5.3", "@litertjs/wasm-utils": "2.5.3"}
"""What is asked of npm: what the page was tested with."""
CORE = "@litertjs/core"
FILES = [
    *(f"{package}/{file}" for package in PACKAGES for file in ("package.json", "dist/index.js")),
    # For every browser; for those with relaxed SIMD, which are all current ones; and for those with a GPU besides.
    *(f"{CORE}/wasm/litert_wasm_{kind}internal.{end}" for kind in ("compat_", "", "jspi_") for end in ("js", "wasm")),
]
IMPORTS = {package: f"./runtime/{package}/dist/index.js" for package in PACKAGES}
"""Of the page's import map."""
DTYPES = ("uint8", "float32", "int32")
"""What LiteRT.js can hand to a model and take from it."""


def write_runtime(folder: Path, source: Folder | None) -> None:
    """Puts LiteRT.js into a folder, laid out as npm does.

    Args:
        folder: to make.
        source: a folder that npm installed `@litertjs/core` into, or the `runtime` of another page; None asks npm.

    Raises:
        FileNotFoundError: npm is not installed, or the folder has not what is needed.
        OSError: npm could not install it.
    """
    if source is not None:
        _copy(_packages_in(source), folder)
        return
    with tempfile.TemporaryDirectory() as scratch:
        _install(Path(scratch))
        _check(Path(scratch) / "node_modules", "What npm installed")
        _copy(Path(scratch) / "node_modules", folder)


def check_runtime(source: Folder | None) -> None:
    """Refuses at once what `write_runtime` would refuse, but for npm's own failures."""
    _npm() if source is None else _packages_in(source)


def _packages_in(source: Folder) -> Path:
    given = user_path(source)
    packages = next((one for one in (given / "node_modules", given / "runtime") if one.is_dir()), given)
    _check(packages, f"{source}")
    return packages


def _npm() -> str:
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError(
            "npm, which brings the page's runtime, is not installed. Install Node.js, or give --runtime FOLDER with "
            f"what `npm install {CORE}@{PACKAGES[CORE]}` made on another machine, or with another such page."
        )
    return npm


def _install(scratch: Path) -> None:
    wanted = [f"{package}@{version}" for package, version in PACKAGES.items()]
    options = ["--prefix", str(scratch), "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run([_npm(), "install", *options, *wanted], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:] or ["no reason given"]
        raise OSError(f"npm could not install {' '.join(wanted)}: {reason[0]}. Offline, give --runtime FOLDER.")


def _check(packages: Path, name: str) -> None:
    missing = [file for file in FILES if not (packages / file).is_file()]
    if missing:
        raise FileNotFoundError(f"{name} has no {missing[0]}. What `npm install {CORE}` makes is needed.")
    found = {package: json.loads((packages / package / "package.json").read_text())["version"] for package in PACKAGES}
    if found != PACKAGES:
        raise FileNotFoundError(f"{name} has {found}; the page was made for {PACKAGES}.")


def _copy(packages: Path, folder: Path) -> None:
    for file in FILES:
        target = folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(packages / file, target)
