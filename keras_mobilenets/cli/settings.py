"""What a run was asked to do, kept in its folder: enough to do it again, or to go on with it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keras_mobilenets.loaders import LOADERS
from keras_mobilenets.tasks import TASKS
from keras_mobilenets.training.recipes import RECIPES
from keras_mobilenets.utils import atomic_path

RUN_FILE = "run.json"
DONE_FILE = "metrics.json"


@dataclasses.dataclass(frozen=True)
class Settings:
    """The arguments of `keras-mobilenets train`, with what was left open decided.

    Attributes:
        task: one of `keras_mobilenets.tasks.TASKS`.
        data: name of a data set, or path of a folder.
        model: name of a builder.
        alpha: width multiplier.
        image_size: side of the model's input; None: by the pictures.
        weights: "imagenet", path of a weight file, or None.
        recipe: name of the float training's recipe.
        teacher: path of a model to learn from, or None.
        epochs: of float training.
        quantize_epochs: of quantization-aware training.
        batch_size: pictures in a training step.
        seed: of everything random.
        augment: what is done to the pictures to train on; see `load`.
        strict: whether broken pictures are refused.
        tensorboard: whether logs for TensorBoard are written.
        devices: how many share the training, or "all"; None leaves it to one.
        anchors: of a detector, see `named_anchors`; None for its own.
        page: "npm", or the folder with the runtime, where a page is written that runs the file in the browser.
    """

    task: str
    data: str
    model: str
    alpha: float
    image_size: int | None
    weights: str | None
    recipe: str
    teacher: str | None
    epochs: int
    quantize_epochs: int
    batch_size: int
    seed: int
    augment: Sequence[str]
    strict: bool
    tensorboard: bool
    devices: int | str | None = None
    anchors: str | None = None
    page: str | None = None

    @classmethod
    def decide(cls, **given: Any) -> Settings:
        """Fills in what the user left open; a network that starts from weights needs less training."""
        trained = given["weights"] is not None
        name = given["recipe"] or TASKS[given["task"]].recipes[trained]  # type: ignore[index]
        recipe = RECIPES[name]
        if recipe.stages and not trained:
            raise ValueError(f"The recipe {name} starts from weights: add --weights imagenet, or a file")
        defaults = {
            "alpha": 1.0 if trained else 0.5,
            "recipe": name,
            "batch_size": LOADERS[given["task"]].batch_size,
            "epochs": recipe.epochs,
            "quantize_epochs": RECIPES[recipe.quantize or name].epochs,
        }
        paths = ("data", "weights", "teacher", "page")
        absolute = {name: str(Path(given[name]).resolve()) for name in paths if _is_path(given[name])}
        return cls(**{**given, **{k: v for k, v in defaults.items() if given[k] is None}, **absolute})


def _is_path(value: str | None) -> bool:
    return value not in (None, "imagenet") and Path(value).exists()


def start(output: Path | None, given: dict[str, Any], typed: Sequence[str], *, resume: bool) -> tuple[Path, Settings]:
    """Finds the folder of the run to go on with, or chooses one for a new run; `begin` makes it.

    Args:
        output: the folder, or None.
        given: the command's arguments by name.
        typed: names of those that the user gave.
        resume: whether to go on with a run; what it was asked at its start counts. Where nothing was begun in `output`,
            a new run: what is started again and again has one command for the first time and all others.

    Raises:
        OSError: there is no such run, or there is one already.
        ValueError: the user asks something else of a run than at its start.
    """
    if not resume or (output is not None and _is_free(output)):
        settings = Settings.decide(**given)
        return _new_folder(output, settings), settings
    folder, settings = _old_run(output)
    before = dataclasses.asdict(settings)
    now = dataclasses.asdict(Settings.decide(**{**before, **{name: given[name] for name in typed}}))
    changed = [f"--{name.replace('_', '-')} was {before[name]}" for name in typed if now[name] != before[name]]
    if changed:
        raise ValueError(f"{folder} was begun otherwise and cannot change on the way: {', '.join(changed)}")
    return folder, settings


def begin(folder: Path, settings: Settings) -> None:
    """Makes the run folder, and notes in it what was asked; once there is something to do, so that none stays empty."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / RUN_FILE, dataclasses.asdict(settings))


def _new_folder(output: Path | None, settings: Settings) -> Path:
    if output is None:
        return _next_folder(Path("runs"), Path(settings.data).name)
    if not _is_free(output):
        what = "holds a run; go on with it by --resume" if (output / RUN_FILE).exists() else "is not empty"
        raise FileExistsError(f"{output} {what}, or choose another --output")
    return output


def _is_free(folder: Path) -> bool:
    """Whether a run can begin there: a lock, and what was half-written, are of one that has not."""
    return not folder.exists() or (folder.is_dir() and all(path.name.startswith(".") for path in folder.iterdir()))


def _next_folder(root: Path, name: str) -> Path:
    number = 1
    while (root / f"{name}-{number}").exists():
        number += 1
    return root / f"{name}-{number}"


def _old_run(output: Path | None) -> tuple[Path, Settings]:
    if output is None:
        runs = sorted(Path("runs").glob(f"*/{RUN_FILE}"), key=lambda path: path.stat().st_mtime)
        unfinished = [path.parent for path in runs if not (path.parent / DONE_FILE).exists()]
        if not unfinished:
            raise FileNotFoundError("There is no unfinished run in runs/; name one by --output")
        output = unfinished[-1]
    if not (output / RUN_FILE).is_file():
        raise FileNotFoundError(f"{output} holds no run to go on with: there is no {RUN_FILE} in it")
    return output, Settings(**json.loads((output / RUN_FILE).read_text()))


def write_json(path: Path, content: Any) -> None:
    """Writes a file that a person may want to read, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
