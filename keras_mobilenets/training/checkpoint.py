"""Checkpoints from which a run goes on as if it had never stopped."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mobilenets.utils import atomic_path


class Checkpoint(keras.callbacks.Callback):
    """Saves weights, optimizer and history after each epoch, each time as one whole file.

    A file appears under its name only when it is complete: power cut, Ctrl-C and a full disk leave the earlier ones
    as they were. Give it to `keras_mobilenets.training.fit`, which restores it, or to Keras' own `fit` after
    `restore`.

    Args:
        folder: where the checkpoints are, one sub-folder per training run.
        keep: how many of the newest are kept.

    Example:

    >>> checkpoint = Checkpoint("run/checkpoints")  # doctest: +SKIP
    >>> first = checkpoint.restore(model)  # doctest: +SKIP
    >>> model.fit(data, initial_epoch=first, epochs=50, callbacks=[checkpoint])  # doctest: +SKIP
    """

    def __init__(self, folder: str | os.PathLike[str], *, keep: int = 2) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.keep = keep
        self.history: list[dict[str, float]] = []

    def restore(self, model: keras.Model) -> int:
        """Puts the newest whole checkpoint into a compiled model.

        Args:
            model: built and compiled exactly as the one that was saved.

        Returns:
            How many epochs are done: 0 without a checkpoint.

        Raises:
            ValueError: the checkpoint is another model's.
        """
        for path in reversed(self._paths()):
            try:
                with np.load(path) as file:
                    saved = dict(file)
            except (OSError, ValueError, EOFError, zipfile.BadZipFile):
                continue  # not written by `atomic_path`, or a disk error: the one before it will do
            _assign(_variables(model), saved, path)
            self.history = json.loads(str(saved["history"]))
            return len(self.history)
        return 0

    def epochs_done(self) -> int:
        """How many epochs the newest checkpoint holds, read off its name."""
        paths = self._paths()
        return int(paths[-1].stem.removeprefix("epoch-")) if paths else 0

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.history = [*self.history[:epoch], {name: float(value) for name, value in (logs or {}).items()}]
        arrays: dict[str, Any] = {name: keras.ops.convert_to_numpy(v) for name, v in _variables(self.model).items()}
        with atomic_path(self.folder / f"epoch-{epoch + 1:05}.npz") as path:
            np.savez(path, history=np.array(json.dumps(self.history)), **arrays)
        for old in self._paths()[: -self.keep]:
            old.unlink()

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("epoch-*.npz"))


def _variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Everything that training changes: weights, moving averages, states of random layers, the optimizer's own."""
    model.optimizer.build(model.trainable_variables)
    both = {"model": model.variables, "optimizer": model.optimizer.variables}
    # Numbered: paths need not be unique, and the order is the model's.
    return {f"{kind}/{index}": v for kind, variables in both.items() for index, v in enumerate(variables)}


def _assign(variables: dict[str, keras.Variable], saved: dict[str, np.ndarray], path: Path) -> None:
    if set(variables) != set(saved) - {"history"}:
        raise ValueError(
            f"{path} is the checkpoint of another model or optimizer: it holds {len(saved) - 1} arrays, "
            f"the model and its optimizer have {len(variables)}"
        )
    for name, variable in variables.items():
        if tuple(variable.shape) != saved[name].shape:
            raise ValueError(
                f"{path} is the checkpoint of another model: {variable.path} has shape {tuple(variable.shape)}, "
                f"the file {saved[name].shape}"
            )
    for name, variable in variables.items():
        variable.assign(saved[name])
