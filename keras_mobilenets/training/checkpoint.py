"""Checkpoints from which a run goes on as if it had never stopped."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mobilenets.arguments import check_integers
from keras_mobilenets.layers.replicas import processes
from keras_mobilenets.training.compiling import trained_part
from keras_mobilenets.training.devices import agree, gathered, process
from keras_mobilenets.utils import atomic_path, locked, user_path

BEST_FILE = "best.json"
HISTORY = "history"
HALF_WRITTEN = (".[0-9]*-[0-9]*.npz.*", f".{BEST_FILE}.*")  # what `atomic_path` writes to
STEPS_TOGETHER = 8  # between two in which several processes ask each other whether one was told to end


class Checkpoint(keras.callbacks.Callback):
    """Saves all that training changes, within epochs and after them, each time as one whole file.

    Weights, moving averages and ranges, the optimizer with its schedule and its average of the weights, the states of
    random layers, the epoch's metrics so far, and the position in the data: a run that was killed anywhere goes on
    from the newest file to the weights that it would have had. A file appears under its name only when it is whole:
    kills, power cuts and full disks leave the earlier ones as they were.

    Give it to `keras_mobilenets.training.fit`, which restores it. While that runs, nobody else can use the folder, and
    SIGTERM or Ctrl-C end it after the step that is being done, and after saving; a second one ends it at once. Of a job
    of several processes all end together, a few steps after any of them was told to.

    Args:
        folder: where the checkpoints are, one sub-folder per training run.
        keep: how many of the newest are kept, and the best besides.
        every: steps between two of them in an epoch, beside those after its last step and after its evaluation.
        monitor: the best epoch is the one with the highest of this; lowest, if it is a loss. None for what `fit` knows
            to be the task's headline, as "val_accuracy". Where the held-out pictures say nothing of it, "val_loss" is.

    Raises:
        ValueError: `keep` or `every` is not positive.

    Example:

    >>> history = fit(model, data, checkpoint=Checkpoint("run/checkpoints"))  # doctest: +SKIP
    """

    def __init__(
        self, folder: str | os.PathLike[str], *, keep: int = 2, every: int = 1000, monitor: str | None = None
    ) -> None:
        super().__init__()
        check_integers("(0, inf)", keep=keep, every=every)
        self.folder = user_path(folder)
        self.keep = keep
        self.every = every
        self.monitor = monitor
        self.history: list[dict[str, float]] = []
        self.epoch, self.step = 0, 0  # done: epochs, and steps of the next one
        self._resumed: dict[str, np.ndarray] | None = None  # the metrics of an epoch that was interrupted
        self._asked_to_stop = 0  # the signal's number
        self._handlers: dict[int, Any] = {}

    def restore(self, model: keras.Model, *, best: bool = False) -> tuple[int, int]:
        """Puts the newest whole checkpoint into a compiled model.

        Args:
            model: built and compiled exactly as the one that was saved.
            best: take the one of the best epoch instead, with the weights that it was evaluated with.

        Returns:
            How many epochs are done, and how many steps of the next one: (0, 0) without a checkpoint.

        Raises:
            ValueError: the checkpoint is another model's.
        """
        names = [json.loads((self.folder / BEST_FILE).read_text())["file"]] if best else []
        for path in [self.folder / name for name in names] or reversed(self._paths()):
            try:
                with np.load(path) as file:
                    saved = dict(file)
            except (OSError, ValueError, EOFError, zipfile.BadZipFile):
                continue  # a disk error: the one before it will do
            metrics = {name: saved.pop(name) for name in list(saved) if name.startswith("metrics/")}
            self.history = json.loads(str(saved.pop(HISTORY)))
            _assign(_variables(model), saved, path)
            self.epoch, self.step = _position(path)
            self._resumed = metrics if self.step else None
            if best and model.optimizer.use_ema:
                model.optimizer.finalize_variable_values(model.trainable_variables)
            break
        agree((self.epoch, self.step))
        return self.epoch, self.step

    def position(self) -> tuple[int, int]:
        """Epochs that are done by the newest checkpoint, and steps of the next one, read off its name."""
        paths = self._paths()
        return _position(paths[-1]) if paths else (0, 0)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Has the folder for this process alone, and saves before a signal ends it, while the block runs."""
        first = process() == 0
        with locked(self.folder) if first else contextlib.nullcontext():
            # Of a process that was killed while it wrote:
            for left_over in itertools.chain.from_iterable(map(self.folder.glob, HALF_WRITTEN)) if first else ():
                shutil.rmtree(left_over, ignore_errors=True)
            if threading.current_thread() is threading.main_thread():
                heard = [one for one in (signal.SIGTERM, signal.SIGINT) if signal.getsignal(one) != signal.SIG_IGN]
                self._handlers = {one: signal.signal(one, self._ask) for one in heard}
            try:
                yield
            finally:
                self._restore_handlers()
            self._stop(self._signal())  # after the last step, too

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epoch = epoch
        if self._resumed is not None:
            _assign(_metrics(self.model), self._resumed, self.folder)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self._resumed is not None:
            self._resumed = None
            self._pass_over(self.step)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if batch < self.step:
            return  # done before the interruption
        self.step = batch + 1
        signum = self._signal(self.step)
        if signum or self.step % self.every == 0 or self.step == self.params["steps"]:
            self._save()
        self._stop(signum)

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._stop(self._signal(batch))  # saved after the last step of training

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.history = [*self.history[:epoch], {name: float(value) for name, value in (logs or {}).items()}]
        self.epoch, self.step = epoch + 1, 0
        self._save()
        self._stop(self._signal())

    def _pass_over(self, steps: int) -> None:
        """Lets `fit` count the steps that were done before the interruption, and not do them again."""
        model, do_step = self.model, self.model.train_function
        logs = model.get_metrics_result()
        counted = 0

        def step(*arguments: Any) -> Any:
            nonlocal counted
            if counted == steps:
                model.train_function = do_step
                return do_step(*arguments)
            counted += 1
            return (logs, arguments[0]) if keras.backend.backend() == "jax" else logs  # there with the whole state

        model.train_function = step

    def _save(self) -> None:
        if process():
            return  # of several processes the first writes
        variables = _variables(self.model) | (_metrics(self.model) if self.step else {})
        arrays: dict[str, Any] = {name: keras.ops.convert_to_numpy(one) for name, one in variables.items()}
        arrays[HISTORY] = np.array(json.dumps(self.history))
        path = self.folder / f"{self.epoch:05}-{self.step:08}.npz"
        try:
            with atomic_path(path) as temporary:
                np.savez(temporary, **arrays)
            best = self._mark_best()
        except OSError as error:
            message = f"{error.strerror or error}: {path} could not be written. The checkpoints before it are whole"
            raise OSError(error.errno, message) from error
        for old in self._paths()[: -self.keep]:
            if old.name != best:
                old.unlink()

    def _mark_best(self) -> str | None:
        """Notes the best epoch's file, and gives its name."""
        told = (one for one in (str(self.monitor), "val_loss") if all(one in logs for logs in self.history))
        name = next(told, None)
        if name is None or not self.history:
            return None
        scores = [logs[name] for logs in self.history]
        best = min(scores) if name.endswith("loss") else max(scores)
        epoch = scores.index(best) + 1
        file = f"{epoch:05}-{0:08}.npz"
        if epoch == self.epoch and not self.step:
            with atomic_path(self.folder / BEST_FILE) as temporary:
                temporary.write_text(json.dumps({"file": file, "epoch": epoch, name: best}) + "\n")
        return file

    def _ask(self, signum: int, frame: Any) -> None:
        self._asked_to_stop = signum
        self._restore_handlers()  # a second signal is not waited for

    def _signal(self, step: int = 0) -> int:
        """The signal that this process was sent, or another one of its job: they ask each other in the same steps."""
        return int(gathered(self._asked_to_stop).max()) if step % STEPS_TOGETHER == 0 or processes() == 1 else 0

    def _stop(self, signum: int) -> None:
        if signum:
            self._asked_to_stop = 0
            self._restore_handlers()
            signal.raise_signal(signum)

    def _restore_handlers(self) -> None:
        for one, handler in self._handlers.items():
            signal.signal(one, handler)
        self._handlers = {}

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("[0-9]*-[0-9]*.npz"))


def _position(path: Path) -> tuple[int, int]:
    epoch, step = path.stem.split("-")
    return int(epoch), int(step)


def _variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Everything that training changes: weights, moving averages, states of random layers, the optimizer's own."""
    model.optimizer.build(model.trainable_variables)
    return _numbered(model=trained_part(model).variables, optimizer=model.optimizer.variables)


def _metrics(model: keras.Model) -> dict[str, keras.Variable]:
    """The sums of the epoch so far."""
    return _numbered(metrics=[variable for metric in model.metrics for variable in metric.variables])


def _numbered(**variables: list[keras.Variable]) -> dict[str, keras.Variable]:
    # Paths need not be unique, and the order is the model's.
    return {f"{kind}/{index}": one for kind, some in variables.items() for index, one in enumerate(some)}


def _assign(variables: dict[str, keras.Variable], saved: dict[str, np.ndarray], path: Path) -> None:
    if set(variables) != set(saved):
        raise ValueError(
            f"{path} is the checkpoint of another model or optimizer: it holds {len(saved)} arrays, "
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
