"""`list` and `profile`: what there is, and what it costs."""

from __future__ import annotations

import json
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from keras_mobilenets.applications.variants import BUILDERS, VARIANTS

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


def profile(model: str, *, alpha: float, image_size: int, minimalistic: bool, as_json: bool) -> None:
    """Prints what each layer of a model costs."""
    path = Path(model)
    if path.suffix == ".tflite":
        from keras_mobilenets.export import audit

        found = audit(path)
        print(json.dumps(found.to_dict())) if as_json else console.print(found)
        return
    from keras_mobilenets.analysis import profile
    from keras_mobilenets.cli.models import load_keras

    if path.suffix == ".keras":
        built = load_keras(path)
    else:
        from keras_mobilenets import applications

        options = {"minimalistic": True} if minimalistic else {}
        built = getattr(applications, model)((image_size, image_size, 3), alpha=alpha, weights=None, **options)
    result = profile(built)
    print(json.dumps(result.to_dict())) if as_json else console.print(result)
