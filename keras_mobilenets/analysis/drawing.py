"""Pictures of what models cost."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from keras_mobilenets.analysis.choice import Candidate, measured
from keras_mobilenets.applications.variants import FAMILIES
from keras_mobilenets.utils import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_mobilenets.analysis.profile import ModelProfile

MARKERS = "os^DvPX*<>"  # of the families, in their order; their colours are matplotlib's own


def draw_profile(profile: ModelProfile, path: str | os.PathLike[str] | None) -> Figure:
    """Multiply-adds, weights and live feature maps along the layers; those that overwrite others are left out."""
    layers = [layer for layer in profile.layers if layer.activation_bytes_int8]
    kinds = profile.by_kind()
    figure = _figure((11, 7.5))
    axes = figure.subplots(3, 1, sharex=True)
    drawn = ((axes[0], "madds", 1e6, "million MAdds"), (axes[1], "weight_bytes_int8", 1e3, "weights, kB in int8"))
    for number, kind in enumerate(kind for kind, cost in kinds.items() if cost.madds):
        places = [place for place, layer in enumerate(layers) if layer.kind == kind]
        for one, field, unit, _ in drawn:
            heights = [getattr(layers[place], field) / unit for place in places]
            share = f"{kind}: {kinds[kind].madds / profile.madds:.1%} of MAdds"
            one.bar(places, heights, width=0.9, color=f"C{number}", label=share)
    for one, _, _, label in drawn:
        one.set_ylabel(label)
    axes[0].legend(fontsize=8)
    live = [layer.live_bytes_int8 / 1e3 for layer in layers]
    axes[2].bar(range(len(layers)), live, width=0.9, color="tab:gray")
    peak = profile.peak_activation_bytes_int8 / 1e3
    axes[2].axhline(peak, color="black", linewidth=0.8)
    axes[2].annotate(f"{peak:,.0f} kB", (len(layers) - 0.5, peak), ha="right", va="bottom", fontsize=8)
    axes[2].margins(y=0.12)
    axes[2].set_ylabel("live maps, kB in int8")
    step = max(1, len(layers) // 40)
    axes[2].set_xticks(range(0, len(layers), step), [layer.name for layer in layers[::step]], rotation=90, fontsize=6)
    shape = "x".join(map(str, profile.input_shape))
    axes[0].set_title(f"{profile.name}, input {shape}: {profile.madds / 1e6:,.1f} M MAdds", fontsize=10)
    return _saved(figure, path)


def plot_variants(path: str | os.PathLike[str] | None = None) -> Figure:
    """Draws published accuracy against multiply-adds, parameters and measured int8 latency, for all variants.

    The line joins the variants that no other one beats in both; theirs are the numbers, width and image size.

    Args:
        path: where to save the picture; None for not at all.

    Returns:
        The Matplotlib figure.

    Example:

    >>> [axes.get_xlabel() for axes in plot_variants().axes]
    ['million MAdds', 'million parameters', 'int8 latency, ms']
    """
    figure = _figure((13, 5))
    axes = figure.subplots(1, 3, sharey=True)
    candidates = measured()
    costs: dict[str, Callable[[Candidate], float]] = {
        "million MAdds": lambda one: one.variant.madds_millions,
        "million parameters": lambda one: one.variant.parameters / 1e6,
        "int8 latency, ms": lambda one: one.latency_ms,
    }
    for one, (axis, cost) in zip(axes, costs.items(), strict=True):
        front = pareto_front(candidates, cost)
        one.plot([cost(best) for best in front], [best.variant.top1 for best in front], color="0.7", zorder=0)
        _label(one, front, cost)
        _scatter(one, candidates, cost)
        one.set_xscale("log")
        one.margins(x=0.17)
        one.set_xlabel(axis)
        _plain_ticks(one)
        one.grid(alpha=0.25)
    axes[0].set_ylabel("ImageNet top-1 as published, float, %")
    axes[0].legend(fontsize=8)
    axes[2].set_title("measured on one thread of an x86-64 core", fontsize=9)
    return _saved(figure, path)


def _label(axes: Any, front: list[Candidate], cost: Callable[[Candidate], float]) -> None:
    """Width and image size, where there is room."""
    above = 0.0
    for best in front:
        if best.variant.top1 - above > 1.3:
            above = best.variant.top1
            label = f"{best.variant.alpha:g}, {best.variant.size}"
            axes.annotate(label, (cost(best), above), (-5, 3), textcoords="offset points", ha="right", fontsize=6)


def _scatter(axes: Any, candidates: tuple[Candidate, ...], cost: Callable[[Candidate], float]) -> None:
    for number, (builder, family) in enumerate(FAMILIES.items()):
        color, marker = f"C{number % 10}", MARKERS[number]
        for minimalistic in (False, True):
            kind = (builder, minimalistic)
            points = [one for one in candidates if (one.variant.builder, one.variant.minimalistic) == kind]
            if points:
                name, face = (f"{family.title} minimalistic", "none") if minimalistic else (family.title, color)
                x, y = [cost(point) for point in points], [point.variant.top1 for point in points]
                axes.scatter(x, y, s=22, marker=marker, edgecolors=color, facecolors=face, label=name)


def pareto_front(candidates: tuple[Candidate, ...], cost: Callable[[Candidate], float]) -> list[Candidate]:
    """The candidates than which no cheaper one is as accurate, cheapest first."""
    front: list[Candidate] = []
    for one in sorted(candidates, key=lambda one: (cost(one), -one.variant.top1)):
        if not front or one.variant.top1 > front[-1].variant.top1:
            front.append(one)
    return front


def _plain_ticks(axes: Any) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())


def _figure(size: tuple[float, float]) -> Figure:
    """A figure of its own, without pyplot, which would keep it and choose a window system."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def _saved(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    if path is not None:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, dpi=130)
    return figure
