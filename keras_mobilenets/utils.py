"""What every part of the package may use: whole files, folders of one process, extras that name themselves."""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


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


@contextlib.contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Keeps a folder for this process alone while the block runs, on this machine and where its file system says so.

    The operating system frees it when the process ends, however it ends. Where there are no such locks (Windows),
    nothing is held.

    Args:
        folder: is made if missing; a file `.lock` stays in it.

    Raises:
        BlockingIOError: another process, or another part of this one, has it; the message has its number.

    Example:

    >>> with locked("runs/one"):
    ...     pass
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield
        return
    with (folder / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            owner = file.read().strip() or "of unknown number"
            raise BlockingIOError(error.errno, f"{folder} is in use by process {owner}") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


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
