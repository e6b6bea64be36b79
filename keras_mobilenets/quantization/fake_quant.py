"""Fake quantization: values are rounded to the integer grid and stay floats, gradients pass straight through."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_mobilenets.quantization.observers import Observer, get_observer

SMALLEST_RANGE = 1e-6
"""A range never gets narrower than this: a tensor that is always 0 would else have the scale 0."""


def fake_quant(inputs: Any, low: Any, high: Any, bits: int = 8) -> Any:
    """Rounds to a grid of `2**bits` values over [low, high], one of which is 0.

    The scale is `(high - low) / (2**bits - 1)`; the range is shifted by less than a step so that 0 is on the grid.
    Values outside the shifted range are clipped to it and get no gradient, values inside get all of it. Equal to
    `tf.quantization.fake_quant_with_min_max_vars` to the bit, on every backend.

    Args:
        inputs: float32 tensor of any shape.
        low: lower end of the range, scalar, <= 0.
        high: upper end of the range, scalar, >= 0, > low.
        bits: width of the integers, 2 to 16.

    Returns:
        A tensor of the shape and dtype of `inputs`.

    Reference:
        Krishnamoorthi, arXiv:1806.08342, section 3; Jacob et al., arXiv:1712.05877, section 3.

    Example:

    >>> fake_quant(np.array([-0.1, 0.3, 0.9], "float32"), 0.0, 0.75, bits=2).numpy()
    array([0.  , 0.25, 0.75], dtype=float32)
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.quantization.fake_quant_with_min_max_vars(inputs, low, high, num_bits=bits)
    low, high, scale, inverse, zero_point = nudge(low, high, bits)
    clipped = ops.maximum(ops.minimum(inputs, high), low)
    rounded = ops.floor((clipped - low) * inverse - zero_point + 0.5) * scale
    inside = ops.cast(ops.logical_and(inputs >= low, inputs <= high), inputs.dtype)
    return straight_through(rounded, inputs, inside)


def nudge(low: Any, high: Any, bits: int) -> tuple[Any, Any, Any, Any, Any]:
    """The grid of `fake_quant`: (low, high) shifted so that 0 is on it, scale, 1 / scale, zero point from low."""
    low, high = ops.convert_to_tensor(low, "float32"), ops.convert_to_tensor(high, "float32")
    steps = float(2**bits - 1)
    scale, inverse = (high - low) / steps, steps / (high - low)
    zero_point = ops.clip(ops.floor(0.5 - low / scale), 0.0, steps)
    return -zero_point * scale, (steps - zero_point) * scale, scale, inverse, zero_point


def straight_through(rounded: Any, inputs: Any, mask: Any = 1.0) -> Any:
    """The value of `rounded` to the bit, with the gradient of `mask * inputs`."""
    return ops.stop_gradient(rounded) + ops.stop_gradient(mask) * (inputs - ops.stop_gradient(inputs))


def kernel_scale(kernel: Any, axes: tuple[int, ...], bits: int = 8) -> Any:
    """The step of a symmetric grid on which the largest magnitude over `axes` is the largest integer."""
    largest = ops.max(ops.abs(kernel), axis=axes, keepdims=True)
    return ops.maximum(largest, SMALLEST_RANGE) / float(2 ** (bits - 1) - 1)


