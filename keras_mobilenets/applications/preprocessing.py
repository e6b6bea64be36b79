"""Pixels to what the networks take, and probabilities to names."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np

from keras_mobilenets.pixels import check_input_range, looks_scaled, sample_values

__all__ = ["check_input_range", "scale_pixels"]


def scale_pixels(x: Any, data_format: str | None = None) -> Any:
    """Scales pixels from [0, 255] to [-1, 1] by `x / 127.5 - 1`, as TensorFlow's MobileNets were trained.

    Args:
        x: an array or tensor of pixels, of any shape and numeric type; it is not changed.
        data_format: "channels_last", "channels_first" or None; makes no difference, as all channels are treated alike.

    Returns:
        The same kind of array or tensor, of a floating type.

    Raises:
        ValueError: an unknown `data_format`.

    Warns:
        UserWarning: `x` has been scaled already.
    """
    check_data_format(data_format)
    warn_if_scaled(x, stacklevel=4)
    return _floating(x) / 127.5 - 1.0


def prepare_pixels(x: Any, data_format: str | None, *, scaled_inside: bool) -> Any:
    """What a model takes that may scale pixels itself: `scale_pixels`, or `x` as it is, with the same checks."""
    if not scaled_inside:
        return scale_pixels(x, data_format)
    check_data_format(data_format)
    warn_if_scaled(x, stacklevel=4)
    return x


def warn_if_scaled(x: Any, *, stacklevel: int) -> None:
    """Warns where `x` cannot be pixels any more."""
    values = sample_values(x)
    if values is not None and looks_scaled(values):
        warnings.warn(
            "`preprocess_input` takes pixels in [0, 255], but these values lie in "
            f"[{values.min():.3g}, {values.max():.3g}]: they seem to be scaled already.",
            stacklevel=stacklevel,
        )


def check_data_format(data_format: str | None) -> None:
    """Refuses what is no data format."""
    if data_format not in (None, "channels_last", "channels_first"):
        raise ValueError(
            f"`data_format` must be None, 'channels_last' or 'channels_first'. Received: data_format={data_format!r}"
        )


def _floating(x: Any) -> Any:
    if not hasattr(x, "dtype"):
        x = np.asarray(x)
    if "float" in str(x.dtype):
        return x
    if isinstance(x, np.ndarray):
        return x.astype(keras.config.floatx())
    if type(x).__module__.startswith("tensorflow"):  # in a tf.data pipeline, whatever the backend
        import tensorflow as tf

        return tf.cast(x, keras.config.floatx())
    return keras.ops.cast(x, keras.config.floatx())
