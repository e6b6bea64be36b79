"""The page of a `QuantizationReport`: which layer hurts, and what helps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_mobilenets.pages import data_uri, png, render
from keras_mobilenets.utils import require

if TYPE_CHECKING:
    from keras_mobilenets.diagnosis.report import QuantizationReport

TEMPLATE = "quantization_page.html"
DARK, LIGHT, RED, GRAY, ORANGE = "#1f4e8c", "#8aa4c8", "#b3261e", "#b9c2ce", "#c77700"
TITLES = {"float": "Float", "float weights": "Its weights in float", "quantized": "Quantized"}


def write_page(report: QuantizationReport) -> str:
    """The page as HTML, with its plots inside."""
    scores = dict(report.scores)
    if scores.get("float weights") == scores.get("float"):
        scores.pop("float weights", None)
    plots = {
        "What each layer costs": _draw(report, _costs),
        "Signal above the rounding noise": _draw(report, _noise),
        "Ranges": _draw(report, _ranges),
    }
    return render(
        TEMPLATE,
        r=report,
        scores={TITLES[name]: score for name, score in scores.items()},
        plots=plots,
        many=len(scores) > 2,
    )


def _draw(report: QuantizationReport, draw: Callable[[Any, QuantizationReport, np.ndarray], None]) -> str:
    """One plot with a line for each layer, the first on top."""
    require("matplotlib", "all")
    from matplotlib.figure import Figure  # the object alone: `pyplot` would look for a display

    places = np.arange(len(report.layers))
    figure = Figure(figsize=(4.4, 1.2 + 0.19 * len(places)), dpi=160, layout="constrained")
    axes = figure.subplots()
    draw(axes, report, places)
    axes.set_yticks(places, [layer.name for layer in report.layers], fontsize=7.5)
    axes.set_ylim(len(places) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    for label, layer in zip(axes.get_yticklabels(), report.layers, strict=True):
        if layer.name == report.verdict.layer:
            label.set(color=RED, fontweight="bold")
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    figure.legend(
        loc="outside upper center", ncols=4, frameon=False, fontsize=7.5, columnspacing=1.2, handletextpad=0.4
    )
    return data_uri(png(figure))


def _costs(axes: Any, report: QuantizationReport, places: np.ndarray) -> None:
    colors = [RED if layer.name == report.verdict.layer else LIGHT for layer in report.layers]
    if report.metric is None:
        values = _numbers([layer.outputs_db for layer in report.layers])
        axes.barh(places, values, color=colors, height=0.7, label="signal above noise")
        axes.set_xlabel("dB at the outputs, this layer alone quantized", fontsize=8)
        return
    costs = 100 * _numbers([layer.cost for layer in report.layers])
    errors = 100 * _numbers([layer.cost_error for layer in report.layers])
    axes.barh(places, costs, color=colors, height=0.7)
    axes.errorbar(costs, places, xerr=errors, fmt="none", ecolor=GRAY, lw=1, label="± standard error")
    axes.axvline(0, color=GRAY, lw=0.8)
    axes.set_xlabel(f"points of {report.metric} lost, this layer alone quantized", fontsize=8)


def _noise(axes: Any, report: QuantizationReport, places: np.ndarray) -> None:
    for name, label, color, marker in (
        ("kernel_db", "kernel", LIGHT, "s"),
        ("alone_db", "alone", DARK, "o"),
        ("outputs_db", "at the outputs", ORANGE, "x"),
        ("whole_db", "in the whole", RED, "."),
    ):
        values = _numbers([getattr(layer, name) for layer in report.layers])
        line = "-" if name == "whole_db" else "none"
        axes.plot(values, places, linestyle=line, marker=marker, color=color, label=label, ms=4, lw=1)
    axes.set_xlabel("signal-to-quantization-noise ratio in dB", fontsize=8)


def _ranges(axes: Any, report: QuantizationReport, places: np.ndarray) -> None:
    low, high = (_numbers([getattr(layer, name) for layer in report.layers]) for name in ("low", "high"))
    axes.barh(places, high - low, left=low, color=LIGHT, height=0.7, label="range")
    for name in ("seen_low", "seen_high"):
        values = _numbers([getattr(layer, name) for layer in report.layers])
        label = "float values" if name == "seen_low" else None
        axes.plot(values, places, "|", color=DARK, ms=6, mew=1.4, label=label)
    axes.set_xscale("symlog", linthresh=1.0)
    axes.xaxis.get_major_locator().set_params(numticks=9)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}" if abs(value) < 1000 else f"{value / 1000:g}k")
    axes.set_xlabel("values of the output", fontsize=8)


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values])
