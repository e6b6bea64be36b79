"""Which published variant fits a budget, by measurement; needs neither TensorFlow nor Keras."""

from __future__ import annotations

import csv
import functools
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table

from keras_mobilenets.applications.variants import VARIANTS, Variant

MEASUREMENTS = Path(__file__).with_name("variants.csv")
"""Of every variant as an int8 file, on one thread of one x86-64 core: `python -m benchmarks.variants`."""

SHOWN = 3


@dataclass(frozen=True)
class Candidate:
    """A published variant and what its full-integer file costs.

    Attributes:
        variant: the model, with its published accuracies.
        latency_ms: for one image, on one thread of the machine that it was measured on, or scaled to another.
        size_bytes: of the file.
        arena_bytes: of the feature maps that exist at once: see `keras_mobilenets.export.Audit`.
    """

    variant: Variant
    latency_ms: float
    size_bytes: int
    arena_bytes: int

    @property
    def size_mb(self) -> float:
        """Size of the file in millions of bytes."""
        return self.size_bytes / 1e6

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON takes them."""
        return {"name": self.variant.name, **asdict(self), "builder": builder_call(self.variant)}


@dataclass(frozen=True)
class Choice:
    """What `choose` found.

    Attributes:
        best: the most accurate variant within the limits.
        runners_up: less accurate ones that are faster or smaller than all before them, most accurate first.
        beyond: more accurate ones that break a limit, least accurate first.
        scale: of the latencies, against the machine that they were measured on.
    """

    best: Candidate
    runners_up: tuple[Candidate, ...]
    beyond: tuple[Candidate, ...]
    scale: float

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON takes them."""
        others = {name: [one.to_dict() for one in getattr(self, name)] for name in ("runners_up", "beyond")}
        return {"best": self.best.to_dict(), **others, "scale": self.scale}

    def __rich__(self) -> Group:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column("variant", overflow="fold", min_width=12)
        for name in ("top-1", "8 bits", "ms", "MB"):
            table.add_column(name, justify="right", no_wrap=True)
        rows = [("best", self.best), *(("cheaper", one) for one in self.runners_up)]
        for role, one in [*rows, *(("over", one) for one in self.beyond)]:
            variant = one.variant
            in_integers = "" if variant.top1_8bit is None else f"{variant.top1_8bit:.1f}"
            costs = (f"{one.latency_ms:.2f}", f"{one.size_mb:.2f}")
            table.add_row(role, variant.name, f"{variant.top1:.1f}", in_integers, *costs)
        machine = (
            "one thread of one x86-64 core"
            if self.scale == 1
            else f"one thread, {self.scale:.3g} times that of one x86-64 core"
        )
        return Group(
            table,
            builder_call(self.best.variant),
            f"ms and MB: of the int8 file; {machine}. Accuracy: as published, in float and 8 bits."
            + " over: breaks a limit." * bool(self.beyond),
        )


def builder_call(variant: Variant) -> str:
    """The Python expression that builds a variant."""
    options = ", minimalistic=True" if variant.minimalistic else ""
    return f"{variant.builder}(({variant.size}, {variant.size}, 3), alpha={variant.alpha:g}{options})"


@functools.cache
def measured() -> tuple[Candidate, ...]:
    """Gives all published variants with the latency and size of their integer files, in the order of the papers.

    Measured with the int8 files of `export_tflite` on one thread of one x86-64 core (LiteRT with XNNPACK): ratios hold
    on similar cores, milliseconds do not.

    Returns:
        A `Candidate` for each of `keras_mobilenets.applications.variants.VARIANTS`.

    Example:

    >>> len(measured())
    44
    """
    with MEASUREMENTS.open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    return tuple(
        Candidate(one, float(row["latency_ms"]), int(row["size_bytes"]), int(row["arena_bytes"]))
        for one, row in ((one, rows[one.name]) for one in VARIANTS)
    )


