"""What a `.keras` file is for, written into it: its form alone does not tell everything. Needs no Keras."""

from __future__ import annotations

import dataclasses
import json
import os
import typing
import zipfile
from typing import Any

from keras_mobilenets.tasks.known import TASKS
from keras_mobilenets.tasks.task import Task

ENTRY = "task.json"  # Keras passes over what it does not know


def write_task(path: str | os.PathLike[str], task: Task) -> None:
    """Adds to a `.keras` file what its model is for."""
    content = {"task": task.name, **dataclasses.asdict(task)}  # type: ignore[call-overload]
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(ENTRY, json.dumps(content))


def saved_task(path: str | os.PathLike[str]) -> Task | None:
    """What the model in a file is for, if the file says it."""
    try:
        with zipfile.ZipFile(path) as file:
            content = json.loads(file.read(ENTRY))
    except (KeyError, zipfile.BadZipFile, OSError):
        return None
    cls = TASKS.get(content.pop("task"))
    return None if cls is None else _restored(cls, content)


def _restored(cls: Any, content: dict[str, Any]) -> Any:
    """The dataclass of what `asdict` and JSON made of it."""
    kinds = typing.get_type_hints(cls)
    known = {name: value for name, value in content.items() if name in kinds}
    return cls(**{name: _value(kinds[name], value) for name, value in known.items()})


def _value(kind: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return _restored(kind, value)
    return tuple(_value(None, one) for one in value) if isinstance(value, list) else value
