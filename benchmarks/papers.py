"""The tables of the MobileNet papers beside what is counted on the models of this package.

    python -m benchmarks.papers

Builds each model, counts it with `keras_mobilenets.analysis.profile`, and rewrites docs/papers.md, docs/pareto.png and
benchmarks/papers.csv. It fails where a count is more than 1 % off what is printed, neither rounds nor is cut off to it,
and nothing here explains it. Takes about a minute.
"""

from __future__ import annotations

import csv
import functools
import io
import itertools
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

from benchmarks import later_networks, published
from benchmarks.cells import Cell, Table
from keras_mobilenets import applications
from keras_mobilenets.analysis import ModelProfile, plot_variants, profile
from keras_mobilenets.applications import mobilenet
from keras_mobilenets.layers import DepthwiseSeparableConv, InvertedResidual
from keras_mobilenets.utils import atomic_path

ROOT = Path(__file__).parents[1]
MADDS, PARAMETERS = "M MAdds", "M parameters"
ROW_LAYERS = (InvertedResidual, keras.layers.Conv2D, keras.layers.Dense, keras.layers.GlobalAveragePooling2D)
ACTIVATIONS = {"hard_swish": "HS", "relu": "RE"}


@functools.cache
def counted(builder: str, alpha: float = 1.0, size: int = 224, **options: Any) -> tuple[ModelProfile, float]:
    """The profile of a model, and its parameters as the papers count them: see `kernels`."""
    model = getattr(applications, builder)((size, size, 3), alpha=alpha, weights=None, **options)
    return profile(model), kernels(model)


def kernels(model: keras.Model) -> float:
    """Million weights of convolutions and dense layers, without biases and normalization."""
    return sum(math.prod(weight.shape) for weight in model.weights if len(weight.shape) > 1) / 1e6


def with_normalization(found: ModelProfile) -> tuple[ModelProfile, float]:
    """Likewise with all parameters."""
    return found, found.parameters / 1e6


def costs(table: str, row: str, model: tuple[ModelProfile, float], theirs: tuple[str, ...]) -> Iterator[Cell]:
    """Multiply-adds and parameters of a row, and the accuracy where it is printed first."""
    madds, parameters = theirs[-2:]
    yield Cell(table, row, MADDS, model[0].madds / 1e6, madds)
    yield Cell(table, row, PARAMETERS, model[1], parameters)
    if len(theirs) == 3:
        yield Cell(table, row, "top-1 as published", "", theirs[0])


def v1_shares() -> Iterator[Cell]:
    """MobileNets, Table 2."""
    found, parameters = counted("MobileNet")
    for kind, (madds, weights) in published.V1_SHARES.items():
        cost = found.by_kind()[kind]
        biases = 1000 if kind == "fully connected" else 0
        yield Cell("V1 Table 2", kind, "% of MAdds", 100 * cost.madds / found.madds, madds)
        yield Cell("V1 Table 2", kind, "% of parameters", 100 * (cost.parameters - biases) / 1e6 / parameters, weights)


def v1_layer() -> Iterator[Cell]:
    """MobileNets, Table 3."""
    for row, theirs in published.V1_LAYER.items():
        size, channels = (10 if "rho" in row else 14), (512 if "=" not in row else 384)
        inputs = keras.Input((size, size, channels))
        if row == "convolution":
            layer: Any = keras.layers.Conv2D(channels, 3, padding="same", use_bias=False)
        else:
            layer = DepthwiseSeparableConv(channels)
        model = keras.Model(inputs, layer(inputs))
        yield from costs("V1 Table 3", row, (profile(model), kernels(model)), theirs)


def v1_layer_grid() -> Iterator[Cell]:
    """The layer of Table 3 with all multipliers."""
    for alpha in (1.0, 0.75, 0.5, 0.25):
        for size in (14, 12, 10, 8):
            channels = int(alpha * 512)
            madds = size**2 * channels * (3 * 3 + channels)
            yield Cell("One layer", f"alpha {alpha:g}", f"rho {size}/14", madds / 1e6, "")


