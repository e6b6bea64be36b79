"""What each rounding of a quantized model does: to the value at its place, and to the answers."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_mobilenets.diagnosis.simulation import Grid, Noise, Simulation, Values, as_array
from keras_mobilenets.graph import Node
from keras_mobilenets.quantization.operations import Operation
from keras_mobilenets.tasks import Task

Batch = tuple[Any, np.ndarray | None]
"""Images, and what is right of them if that is known."""


class Outcome:
    """What a model answers to all images, beside the float weights.

    Args:
        task: what the model is for; None where nobody knows.

    Attributes:
        noise: at the outputs.
        answers: one for each image; None where nobody knows what the outputs mean.
    """

    def __init__(self, task: Task | None) -> None:
        self.task = task
        self.noise = Noise()
        self.answers: list[Any] | None = None if task is None else []

    def add(self, exact: list[np.ndarray], outputs: list[np.ndarray]) -> None:
        """One batch of the outputs of the float weights and of the model's own."""
        for true, found in zip(exact, outputs, strict=True):
            self.noise.add(true.reshape(-1, 1), found.reshape(-1, 1))
        if self.task is not None and self.answers is not None:
            self.answers.extend(self.task.decode(outputs))


@dataclass
class Tally:
    """What was seen at one operation.

    Attributes:
        outcome: the model's answers when nothing else is quantized.
        alone: noise at its output when nothing else is quantized.
        whole: noise at its output in the quantized model.
        clipped, count: values outside the range, and all.
        low, high: per channel.
    """

    outcome: Outcome
    alone: Noise = field(default_factory=Noise)
    whole: Noise | None = None
    clipped: int = 0
    count: int = 0
    low: Any = np.inf
    high: Any = -np.inf

    def add(self, true: np.ndarray, alone: np.ndarray, whole: np.ndarray | None, grid: Grid | None) -> None:
        """One batch of the float value and of the two quantized ones."""
        axes = tuple(range(true.ndim - 1))
        self.alone.add(true, alone)
        if whole is not None:
            self.whole = self.whole or Noise()
            self.whole.add(true, whole)
        self.low, self.high = np.minimum(self.low, true.min(axes)), np.maximum(self.high, true.max(axes))
        self.count += true.size
        if grid is not None:
            outside = (true < grid.low - grid.step / 2) | (true > grid.high + grid.step / 2)
            self.clipped += int(outside.sum())


@dataclass
class Findings:
    """What `examine` found.

    Attributes:
        tallies: of each operation.
        exact: the float weights.
        quantized: the quantized model or file.
        outputs: those of the float weights, batch by batch.
    """

    tallies: dict[Operation, Tally]
    exact: Outcome
    quantized: Outcome
    outputs: list[list[np.ndarray]] = field(default_factory=list)


def examine(
    simulation: Simulation, batches: list[Batch], task: Task | None, progress: Callable[[int, int], None]
) -> Findings:
    """Runs the float model once, and from each of its operations on with that one alone quantized.

    Args:
        simulation: of the quantized model or file.
        batches: the data.
        task: what the model is for, if that is known.
        progress: called with (done, all).
    """
    found = Findings({site: Tally(Outcome(task)) for site in simulation.sites}, Outcome(task), Outcome(task))
    ends = {site.end: site for site in simulation.sites}
    done, total = 0, len(batches) * len(ends)
    for images, _ in batches:
        outputs, inner = simulation.measure(images)
        changed: dict[Operation, list[np.ndarray]] = {}
        values = simulation.inputs(images)
        for node, live in simulation.walk(values):
            site = ends.get(node)
            if site is None:
                continue
            alone = _alone(simulation, site, live)
            tally = found.tallies[site]
            tally.add(as_array(live[node]), as_array(alone), inner.get(site), simulation.grids.get(node))
            changed[site] = _rest(simulation, node, live, alone)
            done += 1
            progress(done, total)
        exact = simulation.results(values)
        found.outputs.append(exact)
        found.exact.add(exact, exact)
        found.quantized.add(exact, outputs)
        for site, with_this in changed.items():
            found.tallies[site].outcome.add(exact, with_this)
    return found


def attempt(simulation: Simulation, batches: list[Batch], found: Findings, on: Collection[Node]) -> Outcome:
    """What the model answers with some roundings on."""
    outcome = Outcome(found.exact.task)
    for (images, _), exact in zip(batches, found.outputs, strict=True):
        outcome.add(exact, simulation.outputs(images, on))
    return outcome


def _alone(simulation: Simulation, site: Operation, live: Values) -> Any:
    """The value of an operation that is quantized, computed from values that are not."""
    on, values = simulation.switches(site.nodes), ChainMap({}, live)
    for node in site.nodes:
        values[node] = simulation.run(node, values, on)
    return values[site.end]


def _rest(simulation: Simulation, node: Node, live: Values, value: Any) -> list[np.ndarray]:
    """The outputs of the float model with another value of one node."""
    changed: dict[Node, Any] = {node: value}
    values = ChainMap(changed, live)
    start = simulation.graph.nodes.index(node) + 1
    for later, dying in zip(simulation.graph.nodes[start:], simulation.dying[start:], strict=True):
        if not later.is_input:
            changed[later] = simulation.run(later, values, ())
        for dead in dying:
            changed.pop(dead, None)
    return simulation.results(values)