def fake_quant_kernel(kernel: Any, axes: tuple[int, ...], bits: int = 8) -> Any:
    """Rounds a kernel to a symmetric grid of `2**bits - 1` values, one grid for each output channel.

    Args:
        kernel: float32 tensor.
        axes: the axes that one grid spans: all but those of the output channels.
        bits: width of the integers, 2 to 16.

    Returns:
        A tensor of the shape and dtype of `kernel`; its gradient is that of `kernel`, as nothing is clipped.

    Reference:
        Krishnamoorthi, arXiv:1806.08342, section 3.1.2: per-channel, symmetric.

    Example:

    >>> fake_quant_kernel(np.array([[1.0, -4.0], [0.4, 3.0]], "float32"), axes=(0,), bits=2).numpy()
    array([[ 1., -4.],
           [ 0.,  4.]], dtype=float32)
    """
    scale = ops.stop_gradient(kernel_scale(kernel, axes, bits))
    return straight_through(ops.round(kernel / scale) * scale, kernel)


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class FakeQuant(keras.layers.Layer):
    """Fake quantization of a feature map, with a range that is observed or fixed.

    While it trains or is calibrated it observes the range. Until the first batch was observed it passes its input on
    unchanged.

    Args:
        bits: width of the integers, 2 to 16.
        symmetric: whether 0 is the middle of the grid, as 16-bit integer kernels want it.
        fixed_range: (low, high), for values whose range is known, like a softmax; None observes it.
        observer: `MovingAverage`, `MinMax`, `Percentile`, or "moving_average", "min_max", "percentile".
        in_training: whether to round in training too. False for what only the loss reads: the logarithm of a
            probability that was rounded to 0 has no gradient.

    Input shape: any. Output shape: the same.

    Raises:
        ValueError: `bits` or `fixed_range` is out of range, or `observer` unknown.

    Example:

    >>> layer = FakeQuant()
    >>> layer(np.array([0.0, 2.55], "float32"), training=True)
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
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not 2 <= bits <= 16:
            raise ValueError(f"`bits` must be from 2 to 16. Received: bits={bits}")
        if fixed_range is not None and not fixed_range[0] <= 0 <= fixed_range[1] > fixed_range[0]:
            raise ValueError(f"`fixed_range` must be (low, high) around 0. Received: fixed_range={fixed_range}")
        self.bits = bits
        self.symmetric = symmetric
        self.fixed_range = None if fixed_range is None else tuple(float(end) for end in fixed_range)
        self.observer = get_observer(observer)
        self.in_training = in_training
        self.calibrating = False

    def build(self, input_shape):
        if self.fixed_range is None:
            self.low, self.high, self.count = (self._scalar(name) for name in ("low", "high", "count"))

    def _scalar(self, name):
        return self.add_weight(
            name=name, shape=(), initializer="zeros", dtype="float32", trainable=False, autocast=False
        )

    def call(self, inputs, training=None):
        if training and not self.in_training:
            return inputs
        values = ops.cast(inputs, "float32")
        if self.fixed_range is not None:
            return ops.cast(fake_quant(values, *self.fixed_range, self.bits), inputs.dtype)
        if self.calibrating:
            self.observe(values)
            return inputs
        if training:
            return ops.cast(fake_quant(values, *self.observe(values), self.bits), inputs.dtype)
        seen = self.count > 0
        rounded = ops.cond(seen, lambda: fake_quant(values, self.low, self.high, self.bits), lambda: values)
        return ops.cast(rounded, inputs.dtype)

    def observe(self, values: Any) -> tuple[Any, Any]:
        """Merges a batch into the range and returns the new range."""
        batch = self.observer.measure(ops.stop_gradient(values))
        low, high = self.observer.merge((self.low, self.high), batch, self.count)
        low, high = ops.minimum(low, 0.0), ops.maximum(high, 0.0)
        high = ops.maximum(high, low + SMALLEST_RANGE)
        if self.symmetric:
            # The integers reach one step further down than up: -128 to 127.
            middle = float(2 ** (self.bits - 1))
            high = ops.maximum(high, -low)
            low = -high * (middle / (middle - 1.0))
        self.low.assign(low)
        self.high.assign(high)
        self.count.assign(self.count + 1.0)
        return low, high

    def reset(self) -> None:
        """Forgets what was observed."""
        if self.fixed_range is None:
            for variable in (self.low, self.high, self.count):
                variable.assign(0.0)

    def check(self) -> None:
        """Raises a ValueError if there is no range yet."""
        if self.range is None:
            raise ValueError(f"Layer {self.name!r} has no range yet: train the model, or call `calibrate(model, data)`.")

    @property
    def range(self) -> tuple[float, float] | None:
        """The range (low, high) as numbers; None where nothing has been observed yet."""
        if self.fixed_range is not None:
            return self.fixed_range
        return (float(self.low), float(self.high)) if float(self.count) > 0 else None

    def compute_output_spec(self, inputs, training=None):
        return keras.KerasTensor(inputs.shape, inputs.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "bits": self.bits,
            "symmetric": self.symmetric,
            "fixed_range": self.fixed_range,
            "observer": keras.saving.serialize_keras_object(self.observer),
            "in_training": self.in_training,
        }


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class InputQuant(keras.layers.Layer):
    """Rounds images to the 256 values that 8-bit pixels have after normalization.

    These are `low + k * (high - low) / 255` for k = 0..255. Unlike `FakeQuant` it does not shift the range to bring 0
    on the grid: for [-1, 1] that would put every pixel half-way between two values. It also remembers the values that
    it saw, so that a model which was trained on another range is not deployed with this one.

    Args:
        low: value of pixel 0.
        high: value of pixel 255.
        scale: of the normalization in front of it, `normalized = scale * given + offset`.
        offset: likewise.
        pixel_grid: whether the grid is that of the pixels. False shifts it to hold 0, as an input wants that is not
            read by convolutions alone: only in their bias can the difference of the two grids be made up for.

    Input shape: any, values in [low, high]. Output shape: the same.

    Example:

    >>> InputQuant()(np.array([-1.0, 0.0, 0.001, 3.0], "float32")).numpy()
    array([-1.        ,  0.00392163,  0.00392163,  1.        ], dtype=float32)
    """

    def __init__(
        self,
        low: float = -1.0,
        high: float = 1.0,
        scale: float = 1.0,
        offset: float = 0.0,
        pixel_grid: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not low <= 0 <= high > low:
            raise ValueError(
                f"The range of the normalized input must hold 0, which is what convolutions pad with. "
                f"Received: {(low, high)}"
            )
        self.low = float(low)
        self.high = float(high)
        self.scale = float(scale)
        self.offset = float(offset)
        self.pixel_grid = pixel_grid
        self.calibrating = False

    def build(self, input_shape):
        self.seen_low, self.seen_high = (
            self.add_weight(
                name=name, shape=(), initializer="zeros", dtype="float32", trainable=False, autocast=False
            )
            for name in ("seen_low", "seen_high")
        )

    def call(self, inputs, training=None):
        values = ops.cast(inputs, "float32")
        if training or self.calibrating:
            self.seen_low.assign(ops.minimum(self.seen_low, ops.min(values)))
            self.seen_high.assign(ops.maximum(self.seen_high, ops.max(values)))
        if not self.pixel_grid:
            return ops.cast(fake_quant(values, self.low, self.high), inputs.dtype)
        step = (self.high - self.low) / 255.0
        pixels = ops.clip(ops.round((values - self.low) / step), 0.0, 255.0)
        return ops.cast(straight_through(pixels * step + self.low, values), inputs.dtype)

    def reset(self) -> None:
        """Forgets what was seen."""
        self.seen_low.assign(0.0)
        self.seen_high.assign(0.0)

    def check(self) -> None:
        """Raises a ValueError if the images that were seen do not fit the range."""
        slack = 0.02 * (self.high - self.low)  # resizing with bicubic kernels and colour augmentation overshoot a little
        seen = float(self.seen_low), float(self.seen_high)
        if seen[0] < self.low - slack or seen[1] > self.high + slack:
            given, expected = (
                tuple(round((end - self.offset) / self.scale, 3) for end in ends)
                for ends in (seen, (self.low, self.high))
            )
            raise ValueError(
                f"The model saw inputs in {list(given)}, but is quantized for {list(expected)}. Give it images as it "
                "was trained on (see `preprocess_input`), or pass their range: "
                f"quantize_model(model, input_range=({given[0]:g}, {given[1]:g}))."
            )

    def compute_output_spec(self, inputs, training=None):
        return keras.KerasTensor(inputs.shape, inputs.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "low": self.low,
            "high": self.high,
            "scale": self.scale,
            "offset": self.offset,
            "pixel_grid": self.pixel_grid,
        }
