"""From figures to words: which layer hurts, why, and what was measured to help."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from keras_mobilenets.diagnosis.one_by_one import Batch, Findings, Outcome, attempt
from keras_mobilenets.diagnosis.simulation import Grid, Simulation
from keras_mobilenets.graph import Node
from keras_mobilenets.quantization import FakeQuant, InputQuant, fake_quant_kernel
from keras_mobilenets.quantization.observers import Percentile
from keras_mobilenets.quantization.operations import Operation

CLIPPED = 1e-3  # a share of clipped values from which on clipping is named as the cause
WIDE = 8.0  # how many times wider than the median a channel is before it is named: the others have lost 3 bits
LOUD_DB = 6.0  # noise above that of the median layer from which on a layer stands out where no classes are known


@dataclass(frozen=True)
class Remedy:
    """Something that may help, and what it was measured to do.

    Attributes:
        what: in words.
        code: how.
        score: of the quantized model with it, simulated.
        gain: the same, less the simulated score without it.
    """

    what: str
    code: str
    score: float
    gain: float


@dataclass(frozen=True)
class Verdict:
    """What a user should know and do.

    Attributes:
        layer: that stands out; None if none does.
        headline: one or two sentences.
        details: more of them.
        remedies: measured, the best first.
    """

    layer: str | None
    headline: str
    details: tuple[str, ...]
    remedies: tuple[Remedy, ...]

    def __str__(self) -> str:
        return self.headline


class Judge:
    """Scores answers, and finds words for them.

    Args:
        simulation: of the quantized model or file.
        batches: the data.
        found: by `examine`.

    Attributes:
        metric: "accuracy", "agreement" or None.
        images: how many.
    """

    def __init__(self, simulation: Simulation, batches: list[Batch], found: Findings):
        self.simulation = simulation
        self.batches = batches
        self.found = found
        self.task = found.exact.task
        self.truth: np.ndarray | None = None
        self.images = sum(len(outputs[0]) for outputs in found.outputs)
        self.metric = None if self.task is None else "agreement"
        labels = [label for _, label in batches if label is not None]
        if self.task is not None and len(labels) == len(batches):
            self.metric, self.truth = "accuracy", np.concatenate(labels)

    def hits(self, outcome: Outcome) -> np.ndarray | None:
        """For each image how right the answer is or, where that is not known, how much it agrees with the float one."""
        exact = self.found.exact.answers
        if self.task is None or outcome.answers is None or exact is None:
            return None
        if self.truth is None:
            return self.task.agreement(outcome.answers, exact)
        return self.task.hits(outcome.answers, self.truth)

    def score(self, outcome: Outcome) -> float | None:
        """Share of right answers."""
        hits = self.hits(outcome)
        return None if hits is None else float(hits.mean())

    def cost(self, outcome: Outcome) -> tuple[float, float] | tuple[None, None]:
        """What is lost to the float weights, and its standard error over the images."""
        exact, hits = self.hits(self.found.exact), self.hits(outcome)
        if exact is None or hits is None:
            return None, None
        lost = exact - hits
        return float(lost.mean()), max(float(lost.std() / np.sqrt(len(lost))), 1.0 / len(lost))

    def harm(self, outcome: Outcome) -> tuple[float, float]:
        """What orders the layers: the cost where it is more than chance, then the noise at the outputs."""
        cost, error = self.cost(outcome)
        noise = outcome.noise.decibels
        measurable = cost is not None and error is not None and cost > 2 * error
        return cost if measurable else 0.0, -np.inf if noise is None else -noise  # type: ignore[return-value]

    def verdict(self, layers: Sequence[Any]) -> Verdict:
        """Names the layer that stands out, if one does, and tries what may help.

        Args:
            layers: a `LayerReport` for each operation.
        """
        ranking = sorted(layers, key=lambda layer: layer.rank)
        loud = [layer for layer in ranking if self._stands_out(layer, layers)]
        if not loud:
            return self._nothing_stands_out(ranking)
        worst = loud[0]
        site = self.simulation.sites[layers.index(worst)]
        by_kernel = self._is_kernel(site)
        why = self._why_kernel(worst, site) if by_kernel else _why_range(worst)
        remedies = sorted(self._remedies(site, worst, by_kernel), key=lambda one: -one.gain)
        details = [f"Why: {why}"]
        if len(loud) > 1:
            details.append(f"Next in line: {', '.join(f'{one.name} ({self._in_words(one)})' for one in loud[1:4])}.")
        details.append(self._as_a_whole())
        headline = f"Layer '{worst.name}' hurts most: quantized alone, it {self._in_words(worst, verb=True)}."
        if remedies and remedies[0].gain > 0:
            headline += f" {remedies[0].what}: {remedies[0].code} wins {_points(remedies[0].gain)} back."
        elif self.metric:
            headline += " Train quantization-aware, so that the weights adapt."
        return Verdict(worst.name, headline, tuple(details), tuple(remedies))

    def _stands_out(self, layer: Any, layers: Sequence[Any]) -> bool:
        if layer.cost is not None:
            return layer.cost - float(np.median([one.cost for one in layers])) > 2 * layer.cost_error
        known = [one.outputs_db for one in layers if one.outputs_db is not None]
        return layer.outputs_db is not None and layer.outputs_db < float(np.median(known)) - LOUD_DB

    def _nothing_stands_out(self, ranking: Sequence[Any]) -> Verdict:
        loudest = ", ".join(f"'{one.name}' ({_db(one.outputs_db)})" for one in ranking[:3])
        cost, error = self.cost(self.found.quantized)
        if cost is None or error is None:
            return Verdict(None, f"No layer stands out: the noisiest are {loudest}.", (self._as_a_whole(),), ())
        if cost > 2 * error:
            advice = "The loss is spread over many layers: train quantization-aware for a few epochs."
        elif cost > 0:
            advice = f"That is within the error of {self.images} images: more of them would tell."
        else:
            advice = "There is nothing to mend."
        headline = f"No layer stands out: none loses a measurable share of {self.metric} when it is quantized alone."
        noise = f"Most noise at the outputs comes from {loudest}; the fewer dB, the more."
        return Verdict(None, headline, (self._as_a_whole(), advice, noise), ())

    def _as_a_whole(self) -> str:
        cost, error = self.cost(self.found.quantized)
        noise = self.found.quantized.noise.decibels
        if cost is None or error is None:
            return "" if noise is None else f"All together leave {noise:.0f} dB at the outputs."
        if cost <= 0:
            return f"All layers together cost nothing that {self.images} images could show."
        return f"All layers together cost {_points(cost)} of {self.metric} (± {error * 100:.1f})."

    def _in_words(self, layer: Any, verb: bool = False) -> str:
        if layer.cost is None:
            return f"{'leaves ' if verb else ''}{layer.outputs_db or 0:.0f} dB at the outputs"
        points = _points(layer.cost)
        return f"costs {points} of {self.metric} (± {layer.cost_error * 100:.1f})" if verb else points

    def _is_kernel(self, site: Operation) -> bool:
        """Whether an operation's kernel does more harm than its range."""
        switches = self.simulation.switches(site.nodes)
        kernel = switches & {site.kernel}
        if not kernel or kernel == switches:
            return bool(kernel)
        ways = [self._try(on) for on in (kernel, switches - kernel)]
        of_kernel, of_range = ((self.cost(way)[0] or 0.0, float(np.sum(way.noise.error))) for way in ways)
        return of_kernel > of_range

    def _why_kernel(self, layer: Any, site: Operation) -> str:
        channel = (
            "" if layer.worst_channel is None else f", of channel {layer.worst_channel} {_db(layer.worst_channel_db)}"
        )
        coarse = "has one grid for all channels" if site.kernel in self.simulation.per_tensor else "is coarse"
        return f"its kernel {coarse}: {_db(layer.kernel_db)} are left{channel}."

    def _remedies(self, site: Operation, layer: Any, by_kernel: bool) -> list[Remedy]:
        if self.metric is None:
            return []
        everything = self.simulation.switches(self.simulation.graph.nodes)
        start = self.score(self._try(everything)) or 0.0

        def measured(what: str, code: str, off: set[Node]) -> Remedy:
            score = self.score(self._try(everything - off)) or 0.0
            return Remedy(what, code, score, score - start)

        if by_kernel:
            found = [measured("Keep it in float", _skip([layer.name]), {site.kernel})]  # type: ignore[arg-type]
            if site.kernel in self.simulation.per_tensor:
                with _replaced(self.simulation.kernels, site.kernel, self._per_channel(site.kernel)):
                    found.append(
                        measured("Give each channel a grid", "export_tflite(quantize_model(model), ...)", set())
                    )
            return found
        found = []
        if not isinstance(site.end.layer, InputQuant):
            readers = self._readers(site)
            off = self.simulation.switches(site.nodes) | {reader.kernel for reader in readers if reader.kernel}
            what = "Keep it and what reads it in float"
            found.append(measured(what, _skip([layer.name, *(reader.name for reader in readers)]), off))
        if isinstance(site.end.layer, FakeQuant) and site.end.layer.fixed_range is None:
            observer, grid = self._other_range(site, layer)
            with _replaced(self.simulation.grids, site.end, grid):
                name = site.end.inputs[0].name
                code = f"quantize_model(model, configs={{'{name}': QuantizeConfig(observer='{observer}')}})"
                what = "Give it a wider range" if observer == "min_max" else "Give it a narrower range"
                found.append(measured(what, code, set()))
        return found

    def _other_range(self, site: Operation, layer: Any) -> tuple[str, Grid]:
        bits = self.simulation.grids[site.end].bits  # type: ignore[union-attr]
        if (layer.saturation or 0.0) > CLIPPED:
            return "min_max", Grid(min(layer.seen_low, 0.0), max(layer.seen_high, 0.0), bits)
        ends = []
        for images, _ in self.batches:
            for node, live in self.simulation.walk(self.simulation.inputs(images)):
                if node is site.end:
                    ends.append([float(end) for end in Percentile().measure(ops.cast(live[node], "float32"))])
                    break
        low, high = np.mean(ends, 0)
        return "percentile", Grid(min(low, 0.0), max(high, 0.0, low + 1e-6), bits)

    def _readers(self, site: Operation) -> list[Operation]:
        """The operations that read the value of one, also through layers that only move it."""
        owner = {node: one for one in self.simulation.sites for node in one.nodes}
        found: dict[Operation, None] = {}
        pending = list(self.simulation.consumers[site.end])
        while pending:
            node = pending.pop(0)
            if node in owner:
                found[owner[node]] = None
            else:
                pending.extend(self.simulation.consumers[node])
        return list(found)

    def _per_channel(self, node: Node) -> list[tuple[Any, Any]]:
        (variable, _), *_ = self.simulation.kernels[node]
        return [(variable, fake_quant_kernel(ops.convert_to_tensor(variable), node.layer.kernel_axes))]

    def _try(self, on: set[Node]) -> Outcome:
        return attempt(self.simulation, self.batches, self.found, on)