def v1_variant(rows: Iterable[mobilenet.Row], *, separable: bool = True) -> tuple[ModelProfile, float]:
    """A MobileNet with other rows, or with standard convolutions in place of the depthwise separable ones."""
    inputs = keras.Input((224, 224, 3))
    x = keras.layers.Conv2D(mobilenet.STEM_FILTERS, 3, strides=2, padding="same", use_bias=False)(inputs)
    for row in rows:
        if separable:
            layer: Any = DepthwiseSeparableConv(row.filters, strides=row.stride)
        else:
            layer = keras.layers.Conv2D(row.filters, 3, strides=row.stride, padding="same", use_bias=False)
        x = layer(x)
    x = keras.layers.Dense(1000)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, x)
    return profile(model), kernels(model)


def v1_comparisons() -> dict[str, list[Cell]]:
    """MobileNets, Tables 4 to 7, and all models."""
    shallow = [*mobilenet.TABLE[:6], *mobilenet.TABLE[11:]]  # without the five of 14x14x512
    table_4 = {"Conv MobileNet": v1_variant(mobilenet.TABLE, separable=False), "MobileNet": counted("MobileNet")}
    table_5 = {"0.75 MobileNet": counted("MobileNet", 0.75), "Shallow MobileNet": v1_variant(shallow)}
    tables = {
        "V1 Table 4": [(row, table_4[row], theirs) for row, theirs in published.V1_FULL_CONVOLUTION.items()],
        "V1 Table 5": [(row, table_5[row], theirs) for row, theirs in published.V1_SHALLOW.items()],
        "V1 Table 6": [(f"{alpha:g}", counted("MobileNet", alpha), row) for alpha, row in published.V1_WIDTH.items()],
        "V1 Table 7": [
            (str(size), counted("MobileNet", 1.0, size), row) for size, row in published.V1_RESOLUTION.items()
        ],
        "V1 TF-slim": [
            (f"{alpha:g}, {size}", with_normalization(counted("MobileNet", alpha, size)[0]), row)
            for (alpha, size), row in published.V1_SLIM.items()
        ],
    }
    return {name: [cell for row in rows for cell in costs(name, *row)] for name, rows in tables.items()}


def v2_comparisons() -> dict[str, list[Cell]]:
    """MobileNetV2, Table 4, and all models."""
    models = {"MobileNetV1": counted("MobileNet"), "MobileNetV2": counted("MobileNetV2")}
    models["MobileNetV2 (1.4)"] = counted("MobileNetV2", 1.4)
    tables = {
        "V2 Table 4": [(row, models[row], theirs) for row, theirs in published.V2_COMPARISON.items()],
        "V2 TF-slim": [
            (f"{alpha:g}, {size}", counted("MobileNetV2", alpha, size), (top1, madds, parameters))
            for alpha, (parameters, sizes) in published.V2_SLIM.items()
            for size, (top1, madds) in sizes.items()
        ],
    }
    return {name: [cell for row in rows for cell in costs(name, *row)] for name, rows in tables.items()}


def v3_comparisons() -> dict[str, list[Cell]]:
    """MobileNetV3, Tables 3 and 9, and the minimalistic models."""
    builders = {"V2": "MobileNetV2", "V3-Large": "MobileNetV3Large", "V3-Small": "MobileNetV3Small"}
    tables = {
        "V3 Table 3": [
            (row, counted(builders[row.split()[0]], float(row.split()[1])), theirs)
            for row, theirs in published.V3_COMPARISON.items()
        ],
        "V3 Table 9": [
            (f"{name} {alpha:g}, {size}", counted(f"MobileNetV3{name}", alpha, size), theirs)
            for (name, alpha, size), theirs in published.V3_GRID.items()
        ],
        "V3 minimalistic": [
            (row, counted(f"MobileNetV3{row.split()[0]}", minimalistic=True), theirs)
            for row, theirs in published.V3_MINIMALISTIC.items()
        ],
    }
    return {name: [cell for row in rows for cell in costs(name, *row)] for name, rows in tables.items()}


