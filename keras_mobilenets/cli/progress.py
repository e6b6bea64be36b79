"""What a user sees while a run goes on: a bar that moves in a terminal, a line per epoch in a log."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

RECENT = 50  # steps over which the speed is taken

console = Console(highlight=False)


class EpochProgress(keras.callbacks.Callback):
    """Shows a training: step, speed, time to go; and each finished epoch in one line.

    Args:
        name: what is trained.
        batch_size: pictures in a step.
        headline: the task's figure to print.
    """

    def __init__(self, name: str, batch_size: int, headline: str) -> None:
        super().__init__()
        self.name = name
        self.batch_size = batch_size
        self.headline = headline
        self.bar = _bar()

    def on_train_begin(self, logs=None):
        epochs, steps = self.params["epochs"], self.params["steps"]
        self.bar = _bar()
        self.task = self.bar.add_task(self.name, total=epochs * steps, note="preparing the first step")
        self.bar.start()
        self.times: collections.deque[float] = collections.deque(maxlen=RECENT)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch, self.began = epoch, time.perf_counter()
        self.bar.update(self.task, completed=epoch * self.params["steps"])

    def on_train_batch_end(self, batch, logs=None):
        self.times.append(time.perf_counter())
        speed = (len(self.times) - 1) * self.batch_size / max(self.times[-1] - self.times[0], 1e-9)
        done = self.epoch * self.params["steps"] + batch + 1
        self.bar.update(self.task, completed=done, note=f"loss {logs['loss']:.3f}  {speed:,.0f} images/s")

    def on_epoch_end(self, epoch, logs=None):
        width = len(str(self.params["epochs"]))
        seconds = time.perf_counter() - self.began
        named = {self.headline: logs.get(self.headline), "held out": logs.get(f"val_{self.headline}")}
        figures = "".join(f"  {name} {value:6.1%}" for name, value in named.items() if value is not None)
        self.bar.console.print(
            f"  epoch {epoch + 1:>{width}}/{self.params['epochs']}  loss {logs['loss']:.3f}{figures}  {seconds:.1f} s"
        )

    def on_train_end(self, logs=None):
        self.close()

    def close(self) -> None:
        """Takes the bar away, also after an error."""
        self.bar.stop()


@contextmanager
def epochs(name: str, batch_size: int, headline: str) -> Iterator[EpochProgress]:
    """An `EpochProgress` that is closed however the training ends."""
    progress = EpochProgress(name, batch_size, headline)
    try:
        yield progress
    finally:
        progress.close()


@contextmanager
def counting(name: str) -> Iterator[Any]:
    """A bar for a known number of things: call what it gives with (done, all)."""
    bar = _bar()
    task = bar.add_task(name, total=None, note="")

    def count(done: int, total: int) -> None:
        bar.start()
        bar.update(task, completed=done, total=total)
        if done == total:  # others may follow before the block ends, and a terminal shows one at a time
            bar.stop()

    try:
        yield count
    finally:
        bar.stop()


def step(number: int, of: int, text: str) -> None:
    """The headline of one part of a job."""
    console.print(f"[bold cyan]{number}/{of}[/] [bold]{text}[/]")


def _bar() -> Progress:
    name, note = TextColumn("{task.description}"), TextColumn("{task.fields[note]}")
    columns = SpinnerColumn(), name, BarColumn(30), note, TimeRemainingColumn()
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
