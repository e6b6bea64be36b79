"""Images to calibrate and to verify on: from whatever `fit` takes, or made up."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import keras
import numpy as np

from keras_mobilenets.layers import inline
from keras_mobilenets.pixels import PixelScale, check_input_range
from keras_mobilenets.quantization import InputQuant, is_quantized

CALIBRATION_IMAGES = 256  # ranges hardly move after that, and 256 of 224 x 224 are 150 MB in float32
VERIFICATION_IMAGES = 64
RANDOM_IMAGES = 8


def take_images(data: Any, limit: int) -> np.ndarray:
    """The first images of what `fit` takes, without the labels.

    Args:
        data: an array of images, a `tf.data.Dataset`, a `keras.utils.PyDataset`, a generator or a list of batches;
            a batch is images, or a tuple that begins with them. No more is read of it than needed.
        limit: how many images at most.

    Returns:
        (images, height, width, channels), in their own dtype.

    Raises:
        ValueError: there are no images, or they are not of rank 4.
    """
    taken: list[np.ndarray] = []
    count = 0
    for batch in _batches(data):
        images = np.asarray(batch[0] if isinstance(batch, tuple | list) else batch)
        if images.ndim != 4:
            raise ValueError(f"Images must come as (batch, height, width, channels). Received: shape {images.shape}")
        taken.append(images[: limit - count])
        count += len(taken[-1])
        if count >= limit:
            break
    if not count:
        raise ValueError("There are no images in the data to calibrate or verify with.")
    return np.concatenate(taken)


def labelled_batches(data: Any, batch_size: int, steps: int | None = None) -> list[tuple[Any, np.ndarray | None]]:
    """What `fit` takes, in batches of (inputs, labels).

    Args:
        data: inputs as arrays, a tuple (inputs, labels) of arrays, a `tf.data.Dataset`, a `keras.utils.PyDataset`, a
            generator or a list of batches; a batch is inputs, or a tuple that begins with inputs and labels.
        batch_size: at most so many at once.
        steps: how many batches to take; all by default.

    Returns:
        Inputs as arrays, and labels as class numbers (batch,); None where there are none.

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
    return batch[0], (labels.argmax(-1) if labels.ndim == 2 and labels.shape[1] > 1 else labels.ravel()).astype(int)


def _batches(data: Any) -> Iterable[Any]:
    if hasattr(data, "shape") or (isinstance(data, tuple) and hasattr(data[0], "shape")):
        return [data]
    if isinstance(data, keras.utils.PyDataset):
        return (data[number] for number in range(data.num_batches))
    return data


def random_images(shape: tuple[int, int, int], count: int) -> np.ndarray:
    """Seeded images of smooth colours, as bytes: they pass through a network more like photographs than noise does."""
    height, width, channels = shape
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (count, 4, 4, channels))
    rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
    return coarse[:, rows][:, :, columns].astype(np.uint8)


def given_scale(model: keras.Model, given: Any, images: Any = None) -> PixelScale | None:
    """What the user says of pixels: "auto" reads it off the model, and off images where it does not say; (mean, std).

    None where nobody says it.
    """
    if isinstance(given, str) and given == "auto":
        return PixelScale.known(model, images)
    return None if given is None else PixelScale.standardizing(*given)


def grid_of(model: keras.Model) -> PixelScale | None:
    """What the input of the deployed graph takes, where it is not what the model takes: its grid holds 0."""
    layers = inline(model).layers if is_quantized(model) else ()
    found = (layer for layer in layers if isinstance(layer, InputQuant))
    return next((PixelScale(layer.scale, -layer.zero_point * layer.scale) for layer in found), None)


class Images:
    """The images to calibrate and to verify on; each source is read once, a generator can give no more.

    Args:
        model: what takes them.
        calibration, verify: what the user gave, or None.
        shape: (height, width, channels).
        normalization: "auto", (mean, std) or None, as the user gave it.

    Attributes:
        verify: images as the model takes them.
        source: "verify", "calibration" or "random": where `verify` came from.
        scale: from pixels to what the model takes; None where it is not known.
    """

    def __init__(self, model: keras.Model, calibration: Any, verify: Any, shape: tuple, normalization: Any):
        self.calibration = None if calibration is None else take_images(calibration, CALIBRATION_IMAGES)
        if verify is not None:
            self.source, self.verify = "verify", take_images(verify, VERIFICATION_IMAGES)
        elif self.calibration is not None:
            self.source, self.verify = "calibration", self.calibration[:VERIFICATION_IMAGES]
        else:
            self.source, self.verify = "random", random_images(shape, RANDOM_IMAGES)
        seen = None if self.source == "random" else self.verify if self.calibration is None else self.calibration
        self.scale = given_scale(model, normalization, seen)
        if self.source == "random":  # where nobody knows what the model takes, any range shows whether a file is equal
            self.verify = (self.scale or PixelScale.between(-1, 1))(self.verify)
        else:
            check_input_range(model, self.verify, stacklevel=4)

    def for_calibration(self) -> np.ndarray:
        """The images that ranges are taken from."""
        if self.calibration is None:
            raise ValueError(
                "Integer ranges of a float model come from images: pass `calibration`, a few hundred of them as the "
                "model takes them. (A model from quantize_model that was trained or calibrated needs none.)"
            )
        return self.calibration
