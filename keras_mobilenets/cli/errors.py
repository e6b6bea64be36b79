"""How a command ends that cannot do its work: one clear line and a code, no traceback of a library."""

from __future__ import annotations

import functools
import io
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

PACKAGE = Path(__file__).parent.parent
FAILED, INTERRUPTED, TERMINATED = 1, 130, 143  # the codes that shells give

errors = Console(stderr=True, highlight=False)


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Wraps a command: quiet libraries, and errors as their user should read them."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        _quieten()
        signal.signal(signal.SIGTERM, _terminate)
        try:
            function(*args, **kwargs)
        except KeyboardInterrupt:
            errors.print("\n[yellow]Stopped.[/] What was written is whole.")
            raise typer.Exit(INTERRUPTED) from None
        except (ValueError, OSError, ImportError, FloatingPointError, RuntimeError) as error:
            if not _is_ours(error):
                raise
            errors.print(f"[bold red]Error:[/] {_escape(error)}", soft_wrap=True)
            raise typer.Exit(FAILED) from None

    return wrapped


def _is_ours(error: BaseException) -> bool:
    """Whether this package found the mistake, or the machine did: else it is a defect, and its traceback helps."""
    if isinstance(error, OSError | FloatingPointError):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return Path(frames[-1].filename).is_relative_to(PACKAGE)


def _escape(error: BaseException) -> str:
    from rich.markup import escape

    return escape(str(error) or type(error).__name__)


def _quieten() -> None:
    """What TensorFlow and Keras say about themselves is for their developers; names of files need not be text."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for name in ("absl", "tensorflow", "jax"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(keras|tensorflow)(\.|$)")


def _terminate(signum: int, frame: Any) -> None:
    errors.print("\n[yellow]Terminated.[/] What was written is whole.")
    raise SystemExit(TERMINATED)
