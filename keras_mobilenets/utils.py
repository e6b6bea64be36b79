"""What every part of the package may use: whole files, folders of one process, extras that name themselves."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

SHOWN = 4  # names in a message
STDERR = 2  # where native libraries write, whatever `sys.stderr` is


def user_path(path: str | os.PathLike[str]) -> Path:
    """A path as its user means it: with `~` for the home folder, which shells expand only where a word begins with it.

    Example:

    >>> user_path("~/model.tflite") == Path.home() / "model.tflite"
    True
    """
    return Path(os.path.expanduser(os.fspath(path)))


def output_path(path: str | os.PathLike[str], *, foreign: Callable[[Path], Sequence[str]] | None = None) -> Path:
    """Where an output goes, once it is known that nothing else is lost by writing it.

    Args:
        path: of a file, or of a folder. Symbolic links are followed: what they point to is written.
        foreign: what an old folder holds besides the output that a new one replaces; None for a file.

    Returns:
        The path, absolute, with `~` and links resolved.

    Raises:
        FileExistsError: a folder stands where a file shall be written or the other way round, a folder holds something
            foreign, or it is a device, a pipe or a socket.

    Example:

    >>> output_path("models/../model.tflite") == Path.cwd() / "model.tflite"
    True
    """
    found = Path(os.path.realpath(user_path(path)))
    if not os.path.lexists(found):
        return found
    if foreign is None and not found.is_file():
        kind = "a folder" if found.is_dir() else "not a regular file"
        raise FileExistsError(f"A file cannot take the place of {path}, which is {kind}. Choose another path.")
    if foreign is not None and not found.is_dir():
        raise FileExistsError(f"A folder cannot take the place of {path}, which is no folder. Choose another path.")
    if names := foreign(found) if foreign is not None else ():
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        raise FileExistsError(
            f"{path} holds {', '.join(map(repr, names[:SHOWN]))}{more}, which would be lost. Choose a new folder."
        )
    return found


@contextlib.contextmanager
def atomic_path(
    path: str | os.PathLike[str], *, foreign: Callable[[Path], Sequence[str]] | None = None
) -> Iterator[Path]:
    """Gives a temporary path beside `path`, which takes the place of `path` only when the block ends well.

    Whatever goes wrong inside (an exception, Ctrl-C, a full disk), the old file stays whole and nothing
    half-written is left behind. Missing parents are created, and what was there before passes on its mode.

    Args:
        path: where the finished file or folder shall be; see `output_path` for what it may not be.
        foreign: None where the block writes a file; where it makes a folder, as in `output_path`.

    Yields:
        The path to write to: on the same file system, with the same suffixes as `path`.

    Raises:
        OSError: `path` cannot be written, or something else would be lost.

    Example:

    >>> with atomic_path("model.tflite") as temporary:
    ...     _ = temporary.write_bytes(b"whole")
    """
    target = output_path(path, foreign=foreign)
    target.parent.mkdir(parents=True, exist_ok=True)
    # A folder of our own beside the target: the inner file keeps its whole name, which some writers insist on.
    prefix = f".{target.name[:40]}."
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=prefix, ignore_cleanup_errors=True) as folder:
        temporary = Path(folder) / target.name
        yield temporary
        output_path(target, foreign=foreign)  # once more: the work may have taken hours
        if temporary.is_file():
            with temporary.open("rb") as file:
                os.fsync(file.fileno())  # or a power cut after the rename could leave an empty file
        if target.exists():
            temporary.chmod(stat.S_IMODE(target.stat().st_mode))
        if foreign is None or not target.exists():
            os.replace(temporary, target)
        else:
            _exchange(temporary, target)


def _exchange(new: Path, old: Path) -> None:
    """Puts a folder in the place of another, which cannot be done in one step where it holds files."""
    aside = new.with_name(f"{new.name}.old")
    os.replace(old, aside)
    try:
        os.replace(new, old)
    except BaseException:
        os.replace(aside, old)
        raise


@contextlib.contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Keeps a folder for this process alone while the block runs; the operating system frees it when that ends.

    Args:
        folder: is made if missing; a file `.lock` stays in it.

    Raises:
        BlockingIOError: another process, or another part of this one, has it.

    Example:

    >>> with locked("runs/one"):
    ...     pass
    """
    import filelock

    folder = user_path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise BlockingIOError(errno.EAGAIN, f"{folder} is in use by another process") from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def quiet(*, even_if_it_fails: bool = False) -> Iterator[None]:
    """Holds back what native libraries write to stderr, and gives it out only if the block fails, if at all.

    For their imports and first calls: TensorFlow and LiteRT report CPU features and missing GPUs there, and no
    setting of theirs stops them.
    """
    try:
        original = os.dup(STDERR)
    except OSError:  # closed, as in a program without a terminal
        yield
        return
    with tempfile.TemporaryFile() as held:
        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(held.fileno(), STDERR)
        try:
            yield
        except BaseException:
            if not even_if_it_fails:
                held.seek(0)
                os.write(original, held.read())
            raise
        finally:
            os.dup2(original, STDERR)
            os.close(original)


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
