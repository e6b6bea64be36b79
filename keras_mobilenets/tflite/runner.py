"""Runs a `.tflite` image model as a Keras model is run: images in, scores out."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np

from keras_mobilenets.tflite.file import read_bytes, read_tflite


class TFLiteModel:
    """A `.tflite` model with one image input, run by ai-edge-litert, without TensorFlow.

    Args:
        source: path of the file, or its content.
        threads: how many threads compute.
        delegate: use the runtime's default delegate (XNNPACK); False runs the plain built-in kernels.

    Attributes:
        labels: the class names inside the file, None when it has none.
        normalization: from pixels to what a float input takes, None when the file does not say.
        input_shape: (height, width, channels) of one image.
        input_dtype: "uint8", "int8", "int16" or "float32".

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a `.tflite` file, is truncated or damaged, or needs operations that the runtime lacks.

    Example:

    >>> layers = [keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 8), keras.layers.Flatten(), keras.layers.Softmax()]
    >>> model = keras.Sequential(layers, name="cat_or_dog")
    >>> _ = export_tflite(model, "model.tflite", verbose=False)
    >>> TFLiteModel("model.tflite").predict(np.zeros((5, 8, 8, 3), np.uint8)).shape
    (5, 2)
    """

    def __init__(self, source: str | os.PathLike[str] | bytes, *, threads: int = 1, delegate: bool = True):
        content = read_bytes(source)
        name = "these bytes" if isinstance(source, bytes) else str(source)
        file = read_tflite(source)  # in Python first: the runtime trusts a file's offsets, and a damaged one crashes it
        if len(file.graph.inputs) != 1:
            raise ValueError(f"{name}: a model with one image input is needed, this has {len(file.graph.inputs)}.")
        self.labels = file.labels
        self.normalization = file.normalization
        self._input = file.graph.tensors[file.graph.inputs[0]]
        self._outputs = [file.graph.tensors[index] for index in file.graph.outputs]
        self._interpreter = make_interpreter(content, name, threads=threads, delegate=delegate)
        self.input_shape = self._input.shape[1:]
        self.input_dtype = self._input.dtype

    def predict(self, images: np.ndarray, *, raw: bool = False) -> Any:
        """Runs the model on a batch of images.

        Args:
            images: (batch, height, width, channels). Of dtype uint8: raw pixels, which an integer model takes as they
                are and a float model after the normalization that the file states. Of a float dtype: what the Keras
                model takes, quantized first if the file's input is integer.
            raw: give what the file gives, integers included, instead of real numbers.

        Returns:
            Array (batch, ...) of float32; a list of them for a model with several outputs.

        Raises:
            ValueError: the images do not fit the model's input, or are raw pixels and the file does not say how to
                normalize them.
        """
        images = np.asarray(images)
        if images.ndim != 4 or images.shape[1:] != self.input_shape:
            expected = ", ".join(str(size) for size in self.input_shape)
            raise ValueError(f"`images` must be of shape (batch, {expected}). Received: shape {images.shape}")
        batches = self._run(self.prepare(images))
        results = [np.concatenate(parts) for parts in zip(*batches, strict=True)]
        if not raw:
            results = [_real(values, tensor) for values, tensor in zip(results, self._outputs, strict=True)]
        return results[0] if len(results) == 1 else results

    def prepare(self, images: np.ndarray) -> np.ndarray:
        """The images as the file's input tensor takes them: see `predict`."""
        pixels = images.dtype == np.uint8
        if pixels and self.input_dtype in ("uint8", "int8"):
            lowest = np.iinfo(self.input_dtype).min  # which stands for pixel 0
            return (images.astype(np.int16) + lowest).astype(self.input_dtype)
        if pixels and self.normalization is None:
            raise ValueError(
                "This file does not say how pixels are normalized. Pass float images, as the model takes them."
            )
        values = self.normalization(images) if pixels and self.normalization is not None else images
        if self._input.is_float:
            return values.astype(self.input_dtype)
        if self.normalization is not None and self.input_dtype in ("uint8", "int8"):
            # Back to the pixel that was normalized: [-1, 1] puts every pixel half-way between two codes of the
            # input's scale, where rounding errors would decide.
            return self.prepare(self.normalization.pixels(values))
        limits = np.iinfo(self.input_dtype)
        codes = np.rint(values / self._input.scales[0]) + self._input.zero_points[0]
        return np.clip(codes, limits.min, limits.max).astype(self.input_dtype)

    def _run(self, prepared: np.ndarray) -> list[list[np.ndarray]]:
        """Outputs per call: as many images at once as the file was made for, or all of them where the batch is free."""
        size = self._input.signature[0] if self._input.signature[0] > 0 else max(len(prepared), 1)
        if size != self._input.shape[0]:
            self._interpreter.resize_tensor_input(self._input.index, [size, *self.input_shape])
            self._interpreter.allocate_tensors()
        outputs = []
        for start in range(0, len(prepared), size):
            batch = prepared[start : start + size]
            missing = size - len(batch)  # the last batch is filled up with copies, whose answers are dropped
            filled = np.concatenate([batch, np.repeat(batch[-1:], missing, 0)]) if missing else batch
            self._interpreter.set_tensor(self._input.index, filled)
            self._interpreter.invoke()
            outputs.append([self._interpreter.get_tensor(tensor.index)[: len(batch)] for tensor in self._outputs])
        return outputs


def make_interpreter(
    content: bytes, name: str, *, threads: int = 1, delegate: bool = True, keep_tensors: bool = False
) -> Any:
    """An interpreter with its tensors allocated; `tf.lite.Interpreter` where ai-edge-litert is not installed."""
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError:
        import tensorflow as tf

        Interpreter, OpResolverType = tf.lite.Interpreter, tf.lite.experimental.OpResolverType
    resolver = OpResolverType.AUTO if delegate else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # tf.lite.Interpreter's deprecation, used only as a fallback
            interpreter = Interpreter(
                model_content=content,
                num_threads=threads,
                experimental_op_resolver_type=resolver,
                experimental_preserve_all_tensors=keep_tensors,
            )
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{name}: the runtime refuses this file: {str(error).strip().splitlines()[0]}") from error
    return interpreter


def _real(values: np.ndarray, tensor: Any) -> np.ndarray:
    if not len(tensor.scales) or values.dtype.kind not in "iu":
        return values
    return (values.astype(np.float32) - np.float32(tensor.zero_points[0])) * tensor.scales[0]
