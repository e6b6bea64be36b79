"""Builds the site: `python docs/build.py`. Gathers the pages in build/docs, and calls the generator on them.

Beside the pages as they are written: the reference from the stubs and the command line, tables from the benchmarks'
CSVs, copies of the files outside of docs/ that pages link to. A page says

    <!-- table: FILE rows=COLUMN columns=COLUMN value="COLUMN" [unit=%] [COLUMN=VALUE ...] -->

and gets a table of the means of `value` in the lines that have the values.
"""

from __future__ import annotations

import ast
import csv
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "keras_mobilenets"
PAGES = ROOT / "build" / "docs"  # `docs_dir` in mkdocs.yml
PARTS = (
    *("applications", "layers", "quantization", "integer", "export", "tflite", "interop"),
    *("data", "training", "diagnosis", "analysis", "search"),
)
TABLE = re.compile(r"<!-- table: (\S+) (.*?) -->")
OUTSIDE = re.compile(r"\]\(\.\./([\w./-]+)\)")
TEXTS = (".py", ".csv", ".md", ".ipynb")  # which browsers show as .txt, and download else


def main() -> None:
    """Gathers the pages, and builds."""
    gather()
    build = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    sys.exit(subprocess.run(build, cwd=ROOT, check=False).returncode)


def gather() -> None:
    """Writes all pages into build/docs."""
    shutil.rmtree(PAGES, ignore_errors=True)
    (PAGES / "reference").mkdir(parents=True)
    for path in (ROOT / "docs").iterdir():
        if path.suffix == ".md":
            (PAGES / path.name).write_text(filled(path.read_text()))
        elif path.suffix in (".png", ".css"):
            shutil.copy(path, PAGES)
    examples = (ROOT / "examples" / "README.md").read_text()
    (PAGES / "examples.md").write_text(filled(examples.replace("](", "](../examples/")))
    for part in PARTS:
        (PAGES / "reference" / f"{part}.md").write_text(reference(part))
    (PAGES / "reference" / "command-line.md").write_text(command_line())


def filled(markdown: str) -> str:
    """A page with its tables, and with links to copies of what lies outside of docs/, which are made."""

    def copy(found: re.Match[str]) -> str:
        path = f"files/{found[1]}" + (".txt" if found[1].endswith(TEXTS) else "")
        (PAGES / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / found[1], PAGES / path)
        return f"]({path})"

    markdown = markdown.replace("../examples/README.md", "examples.md")
    return OUTSIDE.sub(copy, TABLE.sub(lambda found: table(found[1], shlex.split(found[2])), markdown))


def table(path: str, words: list[str]) -> str:
    """A Markdown table of the means of one column of a CSV, by two others."""
    options = dict(word.split("=", 1) for word in words)
    rows, columns, value, unit = (options.pop(name, "") for name in ("rows", "columns", "value", "unit"))
    scale, digits = (100, 1) if unit == "%" else (1, 2)
    cells: dict[tuple[str, str], list[float]] = {}
    with (ROOT / path).open(newline="") as file:
        for line in csv.DictReader(file):
            if line[value] and all(line[name] == wanted for name, wanted in options.items()):
                cells.setdefault((line[rows], line[columns]), []).append(scale * float(line[value]))
    names = list(dict.fromkeys(column for _, column in cells))
    lines = [["", *names], ["---", *["---:"] * len(names)]]
    for row in dict.fromkeys(row for row, _ in cells):
        means = (cells.get((row, name)) for name in names)
        lines.append([row, *("" if mean is None else f"{fmean(mean):.{digits}f}" for mean in means)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def public_names(part: str) -> Iterator[str]:
    """The full names of what a package's stub makes public, without its modules."""
    for node in ast.parse((PACKAGE / part / "__init__.pyi").read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"keras_mobilenets.{part}.{node.module}.{alias.name}" for alias in node.names)


def reference(part: str) -> str:
    """A page with the docstrings of a package and of all its public names."""
    about = ast.get_docstring(ast.parse((PACKAGE / part / "__init__.py").read_text())) or ""
    names = (f"::: {name}" for name in public_names(part))
    return "\n\n".join([f"# keras_mobilenets.{part}", about.partition("Public names:")[0], *names])


def command_line() -> str:
    """A page with the help of all commands."""
    import typer.testing

    from keras_mobilenets.cli import app

    app.rich_markup_mode = None  # plain text
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    names = [
        [name, *inner]
        for name, one in commands.items()
        for inner in ([], *([sub] for sub in getattr(one, "commands", ())))
    ]
    run = typer.testing.CliRunner().invoke
    helps = {" ".join(name): run(app, [*name, "--help"], prog_name="keras-mobilenets").stdout.strip() for name in names}
    sections = (f"## {name}\n\n```\n{text}\n```" for name, text in helps.items())
    return "\n\n".join(["# keras-mobilenets", app.info.help or "", *sections])


if __name__ == "__main__":
    main()
