"""A trained model, be it a `.keras` or a `.tflite` file: pixels in, the task's answers out."""

from __future__ import annotations

import contextlib
import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_mobilenets.data.images import read_image, to_grey
from keras_mobilenets.pixels import PixelScale, unknown
from keras_mobilenets.tasks.known import task_of
from keras_mobilenets.tasks.saved import saved_task
from keras_mobilenets.tasks.task import Task
from keras_mobilenets.tflite.file import TFLiteFile
from keras_mobilenets.tflite.labels import parse_labels
from keras_mobilenets.utils import quiet

LABELS_FILE = "labels.txt"
LATENCY_RUNS = 20
PIXELS_OPTION = "--pixels, such as --pixels 0,1"


@dataclasses.dataclass(frozen=True)
class Form:
    """What of a model its file says: one image goes in, and what comes out is of a task.

    Attributes:
        image_size: (height, width).
        channels: 3 of RGB, 1 of grey.
        task: what the outputs mean.
    """

    image_size: tuple[int, int]
    channels: int
    task: Task


class PictureModel:
    """A model that is asked about uint8 pictures, whatever file it comes from.

    Args:
        run: from uint8 (batch, height, width, channels) to the model's outputs.
        form: of the model.
        labels: names of the classes, or None if nobody wrote them down.

    Raises:
        ValueError: there are more or fewer names than classes.
    """

    def __init__(self, run: Callable[[np.ndarray], Any], form: Form, labels: list[str] | None) -> None:
        self.run = run
        self.task = form.task
        self.image_size = form.image_size
        self.channels = form.channels
        if labels is not None:
            try:
                written = self.task.in_file(labels)
            except ValueError as error:
                raise ValueError(f"{error}, inside of the file or in {LABELS_FILE} beside it") from None
            single = len(labels) == 1  # of the one sigmoid, whose answers are two
            labels = [f"not {labels[0]}", *labels] if single else labels
            labels = labels if any(one.labels for one in written.outputs) else None  # an embedding knows no identities
        self.labels = labels

    def predict(self, images: np.ndarray) -> Any:
        """The task's answers about RGB pictures, one for each."""
        return self.task.decode(self.run(images if self.channels == 3 else to_grey(images)), self.image_size)

    def read(self, picture: Any) -> np.ndarray:
        """A picture as the model is shown it."""
        return read_image(picture, self.image_size, crop=self.task.crops)

    def best(self, answer: Any, top: int) -> list[dict[str, Any]]:
        """What the answer about one picture says, the likeliest first: {"name": ..., "score": ...} each."""
        return self.task.describe(answer, self.labels, top)

    def latency_ms(self, image: np.ndarray) -> float:
        """Median time for one picture, after a warm-up."""
        self.predict(image[np.newaxis])
        times = []
        for _ in range(LATENCY_RUNS):
            began = time.perf_counter()
            self.predict(image[np.newaxis])
            times.append(time.perf_counter() - began)
        return statistics.median(times) * 1e3


def open_model(path: Path, pixels: PixelScale | None = None) -> PictureModel:
    """Opens a model file; a `.tflite` file without TensorFlow.

    Class names are those inside of a `.tflite` file or else in `labels.txt` beside either kind.

    Args:
        path: of the file.
        pixels: what the model takes for them; None reads it off the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a model, or not one that takes pictures.
    """
    if path.suffix == ".tflite":
        return tflite_model(path, saved_labels(path), pixels=pixels)
    return keras_model(load_keras(path), saved_labels(path), saved_task(path), pixels)


def built(builder: str, image_size: int | None, *, alpha: float, minimalistic: bool, weights: str | None = None) -> Any:
    """What a builder of that name makes."""
    from keras_mobilenets import applications

    options = {"minimalistic": True} if minimalistic else {}
    return getattr(applications, builder)((image_size, image_size, 3), alpha=alpha, weights=weights, **options)


def load_keras(path: Path) -> Any:
    """Loads a `.keras` file with whatever layers of this package it holds; for use, not for further training.

    Raises:
        ValueError: it is damaged, or needs layers of somebody else.
    """
    with quiet():
        from keras_mobilenets.serialization import load_model

    return load_model(path)


def saved_labels(path: Path) -> list[str] | None:
    """The class names in `labels.txt` beside a model file."""
    file = path.parent / LABELS_FILE
    return parse_labels(file.read_bytes()) if file.is_file() else None


