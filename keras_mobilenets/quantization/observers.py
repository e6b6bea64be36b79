"""Observers: how a range of activations is found from the batches that pass by."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mobilenets.arguments import check_numbers
from keras_mobilenets.quantization.grid import SMALLEST_RANGE, fake_quant_of_operations

BINS = 4096  # 16 for each step of 8 bits
SAMPLED = 2**14  # values of one image that a histogram counts
SHARES = np.linspace(1.0, 0.1, 46, dtype="float32")  # of an end, by which it is tried; of equal ones the widest wins


class Observer:
    """Turns batches into a range: `measure` reads one batch, `merge` joins it with what was seen before.

    A range is a tensor of two numbers, (low, high).
    """

    def measure(self, inputs: Any, bits: int = 8) -> Any:
        """The range of one float32 batch, for a grid of `2**bits` values."""
        return ops.stack([ops.min(inputs), ops.max(inputs)])

    def join(self, parts: Any) -> Any:
        """The range of a batch from those of its parts, of shape (parts, 2)."""
        return ops.stack([ops.min(parts[:, 0]), ops.max(parts[:, 1])])

    def merge(self, seen: Any, batch: Any, count: Any) -> Any:
        """The new range from the range of `count` earlier batches and that of one more."""
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash(type(self))

    def get_config(self) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Observer:
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class MovingAverage(Observer):
    """Averages the minima and maxima of the batches.

    The first batch sets the range, the next ones are averaged evenly until `1 / count` falls below `1 - decay`; from
    then on the old ones fade. So a short calibration is a plain mean, and a long training forgets its beginning.

    Args:
        decay: share of the old range that stays, in (0, 1).

    Reference:
        arXiv:1712.05877, section 3.1 (there without a warm-up).

    Example:

    >>> average = MovingAverage(decay=0.9)
    >>> average.merge(np.array([0.0, 1.0]), np.array([0.0, 3.0]), count=1.0).numpy().tolist()
    [0.0, 2.0]
    """

    def __init__(self, decay: float = 0.99):
        check_numbers("(0, 1)", decay=decay)
        self.decay = decay

    def merge(self, seen, batch, count):
        share = ops.maximum(1.0 - self.decay, 1.0 / (count + 1.0))
        return seen + share * (batch - seen)

    def get_config(self):
        return {"decay": self.decay}


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class MinMax(Observer):
    """Keeps the smallest and the largest value of all batches: nothing is ever clipped, outliers cost resolution.

    Example:

    >>> MinMax().merge(np.array([0.0, 1.0]), np.array([-1.0, 0.5]), count=1.0).numpy().tolist()
    [-1.0, 1.0]
    """

    def merge(self, seen, batch, count):
        both = ops.stack([ops.minimum(seen[0], batch[0]), ops.maximum(seen[1], batch[1])])
        return ops.where(count == 0, batch, both)


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class Percentile(MovingAverage):
    """Averages, over the batches, the range that holds `percent` of the values: outliers are clipped.

    Args:
        percent: share of the values inside the range, in (50, 100]; half of the rest is cut off at each end.
        decay: as in `MovingAverage`.

    Example:

    >>> Percentile(80.0).measure(np.arange(11.0)).numpy().round(4).tolist()
    [1.0, 9.0]
    """

    def __init__(self, percent: float = 99.99, decay: float = 0.99):
        super().__init__(decay)
        check_numbers("(50, 100]", percent=percent)
        self.percent = percent

    def measure(self, inputs, bits=8):
        tail = (1.0 - self.percent / 100.0) / 2.0
        return ops.quantile(ops.reshape(inputs, (-1,)), [tail, 1.0 - tail])

    def join(self, parts):
        return ops.mean(parts, axis=0)  # outliers of one part shall not count for all

    def get_config(self):
        return {"percent": self.percent, **super().get_config()}


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class LeastError(MovingAverage):
    """Averages, over the batches, the range whose grid has the least squared error.

        sum over x of (grid value of x - x)**2

    A wide range rounds coarsely, a narrow one clips: which costs less is read off a histogram. `post_training_quantize`
    finds its ranges so.

    Args:
        decay: as in `MovingAverage`.

    Example:

    >>> values = np.append(np.linspace(0.0, 1.0, 1_000_000), 3.0).astype("float32")
    >>> bool(LeastError().measure(values)[1] < 1.5)
    True
    """

    def measure(self, inputs, bits=8):
        ends = ops.stack([ops.minimum(ops.min(inputs), 0.0), ops.maximum(ops.max(inputs), SMALLEST_RANGE)])
        sample, width = _sample(inputs), (ends[1] - ends[0]) / BINS
        places = ops.clip(ops.cast((sample - ends[0]) / width, "int32"), 0, BINS - 1)
        counts = ops.segment_sum(ops.ones_like(sample), places, num_segments=BINS)
        values = ends[0] + (ops.arange(BINS, dtype="float32") + 0.5) * width
        for side in (0, 1):
            shares = np.ones((len(SHARES), 2), "float32")
            shares[:, side] = SHARES
            tried = ends * shares
            rounded = fake_quant_of_operations(values, tried[:, :1], tried[:, 1:], bits)
            ends = tried[ops.argmin(ops.sum(counts * ops.square(rounded - values), axis=-1))]
        return ends

    def join(self, parts):
        return ops.mean(parts, axis=0)


def _sample(inputs: Any) -> Any:
    """Values of each image, evenly spread over places and channels, so many that a histogram is exact enough."""
    size = math.prod(inputs.shape[1:]) if None not in inputs.shape[1:] else SAMPLED
    every = max(size // SAMPLED, 1)
    while math.gcd(every, inputs.shape[-1] if every > 1 else 1) > 1:  # else some channels would never be seen
        every += 1
    return ops.reshape(ops.reshape(inputs, (-1, size))[:, ::every], (-1,)) if every > 1 else ops.reshape(inputs, (-1,))


_BY_NAME = {
    "moving_average": MovingAverage,
    "min_max": MinMax,
    "percentile": Percentile,
    "least_error": LeastError,
}


def get_observer(identifier: Any) -> Observer:
    """The observer of a name, a serialized observer, or an observer itself."""
    if isinstance(identifier, Observer):
        return identifier
    if isinstance(identifier, dict):
        return keras.saving.deserialize_keras_object(identifier)
    if isinstance(identifier, str) and identifier in _BY_NAME:
        return _BY_NAME[identifier]()
    raise ValueError(f"`observer` must be an Observer or one of {sorted(_BY_NAME)}. Received: observer={identifier!r}")