@contextlib.contextmanager
def _replaced(entries: dict[Any, Any], key: Any, value: Any) -> Iterator[None]:
    """One entry of a dictionary is another one inside the block."""
    old, entries[key] = entries[key], value
    try:
        yield
    finally:
        entries[key] = old


def _why_range(layer: Any) -> str:
    if (layer.saturation or 0.0) > CLIPPED:
        return (
            f"its range, {layer.low:.3g} to {layer.high:.3g}, clips {layer.saturation:.1%} of the values, which reach "
            f"from {layer.seen_low:.3g} to {layer.seen_high:.3g}."
        )
    if layer.spread is not None and layer.spread >= WIDE:
        return (
            f"channel {layer.widest_channel} of its output is {layer.spread:.0f} times wider than the median channel, "
            f"and all share one step of {layer.step:.3g}."
        )
    return f"a step of {layer.step or 0:.3g} is coarse for its output: {_db(layer.alone_db)} are left."


def _skip(names: list[str]) -> str:
    plain = list(dict.fromkeys(name.split(" (")[0] for name in names))
    return f"quantize_model(model, skip={plain})"


def _points(share: float) -> str:
    return f"{share * 100:.1f} points"


def _db(value: float | None) -> str:
    return "no noise" if value is None else f"{value:.0f} dB"
