"""What a training writes down while it runs, for programs to read."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import keras

from keras_mobilenets.arguments import check_integers
from keras_mobilenets.training.devices import process
from keras_mobilenets.utils import atomic_path, user_path


class JsonLines(keras.callbacks.Callback):
    """Appends a line of JSON after each epoch, and within epochs every some steps.

    `{"run": "float", "epoch": 1, "step": 100, "loss": 1.23, "accuracy": 0.5, "learning_rate": 0.001}`, epochs and steps
    counted from 1; the line of an epoch has no step. A run that goes on does not write a line twice.

    Args:
        path: the file.
        run: written into each line, so that several trainings can share the file.
        every: steps between two lines.

    Example:

    >>> log = JsonLines("log.jsonl", every=50)
    """

    def __init__(self, path: str | os.PathLike[str], *, run: str = "", every: int = 100) -> None:
        super().__init__()
        check_integers("(0, inf)", every=every)
        self.path = user_path(path)
        self.run = run
        self.every = every

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        lines = self.path.read_text().splitlines(keepends=True) if self.path.exists() else []
        if lines and not lines[-1].endswith("\n"):  # the process was killed while it wrote
            lines.pop()
            with atomic_path(self.path) as temporary:
                temporary.write_text("".join(lines))
        self._written = {_key(json.loads(line)) for line in lines}

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if (batch + 1) % self.every == 0:
            self._write({"run": self.run, "epoch": self._epoch, "step": batch + 1}, logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._write({"run": self.run, "epoch": epoch + 1}, logs)

    def _write(self, line: dict[str, Any], logs: dict[str, Any] | None) -> None:
        if process() or _key(line) in self._written:
            return
        line |= {name: float(value) for name, value in (logs or {}).items()}
        line["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def rows_of(history: keras.callbacks.History) -> list[dict[str, float]]:
    """What Keras notes by metric, epoch by epoch."""
    by_name = history.history
    return [dict(zip(by_name, map(float, values), strict=True)) for values in zip(*by_name.values(), strict=True)]


def history_of(model: keras.Model, rows: Sequence[dict[str, float]]) -> keras.callbacks.History:
    """Keras' record of a training, of what was noted epoch by epoch; `model.history` as after Keras' `fit`."""
    history = keras.callbacks.History()
    history.set_model(model)
    history.epoch = list(range(len(rows)))
    history.history = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
    model.history = history
    return history


def _key(line: dict[str, Any]) -> tuple[Any, ...]:
    return line["run"], line["epoch"], line.get("step")
