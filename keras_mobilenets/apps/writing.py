"""Fills in the templates of a program: whole folders, or none."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_mobilenets.utils import atomic_path, require

Folder = str | os.PathLike[str]
TEMPLATES = Path(__file__).parent / "templates"
FILLED = ".jinja"  # a template ends in it; every other file is copied as it is


def as_json(value: Any) -> str:
    """Text that says the same everywhere."""
    return json.dumps(value, ensure_ascii=False) + "\n"


@contextlib.contextmanager
def new_folder(output: Folder) -> Iterator[Path]:
    """A folder that is there when the block ends well, and else not at all.

    Raises:
        FileExistsError: there is something at its place that is not an empty folder.
    """
    with atomic_path(output, foreign=lambda found: sorted(os.listdir(found))) as folder:
        folder.mkdir()
        yield folder


def fill(template: str, folder: Path, **values: Any) -> None:
    """Copies the templates of a program into a folder, those that end in `.jinja` filled in.

    Args:
        template: name of its folder beside this module.
        folder: where they go.
        values: by the names that the templates know.
    """
    jinja2 = require("jinja2", "all")
    source = TEMPLATES / template
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(source),
        autoescape=lambda name: name.endswith(".html" + FILLED),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    for path in sorted(source.rglob("*")):
        inner = path.relative_to(source)
        if path.is_file():
            target = folder / inner.parent / inner.name.removesuffix(FILLED)
            target.parent.mkdir(parents=True, exist_ok=True)
            filled = inner.name.endswith(FILLED)
            content = environment.get_template(inner.as_posix()).render(**values).encode() if filled else b""
            target.write_bytes(content if filled else path.read_bytes())
