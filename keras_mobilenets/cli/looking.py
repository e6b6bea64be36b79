"""`list`, `profile` and `choose`: what there is, what it costs, and what to take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

from keras_mobilenets.applications.variants import BUILDERS, VARIANTS
from keras_mobilenets.utils import quiet

if TYPE_CHECKING:
    from keras_mobilenets.training.recipes import Recipe

console = Console(highlight=False)


def variants() -> None:
    """Prints the published models with ImageNet weights."""
    table = Table(
        title="Published, with ImageNet weights", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    table.caption = "MAdds in millions, accuracies in percent; *: --minimalistic of `profile`"
    table.add_column("--model", no_wrap=True)
    for name in ("--alpha", "--image-size", "parameters", "MAdds", "top-1", "8 bits"):
        table.add_column(name, justify="right", no_wrap=True)
    previous = ""
    for one in VARIANTS:
        if previous not in ("", one.builder):
            table.add_section()
        previous = one.builder
        table.add_row(
            one.builder + (" *" if one.minimalistic else ""),
            f"{one.alpha:g}",
            str(one.size),
            f"{one.parameters:,}",
            f"{one.madds_millions:,.1f}",
            f"{one.top1:.1f}",
            "" if one.top1_8bit is None else f"{one.top1_8bit:.1f}",
        )
    console.print(table)


def models() -> None:
    """Prints the builders' names, one a line."""
    print("\n".join(BUILDERS))


def datasets() -> None:
    """Prints the names of data sets, one a line."""
    from keras_mobilenets.data.names import known_datasets

    print("\n".join(known_datasets()))


def recipes() -> None:
    """Prints how models are trained, and where that was published."""
    from keras_mobilenets.training.recipes import RECIPES

    for one in RECIPES.values():
        console.print(f"[bold cyan]{one.name}[/]  {_summary(one)}", soft_wrap=True)
        console.print(f"    {one.source}", soft_wrap=True, style="dim")


def _summary(recipe: Recipe) -> str:
    options = ", ".join(f"{name} {value:g}" for name, value in recipe.options.items())
    parts = [f"{recipe.optimizer} ({options})" if options else recipe.optimizer]
    parts += [f"batch {recipe.batch_size}", f"rate {recipe.learning_rate:g}{_schedule(recipe)}"]
    optional = {
        "l2": recipe.l2,
        "label smoothing": recipe.label_smoothing,
        "dropout": recipe.dropout,
        "EMA": recipe.ema,
        "batch normalization": recipe.batch_norm_momentum,
    }
    parts += [f"{name} {value:g}" for name, value in optional.items() if value]
    parts += [f"{recipe.epochs} epochs"] + (["stage by stage"] if recipe.stages else [])
    return ", ".join(parts) + (f"; then {recipe.quantize}" if recipe.quantize else "")


def _schedule(recipe: Recipe) -> str:
    if recipe.decay is None:
        return " falling as a cosine"
    epochs = "epoch" if recipe.decay_epochs == 1 else f"{recipe.decay_epochs:g} epochs"
    return " throughout" if recipe.decay == 1 else f" x {recipe.decay:g} per {epochs}"


def profile(model: str, *, alpha: float, image_size: int, minimalistic: bool, plot: Path | None, as_json: bool) -> None:
    """Prints what each layer of a model costs; of a `.tflite` file also what `audit` finds."""
    from keras_mobilenets.analysis import profile

    path = Path(model)
    if path.suffix == ".tflite":
        from keras_mobilenets.tflite import audit

        result, found = profile(path), audit(path)
        _show(result, as_json, {"audit": found.to_dict()})
        if not as_json:
            console.print(found)
    else:
        with quiet():
            result = profile(_keras_model(path, alpha, image_size, minimalistic))
        _show(result, as_json)
    if plot is not None:
        result.plot(plot)


def _keras_model(path: Path, alpha: float, image_size: int, minimalistic: bool) -> Any:
    """A `.keras` file, or what a builder of that name makes."""
    from keras_mobilenets.cli.models import built, load_keras

    if path.suffix == ".keras":
        return load_keras(path)
    return built(path.name, image_size, alpha=alpha, minimalistic=minimalistic)


def choose(
    *,
    max_latency_ms: float | None,
    max_size_mb: float | None,
    image_size: int | None,
    calibrate: str | None,
    as_json: bool,
) -> None:
    """Prints the variant that fits, and what more or less would cost."""
    from keras_mobilenets.analysis import choose, device_scale

    name, _, milliseconds = (calibrate or "").partition("=")
    scale = device_scale(name, float(milliseconds)) if calibrate else 1.0
    chosen = choose(max_latency_ms=max_latency_ms, max_size_mb=max_size_mb, image_size=image_size, scale=scale)
    _show(chosen, as_json)


def _show(result: Any, as_json: bool, more: dict[str, Any] | None = None) -> None:
    print(json.dumps({**result.to_dict(), **(more or {})})) if as_json else console.print(result)