def device_scale(name: str, latency_ms: float) -> float:
    """How much slower a device is than the machine of `measured`, from one latency on it.

    One factor for all variants is a rough guide: cores differ in what they do well. Measure the variant that was
    chosen as well, and choose again by that.

    Args:
        name: of the variant that ran on the device: `mobilenet_v2_1.0_224`, ...
        latency_ms: of its int8 file there, > 0.

    Returns:
        The factor, for `choose(scale=...)`.

    Raises:
        ValueError: an unknown variant, or a latency that is not above 0.

    Example:

    >>> device_scale("mobilenet_v2_1.0_224", 18.0) > 1
    True
    """
    known = {one.variant.name: one for one in measured()}
    if name not in known:
        raise ValueError(f"Unknown variant {name!r}. Known: {', '.join(known)}")
    if not latency_ms > 0:
        raise ValueError(f"`latency_ms` must be > 0. Received: latency_ms={latency_ms}")
    return latency_ms / known[name].latency_ms


def choose(
    *,
    max_latency_ms: float | None = None,
    max_size_mb: float | None = None,
    image_size: int | None = None,
    scale: float = 1.0,
) -> Choice:
    """Recommends the most accurate published variant within limits.

    Accuracy is the published one in float, which there is for all variants; 8-bit ones are at most a few points lower.

    Args:
        max_latency_ms: for one image on one thread; None for any.
        max_size_mb: of the int8 file, in millions of bytes; None for any.
        image_size: side of the images that it was published for; None for any.
        scale: what latencies are multiplied by, > 0, for a device other than the one measured: see `device_scale`.

    Returns:
        A `Choice`; `rich.print` shows it as a table.

    Raises:
        ValueError: an argument is out of its range, or nothing fits; the message says what comes nearest.

    Example:

    >>> choose(max_size_mb=1, image_size=128).best.variant.name
    'mobilenet_v1_0.25_128'
    """
    for argument, limit in (("max_latency_ms", max_latency_ms), ("max_size_mb", max_size_mb), ("scale", scale)):
        if limit is not None and not limit > 0:
            raise ValueError(f"`{argument}` must be > 0. Received: {argument}={limit}")
    sizes = sorted({one.size for one in VARIANTS})
    if image_size is not None and image_size not in sizes:
        raise ValueError(f"`image_size` must be one that was published: {sizes}. Received: image_size={image_size}")
    asked = [one for one in measured() if image_size in (None, one.variant.size)]
    asked = [replace(one, latency_ms=one.latency_ms * scale) for one in asked]
    asked.sort(key=lambda one: (-one.variant.top1, one.latency_ms))

    def fits(one: Candidate) -> bool:
        fast = max_latency_ms is None or one.latency_ms <= max_latency_ms
        return fast and (max_size_mb is None or one.size_mb <= max_size_mb)

    fitting = [one for one in asked if fits(one)]
    if not fitting:
        raise ValueError(_nothing_fits(asked))
    best = fitting[0]
    beyond = [one for one in asked if one.variant.top1 > best.variant.top1]
    return Choice(best, _cheaper(fitting)[:SHOWN], tuple(beyond[: -SHOWN - 1 : -1]), scale)


def _cheaper(candidates: list[Candidate]) -> tuple[Candidate, ...]:
    """Those behind the first that are faster or smaller than all that are more accurate."""
    front = candidates[:1]
    for one in candidates[1:]:
        if all(one.latency_ms < other.latency_ms or one.size_bytes < other.size_bytes for other in front):
            front.append(one)
    return tuple(front[1:])


def _nothing_fits(candidates: list[Candidate]) -> str:
    fastest = min(candidates, key=lambda one: one.latency_ms)
    smallest = min(candidates, key=lambda one: one.size_bytes)
    return (
        f"No published variant fits. The fastest, {fastest.variant.name}, takes {fastest.latency_ms:.2f} ms; the "
        f"smallest, {smallest.variant.name}, has {smallest.size_mb:.2f} MB. Allow more, or train a smaller `alpha`."
    )
