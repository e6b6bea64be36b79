"""Fake quantization as layers: of feature maps, and of the images that go in."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mobilenets.arguments import check_integers, check_pair, check_range
from keras_mobilenets.integer.layer import NotInteger
from keras_mobilenets.layers.replicas import parts
from keras_mobilenets.pixels import CONVENTIONS, observed
from keras_mobilenets.quantization.grid import (
    SMALLEST_RANGE,
    fake_quant,
    fake_quant_from_zero,
    straight_through,
    symmetric_range,
)
from keras_mobilenets.quantization.observers import Observer, get_observer
from keras_mobilenets.quantization.settings import Settings

_LIMITS = {
    activation: np.array([[lowest, SMALLEST_RANGE], [0.0, highest]], "float32")
    for activation, lowest, highest in ((None, -np.inf, np.inf), ("relu", 0.0, np.inf), ("relu6", 0.0, 6.0))
}
"""The lowest and the highest that (low, high) may be behind each activation: 0 is on every grid."""


class Quantizer(keras.layers.Layer):
    """What rounds feature maps or images.

    Args:
        settings: what the model was quantized for. It is kept here as a clone, or a part, of a model inherits nothing
            but layers.
        output_name: of the output of the model that it rounds.
    """

    def __init__(
        self, *, settings: Settings | dict[str, Any] | None = None, output_name: str | None = None, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.output_name = output_name
        self.settings = Settings.from_config(settings) if isinstance(settings, dict) else settings

    def get_config(self):
        own = {"settings": self.settings and self.settings.get_config(), "output_name": self.output_name}
        return {**super().get_config(), **{name: value for name, value in own.items() if value is not None}}

    def require_finite(self, ends: tuple[float, ...]) -> None:
        """Raises a `NotInteger` if values of no number were seen."""
        if not np.isfinite(ends).all():
            raise NotInteger(
                f"Layer {self.name!r} saw values that are not finite numbers (NaN or infinity): either the data hold "
                "some, or the weights before it do."
            )


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class FakeQuant(Quantizer):
    """Fake quantization of a feature map, with a range that is observed or fixed.

    While it trains or is calibrated it observes the range. Until the first batch was observed it passes its input on
    unchanged. Values outside of the range get no gradient.

    Args:
        bits: width of the integers, 2 to 16.
        symmetric: whether 0 is the middle of the grid, as 16-bit integer kernels want it.
        fixed_range: (low, high), for values whose range is known, like a softmax; None observes it.
        observer: `MovingAverage`, `MinMax`, `Percentile`, `LeastError`, or "moving_average", "min_max", "percentile",
            "least_error".
        in_training: whether to round in training too. False for what only the loss reads: the logarithm of a
            probability that was rounded to 0 has no gradient.
        activation: "relu" or "relu6" where a `QuantReLU` is in front, whose clipping it does in training: a range that
            begins at 0 and ends at 6 or below clips just so, and takes one pass over the feature map instead of two.

    Attributes:
        frozen: whether training leaves the range as it is.
        calibrating: whether it only observes.

    Input shape: any. Output shape: the same.

    Raises:
        ValueError: `bits` or `fixed_range` is out of range, `observer` or `activation` unknown, or an `activation`
            comes with a symmetric grid, which does not begin at 0.

    Example:

    >>> layer = FakeQuant()
    >>> _ = layer(np.array([0.0, 2.55], "float32"), training=True)
    >>> layer(np.array([0.016, 3.0], "float32")).numpy()
    array([0.02, 2.55], dtype=float32)
    """

    def __init__(
        self,
        bits: int = 8,
        symmetric: bool = False,
        fixed_range: tuple[float, float] | None = None,
        observer: str | Observer = "moving_average",
        in_training: bool = True,
        activation: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_integers("[2, 16]", bits=bits)
        if fixed_range is not None:
            check_range(fixed_range=fixed_range)
        if activation not in list(_LIMITS) or (activation and symmetric):
            raise ValueError(
                f"`activation` must be one of {list(_LIMITS)}, and None with a symmetric grid. "
                f"Received: activation={activation!r}, symmetric={symmetric}"
            )
        self.bits = bits
        self.symmetric = symmetric
        self.activation = activation
        self.fixed_range = None if fixed_range is None else (float(fixed_range[0]), float(fixed_range[1]))
        self.observer = get_observer(observer)
        self.in_training = in_training
        self.calibrating = False
        self.frozen = False

    def build(self, input_shape):
        if self.fixed_range is None:
            # (low, high, number of batches) in one variable: a step of training takes one operation for all three, and
            # on small feature maps it is the number of operations that costs.
            self.observed = self.add_weight(
                name="observed", shape=(3,), initializer="zeros", dtype="float32", trainable=False, autocast=False
            )

    def call(self, inputs, training=None, observe=True):
        # Without `observe` another feature map is rounded to the same grid, as average pooling does.
        if training and not self.in_training:
            return inputs
        values = ops.cast(inputs, "float32")
        if self.fixed_range is not None:
            low, high = self.fixed_range
            return ops.cast(fake_quant(values, low, high, self.bits), inputs.dtype)
        if self.calibrating:
            if observe:
                self.observe(values)
            return inputs
        if training and observe and not self.frozen:
            low, high = self.observe(values)
            from_zero = self.activation is not None
            rounded = (
                fake_quant_from_zero(values, high, self.bits) if from_zero else fake_quant(values, low, high, self.bits)
            )
            return ops.cast(rounded, inputs.dtype)
        low, high, count = self._read()
        rounded = ops.cond(count > 0, lambda: fake_quant(values, low, high, self.bits), lambda: self._clipped(values))
        return ops.cast(rounded, inputs.dtype)

    def observe(self, values: Any) -> tuple[Any, Any]:
        """Merges a batch into the range and returns the new range."""
        observed = ops.convert_to_tensor(self.observed)
        seen, count = observed[:2], observed[2:]
        batch = self.observer.measure(ops.stop_gradient(values), self.bits)
        apart = parts(batch)
        batch = ops.clip(batch if apart is None else self.observer.join(apart), *_LIMITS[self.activation])
        ends = self.observer.merge(seen, batch, count[0])
        if self.symmetric:
            ends = ops.stack(symmetric_range(ends[0], ends[1], self.bits))
        self.observed.assign(ops.concatenate([ends, count + 1.0]))
        return ends[0], ends[1]

    def _clipped(self, values: Any) -> Any:
        return (
            values if self.activation is None else ops.relu6(values) if self.activation == "relu6" else ops.relu(values)
        )

    def _read(self) -> tuple[Any, Any, Any]:
        observed = ops.convert_to_tensor(self.observed)
        return observed[0], observed[1], observed[2]

    def reset(self) -> None:
        """Forgets what was observed."""
        if self.fixed_range is None:
            self.observed.assign([0.0, 0.0, 0.0])

    def set_range(self, low: float, high: float) -> None:
        """Sets the range as if one batch had had it.

        Args:
            low: <= 0.
            high: >= 0.
        """
        self.observed.assign([low, high, 1.0])

    def check(self) -> None:
        """Raises a `NotInteger` if there is no range yet."""
        if self.range is None:
            raise NotInteger(
                f"Layer {self.name!r} has no range yet: train the model, or call `calibrate(model, data)`."
            )
        self.require_finite(self.range)

    @property
    def scale(self) -> Any:
        """The step of the grid; 0 where nothing has been observed yet."""
        low, high = self.fixed_range or self._read()[:2]
        return (high - low) / float(2**self.bits - 1)

    @property
    def range(self) -> tuple[float, float] | None:
        """The range (low, high) as numbers; None where nothing has been observed yet."""
        if self.fixed_range is not None:
            return self.fixed_range
        low, high, count = (float(number) for number in ops.convert_to_numpy(self.observed))
        return (low, high) if count > 0 else None

    @property
    def pixel_range(self) -> tuple[float, float] | None:
        """What pixels 0 and 255 are, where this quantizes an image."""
        return self.range

    def compute_output_spec(self, inputs, training=None, observe=True):
        return keras.KerasTensor(inputs.shape, inputs.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "bits": self.bits,
            "symmetric": self.symmetric,
            "fixed_range": self.fixed_range,
            "observer": keras.saving.serialize_keras_object(self.observer),
            "in_training": self.in_training,
            "activation": self.activation,
        }


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class InputQuant(Quantizer):
    """Rounds images to 8-bit pixels, and places these on a grid that holds 0, as convolutions pad with it.

    A value `low + pixel * step`, with `step = (high - low) / 255`, becomes `(pixel - zero_point) * step`. That is lower
    by `shift`, at most half a step: for [-1, 1] the pixels lie around 0 at -1/255 and 1/255. The kernels that read the
    image make up for it by their `input_shift`; rounding to the nearest grid value instead would lose a bit, as every
    pixel is half-way between two. It also remembers the values that it saw, so that a model which was trained on
    another range is not deployed with this one.

    Args:
        low: value of pixel 0, <= 0.
        high: value of pixel 255, >= 0.
        normalization: (scale, offset) of what is in front of it, `normalized = scale * given + offset`.

    Input shape: any, values in [low, high]. Output shape: the same.

    Raises:
        ValueError: 0 is not in the range.

    Example:

    >>> layer = InputQuant(-1.0, 1.0)
    >>> (layer(np.array([-1.0, 0.1, 1.0], "float32")) + layer.shift).numpy().round(4)
    array([-1.   ,  0.098,  1.   ], dtype=float32)
    """

    def __init__(
        self,
        low: float = -1.0,
        high: float = 1.0,
        normalization: tuple[float, float] = (1.0, 0.0),
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_range(range=(low, high))  # 0 is what convolutions pad with
        check_pair(normalization=normalization)
        self.low = float(low)
        self.high = float(high)
        self.normalization = tuple(float(number) for number in normalization)
        self.calibrating = False

    @property
    def scale(self) -> float:
        """The step of the grid: the distance of two pixel values."""
        return (self.high - self.low) / 255.0

    @property
    def zero_point(self) -> int:
        """The pixel that stands for 0."""
        return math.floor(-self.low / self.scale + 0.5)

    @property
    def shift(self) -> float:
        """What the outputs lack to the true values."""
        return self.low + self.zero_point * self.scale

    @property
    def pixel_range(self) -> tuple[float, float]:
        """What pixels 0 and 255 are."""
        return self.low, self.high

    def grid(self, bits: int = 8) -> tuple[float, float]:
        """The range of the outputs; with 16 bits that of the grid of this step around 0."""
        first = -self.zero_point if bits == 8 else -(2 ** (bits - 1))
        return first * self.scale, (first + 2**bits - 1) * self.scale

    def build(self, input_shape):
        self.seen_low, self.seen_high = (
            self.add_weight(name=name, shape=(), initializer="zeros", dtype="float32", trainable=False, autocast=False)
            for name in ("seen_low", "seen_high")
        )

    def call(self, inputs, training=None):
        values = ops.cast(inputs, "float32")
        if training or self.calibrating:
            seen = ops.stack([ops.min(values), -ops.max(values)])
            apart = parts(seen)
            seen = seen if apart is None else ops.min(apart, axis=0)
            self.seen_low.assign(ops.minimum(self.seen_low, seen[0]))
            self.seen_high.assign(ops.maximum(self.seen_high, -seen[1]))
        pixels = ops.clip(ops.round((values - self.low) / self.scale), 0.0, 255.0)
        return ops.cast(straight_through((pixels - self.zero_point) * self.scale, values), inputs.dtype)

    def reset(self) -> None:
        """Forgets what was seen."""
        self.seen_low.assign(0.0)
        self.seen_high.assign(0.0)

    def check(self) -> None:
        """Raises a `NotInteger` if the images that were seen do not fit the range."""
        slack = 0.25 * (self.high - self.low)  # what bicubic resizing and colour augmentation overshoot at most
        seen = tuple(float(ops.convert_to_numpy(end)) for end in (self.seen_low, self.seen_high))
        self.require_finite(seen)
        scale, offset = self.normalization
        given, expected = (
            tuple(sorted(round((end - offset) / scale, 3) for end in ends)) for ends in (seen, (self.low, self.high))
        )
        fits = self.low - slack <= seen[0] and seen[1] <= self.high + slack
        usual = observed(np.array(given)) if expected in CONVENTIONS and seen[0] < seen[1] else None
        if usual is not None:  # [0, 1] lies in [-1, 1], and is another scale
            given, fits = usual.range, usual.range == expected
        if not fits:
            found, wanted = (f"{low:g}, {high:g}" for low, high in (given, expected))
            raise NotInteger(
                f"The model saw inputs in [{found}], but is quantized for [{wanted}]. Give it images as it was "
                "trained on (see `preprocess_input`), or pass their range: "
                f"quantize_model(model, input_range=({found}))."
            )

    def compute_output_spec(self, inputs, training=None):
        return keras.KerasTensor(inputs.shape, inputs.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "low": self.low,
            "high": self.high,
            "normalization": self.normalization,
        }
