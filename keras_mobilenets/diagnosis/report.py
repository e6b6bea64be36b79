"""Which layer hurts: a quantized model or file beside the float model, layer by layer."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from keras_mobilenets.diagnosis.matching import FileSimulation
from keras_mobilenets.diagnosis.one_by_one import Batch, Findings, Outcome, Tally, examine
from keras_mobilenets.diagnosis.simulation import Simulation, as_array
from keras_mobilenets.diagnosis.verdict import Judge, Verdict
from keras_mobilenets.export.samples import labelled_batches
from keras_mobilenets.layers import inline
from keras_mobilenets.quantization import FakeQuant, InputQuant, is_quantized, strip_quantization
from keras_mobilenets.quantization.operations import Operation
from keras_mobilenets.tasks import Task, task_of
from keras_mobilenets.tflite.file import read_bytes
from keras_mobilenets.utils import atomic_path, user_path

BATCH = 32  # a few dozen feature maps of so many images are alive at once: 1 GB for MobileNetV2 1.0 at 224 pixels


@dataclass(frozen=True)
class LayerReport:
    """What quantization does to one layer, and through it to the answers.

    A layer stands for all that becomes one integer operation: convolution, normalization and activation together.
    Signal-to-quantization-noise ratios are `10 log10(sum(x**2) / sum((x - quantized x)**2))` in dB, larger is better,
    6 dB are one bit; None where there is nothing to measure, or no noise at all.

    Attributes:
        name: of the layer, as `skip` of `quantize_model` takes it.
        kind: its class.
        low, high: the range that its output is rounded to; None where it is not rounded.
        step: of the output's grid.
        seen_low, seen_high: the values of the float model.
        saturation: share of the values that the range clips; None without a range.
        widest_channel, spread: the output channel with the widest values, and how many times wider it is than the
            median channel. With one grid for all, the others are left with a part of its steps.
        kernel_db: of the kernel's values.
        worst_channel, worst_channel_db: the output channel whose kernel suffers most.
        alone_db: of the output, with this layer alone quantized: how coarse it is.
        whole_db: of the output in the quantized model: what has built up until there.
        outputs_db: of the model's outputs, with this layer alone quantized.
        cost: what quantizing this layer alone loses of the report's score, as a share: 0.01 is one point; None for a
            model that gives no class scores.
        cost_error: standard error of `cost`.
        rank: 1 for the layer that hurts most: by `cost` where it is twice its error or more, then by `outputs_db`.
    """

    name: str
    kind: str
    low: float | None
    high: float | None
    step: float | None
    seen_low: float
    seen_high: float
    saturation: float | None
    widest_channel: int
    spread: float | None
    kernel_db: float | None
    worst_channel: int | None
    worst_channel_db: float | None
    alone_db: float | None
    whole_db: float | None
    outputs_db: float | None
    cost: float | None
    cost_error: float | None
    rank: int


@dataclass(frozen=True)
class QuantizationReport:
    """A quantized model or file beside the float model; from `quantization_report`.

    Attributes:
        name: of the model.
        source: of what is quantized: a model's name or a file's.
        images: how many were looked at.
        metric: "accuracy" where labels were given, else "agreement" with the float model; None for a model that gives
            no class scores.
        scores: the metric of "float", the given model; "float weights", the weights that were quantized, without
            rounding; and "quantized".
        outputs_db: signal-to-quantization-noise ratio of the quantized model's outputs.
        verdict: what to do.
        layers: in the order in which they run.
        missing: layers of the model that were not found in the file.
    """

    name: str
    source: str
    images: int
    metric: str | None
    scores: dict[str, float]
    outputs_db: float | None
    verdict: Verdict
    layers: tuple[LayerReport, ...]
    missing: tuple[str, ...]

    @property
    def ranking(self) -> list[LayerReport]:
        """The layers, that which hurts most first."""
        return sorted(self.layers, key=lambda layer: layer.rank)

    def rows(self) -> list[dict[str, Any]]:
        """A dictionary for each layer, in the order in which they run."""
        return [dataclasses.asdict(layer) for layer in self.layers]

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON takes them."""
        return dataclasses.asdict(self)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes one self-contained HTML page with the verdict, the plots and the table.

        Args:
            path: the file to write, `.html`.

        Returns:
            The same path.
        """
        from keras_mobilenets.diagnosis.page import write_page

        with atomic_path(path) as temporary:
            temporary.write_text(write_page(self), encoding="utf-8")
        return user_path(path)

    def __rich__(self) -> Table:
        table = Table(
            title=f"{self.source}: {self.verdict}", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
        )
        table.add_column("layer", overflow="fold", min_width=16)
        for name in ("range", "clipped", "kernel", "alone", "whole", "cost"):
            table.add_column(name, justify="right", no_wrap=True)
        for layer in self.layers:
            table.add_row(
                f"[bold red]{layer.name}[/]" if layer.name == self.verdict.layer else layer.name,
                "" if layer.low is None else f"{layer.low:.3g} .. {layer.high:.3g}",
                "" if not layer.saturation else f"{layer.saturation:.2%}",
                *("" if one is None else f"{one:.0f} dB" for one in (layer.kernel_db, layer.alone_db, layer.whole_db)),
                _cost(layer),
            )
        return table

    def print(self) -> None:
        """Shows it as a table."""
        Console().print(self)


def _cost(layer: LayerReport) -> str:
    if layer.cost is not None:
        return f"{layer.cost * 100:.1f}"
    return "" if layer.outputs_db is None else f"{layer.outputs_db:.0f} dB"


def quantization_report(
    model: keras.Model,
    quantized: keras.Model | str | os.PathLike[str] | bytes,
    dataset: Any,
    *,
    task: Task | None = None,
    batch_size: int = BATCH,
    steps: int | None = None,
    verbose: bool = True,
) -> QuantizationReport:
    """Finds which layer of a quantized model hurts, and what helps.

    The float model runs once, and from each of its layers on with that layer alone quantized: kernel, and range of its
    output. Beside it runs the quantized model, or the file on the runtime. Biases, which have 32 bits, stay in float
    where a layer is looked at alone. A few hundred images do.

    Args:
        model: the float model; for a file, that with the weights in it (or the quantized model that it was made from).
        quantized: a model from `quantize_model`, trained or calibrated; or a `.tflite` file of `model`, of this
            package's making or another's, as a path or bytes.
        dataset: whatever `fit` takes: arrays, a tuple (inputs, labels), a `tf.data.Dataset`, a generator, a
            `keras.utils.PyDataset`; inputs as the model takes them. With labels (class numbers or one-hot) the cost of
            a layer is measured in accuracy, without in agreement with the float model.
        task: what the model is for; by its form if None.
        batch_size: how many images at once; larger batches are cut up.
        steps: number of batches to take; all by default. A generator without end needs it.
        verbose: show the progress.

    Returns:
        A `QuantizationReport`; `print()` shows it as a table, `save("report.html")` writes a page with plots,
        `to_dict()` and `rows()` give the figures.

    Raises:
        TypeError: `quantized` is neither a model nor a file.
        ValueError: it has no ranges yet or is not of this model, or there is nothing in `dataset`.

    Example:

    >>> model = MobileNet(input_shape=(32, 32, 3), alpha=0.25, weights=None, classes=5)
    >>> images = np.random.uniform(-1, 1, (8, 32, 32, 3)).astype("float32")
    >>> quantized = quantize_model(model)
    >>> calibrate(quantized, images)
    >>> report = quantization_report(model, quantized, images, verbose=False)
    >>> report.layers[1].name, report.layers[1].low
    ('conv1', 0.0)
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be >= 1. Received: batch_size={batch_size}")
    batches = labelled_batches(dataset, batch_size, steps)
    simulation = _simulation(model, quantized, batches[0][0])
    console = Console()
    with Progress(console=console, transient=True, disable=not (verbose and console.is_terminal)) as bar:
        line = bar.add_task("one layer at a time", total=None)
        show = lambda done, total: bar.update(line, completed=done, total=total)  # noqa: E731
        found = examine(simulation, batches, task or task_of(model), show)
        bar.update(line, description="what helps")
        judge = Judge(simulation, batches, found)
        layers = _layers(simulation, found, judge)
        verdict = judge.verdict(layers)
    return QuantizationReport(
        name=model.name,
        source=_name(quantized),
        images=judge.images,
        metric=judge.metric,
        scores=_scores(model, batches, found, judge),
        outputs_db=found.quantized.noise.decibels,
        verdict=verdict,
        layers=layers,
        missing=simulation.missing,
    )