def tflite_model(
    file: Path | bytes,
    labels: list[str] | None = None,
    task: Task | None = None,
    pixels: PixelScale | None = None,
) -> PictureModel:
    """A model out of a `.tflite` file, or out of its content."""
    from keras_mobilenets.tflite import TFLiteModel

    with quiet():
        model = TFLiteModel(file)
    form, labels = form_of(model.file, task), model.labels or labels
    if pixels is not None:
        return PictureModel(lambda images: model.predict(pixels(images)), form, labels)
    if model.normalization is None and model.input_dtype not in ("uint8", "int8"):
        raise ValueError(f"{model.file.source} does not say how pixels are normalized: give {PIXELS_OPTION}")
    return PictureModel(model.predict, form, labels)


def keras_model(
    model: Any, labels: list[str] | None = None, task: Task | None = None, pixels: PixelScale | None = None
) -> PictureModel:
    """A model out of a Keras model; what its pixels must be scaled to is read off it where it is not given."""
    form, scale, run = form_of(model, task), pixel_scale(model, pixels), _compiled(model)
    return PictureModel(lambda images: run(scale(images)), form, labels)


def pixel_scale(model: Any, given: PixelScale | None) -> PixelScale:
    """What a Keras model takes for pixels: what the user says, or else the model.

    Raises:
        ValueError: neither does.
    """
    found = given or PixelScale.known(model)
    if found is None:
        raise unknown(model, f"Give {PIXELS_OPTION}, or put")
    return found


def form_of(model: Any, task: Task | None = None) -> Form:
    """Size, colours and task of a model.

    Args:
        model: a Keras model, or a `TFLiteFile`.
        task: what it is for; by its form if None.

    Raises:
        ValueError: it is none that can be asked about pictures; the message says why.
    """
    inputs, outputs = _shapes(model)
    if len(inputs) != 1 or len(inputs[0]) != 4:
        raise ValueError(f"A model of one image is needed, (batch, height, width, channels); this takes {inputs}")
    _, height, width, channels = inputs[0]
    if None in (height, width) and not isinstance(model, TFLiteFile):
        from keras_mobilenets.export.sizing import Sizing

        height, width, _ = next(iter(Sizing(model).shapes), None) or (None, None, channels)
    if height is None or width is None:
        raise ValueError("The model takes images of any size, so that it cannot be told how to crop a picture")
    if channels not in (1, 3):
        raise ValueError(f"A model of RGB or grey pictures is needed; this takes {channels} channels")
    task = task or task_of(model)
    if task is None:
        raise ValueError(
            "It cannot be told what the model is for. Known are one output (batch, classes) that ends in softmax, "
            'sigmoid or, of several classes, logits; and "boxes" and "scores", see keras_mobilenets.tasks. '
            f"It gives {outputs}"
        )
    return Form((height, width), channels, task)


def check_classes(task: Task, names: Sequence[str], data: str) -> None:
    """Refuses data of more or fewer classes than a model knows."""
    try:
        task.in_file(names)
    except ValueError:
        raise ValueError(f"{data} has {len(names)} classes, which are not as many as the model knows") from None


def _shapes(model: Any) -> tuple[list[tuple], list[tuple]]:
    """Of the inputs and of the outputs."""
    if isinstance(model, TFLiteFile):
        graph = model.graph
        parts = [[tuple(graph.tensors[index].shape) for index in part] for part in (graph.inputs, graph.outputs)]
        return parts[0], parts[1]
    import keras

    if not getattr(model, "inputs", None):
        raise ValueError(f"{model.name} does not say what it takes: save a model that was built from `keras.Input`")
    parts = [[tuple(one.shape) for one in keras.tree.flatten(part)] for part in (model.inputs, model.outputs)]
    return parts[0], parts[1]


def _compiled(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Inference on batches of any size; Keras' own would be traced anew for each size, for seconds."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return model.predict_on_batch
    import tensorflow as tf

    from keras_mobilenets.quantization import QuantizedModel

    signature = tf.TensorSpec((None, *model.inputs[0].shape[1:]), tf.float32)
    function = tf.function(lambda images: model(images, training=False), input_signature=[signature], autograph=False)
    with model.exactly() if isinstance(model, QuantizedModel) else contextlib.nullcontext():
        traced = function.get_concrete_function()
    return lambda images: keras.tree.map_structure(np.asarray, traced(tf.cast(images, tf.float32)))
