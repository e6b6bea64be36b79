"""What every part of the package may use: whole files, and extras that name themselves when they are missing."""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Gives a temporary path beside `path`, which takes the place of `path` only when the block ends well.

    Whatever goes wrong inside (an exception, Ctrl-C, a full disk), the old file stays whole and nothing
    half-written is left behind. The block may write a file or make a folder; missing parents are created.

    Args:
        path: where the finished file or folder shall be.

    Yields:
        The path to write to: on the same file system, with the same suffixes as `path`.

    Raises:
        OSError: `path` cannot be written.

    Example:

    >>> with atomic_path("model.tflite") as temporary:
    ...     _ = temporary.write_bytes(b"whole")
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A folder of our own beside the target: the inner file keeps its whole name, which some writers insist on.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.", ignore_cleanup_errors=True) as folder:
        temporary = Path(folder) / path.name
        yield temporary
        if temporary.is_file():
            with temporary.open("rb") as file:
                os.fsync(file.fileno())  # or a power cut after the rename could leave an empty file
        elif path.is_dir():
            os.replace(path, Path(folder) / "previous")  # a folder that holds files cannot be replaced in one step
        os.replace(temporary, path)


def require(module: str, extra: str) -> ModuleType:
    """Imports a module that an optional extra of the package brings.

    Args:
        module: name of the module, for instance `"tensorflow_model_optimization"`.
        extra: the extra that installs it, for instance `"tfmot"`.

    Returns:
        The imported module.

    Raises:
        ImportError: it is not installed; the message is the command that installs it.

    Example:

    >>> require("json", "tfmot").dumps([1])
    '[1]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise  # installed, but something that it needs is missing: its own message says more
        message = f"This needs `{module}`, which is not installed: pip install 'keras_mobilenets[{extra}]'"
        raise ImportError(message, name=module) from error