def _simulation(model: keras.Model, quantized: Any, images: Any) -> Simulation:
    if isinstance(quantized, str | os.PathLike | bytes):
        return FileSimulation(model, read_bytes(quantized), keras.tree.map_structure(lambda one: one[:4], images))
    if not isinstance(quantized, keras.Model):
        raise TypeError(f"`quantized` must be a quantized model or a .tflite file. Received: quantized={quantized!r}")
    if not is_quantized(quantized):
        raise ValueError(f"`quantized` must be a quantized model: call quantize_model on {quantized.name!r} first.")
    for layer in inline(quantized).layers:
        if isinstance(layer, FakeQuant | InputQuant):
            layer.check()
    return Simulation(quantized)


def _name(quantized: Any) -> str:
    if isinstance(quantized, keras.Model):
        return quantized.name
    return "file" if isinstance(quantized, bytes) else Path(quantized).name


def _scores(model: keras.Model, batches: list[Batch], found: Findings, judge: Judge) -> dict[str, float]:
    given = strip_quantization(model) if is_quantized(model) else model
    outcome = Outcome(found.exact.task)
    for (images, _), exact in zip(batches, found.outputs, strict=True):
        outcome.add(exact, [as_array(one) for one in keras.tree.flatten(given(images, training=False))])
    scores = {"float": outcome, "float weights": found.exact, "quantized": found.quantized}
    return {name: score for name, one in scores.items() if (score := judge.score(one)) is not None}


