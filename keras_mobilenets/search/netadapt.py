"""NetAdapt: a network cut, step by step, to a latency on the device that it is for."""

from __future__ import annotations

import bisect
import dataclasses
import json
import os
import time
import warnings
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mobilenets.arguments import check_integers, check_numbers
from keras_mobilenets.export import conversion
from keras_mobilenets.search.latency import Chain, LatencyTable
from keras_mobilenets.search.measure import LATENCY
from keras_mobilenets.search.student import Student, copy_of
from keras_mobilenets.search.widths import Weights, weights_of
from keras_mobilenets.tasks import Classification, task_of
from keras_mobilenets.training import Checkpoint, fit, freeze_normalization
from keras_mobilenets.training.fitting import TrainingData
from keras_mobilenets.utils import atomic_path, locked, user_path

STATE_FILE, MODEL_FILE, PAGE_FILE, TRAINING = "netadapt.json", "adapted.keras", "netadapt.html", "training"
GRID = 8  # channels; `InvertedResidual` rounds expansions to it


@dataclasses.dataclass(frozen=True)
class Step:
    """A network on the way.

    Attributes:
        group: whose channels were cut, "" for the seed.
        width: that it got.
        widths: of all groups that are narrower than the seed's.
        latency_ms: by the table.
        accuracy: of the quantized file, on held-out pictures.
        candidates: what was fine-tuned for this step: group, width, latency and accuracy of each.
    """

    group: str
    width: int
    widths: dict[str, int]
    latency_ms: float
    accuracy: float
    candidates: tuple[Any, ...] = ()


