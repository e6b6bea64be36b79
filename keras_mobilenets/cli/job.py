"""The main job: pictures in; a float model, its quantization-aware twin and an integer `.tflite` out, and compared."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
from rich import box
from rich.table import Table

from keras_mobilenets import __version__
from keras_mobilenets.apps.runtime import check_runtime
from keras_mobilenets.apps.web import write_web
from keras_mobilenets.cli import progress, report
from keras_mobilenets.cli.apps import deployed
from keras_mobilenets.cli.evaluation import compare
from keras_mobilenets.cli.models import LABELS_FILE, check_classes, keras_model, load_keras, tflite_model
from keras_mobilenets.cli.settings import DONE_FILE, Settings, begin, write_json
from keras_mobilenets.export import export_tflite
from keras_mobilenets.loaders import LOADERS
from keras_mobilenets.pixels import PixelScale, unknown
from keras_mobilenets.tasks import TASKS, task_of
from keras_mobilenets.tasks.boxes import named_anchors
from keras_mobilenets.tasks.saved import write_task
from keras_mobilenets.tflite import audit
from keras_mobilenets.tflite.labels import write_labels
from keras_mobilenets.training import (
    RECIPES,
    Checkpoint,
    JsonLines,
    distribute,
    fine_tune,
    fit,
    job,
    quantize_aware,
)
from keras_mobilenets.training.building import build_model
from keras_mobilenets.training.devices import first_alone, part, process, without_job
from keras_mobilenets.training.distillation import student_task
from keras_mobilenets.training.logs import rows_of
from keras_mobilenets.utils import atomic_path, locked, quiet, require

STEPS = 4
PEERS = ("keras", "tensorflow", "numpy")
PHASES = ("float", "quantized")
LOG_FILE = "log.jsonl"
PAGE = "page"
KEPT_PICTURES = 400  # at most; what the report may choose its examples from
EXAMINED = 2_000  # pictures, at most, whose targets are looked at
TRAINED = ("float.keras", "qat.keras")


def train(folder: Path, settings: Settings) -> None:
    """Does whatever of a run is still to do, alone or as one of several processes: the first speaks and writes.

    TensorFlow alone makes a `.tflite` file: on another backend, a process of its own does what follows training.

    Args:
        folder: the run folder.
        settings: what to do.
    """
    found, on_tensorflow = job(), keras.backend.backend() == "tensorflow"
    first = found is None or found.process == 0
    progress.console.quiet = not first
    if on_tensorflow or not _is_trained(folder):
        Job(folder, settings).run()
    if on_tensorflow or not first:
        return
    command = [sys.executable, "-m", "keras_mobilenets", "train", "--resume", "--output", os.fspath(folder)]
    # This process has the GPUs, and their memory.
    environment = {**without_job(), "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""}
    code = subprocess.run(command, env=environment, check=False).returncode
    if code:
        raise SystemExit(code)


def look(folder: Path, settings: Settings) -> None:
    """Reads the data and says what is in them, and leaves nothing."""
    Job(folder, settings)


def _is_trained(folder: Path) -> bool:
    return all((folder / name).exists() for name in TRAINED)


class Job:
    """One run and its folder; each part is skipped if an earlier, interrupted run finished it.

    Args:
        folder: the run folder.
        settings: what to do.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        if settings.tensorboard:
            require("tensorboard", "tensorboard")
        self.folder = folder
        self.settings = settings
        if settings.page:
            check_runtime(self._runtime())
        self.recipe = RECIPES[settings.recipe]
        with quiet():  # imports TensorFlow, on any backend
            keras.utils.set_random_seed(settings.seed)
        with self._devices():  # the first thing that one of several processes does
            self.writes = process() == 0
            with first_alone():  # may have to be prepared
                self.data = self._load()
            self.task = TASKS[settings.task].of(self.data, self.recipe, settings.alpha)
            if settings.anchors is not None:
                self.task = dataclasses.replace(  # type: ignore[type-var]  # of detection, see `cli.checks`
                    self.task, anchors=named_anchors(settings.anchors)
                )
            for line in self.task.examine(self.data.targets(EXAMINED)):
                progress.console.print(f"  {line}")
            self.teacher = self._teacher()

    def run(self) -> None:
        """Does whatever is still to do, on another backend than TensorFlow up to the trained models."""
        try:
            with self._devices(), self._begun():
                model = self._trained()
                quantized = self._quantized(model)
                part()
            if keras.backend.backend() == "tensorflow":
                with locked(self.folder):
                    if self.settings.devices:  # outside of them, models have their weights once
                        model, quantized = (load_keras(self.folder / name) for name in TRAINED)
                    path = self._exported(quantized)
                    self._page(path)
                    self._compare(model, quantized, path)
        except (KeyboardInterrupt, SystemExit):
            progress.console.print(f"To go on: keras-mobilenets train --resume --output {self.folder}", soft_wrap=True)
            raise

    @contextlib.contextmanager
    def _begun(self) -> Iterator[None]:
        """Has the folder alone, with what was asked in it."""
        if not self.writes:
            yield
            return
        with locked(self.folder):
            begin(self.folder, self.settings)
            with atomic_path(self.folder / LABELS_FILE) as path:
                path.write_bytes(write_labels(self.data.class_names))
            yield

    def _devices(self) -> Any:
        """Where models are split among devices."""
        devices = self.settings.devices or ("all" if job() else None)
        return distribute(devices) if devices and not _is_trained(self.folder) else contextlib.nullcontext()

    def _load(self) -> Any:
        settings = self.settings
        progress.step(1, STEPS, f"Reading {settings.data}")
        with progress.counting("pictures") as count:
            data = LOADERS[settings.task].loaded(
                settings.data,
                image_size=settings.image_size,
                batch_size=settings.batch_size,
                seed=settings.seed,
                augment=settings.augment,
                on_error="raise" if settings.strict else "skip",
                progress=count,
            )
        if not data.class_names and settings.teacher is None:
            raise ValueError(
                f"{settings.data} holds no two sub-folders of identities: its pictures can be learned from by --teacher"
            )
        height, width = data.image_size
        progress.console.print(
            f"  {data.train_count:,} pictures to train on, {data.val_count:,} held out, "
            f"{len(data.class_names)} classes, seen at {height} x {width}"
        )
        if data.broken:
            progress.console.print(f"  [yellow]Not read, {len(data.broken)}:[/]")
            for line in data.broken[:5]:
                progress.console.print(f"    {line}", markup=False)
        return data

    def _teacher(self) -> keras.Model | None:
        """The model to learn from, made to take the data's pixels."""
        if self.settings.teacher is None:
            return None
        teacher = load_keras(Path(self.settings.teacher))
        self.task = student_task(self.task, teacher)
        if (taught := task_of(teacher)) is not None and taught.name == self.task.name:
            check_classes(taught, self.data.class_names, self.data.name)
        scale = PixelScale.known(teacher)
        if scale is None:
            raise unknown(teacher)
        inputs = keras.Input((*self.data.image_size, 3))
        pixels = keras.layers.Resizing(*teacher.input_shape[1:3])(inputs)
        return keras.Model(inputs, teacher(scale(pixels)), name="teacher")

    def _trained(self) -> keras.Model:
        """The float model."""
        settings, path = self.settings, self.folder / "float.keras"
        progress.step(2, STEPS, f"Training {settings.model}, alpha {settings.alpha:g}")
        if path.exists():
            return _done(path)
        recipe, batch_size = self.recipe, self.data.batch_size
        steps = settings.epochs * self.data.steps_per_epoch
        average = recipe.batch_norm_momentum
        model = build_model(
            settings.model,
            self.task,
            image_size=self.data.image_size,
            alpha=settings.alpha,
            weights=settings.weights,
            momentum=average and recipe.momentum(average, batch_size=batch_size, steps=steps),
        )
        options = {"recipe": recipe, "epochs": settings.epochs}
        if recipe.stages:
            with progress.counting("features") as count:
                tell = lambda text: progress.console.print(f"  {text}")  # noqa: E731
                options |= {"checkpoints": self._checkpoints("float"), "progress": count, "tell": tell}
                self._train("float", fine_tune, model, **options)
        else:
            self._train("float", fit, model, checkpoint=Checkpoint(self._checkpoints("float")), **options)
        self._save(model, path)
        return model

    def _quantized(self, model: keras.Model) -> keras.Model:
        """The quantization-aware twin, fine-tuned."""
        path = self.folder / "qat.keras"
        progress.step(3, STEPS, "Fine-tuning with 8-bit arithmetic simulated")
        if path.exists():
            return _done(path)
        quantized = self._train(
            "quantized",
            quantize_aware,
            model,
            recipe=RECIPES[self.recipe.quantize or self.recipe.name],
            epochs=self.settings.quantize_epochs,
            checkpoint=Checkpoint(self._checkpoints("quantized")),
        )
        self._save(quantized, path)
        return quantized

    def _exported(self, quantized: keras.Model) -> Path:
        """The integer file."""
        path = self.folder / "model.tflite"
        progress.step(4, STEPS, "Converting to integers and comparing on the held-out pictures")
        if not path.exists():
            with progress.console.status("converting"), quiet():
                options = {"task": self.task, "labels": self.data.class_names, "verbose": False}
                in_float = export_tflite(quantized, path, verify=self.data.val, **options).float_layers
            if in_float:  # a head of one's own, perhaps
                progress.console.print(
                    f"  in float, as asked or as runtimes have no integer form: {', '.join(in_float)}"
                )
        return path

    def _page(self, path: Path) -> None:
        page = self.folder / PAGE
        if self.settings.page and not page.exists():
            write_web(deployed(path, self.settings.model, None), page, runtime=self._runtime())
            progress.console.print(f"  {page}: look at it with python3 -m http.server -d {page}", soft_wrap=True)

    def _runtime(self) -> str | None:
        return None if self.settings.page == "npm" else self.settings.page

    def _compare(self, model: keras.Model, quantized: keras.Model, path: Path) -> None:
        """All three on the held-out pictures; leaves the metrics, the curves and the report."""
        models = {
            "float": keras_model(model, task=self.task),
            "qat": keras_model(quantized, task=self.task),
            "tflite": tflite_model(path, task=self.task),
        }
        with progress.counting("pictures") as count:
            total = self.data.val_count
            keep = range(0, total, -(-total // KEPT_PICTURES))  # from all over: folders come sorted by class
            found = compare(models, self.data.val, keep=keep, progress=lambda done: count(done, total))
        files = dict(zip(models, (*TRAINED, path.name), strict=True))
        metrics = {
            "settings": dataclasses.asdict(self.settings),
            "data": {
                "name": self.data.name,
                "classes": list(self.data.class_names),
                "image_size": list(self.data.image_size),
                "train": self.data.train_count,
                "held_out": self.data.val_count,
                "broken": list(self.data.broken),
            },
            "headline": self.task.headline,
            "parameters": model.count_params(),
            "models": {
                name: {
                    "file": file,
                    **found.score(name),
                    "size_bytes": (self.folder / file).stat().st_size,
                    "latency_ms": models[name].latency_ms(found.pictures[0]),
                }
                for name, file in files.items()
            },
            "agreement": {other: found.agreement("tflite", other) for other in ("qat", "float")},
            "tflite": _summary(path),
            "versions": {"keras_mobilenets": __version__, **{name: metadata.version(name) for name in PEERS}},
            "history": {name: json.loads((self.folder / f"history-{name}.json").read_text()) for name in PHASES},
        }
        report.write(self.folder, metrics, found)
        write_json(self.folder / DONE_FILE, metrics)
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        progress.console.print(_table(metrics), f"Look at {self.folder / report.REPORT_FILE}", sep="\n")

    def _train(self, name: str, function: Callable[..., Any], model: keras.Model, **options: Any) -> Any:
        """Trains by `fit`, `fine_tune` or `quantize_aware`, and writes down how it went; gives what that gives."""
        log = JsonLines(self.folder / LOG_FILE, run=name)
        boards = []
        if self.settings.tensorboard and self.writes:
            boards.append(keras.callbacks.TensorBoard(self.folder / "tensorboard" / name, write_graph=False))
        with progress.epochs(name, self.data.batch_size, self.task.headline) as callback:
            options |= {"task": self.task, "teacher": self.teacher, "callbacks": [callback, log, *boards]}
            done = function(model, self.data, **options)
        if self.writes:
            history = done.history if isinstance(done, keras.Model) else done
            write_json(self.folder / f"history-{name}.json", rows_of(history))
        return done

    def _save(self, model: keras.Model, path: Path) -> None:
        # The same layers without the optimizer: a model to use is a third of the size of one to train.
        if self.writes:
            with atomic_path(path) as temporary:
                type(model)(model.inputs, model.output, name=model.name).save(temporary)
                write_task(temporary, self.task)

    def _checkpoints(self, name: str) -> Path:
        return self.folder / "checkpoints" / name


def _summary(path: Path) -> dict[str, Any]:
    found = audit(path)
    return {
        "input": found.input,
        "output": found.output,
        "is_integer": found.is_integer,
        "operations": found.operations,
        "float_tensors": list(found.float_tensors),
        "arena_bytes": found.arena_bytes,
        "madds": found.madds,
    }


def _table(metrics: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("", metrics["headline"], "same answer as .tflite", "size", "one picture"):
        table.add_column(name, justify="right" if name else "left")
    for name, one in metrics["models"].items():
        same = metrics["agreement"].get(name)
        table.add_row(
            one["file"],
            "-" if (figure := one[metrics["headline"]]) is None else f"{figure:.2%}",
            "" if same is None else f"{same:.2%}",
            f"{one['size_bytes'] / 1e3:,.0f} kB",
            f"{one['latency_ms']:.2f} ms",
        )
    return table


def _done(path: Path) -> keras.Model:
    progress.console.print(f"  done before: {path}")
    return load_keras(path)
