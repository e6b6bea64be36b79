"""The page of a NetAdapt run: the path, the Pareto front, the table."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras

from keras_mobilenets.pages import data_uri, png, render
from keras_mobilenets.search.rows import table_rows
from keras_mobilenets.utils import require

if TYPE_CHECKING:
    from keras_mobilenets.search.latency import LatencyTable
    from keras_mobilenets.search.netadapt import Step

TEMPLATE = "netadapt.html"
DARK, LIGHT, RED, GRAY = "#1f4e8c", "#8aa4c8", "#b3261e", "#b9c2ce"


def write_page(
    name: str,
    steps: Sequence[Step],
    target: float,
    table: LatencyTable,
    adapted: keras.Model | None = None,
    accuracy: float | None = None,
) -> str:
    """The page as HTML, with its plot inside; without `adapted`, of a path that is still walked."""
    tried = [(one["latency_ms"], one["accuracy"]) for step in steps for one in step.candidates]
    points = [(step.latency_ms, step.accuracy) for step in steps]
    if accuracy is not None:
        points.append((steps[-1].latency_ms, accuracy))
    return render(
        TEMPLATE,
        name=name,
        steps=steps,
        target=target,
        table=table,
        accuracy=accuracy,
        plot=_draw(points[: len(steps)], tried, front([*points, *tried]), target, accuracy),
        rows=_rows(adapted),
    )


def _rows(adapted: keras.Model | None) -> str | None:
    """Of a MobileNet; other chains of blocks have no table."""
    with contextlib.suppress(ValueError):
        return None if adapted is None else table_rows(adapted)
    return None


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points of which no other is as fast and more accurate, the fastest first."""
    found: list[tuple[float, float]] = []
    for latency, accuracy in sorted(points, key=lambda one: (one[0], -one[1])):
        if not found or accuracy > found[-1][1]:
            found.append((latency, accuracy))
    return found


def _draw(path: Sequence[Any], tried: Sequence[Any], best: Sequence[Any], target: float, last: float | None) -> str:
    require("matplotlib", "all")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=160, layout="constrained")
    axes = figure.subplots()
    if tried:
        axes.plot(*zip(*tried, strict=True), "o", color=GRAY, ms=3, label="tried")
    axes.plot(*zip(*best, strict=True), color=LIGHT, lw=1, drawstyle="steps-post", label="Pareto front")
    axes.plot(*zip(*path, strict=True), "o-", color=DARK, ms=4, lw=1.4, label="the path")
    if last is not None:
        axes.plot(path[-1][0], last, "*", color=RED, ms=11, label="after the long fine-tuning")
    axes.axvline(target, color=RED, lw=0.8, ls="--", label="target")
    axes.set(xlabel="ms in 8 bits, by the table", ylabel="accuracy of the quantized file, held out")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    return data_uri(png(figure))