def blocks(model: keras.Model) -> Iterator[dict[str, str]]:
    """A model's rows as the papers print them, read off its layers and their shapes."""
    found = {layer.name: layer for layer in profile(model).layers}
    for layer in model.layers:
        if not isinstance(layer, ROW_LAYERS):
            continue
        inputs, outputs = layer.input.shape[1:], layer.output.shape[1:]
        size = inputs[0] if len(inputs) == 3 else 1
        row = {"input": f"{size}²x{inputs[-1]}", "exp size": "-", "#out": str(outputs[-1]), "SE": "-", "s": "1"}
        activated = layer.name
        if isinstance(layer, InvertedResidual):
            activated = f"{layer.name}_depthwise"
            depthwise = found[activated]
            row |= {"operator": f"bneck {depthwise.kind.split()[1]}", "exp size": str(depthwise.output_shape[-1])}
            row |= {"SE": "SE" if f"{layer.name}_squeeze_excite_mul" in found else "-", "s": str(size // outputs[0])}
        elif isinstance(layer, keras.layers.GlobalAveragePooling2D):
            row |= {"operator": f"pool {size}x{size}", "#out": "-"}
        elif found[layer.name].kind == "conv 3x3":
            row |= {"operator": "conv2d", "s": str(size // outputs[0])}
        else:
            without_norm = isinstance(layer, keras.layers.Conv2D) and layer.use_bias
            row |= {"operator": "conv2d 1x1, NBN" if without_norm else "conv2d 1x1"}
            row["#out"] = row["#out"].replace("1000", "k")
        yield {**row, "NL": next((word for end, word in ACTIVATIONS.items() if f"{activated}_{end}" in found), "-")}


def v3_architecture(table: str, builder: str, printed: tuple[tuple[str, ...], ...]) -> Iterator[Cell]:
    """MobileNetV3, Table 1 or 2."""
    model = getattr(applications, builder)((224, 224, 3), weights=None)
    for number, (ours, theirs) in enumerate(zip(blocks(model), printed, strict=True), start=1):
        for name, entry in zip(("input", "operator", "exp size", "#out", "SE", "NL", "s"), theirs, strict=True):
            yield Cell(table, str(number), name, ours[name], entry)


def v2_architecture() -> Iterator[Cell]:
    """Blocks of the same width are one row, which tells how many there are; "-" in print compares nothing."""
    rows = list(blocks(applications.MobileNetV2((224, 224, 3), weights=None)))
    groups = [list(group) for _, group in itertools.groupby(rows, lambda row: (row["operator"], row["#out"]))]
    for number, (group, printed) in enumerate(zip(groups, published.V2_ARCHITECTURE, strict=True), start=1):
        first, channels = group[0], int(group[0]["input"].partition("x")[2])
        ours = {
            "input": first["input"],
            "operator": "bottleneck" if first["operator"] == "bneck 3x3" else first["operator"],
            "t": "-" if first["exp size"] == "-" else str(int(first["exp size"]) // channels),
            "c": first["#out"],
            "n": str(len(group)),
            "s": first["s"],
        }
        for (name, entry), theirs in zip(ours.items(), printed, strict=True):
            yield Cell("V2 Table 2", str(number), name, "-" if theirs == "-" else entry, theirs)


def all_tables() -> list[Table]:
    """The papers' tables in their order."""
    found = {**v1_comparisons(), **v2_comparisons(), **v3_comparisons()}
    found |= {"V1 Table 2": list(v1_shares()), "V1 Table 3": list(v1_layer()), "One layer": list(v1_layer_grid())}
    found |= {"V2 Table 2": list(v2_architecture()), **later_networks.comparisons()}
    for table, builder, printed in (
        ("V3 Table 1", "MobileNetV3Large", published.V3_LARGE),
        ("V3 Table 2", "MobileNetV3Small", published.V3_SMALL),
    ):
        found[table] = list(v3_architecture(table, builder, printed))
    return [Table(name, caption, tuple(found[name])) for name, caption in CAPTIONS.items()]


def markdown(tables: list[Table]) -> str:
    """The page."""
    page = io.StringIO()
    page.write(INTRODUCTION)
    for table in tables:
        page.write(f"\n## {table.name}\n\n{table.caption}\n\n")
        quantities = list(dict.fromkeys(cell.quantity for cell in table.cells))
        compared = {cell.quantity for cell in table.cells if cell.difference is not None}
        header = [""]
        for quantity in quantities:
            header += [quantity, "printed", "difference"] if quantity in compared else [quantity]
        lines = [header, ["---", *("---:" for _ in header[1:])]]
        notes = list(dict.fromkeys(cell.explanation for cell in table.cells if cell.explanation))
        for name, row in itertools.groupby(table.cells, lambda cell: cell.row):
            lines.append([name, *(entry for cell in row for entry in shown(cell, notes))])
        page.writelines(f"| {' | '.join(line)} |\n" for line in lines)
        page.write("\n" * bool(notes))
        page.writelines(f"{number}. {note}\n" for number, note in enumerate(notes, 1))
    page.write(PARETO)
    return page.getvalue()


def shown(cell: Cell, notes: list[str]) -> list[str]:
    """Ours, theirs and the difference, with the number of what explains it; one entry where both are words."""
    mark = f" <sup>{notes.index(cell.explanation) + 1}</sup>" if cell.explanation else ""
    if isinstance(cell.ours, str):
        same = cell.ours in ("", cell.theirs)
        return [cell.theirs if same else f"{cell.ours} (printed: {cell.theirs}){mark}"]
    ours = f"{cell.ours:.4g}"
    if cell.difference is None:
        return [ours]
    return [ours, cell.theirs, ("0" if abs(cell.difference) < 5e-4 else f"{cell.difference:+.1%}") + mark]


def main() -> None:
    """Rewrites the page, the picture and the CSV."""
    tables = all_tables()
    page = markdown(tables)
    with atomic_path(ROOT / "docs" / "papers.md") as path:
        path.write_text(page, encoding="utf-8")
    with atomic_path(ROOT / "benchmarks" / "papers.csv") as path, path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["table", "row", "quantity", "ours", "printed", "difference", "explanation"])
        for cell in (cell for table in tables for cell in table.cells):
            ours = cell.ours if isinstance(cell.ours, str) else f"{cell.ours:.6g}"
            difference = "" if cell.difference is None else f"{cell.difference:.4f}"
            writer.writerow([cell.table, cell.row, cell.quantity, ours, cell.theirs, difference, cell.explanation])
    plot_variants(ROOT / "docs" / "pareto.png")


INTRODUCTION = """# The papers' tables, counted

Written by `python -m benchmarks.papers`, which builds every model, counts it with `profile` and compares the counts
with what is printed. The same figures are in `benchmarks/papers.csv`.

MAdds are multiply-adds of convolutions and dense layers. Parameters are theirs, without biases and batch normalization:
that is how the papers count. What explains a difference of more than 1 % stands below the table, by number. Accuracies
(top-1, in percent, on ImageNet) are quoted as published; none was measured here. "TF-slim" is the table of the
checkpoints that the builders' weights come from.
"""

PARETO = """
## All published variants

![Published accuracy against multiply-adds, parameters and measured int8 latency](pareto.png)

Accuracy as published, in float; latency of the int8 files that `export_tflite` writes, on one thread of one x86-64 core
(`python -m benchmarks.variants`). The line joins the variants that no other one beats in both.
`keras-mobilenets choose` picks from them.

## NetAdapt

`keras_mobilenets.search.netadapt` is the rule of V3's section 4.2 on measured integer latency ([how](search.md)). The
published claim, up to 1.7 times faster at equal accuracy (arXiv:1804.03230), is of ImageNet and was not measured here.
"""

CAPTIONS = {
    "V1 Table 2": "Share of each type of layer in MobileNet 1.0 at 224.",
    "V1 Table 3": "One layer of 14x14x512, as a standard convolution and depthwise separable; then both multipliers.",
    "One layer": "The same depthwise separable layer in million multiply-adds as both multipliers shrink, by "
    "the paper's equation 7; it prints two of them, in Table 3.",
    "V1 Table 4": "Standard convolutions against depthwise separable ones.",
    "V1 Table 5": "Narrow against shallow: five layers of 14x14x512 less.",
    "V1 Table 6": "Width multipliers, at 224.",
    "V1 Table 7": "Resolutions, with width 1.",
    "V1 TF-slim": "All 16 models: alpha, size. Parameters with batch normalization, which this table counts.",
    "V2 Table 2": "MobileNetV2, row by row. A single entry says that ours is what is printed.",
    "V2 Table 4": "The models of the comparison that are built here.",
    "V2 TF-slim": "All 22 models: alpha, size.",
    "V3 Table 1": "MobileNetV3-Large, row by row. A single entry says that ours is what is printed.",
    "V3 Table 2": "MobileNetV3-Small, likewise.",
    "V3 Table 3": "The models of the comparison that are built here.",
    "V3 Table 9": "All 19 models: alpha, size.",
    "V3 minimalistic": "Without squeeze-excite, hard-swish and 5x5 kernels; printed in TF-slim's table.",
    **later_networks.CAPTIONS,
}


if __name__ == "__main__":
    main()
