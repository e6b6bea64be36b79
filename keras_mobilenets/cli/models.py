"""A trained classifier, be it a `.keras` or a `.tflite` file: pixels in, probabilities out."""

from __future__ import annotations

import statistics
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from keras_mobilenets.cli.errors import quiet

LABELS_FILE = "labels.txt"
LATENCY_RUNS = 50


class Classifier:
    """A model that is asked about uint8 pictures, whatever file it comes from.

    Args:
        predict: from uint8 (batch, height, width, 3) to scores (batch, classes).
        image_size: (height, width).
        labels: names of the classes, or None if nobody wrote them down.
    """

    def __init__(
        self, predict: Callable[[np.ndarray], np.ndarray], image_size: tuple[int, int], labels: list[str] | None
    ) -> None:
        self.predict = predict
        self.image_size = image_size
        self.labels = labels

    def name(self, index: int) -> str:
        """The name of a class, or its number."""
        return self.labels[index] if self.labels and index < len(self.labels) else f"class {index}"

    def best(self, scores: np.ndarray, top: int) -> list[dict[str, Any]]:
        """The likeliest classes of one picture, by its scores: {"name": ..., "score": ...} each."""
        first = np.argsort(-scores, kind="stable")[:top]
        return [{"name": self.name(index), "score": float(scores[index])} for index in first]

    def latency_ms(self, image: np.ndarray) -> float:
        """Median time for one picture, after a warm-up."""
        self.predict(image[np.newaxis])
        times = []
        for _ in range(LATENCY_RUNS):
            began = time.perf_counter()
            self.predict(image[np.newaxis])
            times.append(time.perf_counter() - began)
        return statistics.median(times) * 1e3


def open_classifier(path: Path) -> Classifier:
    """Opens a model file; a `.tflite` file without TensorFlow.

    Class names are those inside of a `.tflite` file or else in `labels.txt` beside either kind.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a model, or not one that takes pictures.
    """
    if path.suffix == ".tflite":
        return tflite_classifier(path, saved_labels(path))
    return keras_classifier(load_keras(path), saved_labels(path))


def load_keras(path: Path) -> Any:
    """Loads a `.keras` file with whatever layers of this package it holds; for use, not for further training.

    Raises:
        ValueError: it is damaged, or needs layers of somebody else.
    """
    with quiet():
        import keras

        from keras_mobilenets.serialization import register_layers

    register_layers()
    try:
        return keras.models.load_model(path, compile=False)
    except (ValueError, TypeError, KeyError, OSError, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{path} cannot be loaded: it is damaged or holds layers of another package ({reason})"
        ) from error


def saved_labels(path: Path) -> list[str] | None:
    """The class names in `labels.txt` beside a model file."""
    file = path.parent / LABELS_FILE
    return file.read_text(encoding="utf-8").splitlines() if file.is_file() else None


def tflite_classifier(file: Path | bytes, labels: list[str] | None = None) -> Classifier:
    """A classifier out of a `.tflite` file, or out of its content."""
    from keras_mobilenets.tflite import TFLiteModel

    with quiet():
        model = TFLiteModel(file)
    height, width, _ = model.input_shape
    return Classifier(model.predict, (height, width), model.labels or labels)


def keras_classifier(model: Any, labels: list[str] | None = None) -> Classifier:
    """A classifier out of a Keras model; what its pixels must be scaled to is read off it."""
    from keras_mobilenets.pixels import PixelScale

    normalize = PixelScale.of(model)
    _, height, width, _ = model.input_shape
    if height is None or width is None:
        raise ValueError(f"{model.name} takes images of any size, so that it cannot be told how to crop a picture")

    run = _compiled(model)
    return Classifier(lambda pixels: run(normalize(pixels)), (height, width), labels)


def _compiled(model: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Inference on batches of any size; Keras' own would be traced anew for each size, for seconds."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return model.predict_on_batch
    import tensorflow as tf

    signature = tf.TensorSpec((None, *model.input_shape[1:]), tf.float32)
    function = tf.function(lambda images: model(images, training=False), input_signature=[signature], autograph=False)
    return lambda images: function(images).numpy()
