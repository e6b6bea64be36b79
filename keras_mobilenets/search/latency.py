"""The latency of a network as the sum of its blocks', each measured as an integer file of its own."""

from __future__ import annotations

import csv
import functools
import inspect
import itertools
import os
import shlex
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mobilenets.export import export_tflite
from keras_mobilenets.graph import Graph
from keras_mobilenets.layers import CompositeLayer
from keras_mobilenets.search import measure
from keras_mobilenets.search.widths import Channels
from keras_mobilenets.utils import atomic_path, user_path

KERNELS = (keras.layers.Conv2D, keras.layers.Dense, CompositeLayer)
FREE = (keras.layers.Dropout, keras.layers.BatchNormalization)  # gone, or part of the convolution before
WITHOUT_COST = ("name", "trainable", "dtype", "momentum", "epsilon", "normalization_suffix", "drop_path")
IMAGES = 4  # a file's speed does not depend on its ranges
PIXEL = 255.0


@dataclass(frozen=True)
class Block:
    """A part of a network that is timed as one file: a composite layer, or a convolution and what follows it.

    Attributes:
        operation: its layers and their arguments, as far as they cost time.
        input_shape: (height, width, channels).
        layers: their classes and configurations.
    """

    operation: str
    input_shape: tuple[int, ...]
    layers: tuple[tuple[type[keras.layers.Layer], dict[str, Any]], ...]

    @property
    def key(self) -> tuple[str, str]:
        """What the table knows it by: operation, and shape as "12x12x16"."""
        return self.operation, "x".join(map(str, self.input_shape))

    def write(self, path: Path) -> None:
        """Makes the integer file, of random weights."""
        inputs = x = keras.Input(self.input_shape)
        for kind, config in self.layers:
            x = kind.from_config({**config, "name": None} if not issubclass(kind, CompositeLayer) else config)(x)
        pixels = any(issubclass(kind, keras.layers.Rescaling) for kind, _ in self.layers)
        values = np.random.default_rng(0).uniform(-1, 1, (IMAGES, *self.input_shape)).astype("float32")
        options: dict[str, Any] = {"calibration": PIXEL * (values + 1) / 2 if pixels else values}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of answers that differ, which mean nothing here
            model = keras.Model(inputs, x)
            export_tflite(model, path, quantize="int8", input_dtype="int8", verbose=False, **options)


CALL = Block("Call()", (1, 1, 8), ((keras.layers.Conv2D, {"filters": 8, "kernel_size": 1}),))
"""Next to nothing: what the call of a file costs, which a network has once and not for each block."""


class Chain:
    """A network's own layers in a row, to be cut into blocks at any widths without being built.

    Args:
        model: a chain of layers, as this package's builders and `build_classifier` make them.

    Raises:
        ValueError: it branches outside of its composite layers.
    """

    def __init__(self, model: keras.Model) -> None:
        if isinstance(model, keras.Sequential):
            raise ValueError(
                "`model` must be functional: keras.Model(model.inputs, model.outputs). Received: a Sequential, "
                f"{model.name!r}"
            )
        self.channels = Channels(model)
        nodes = Graph.of(model).nodes
        for before, node in itertools.pairwise(nodes):
            if node.inputs != [before] or isinstance(node.layer, keras.Model):
                raise ValueError(
                    f"`model` must be a chain of layers, as build_classifier makes it. Received: {model.name!r}, "
                    f"which is none at {node.name!r}"
                )
        self._steps = [(before.tensor.shape[1:], node.layer) for before, node in itertools.pairwise(nodes)]

    def blocks(self, widths: Mapping[str, int] | None = None) -> list[Block]:
        """The blocks of the network with other widths, which are as `narrow` takes them."""
        widths = widths or {}
        found: list[tuple[tuple[int, ...], list[tuple[type, dict[str, Any]]]]] = []
        group: str | None = None
        for shape, layer in self._steps:
            has_kernel = isinstance(layer, KERNELS)
            if not found or (has_kernel and any(issubclass(kind, KERNELS) for kind, _ in found[-1][1])):
                size = shape[-1] if group is None else self.channels.width(widths, group)
                found.append(((*shape[:-1], size), []))
            found[-1][1].append((type(layer), self.channels.config(layer, widths)))
            group = self.channels.leaving(layer, group)
        return [Block(_words(layers), shape, tuple(layers)) for shape, layers in found]


def _words(layers: Sequence[tuple[type, dict[str, Any]]]) -> str:
    return " ".join(_word(kind, config) for kind, config in layers if not issubclass(kind, FREE))


@functools.cache
def _parameters(kind: type) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(kind).parameters


def _word(kind: type, config: Mapping[str, Any]) -> str:
    """A layer as one would write it, without what makes no difference to its time."""
    known = _parameters(kind)
    shown = []
    for name, value in config.items():
        usual = known[name].default if name in known else None
        if name in WITHOUT_COST or name.endswith(("_initializer", "_regularizer", "_constraint")) or value == usual:
            continue
        value = f"{value:g}" if isinstance(value, float) else value
        shown.append(f"{name}={value}")
    return f"{kind.__name__}({', '.join(shown)})"