def _layers(simulation: Simulation, found: Findings, judge: Judge) -> tuple[LayerReport, ...]:
    ranked = sorted(simulation.sites, key=lambda site: judge.harm(found.tallies[site].outcome), reverse=True)
    ranks = {site: rank for rank, site in enumerate(ranked, start=1)}
    return tuple(_layer(simulation, site, found.tallies[site], judge, ranks[site]) for site in simulation.sites)


def _layer(simulation: Simulation, site: Operation, tally: Tally, judge: Judge, rank: int) -> LayerReport:
    grid = simulation.grids.get(site.end)
    widths = tally.high - tally.low
    median = float(np.median(widths))
    cost, cost_error = judge.cost(tally.outcome)
    return LayerReport(
        name=site.name,
        kind=simulation.kind(site),
        low=grid.low if grid else None,
        high=grid.high if grid else None,
        step=grid.step if grid else None,
        seen_low=float(np.min(tally.low)),
        seen_high=float(np.max(tally.high)),
        saturation=tally.clipped / tally.count if grid else None,
        widest_channel=int(np.argmax(widths)),
        spread=float(np.max(widths)) / median if median > 0 else None,
        **_kernel(simulation, site),
        alone_db=tally.alone.decibels,
        whole_db=tally.whole.decibels if tally.whole else None,
        outputs_db=tally.outcome.noise.decibels,
        cost=cost,
        cost_error=cost_error,
        rank=rank,
    )


def _kernel(simulation: Simulation, site: Operation) -> dict[str, Any]:
    """The noise of a kernel, as a whole and of the channel that has most."""
    noise, channels = simulation.kernel_noise(site)
    known = [(ratio, channel) for channel, ratio in enumerate(channels) if ratio is not None]
    ratio, channel = min(known, default=(None, None))
    return {"kernel_db": noise, "worst_channel": channel, "worst_channel_db": ratio}
