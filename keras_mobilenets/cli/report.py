"""The page that a run leaves: what came out, to look at."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keras_mobilenets.cli.evaluation import Comparison
from keras_mobilenets.data.images import EDGE_TO_EDGE
from keras_mobilenets.pages import data_uri, png, render, titled
from keras_mobilenets.tasks import Embedding
from keras_mobilenets.tasks.task import Answers, Curve
from keras_mobilenets.utils import atomic_path, require

CURVES_FILE = "curves.png"
REPORT_FILE = "report.html"
EXAMPLES, MISTAKES = 12, 4
CHOICES, LISTED = 3, 5  # of classes with a score each; of things found, whose number differs
VISIBLE = 0.005  # smaller probabilities would be printed as 0 %
TITLES = {"float": "Float", "qat": "8 bits simulated", "tflite": "Integer .tflite"}
TRAINING, HELD_OUT, SIMULATED = "#8aa4c8", "#1f4e8c", "#f6ecd2"


def write(folder: Path, metrics: dict[str, Any], found: Comparison) -> Path:
    """Draws the curves and writes the page, self-contained, into a run folder.

    Args:
        folder: the run folder.
        metrics: what `metrics.json` holds.
        found: the three models on the held-out pictures.

    Returns:
        Path of the page.
    """
    history, headline = metrics["history"], metrics["headline"]
    curves = [name for name in (headline, "loss") if any(f"val_{name}" in one for one in history["float"])]
    page = render(
        REPORT_FILE,
        m=metrics,
        titles=TITLES,
        curves={key: data_uri(draw_curves(history, [key])) for key in curves},
        diagrams={one.title: data_uri(draw_lines(one)) for one in _curves(metrics["data"]["classes"], found)},
        examples=_examples(metrics["data"]["classes"], found),
        pixelated=min(metrics["data"]["image_size"]) <= EDGE_TO_EDGE,
    )
    with atomic_path(folder / CURVES_FILE) as path:
        path.write_bytes(draw_curves(history, curves))
    with atomic_path(folder / REPORT_FILE) as path:
        path.write_text(page, encoding="utf-8", errors="backslashreplace")  # names of files need not be text
    return folder / REPORT_FILE


def draw_curves(history: dict[str, list[dict[str, float]]], keys: Sequence[str] = ("accuracy", "loss")) -> bytes:
    """Figures over the epochs of float and quantization-aware training, as a PNG file."""
    require("matplotlib", "all")
    from matplotlib.figure import Figure  # the object alone: `pyplot` would look for a display
    from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter

    epochs = [*history["float"], *history["quantized"]]
    numbers = range(1, len(epochs) + 1)
    figure = Figure(figsize=(4.6 * len(keys), 3.4), dpi=160, layout="constrained")
    for axes, key in zip(figure.subplots(1, len(keys), squeeze=False)[0], keys, strict=True):
        axes.axvspan(len(history["float"]) + 0.5, len(epochs) + 0.5, color=SIMULATED, lw=0, label="quantization-aware")
        if key in epochs[0]:
            axes.plot(numbers, [one[key] for one in epochs], color=TRAINING, label="training", marker=".")
        axes.plot(numbers, [one[f"val_{key}"] for one in epochs], color=HELD_OUT, label="held out", marker=".")
        axes.set(title=titled(key), xlabel="epoch", xlim=(0.5, len(epochs) + 0.5))
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if key != "loss":
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        else:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
    handles, labels = figure.axes[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return png(figure)


def _curves(classes: list[str], found: Comparison) -> list[Curve]:
    return found.task.curves(found.answers["tflite"], found.truth, classes)


def draw_lines(curve: Curve) -> bytes:
    """A diagram of a task, as a PNG file."""
    require("matplotlib", "all")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), dpi=160, layout="constrained")
    axes = figure.subplots()
    for name, (x, y) in curve.lines.items():
        axes.plot(x, y, label=name)
    axes.set(xlabel=curve.axes[0], ylabel=curve.axes[1], xlim=(curve.least, 1), ylim=(0, 1.02))
    axes.set_xscale("log" if curve.least else "linear")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if len(curve.lines) > 1:
        figure.legend(frameon=False, fontsize="small", loc="outside right center")  # curves fill all corners
    return png(figure)


def _examples(classes: list[str], found: Comparison) -> list[dict[str, Any]]:
    """Pictures with what the integer model said: some of its mistakes, if it made any, and others."""
    task = found.task
    everything = found.answers["tflite"], found.truth
    hits = task.hits(*everything)[found.kept]
    answers, truth = ([every[index] for index in found.kept] for every in everything)
    wrong = hits < 0.5
    worst = np.argsort(hits, kind="stable")[:MISTAKES]
    limit = hits[worst].max(initial=0)  # of those that are as bad, some from all over
    mistakes = [index for index in worst if wrong[index] and hits[index] < limit]
    mistakes += [*_spread(np.flatnonzero(wrong & (hits == limit)), MISTAKES - len(mistakes))]
    examples = []
    for index in [*_spread(np.flatnonzero(~wrong), EXAMPLES - len(mistakes)), *mistakes]:
        said = task.describe(answers[index], classes, CHOICES)[:LISTED]
        shown = [task.show(found.pictures[index], truth=truth[index]), task.show(found.pictures[index], answers[index])]
        if isinstance(task, Embedding):
            names = [task.caption(None, one, classes) for one in truth]
            said, shown = _beside(task, found.pictures, answers, names, index)
        pair = not np.array_equal(shown[0], shown[1])
        examples.append(
            {
                "pictures": [data_uri(_png(one)) for one in (shown if pair else shown[:1])],
                "pair": pair,
                "caption": task.caption(answers[index], truth[index], classes),
                "wrong": bool(wrong[index]),
                "choices": [one for rank, one in enumerate(said) if rank == 0 or one["score"] >= VISIBLE],
            }
        )
    return examples


def _png(picture: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def _beside(
    task: Embedding, pictures: np.ndarray, answers: Answers, names: Sequence[str], index: int
) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """What of the pictures that are shown is nearest to one, and this one with the nearest of them."""
    near, cosines = task.nearest(answers, answers[index], CHOICES, but=index)
    scores = [max(float(cosine), 0.0) for cosine in cosines]
    said = [{"name": names[other], "score": score} for other, score in zip(near, scores, strict=True)]
    return said, [pictures[index], pictures[near[0] if len(near) else index]]


def _spread(indices: np.ndarray, count: int) -> np.ndarray:
    """That many, evenly spaced, so that many classes are among them."""
    return indices[np.linspace(0, len(indices) - 1, min(count, len(indices))).astype(int)]
