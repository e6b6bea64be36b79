"""What to calibrate and to verify on: from whatever `fit` takes, or made up."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from keras_mobilenets.export.signature import Input, Signature
from keras_mobilenets.graph import Graph
from keras_mobilenets.layers import inline
from keras_mobilenets.pixels import PixelScale, check_input_range
from keras_mobilenets.quantization import InputQuant, is_quantized

CALIBRATION_IMAGES = 256  # ranges hardly move after that, and 256 of 224 x 224 are 150 MB in float32
VERIFICATION_IMAGES = 64
RANDOM_IMAGES = 8


def take(data: Any, signature: Signature, limit: int, name: str = "data") -> list[np.ndarray]:
    """The first examples of what `fit` takes, without the labels.

    Args:
        data: arrays, a `tf.data.Dataset`, a `keras.utils.PyDataset`, a generator or a list of batches, each as
            `Signature.arrays` takes it. No more is read of it than needed.
        signature: of the model.
        limit: how many at most.
        name: of the argument, for the message.

    Returns:
        One array (examples, ...) for each input, in its own dtype.

    Raises:
        ValueError: there is nothing in it, it does not fit the model, or it holds NaN or infinity.
    """
    taken: list[list[np.ndarray]] = []
    count = 0
    for batch in _batches(data, signature):
        arrays = signature.arrays(batch)
        if arrays is None:
            raise ValueError(_unfit(batch, signature, name))
        taken.append([np.asarray(one[: limit - count]) for one in arrays])
        count += len(taken[-1][0])
        if count >= limit:
            break
    if not count:
        raise ValueError(f"There are no images in `{name}`: it is empty.")
    whole = [np.concatenate(parts) for parts in zip(*taken, strict=True)]
    for one, values in zip(signature.inputs, whole, strict=True):
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            broken = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(-1))
            raise ValueError(
                f"`{name}` holds values that are not finite numbers (NaN or infinity), for the input {one.name!r} in "
                f"{len(broken)} of {len(values)} examples; the first is number {broken[0]}."
            )
    return whole


def take_images(data: Any, limit: int) -> np.ndarray:
    """The first images (images, height, width, channels) of what `fit` takes, whatever their size: see `take`."""
    return take(data, Signature((Input("images", (None, None, None)),), ()), limit)[0]  # type: ignore[arg-type]


def _unfit(batch: Any, signature: Signature, name: str) -> str:
    """What is wrong with a batch."""
    wanted = ", ".join(f"{one.name}: {('batch', *one.shape)}" for one in signature.inputs).replace("None", "any")
    shapes = keras.tree.map_structure(np.shape, batch)
    if hasattr(batch, "shape"):
        shapes = f"shape {shapes}"
    return f"`{name}` must give what the model takes, {wanted}. Received: {shapes}"


def labelled_batches(data: Any, batch_size: int, steps: int | None = None) -> list[tuple[Any, np.ndarray | None]]:
    """What `fit` takes, in batches of (inputs, labels).

    Args:
        data: inputs as arrays, a tuple (inputs, labels) of arrays, a `tf.data.Dataset`, a `keras.utils.PyDataset`, a
            generator or a list of batches; a batch is inputs, or a tuple that begins with inputs and labels.
        batch_size: at most so many at once.
        steps: how many batches to take; all by default.

    Returns:
        Inputs as arrays, and labels as they are; None where there are none.

    Raises:
        ValueError: there is nothing in the data, or its labels are neither class numbers nor one-hot.
    """
    whole = hasattr(data, "shape") or isinstance(data, tuple | dict)
    taken = _split(data, batch_size) if whole else iter(_batches(data))
    batches = [part for batch in itertools.islice(taken, steps) for part in _split(batch, batch_size)]
    if not batches:
        raise ValueError("There are no images in the data.")
    return [_inputs_and_classes(batch) for batch in batches]


def _split(batch: Any, size: int) -> Iterator[Any]:
    count = len(keras.tree.flatten(batch)[0])
    for start in range(0, count, size):
        yield keras.tree.map_structure(lambda array, start=start: np.asarray(array)[start : start + size], batch)


def _inputs_and_classes(batch: Any) -> tuple[Any, np.ndarray | None]:
    if not isinstance(batch, tuple | list):
        return batch, None
    labels = batch[1] if len(batch) > 1 else None
    if labels is None or not hasattr(labels, "shape"):  # several outputs
        return batch[0], None
    if labels.ndim > 2:
        raise ValueError(f"Labels must be class numbers or one-hot. Received: shape {labels.shape}")
    return batch[0], labels  # the task reads either


def _batches(data: Any, signature: Signature | None = None) -> Iterable[Any]:
    if hasattr(data, "shape") or (isinstance(data, tuple) and hasattr(data[0], "shape")):
        return [data]
    if isinstance(data, dict | tuple) or (signature is not None and isinstance(data, list) and signature.arrays(data)):
        return [data]
    if isinstance(data, keras.utils.PyDataset):
        return (data[number] for number in range(data.num_batches))
    return data


def random_values(one: Input, count: int) -> np.ndarray:
    """Seeded values for an input: smooth colours as bytes for images, as they pass a network more like photographs than
    noise does; else floats around 0, or zeros and ones."""
    generator = np.random.default_rng(0)
    if one.is_image:
        height, width, channels = one.example
        coarse = generator.integers(0, 256, (count, 4, 4, channels))
        rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
        return coarse[:, rows][:, :, columns].astype(np.uint8)
    if one.dtype == "float32":
        return generator.normal(size=(count, *one.shape)).astype(np.float32)
    return generator.integers(0, 2, (count, *one.shape)).astype(one.dtype)


def given_scale(model: keras.Model, one: Input, given: Any, images: Any = None) -> PixelScale | None:
    """What the user says of pixels: "auto" reads it off the model, and off images where it does not say; (mean, std).

    None where nobody says it, or the input is no image.
    """
    if isinstance(given, dict):
        given = given.get(one.name, "auto")
    if not one.is_image or given is None:
        return None
    if isinstance(given, str) and given == "auto":
        known = [tensor.name for tensor in getattr(model, "inputs", None) or ()]
        return PixelScale.known(model, images, image=one.name if one.name in known else None)
    return PixelScale.standardizing(*given)


def grids_of(model: keras.Model, signature: Signature) -> dict[str, PixelScale]:
    """What inputs of the deployed graph take, where it is not what the model takes: their grid holds 0."""
    if not is_quantized(model):
        return {}
    graph = Graph.of(inline(model))
    consumers, grids = graph.consumers(), {}
    for one, node in zip(signature.inputs, keras.tree.flatten(graph.inputs), strict=True):
        while consumers[node] and not isinstance(consumers[node][0].layer, InputQuant):
            node = consumers[node][0]
        for reader in consumers[node][:1]:
            layer = reader.layer
            grids[one.name] = PixelScale(layer.scale, -layer.zero_point * layer.scale)
    return grids


class Samples:
    """What to calibrate and to verify on; each source is read once, a generator can give no more.

    Args:
        model: what takes it.
        signature: of the model.
        calibration, verify: what the user gave, or None.
        normalization: "auto", (mean, std) or None, or a dictionary of these by input, as the user gave it.

    Attributes:
        verify: an array for each input, as the model takes them.
        source: "verify", "calibration" or "random": where `verify` came from.
        scales: for each input, from pixels to what the model takes; None where it is not known, or is no image.
    """

    def __init__(self, model: keras.Model, signature: Signature, calibration: Any, verify: Any, normalization: Any):
        self.calibration = (
            None if calibration is None else take(calibration, signature, CALIBRATION_IMAGES, "calibration")
        )
        if verify is not None:
            self.source, self.verify = "verify", take(verify, signature, VERIFICATION_IMAGES, "verify")
        elif self.calibration is not None:
            self.source, self.verify = "calibration", [one[:VERIFICATION_IMAGES] for one in self.calibration]
        else:
            self.source, self.verify = "random", [random_values(one, RANDOM_IMAGES) for one in signature.inputs]
        seen = [None] * len(self.verify) if self.source == "random" else self.calibration or self.verify
        pairs = zip(signature.inputs, seen, strict=True)
        self.scales = [given_scale(model, one, normalization, images) for one, images in pairs]
        if self.source == "random":  # where nobody knows what the model takes, any range shows whether a file is equal
            for number, (one, scale) in enumerate(zip(signature.inputs, self.scales, strict=True)):
                if one.is_image and one.dtype == "float32":
                    self.verify[number] = (scale or PixelScale.between(-1, 1))(self.verify[number])
        elif len(signature.inputs) == 1 and signature.inputs[0].is_image:
            check_input_range(model, self.verify[0], stacklevel=4)

    def for_calibration(self) -> list[np.ndarray]:
        """What ranges are taken from."""
        if self.calibration is None:
            raise ValueError(
                "Integer ranges of a float model come from images: pass `calibration`, a few hundred of them as the "
                "model takes them. (A model from quantize_model that was trained or calibrated needs none.)"
            )
        return self.calibration