class LatencyTable:
    """Milliseconds of blocks in int8 on one thread, by operation, shape, processor and runtime version, in a CSV file.

        latency = sum of (block - call) + call

    `call` is the time of a file with next to nothing in it. What is added up is the time of a file that takes int8.

    What is not in it is measured when it is asked for: here, by this machine's LiteRT. For a device far away give its
    name: the files that it has to time are written into a folder with a script that does it, which needs Python or,
    by adb or ssh, TensorFlow's `benchmark_model`; what the script writes is read when the table is asked again.

    Args:
        path: of the CSV; made where there is none. None keeps the table in memory.
        device: name of a device far away; None is this machine.
        command: that has the device time the files, `{folder}` in it their folder, such as `"python
            {folder}/measure.py {folder} --run ..."`: nobody needs to be asked then.

    Attributes:
        processor, runtime: that the table is asked for.

    Raises:
        ValueError: the CSV has other columns.

    Example:

    >>> table = LatencyTable()
    >>> image = keras.Input((8, 8, 3))
    >>> model = keras.Model(image, keras.layers.Conv2D(8, 1)(keras.layers.Conv2D(8, 3)(image)))
    >>> table.latency_ms(model) > 0, len(table)  # two blocks, and what a call costs
    (True, 3)
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, device: str | None = None, command: str | None = None
    ) -> None:
        self.path = None if path is None else user_path(path)
        if device is not None and self.path is None:
            raise ValueError("`path` must be given for a device far away: its files are written beside it")
        self.device, self.command = device, command
        self.processor = device or measure.processor()
        self.runtime = measure.runtime() if device is None else ""  # a device's is what its script has noted
        self._ms: dict[tuple[str, str, str, str], float] = {}
        if self.path is not None:
            self._read(self.path)

    def __len__(self) -> int:
        return len(self._ms)

    @property
    def folder(self) -> Path:
        """Where the files of a device far away are written."""
        assert self.path is not None
        return self.path.with_suffix("")

    def latency_ms(self, model: keras.Model) -> float:
        """The sum over a network's blocks.

        Raises:
            ValueError: it is no chain of layers.
            LookupError: a device far away has not measured all of them; the message says what to do.
        """
        return self.sum(Chain(model).blocks())

    def sum(self, blocks: Sequence[Block]) -> float:
        """The latency of blocks that follow each other."""
        call, *times = self.of([CALL, *blocks])
        return call + sum(max(ms - call, 0.0) for ms in times)

    def of(self, blocks: Sequence[Block]) -> list[float]:
        """Milliseconds of each block; those that are not known are measured together."""
        missing = {block.key: block for block in blocks if self._find(block) is None}
        if missing:
            (self._measure if self.device is None else self._ask)(list(missing.values()))
        return [self._ms[self._key(block)] for block in blocks]

    def _key(self, block: Block) -> tuple[str, str, str, str]:
        return (*block.key, self.processor, self.runtime)

    def _find(self, block: Block) -> float | None:
        return self._ms.get(self._key(block))

    def add(self, times: Mapping[tuple[str, str], float]) -> None:
        """Notes milliseconds that were measured elsewhere, by `Block.key`."""
        self._ms.update({(*key, self.processor, self.runtime): round(ms, 5) for key, ms in times.items()})
        self._write()

    def _measure(self, blocks: Sequence[Block]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / f"{number}.tflite" for number in range(len(blocks))]
            for block, file in zip(blocks, files, strict=True):
                block.write(file)
            self.add({block.key: ms for block, ms in zip(blocks, measure.measure(files), strict=True)})

    def _ask(self, blocks: Sequence[Block]) -> None:
        """Has a device far away measure, or says how that is done."""
        self._read(self.folder / measure.LATENCY)
        missing = [block for block in blocks if self._find(block) is None]
        if missing:
            self._export(missing)
        if missing and self.command:
            words = [word.replace("{folder}", str(self.folder)) for word in shlex.split(self.command)]
            subprocess.run(words, check=True)
            self._read(self.folder / measure.LATENCY)
        self._write()
        if left := [block for block in missing if self._find(block) is None]:
            raise LookupError(
                f"{len(left)} blocks are not measured on {self.device}: run there, or beside it, "
                f"python {self.folder}/measure.py {self.folder}, see its --help, and go on with the same call"
            )

    def _export(self, blocks: Sequence[Block]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(measure.__file__, self.folder / "measure.py")
        listed = measure.rows(self.folder / measure.BLOCKS)
        known = {(row["operation"], row["input"]) for row in listed}
        for block in blocks:
            if block.key not in known:
                file = f"block-{len(listed):04}.tflite"
                block.write(self.folder / file)
                listed.append({"operation": block.operation, "input": block.key[1], "file": file})
        _write_rows(self.folder / measure.BLOCKS, ("operation", "input", "file"), listed)

    def _read(self, path: Path) -> None:
        for row in measure.rows(path):
            if set(row) != set(measure.COLUMNS):
                raise ValueError(f"{path} must have the columns {', '.join(measure.COLUMNS)}. It has: {', '.join(row)}")
            if row["processor"] == self.device:
                self.runtime = row["runtime"]
            self._ms[row["operation"], row["input"], row["processor"], row["runtime"]] = float(row["ms"])

    def _write(self) -> None:
        if self.path is not None:
            lines = [dict(zip(measure.COLUMNS, (*key, ms), strict=True)) for key, ms in self._ms.items()]
            _write_rows(self.path, measure.COLUMNS, lines)


def _write_rows(path: Path, columns: Sequence[str], lines: Sequence[Mapping[str, Any]]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
