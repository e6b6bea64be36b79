"""Runs a `.tflite` model as a Keras model is run: arrays in, arrays out, by name where there are several."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_mobilenets.tflite.edit.answers import POSTPROCESS, RESULTS
from keras_mobilenets.tflite.file import Source, Tensor, TFLiteFile, read_tflite


class TFLiteModel:
    """A `.tflite` model, run by ai-edge-litert, without TensorFlow.

    Args:
        source: path of the file, its content, or what `read_tflite` gave.
        threads: how many threads compute.
        delegate: use the runtime's default delegate (XNNPACK); False runs the plain built-in kernels.

    Attributes:
        file: what is in it.
        input_names, output_names: as the signature has them; those of the Keras model in files of this package.
        labels: the class names inside the file, None when it has none.
        normalization: from pixels to what a float input takes, None when the file does not say.
        input_shape: of one example of the first input, (height, width, channels) of an image.
        input_dtype: "uint8", "int8", "int16" or "float32", of the first input.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a `.tflite` file, is truncated or damaged, or needs operations that the runtime lacks.

    Example:

    >>> layers = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(2, 8), keras.layers.Flatten()]
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), *layers, keras.layers.Softmax()], name="cat_or_dog")
    >>> _ = export_tflite(model, "model.tflite", verbose=False)
    >>> TFLiteModel("model.tflite").predict(np.zeros((5, 8, 8, 3), np.uint8)).shape
    (5, 2)
    """

    def __init__(self, source: Source, *, threads: int = 1, delegate: bool = True):
        self.file = read_tflite(source)  # first: the runtime trusts a file's offsets, and a damaged one crashes it
        self._inputs, self._outputs = (named_tensors(self.file, side) for side in ("inputs", "outputs"))
        self._scales = dict(zip(self._inputs, (one.scale for one in self.file.inputs), strict=False))
        self._interpreter = make_interpreter(self.file.content, self.file.source, threads=threads, delegate=delegate)
        self._size = 0  # of the batch that the interpreter is ready for
        self.input_names, self.output_names = tuple(self._inputs), tuple(self._outputs)
        self.labels = self.file.labels
        self.normalization = self.file.normalization
        first = self._inputs[self.input_names[0]]
        self.input_shape, self.input_dtype = first.shape[1:], first.dtype

    def predict(self, inputs: Any, *, raw: bool = False) -> Any:
        """Runs the model on a batch.

        Args:
            inputs: an array (batch, ...); for a model with several inputs a dictionary by name, or a list in their
                order. An image (batch, height, width, channels) of dtype uint8 is raw pixels, which an integer model
                takes as they are and a float model after the normalization that the file states. Of a float dtype:
                what the Keras model takes, quantized first if the file's input is integer.
            raw: give what the file gives, integers included, instead of real numbers.

        Returns:
            Array (batch, ...) of float32; a dictionary of them by name for a model with several outputs.

        Raises:
            ValueError: the inputs do not fit the model's, or are raw pixels and the file does not say how to
                normalize them.
        """
        prepared = [self.prepare(one, name) for name, one in self._arranged(inputs).items()]
        batches = self._run(prepared)
        results = {
            name: np.concatenate(parts) if raw else real(np.concatenate(parts), tensor)
            for (name, tensor), parts in zip(self._outputs.items(), zip(*batches, strict=True), strict=True)
        }
        return next(iter(results.values())) if len(results) == 1 else results

    def _arranged(self, inputs: Any) -> dict[str, np.ndarray]:
        """What is given, by the names of the inputs."""
        names = self.input_names
        if isinstance(inputs, Mapping):
            given = dict(inputs)
        else:
            rank = len(self._inputs[names[0]].shape)
            is_list = isinstance(inputs, list | tuple)
            several = is_list and (len(names) > 1 or (len(inputs) == 1 and np.ndim(inputs[0]) == rank))
            given = dict(enumerate(inputs)) if several else {0: inputs}
            given = {names[number] if number < len(names) else number: one for number, one in given.items()}
        if set(given) != set(names):
            raise ValueError(f"The model takes {', '.join(names)}. Received: {', '.join(map(str, given))}")
        arrays = {name: np.asarray(given[name]) for name in names}
        for name, array in arrays.items():
            tensor = self._inputs[name]
            shape = tensor.shape[1:]
            if array.ndim != len(shape) + 1 or array.shape[1:] != shape:
                what = f"`{name}`" if len(names) > 1 else "`images`" if len(shape) == 3 else "`inputs`"
                expected = ", ".join(map(str, ("batch", *shape)))
                raise ValueError(f"{what} must be of shape ({expected}). Received: shape {array.shape}")
        if len({len(array) for array in arrays.values()}) > 1:
            raise ValueError(f"All inputs must be as many. Received: {[len(array) for array in arrays.values()]}")
        return arrays

    def prepare(self, values: np.ndarray, name: str | None = None) -> np.ndarray:
        """Values as an input tensor of the file, the first by default, takes them: see `predict`."""
        tensor = self._inputs[name or self.input_names[0]]
        scale = self._scales.get(name or self.input_names[0])
        quantized = bool(len(tensor.scales))
        pixels = values.dtype == np.uint8 and len(tensor.shape) == 4
        if pixels and quantized and tensor.dtype in ("uint8", "int8"):
            lowest = np.iinfo(tensor.dtype).min  # which stands for pixel 0
            return (values.astype(np.int16) + lowest).astype(tensor.dtype)
        if pixels and tensor.dtype != "uint8":
            if scale is None:
                raise ValueError(
                    "This file does not say how pixels are normalized. Pass float images, as the model takes them."
                )
            values = scale(values)
        if not quantized:
            return values.astype(tensor.dtype)
        if scale is not None and tensor.dtype in ("uint8", "int8"):
            # Back to the pixel that was normalized: [-1, 1] puts every pixel half-way between two codes of the
            # input's scale, where rounding errors would decide.
            return self.prepare(scale.pixels(values), name)
        limits = np.iinfo(tensor.dtype)
        codes = np.rint(values / tensor.scales[0]) + tensor.zero_points[0]
        return np.clip(codes, limits.min, limits.max).astype(tensor.dtype)

    def rounded(self, values: np.ndarray, name: str | None = None) -> np.ndarray:
        """The real numbers that the file gets of values, which an integer input rounds."""
        return real(self.prepare(values, name), self._inputs[name or self.input_names[0]])

    def _run(self, prepared: list[np.ndarray]) -> list[list[np.ndarray]]:
        """Outputs per call: as many examples at once as the file was made for, or all where the batch is free."""
        inputs, count = list(self._inputs.values()), len(prepared[0])
        size = inputs[0].signature[0] if inputs[0].signature[0] > 0 else max(count, 1)
        if size != (self._size or inputs[0].shape[0]):
            for tensor in inputs:
                self._interpreter.resize_tensor_input(tensor.index, [size, *tensor.shape[1:]])
            self._interpreter.allocate_tensors()
        self._size = size
        outputs = []
        for start in range(0, count, size):
            missing = max(start + size - count, 0)  # the last batch is filled up with copies, whose answers are dropped
            for tensor, values in zip(inputs, prepared, strict=True):
                batch = values[start : start + size]
                filled = np.concatenate([batch, np.repeat(batch[-1:], missing, 0)]) if missing else batch
                self._interpreter.set_tensor(tensor.index, filled)
            self._interpreter.invoke()
            tensors = [self._interpreter.get_tensor(tensor.index) for tensor in self._outputs.values()]
            outputs.append([tensor[: size - missing] for tensor in tensors])
        return outputs


def named_tensors(file: TFLiteFile, side: str) -> dict[str, Tensor]:
    """The inputs or outputs in the graph's order, by their names in the signature."""
    graph, signature = file.graph, next(iter(file.signatures.values()), {})
    names = {index: name for name, index in signature.get(side, {}).items()}
    indices = graph.inputs if side == "inputs" else graph.outputs
    for operator in graph.operators if side == "outputs" else ():
        if operator.name == POSTPROCESS:  # converters call them :1, :3, :0, :2, in any order
            names |= dict(zip(operator.outputs, RESULTS, strict=False))
    tensors = {names.get(index) or graph.tensors[index].name or str(index): graph.tensors[index] for index in indices}
    return tensors if len(tensors) == len(indices) else {str(index): graph.tensors[index] for index in indices}


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
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{name}: the runtime refuses this file: {reason}. It may be made for another runtime, or need operations "
            "that this one does not have."
        ) from error
    return interpreter


def real(values: np.ndarray, tensor: Any) -> np.ndarray:
    """The real numbers that the integers of a tensor stand for."""
    if not len(tensor.scales) or values.dtype.kind not in "iu":
        return values
    return (values.astype(np.float32) - np.float32(tensor.zero_points[0])) * tensor.scales[0]