def netadapt(
    model: keras.Model,
    data: TrainingData,
    *,
    target_latency_ms: float,
    folder: str | os.PathLike[str],
    table: LatencyTable | None = None,
    cut: float = 0.01,
    steps: int = 50,
    finalists: int | None = 4,
    epochs: int = 6,
    learning_rate: float | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> keras.Model:
    """Cuts a trained classifier to a latency in int8, by MobileNetV3's version of NetAdapt.

    In each step every group of channels that belong together (an expansion, a bottleneck with its residual partners, a
    pointwise convolution) makes a proposal: the largest width that takes at least `cut` of the seed's latency off by
    the table, which is the next edge of the measured staircase. Of each the channels with the largest norm stay. The
    proposals whose answers move least from the seed's for the time that they save are fine-tuned, learning from the
    seed as `distiller` has it, and the best of their quantized files is taken:

        min (accuracy lost) / (latency saved)

    At the target the network is fine-tuned for longer. `folder` holds all of it: the same call goes on after an
    interruption at any time, to the weights that it would have had, given `enable_op_determinism` and one machine.

    Args:
        model: from this package's builders or `build_classifier`, with one softmax; stays as it is.
        data: what to train on and, its held-out part, to choose by.
        target_latency_ms: of the network, by `table`; > 0.
        folder: of this run; holds adapted.keras, netadapt.html, the path and its weights.
        table: of latencies; by default latency.csv in `folder`, measured on this machine.
        cut: share of the seed's latency that a proposal saves at least, in (0, 1).
        steps: of a short fine-tuning, > 0.
        finalists: how many proposals are fine-tuned in a step, > 0; None for all, as in the paper.
        epochs: of the long fine-tuning, >= 0.
        learning_rate: of the short fine-tunings; that of the recipe "finetune" if None.
        tell: called with a line about each step.

    Returns:
        An ordinary model, which `table_rows` prints as rows of its builder's table.

    Raises:
        ValueError: an argument is out of its range, the model is none of these, no widths reach the target, or
            `folder` holds a run of another seed or with other arguments.
        LookupError: a device far away has to measure blocks first, see `LatencyTable`.

    Warns:
        UserWarning: no proposal saves `cut`, so that the path ends before the target.

    Reference:
        Yang et al., NetAdapt, arXiv:1804.03230; Howard et al., MobileNetV3, arXiv:1905.02244, section 4.2.

    Example:

    >>> adapted = netadapt(model, data, target_latency_ms=2, folder="runs/adapted")  # doctest: +SKIP
    """
    conversion.require_tensorflow()
    check_numbers("(0, inf)", target_latency_ms=target_latency_ms)
    check_numbers("(0, 1)", cut=cut)
    check_integers("(0, inf)", steps=steps)
    check_integers("(0, inf)", optional=True, finalists=finalists)
    check_integers("[0, inf)", epochs=epochs)
    task = task_of(model)
    if not isinstance(task, Classification):
        raise ValueError(f"`model` must be a classifier of one softmax. Received: {model.name!r}")
    folder = user_path(folder)
    with locked(folder):
        path = _Path(model, data, task, folder, LatencyTable(folder / LATENCY) if table is None else table)
        settings = {"cut": cut, "steps": steps, "finalists": finalists, "learning_rate": learning_rate}
        path.begin(settings, target_latency_ms, tell)
        while path.last.latency_ms > target_latency_ms and path.advance(tell):
            path.draw(target_latency_ms)
        return path.finish(epochs, target_latency_ms, tell)


@dataclasses.dataclass(frozen=True)
class Proposal:
    """One group made narrower.

    Attributes:
        group, width: which, and how wide it would be.
        latency_ms: of the whole network then.
    """

    group: str
    width: int
    latency_ms: float


def proposals(
    chain: Chain, table: LatencyTable, widths: Mapping[str, int], *, limit_ms: float, grid: int = GRID
) -> list[Proposal]:
    """Of each group the largest width, a multiple of `grid`, that brings the latency to `limit_ms`, if there is one."""
    channels, found = chain.channels, []
    for group, size in channels.sizes.items():
        now = widths.get(group, size)
        options = [
            {**widths, group: width}
            for width in range(grid, now, grid)
            if not channels.ambiguous({**widths, group: width})
        ]
        place = bisect.bisect_right(options, limit_ms, key=lambda one: table.sum(chain.blocks(one)))
        if place:
            chosen = options[place - 1]
            found.append(Proposal(group, chosen[group], table.sum(chain.blocks(chosen))))
    return found


class _Path:
    """The run in a folder: what was decided, and the weights after it."""

    def __init__(
        self, model: keras.Model, data: TrainingData, task: Classification, folder: Path, table: LatencyTable
    ) -> None:
        self.model, self.data, self.task, self.folder, self.table = model, data, task, folder, table
        self.chain = Chain(model)
        self.steps: list[Step] = []
        self.settings: dict[str, Any] = {}

    @property
    def last(self) -> Step:
        return self.steps[-1]

    def begin(self, settings: dict[str, Any], target: float, tell: Callable[[str], None]) -> None:
        """Reads what was done, or measures the seed."""
        learning_rate = settings["learning_rate"]
        settings = {**settings, "seed": _fingerprint(self.model), "device": self.table.processor}
        state = self.folder / STATE_FILE
        known = json.loads(state.read_text()) if state.exists() else None
        if known is not None and known["settings"] != settings:
            changed = [name for name in settings if known["settings"].get(name) != settings[name]]
            raise ValueError(f"{self.folder} holds a run with another {', '.join(changed)}: choose another folder")
        self.settings = settings
        smallest = {group: min(GRID, size) for group, size in self.chain.channels.sizes.items()}
        least = self.table.sum(self.chain.blocks(smallest))
        if least > target:
            raise ValueError(f"`target_latency_ms` must be at least {least:.4g}, of the narrowest network of this kind")
        self.student = Student(self.model, self.data, self.task, self.chain.channels, learning_rate)
        if known is not None:
            self.steps = [Step(**{**one, "candidates": tuple(one["candidates"])}) for one in known["steps"]]
            self.weights = _read(self.folder / f"step-{len(self.steps) - 1:03}.npz")
            return
        self.weights = weights_of(self.model)
        latency = self.table.sum(self.chain.blocks())
        self._note(Step("", 0, {}, latency, self.student.score(self.model)))
        tell(f"seed: {latency:.4g} ms, {self.task.headline} {self.last.accuracy:.1%} in 8 bits")

    def advance(self, tell: Callable[[str], None]) -> bool:
        """Takes the best proposal, if there is any."""
        began, now, number = time.monotonic(), self.last, len(self.steps)
        limit = now.latency_ms - self.settings["cut"] * self.steps[0].latency_ms
        found = proposals(self.chain, self.table, now.widths, limit_ms=limit)
        if not found:
            warnings.warn(f"No proposal saves {self.settings['cut']:g} of the seed's latency any more", stacklevel=3)
            return False
        before = self.student.divergence(self.weights)

        def loss_per_ms(one: Proposal) -> float:
            weights = self.student.cut({**now.widths, one.group: one.width}, self.weights)
            return (self.student.divergence(weights) - before) / (now.latency_ms - one.latency_ms)

        count = self.settings["finalists"]
        ranked = found if count is None or len(found) <= count else sorted(found, key=loss_per_ms)[:count]
        tried = [(one, *self._tried(one, number)) for one in ranked]
        best, accuracy, weights = min(
            tried, key=lambda one: (now.accuracy - one[1]) / (now.latency_ms - one[0].latency_ms)
        )
        candidates = tuple({**dataclasses.asdict(one), "accuracy": score} for one, score, _ in tried)
        self.weights = weights
        widths = {**now.widths, best.group: best.width}
        self._note(Step(best.group, best.width, widths, best.latency_ms, accuracy, candidates))
        for path in self.folder.glob("candidate-*.npz"):
            path.unlink()
        was = now.widths.get(best.group, self.chain.channels.sizes[best.group])
        tell(
            f"step {number}: {best.group} {was} to {best.width}, {best.latency_ms:.4g} ms, {self.task.headline} "
            f"{accuracy:.1%}, best of {len(tried)} of {len(found)}, {time.monotonic() - began:.0f} s"
        )
        return True

    def _tried(self, one: Proposal, number: int) -> tuple[float, Weights]:
        """Accuracy and weights after fine-tuning, which are kept until the step is decided."""
        path = self.folder / f"candidate-{number:03}-{one.group}-{one.width}.npz"
        widths = {**self.last.widths, one.group: one.width}
        if path.exists():
            weights = _read(path)
            return float(weights.pop("accuracy")[0]), weights
        weights = self.student.tuned(widths, self.weights, epoch=number, steps=self.settings["steps"])
        accuracy = self.student.score(self.chain.channels.narrowed(widths, weights))
        _write(path, {**weights, "accuracy": [np.array(accuracy)]})
        return accuracy, weights

    def _note(self, step: Step) -> None:
        """Writes a step down: weights first, so that a state without its weights cannot be."""
        _write(self.folder / f"step-{len(self.steps):03}.npz", self.weights)
        self.steps.append(step)
        content = {"settings": self.settings, "steps": [dataclasses.asdict(one) for one in self.steps]}
        with atomic_path(self.folder / STATE_FILE) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n")

    def finish(self, epochs: int, target: float, tell: Callable[[str], None]) -> keras.Model:
        """The narrower network, fine-tuned for longer, with its page."""
        adapted = self.chain.channels.narrowed(self.last.widths, self.weights)
        if epochs:
            freeze_normalization(adapted)
            checkpoint = Checkpoint(self.folder / TRAINING / f"{len(self.steps)}-{epochs}")
            rate = self.settings["learning_rate"]
            options: dict[str, Any] = {"epochs": epochs, "learning_rate": rate, "checkpoint": checkpoint, "verbose": 0}
            fit(adapted, self.data, task=self.task, recipe="finetune", teacher=copy_of(self.model), **options)
        accuracy = self.student.score(adapted)
        tell(f"done: {self.last.latency_ms:.4g} ms, {self.task.headline} {accuracy:.1%} in 8 bits")
        with atomic_path(self.folder / MODEL_FILE) as temporary:
            adapted.save(temporary)
        self.draw(target, adapted, accuracy)
        return adapted

    def draw(self, target: float, adapted: keras.Model | None = None, accuracy: float | None = None) -> None:
        """The page, also on the way."""
        from keras_mobilenets.search.page import write_page

        page = write_page(self.model.name, self.steps, target, self.table, adapted, accuracy)
        with atomic_path(self.folder / PAGE_FILE) as temporary:
            temporary.write_text(page)


def _fingerprint(model: keras.Model) -> int:
    """Of the seed's weights."""
    found = 0
    for array in model.get_weights():
        found = zlib.crc32(np.ascontiguousarray(array).tobytes(), found)
    return found


def _write(path: Path, weights: Weights) -> None:
    arrays: dict[str, Any] = {
        f"{name}/{place}": array for name, all_of in weights.items() for place, array in enumerate(all_of)
    }
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def _read(path: Path) -> Weights:
    found: Weights = {}
    with np.load(path) as file:
        for key in file.files:  # in the order in which they were written
            found.setdefault(key.rpartition("/")[0], []).append(file[key])
    return found
