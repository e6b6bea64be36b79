"""`predict` and `embed` with `--runner`: a `.tflite` file asked about any number of pictures, by Apache Beam."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow
from apache_beam.io.fileio import MatchAll
from apache_beam.io.filesystems import FileSystems
from apache_beam.metrics import Metrics, MetricsFilter
from apache_beam.ml.inference.base import KeyedModelHandler, ModelHandler, RunInference
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineState, create_runner
from rich.console import Console

from keras_mobilenets.cli.embedding import IMAGE, VECTOR, check_embedding
from keras_mobilenets.cli.models import PictureModel, saved_labels, tflite_model
from keras_mobilenets.data.images import BrokenImage, read_image
from keras_mobilenets.pixels import PixelScale
from keras_mobilenets.tasks import Task

LOCAL = "DirectRunner"  # what `--runner beam` is
PAUSES = 1.0, 4.0  # seconds before a file is read again; stores have short outages
BATCH_SIZE = 64  # pictures that a worker holds for the model: 10 MB at 224 x 224
ANSWERED, BROKEN = "answered", "broken"
NUMBERS = pyarrow.list_(pyarrow.float32())
FIELDS = {"name": pyarrow.string(), "score": pyarrow.float32(), "box": NUMBERS, "vector": NUMBERS}
SAID = {"boxes": ("name", "score", "box"), "embedding": ("name", "vector")}  # of what `describe` lists, else two

_one_at_a_time = threading.Lock()  # a worker's threads share the model, and its interpreter is not for two of them
console = Console(highlight=False)


class ReadPictures(beam.DoFn):
    """From the path of a picture to (path, pixels), or to (path, reason) among those tagged as broken.

    Args:
        image_size: (height, width) that the model sees.
        crop: whether it sees the middle, as `read_image` has it.
        pauses: seconds to wait after each failed attempt to read a file, before the next.
    """

    def __init__(self, image_size: tuple[int, int], crop: bool = True, pauses: Sequence[float] = PAUSES) -> None:
        super().__init__()
        self.image_size = image_size
        self.crop = crop
        self.pauses = pauses

    def process(self, path: str) -> Iterator[Any]:
        try:
            pixels = read_image(self._read(path), self.image_size, crop=self.crop)
        except (BrokenImage, OSError) as error:
            Metrics.counter(__name__, BROKEN).inc()
            yield beam.pvalue.TaggedOutput(BROKEN, {"image": path, "reason": str(error).removeprefix("image: ")})
        else:
            Metrics.counter(__name__, ANSWERED).inc()
            yield path, pixels

    def _read(self, path: str) -> bytes:
        for pause in (*self.pauses, None):
            try:
                with FileSystems.open(path) as file:
                    return file.read()
            except OSError:
                if pause is None:
                    raise
                time.sleep(pause)
        raise AssertionError("unreachable")


class TFLiteHandler(ModelHandler[np.ndarray, list, PictureModel]):
    """How RunInference asks a `.tflite` model: from pixels to what it found.

    The file travels inside of the pipeline, so that workers need no access to it.

    Args:
        content: of the file.
        labels: names of the classes, if they are not in the file.
        top: how many classes an answer has; None for the numbers themselves, of a model that gives a vector.
        pixels: what the model takes for them; None if the file says it.
    """

    def __init__(self, content: bytes, labels: list[str] | None, top: int | None, pixels: PixelScale | None) -> None:
        super().__init__(max_batch_size=BATCH_SIZE)
        self.content = content
        self.labels = labels
        self.top = top
        self.pixels = pixels

    def load_model(self) -> PictureModel:
        return tflite_model(self.content, self.labels, pixels=self.pixels)

    def run_inference(
        self, batch: Sequence[np.ndarray], model: PictureModel, inference_args: dict[str, Any] | None = None
    ) -> list[list]:
        with _one_at_a_time:
            answers = model.predict(np.stack(batch))
        return [one.tolist() if self.top is None else model.best(one, self.top) for one in answers]


def predict(
    model: Path,
    patterns: list[str],
    *,
    top: int,
    runner: str,
    output: str,
    flags: list[str],
    pixels: PixelScale | None = None,
) -> None:
    """Writes the likeliest classes of every picture, and beside them which pictures are broken and why.

    Args:
        model: a `.tflite` file.
        patterns: paths or globs of pictures, on any file system that Beam is installed for.
        top: how many classes an answer has.
        runner: "beam", or the name of one of Beam's runners.
        output: NAME.jsonl or NAME.parquet; becomes NAME-00000-of-00008.jsonl and so on.
        flags: Beam's own.
        pixels: what the model takes for them; None if the file says it.

    Raises:
        ValueError: Beam knows no such runner or misses an option of it, or there are no pictures.
        FileExistsError: there is output of that name.
    """
    labels = saved_labels(model)
    task = tflite_model(model, labels, pixels=pixels).task  # here first: a file that is none is told now
    _run(model, patterns, runner, output, flags, TFLiteHandler(model.read_bytes(), labels, top, pixels), _said(task))


def embed(model: Path, pattern: str, *, runner: str, output: str, flags: list[str], pixels: PixelScale | None) -> None:
    """Writes the vector of every picture, of length 1, for `search`; arguments and errors as of `predict`."""
    check_embedding(model, tflite_model(model, pixels=pixels))
    fields = [(IMAGE, pyarrow.string()), (VECTOR, NUMBERS)]
    handler = TFLiteHandler(model.read_bytes(), None, None, pixels)
    _run(model, [pattern], runner, output, flags, handler, pyarrow.schema(fields))


def _run(
    model: Path,
    patterns: list[str],
    runner: str,
    output: str,
    flags: list[str],
    handler: TFLiteHandler,
    schema: pyarrow.Schema,
) -> None:
    """Asks about every picture; writes paths and what the handler gives, under the names of the schema."""
    name, suffix = os.path.splitext(output)
    opened = handler.load_model()
    _check(patterns, name)
    try:
        chosen = create_runner(LOCAL if runner == "beam" else runner)
        pipeline = beam.Pipeline(runner=chosen, options=PipelineOptions(flags))
    except (ValueError, ImportError) as error:
        raise ValueError(f"--runner {runner}: {error}") from error

    paths = pipeline | beam.Create(patterns) | MatchAll() | beam.Map(lambda file: file.path) | beam.Reshuffle()
    pictures = beam.ParDo(ReadPictures(opened.image_size, opened.task.crops))
    read = paths | "Read" >> pictures.with_outputs(BROKEN, main="pixels")
    names = schema.names
    answers = (
        read.pixels
        | RunInference(KeyedModelHandler(handler))
        | beam.Map(lambda one: dict(zip(names, one, strict=True)))
    )
    if suffix == ".parquet":
        answers | "Write" >> beam.io.WriteToParquet(name, schema, file_name_suffix=suffix)
    else:
        _ = answers | "Write" >> WriteLines(name)
    _ = read.broken | "WriteBroken" >> WriteLines(f"{name}.broken", skip_if_empty=True)

    result = pipeline.run()
    state = result.wait_until_finish()
    if state != PipelineState.DONE:
        raise RuntimeError(f"The job on {runner} ended as {state}; its log says why")
    counts = {found.key.metric.name: found.committed for found in _counters(result)}
    console.print(f"{counts.get(ANSWERED, 0):,} pictures answered: {name}-*{suffix}", soft_wrap=True)
    if counts.get(BROKEN):
        console.print(f"[yellow]{counts[BROKEN]:,} broken:[/] {name}.broken-*.jsonl", soft_wrap=True)


def _said(task: Task) -> pyarrow.Schema:
    """Of what `describe` gives."""
    fields = [(name, FIELDS[name]) for name in SAID.get(task.found, ("name", "score"))]
    return pyarrow.schema([(IMAGE, pyarrow.string()), (task.found, pyarrow.list_(pyarrow.struct(fields)))])


class WriteLines(beam.PTransform):
    """Writes dicts as lines of JSON, into NAME-00000-of-00001.jsonl and so on."""

    def __init__(self, name: str, **options: Any) -> None:
        super().__init__()
        self.name = name
        self.options = options

    def expand(self, records: beam.PCollection) -> Any:
        return (
            records | beam.Map(json.dumps) | beam.io.WriteToText(self.name, file_name_suffix=".jsonl", **self.options)
        )


def _check(patterns: list[str], name: str) -> None:
    """Before the job: what no worker could mend."""
    for pattern in patterns:
        if os.path.isdir(pattern):
            raise ValueError(f"{pattern} is a folder: write '{pattern}/**' for all that is in it")
        if not FileSystems.match([pattern], [1])[0].metadata_list:
            raise ValueError(f"There is no file {pattern}")
    for found in FileSystems.match([f"{name}-*", f"{name}.broken-*"], [1, 1]):
        if found.metadata_list:
            raise FileExistsError(f"There is {found.metadata_list[0].path}: choose another --output")


def _counters(result: Any) -> list[Any]:
    return result.metrics().query(MetricsFilter().with_namespace(__name__))["counters"]
