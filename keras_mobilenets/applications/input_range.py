"""What range of values a model takes, and a warning where an image does not lie in it."""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np

PIXELS = (0.0, 255.0)
SCALED = (-1.0, 1.0)

# First layers of the networks, by name: without a Rescaling before them they take scaled values.
_STEMS = frozenset({"conv1", "Conv1", "conv"})

# Scaled images reach 1, and those scaled by ImageNet's mean and deviation 2.7: beyond this, it is pixels.
_LARGEST_SCALED = 4.0

# As many images as it takes to know; more would cost time in a large batch.
_SAMPLE = 4


@keras.saving.register_keras_serializable(package="keras_mobilenets")
class ImageModel(keras.Model):
    """A functional model that warns when the images it is given were scaled twice, or not at all.

    It looks at the first images of an array or tensor given to `fit`, `evaluate`, `predict` or the model itself, on
    the Python side: the computation, its speed in training and what is exported are those of a plain model. A
    `tf.data.Dataset` is not looked at, as reading from it would move it on: give a batch to `check_input_range`.
    """

    def call(self, inputs, training=None, mask=None, **kwargs):
        if not training:
            check_input_range(self, inputs, stacklevel=3)
        return super().call(inputs, training=training, mask=mask, **kwargs)

    def fit(self, x=None, *args, **kwargs):
        check_input_range(self, x, stacklevel=3)
        return super().fit(x, *args, **kwargs)

    def evaluate(self, x=None, *args, **kwargs):
        check_input_range(self, x, stacklevel=3)
        return super().evaluate(x, *args, **kwargs)

    def predict(self, x, *args, **kwargs):
        check_input_range(self, x, stacklevel=3)
        return super().predict(x, *args, **kwargs)


def input_range(model: keras.Model) -> tuple[float, float] | None:
    """Says which values a MobileNet takes: (0, 255) where it scales pixels itself, else (-1, 1).

    Args:
        model: a model of this package, or one around it.

    Returns:
        (lowest, highest); None where something else than a MobileNet's first layer takes the image.

    Example:

    >>> input_range(MobileNetV3Small(weights=None)), input_range(MobileNetV2(weights=None))
    ((0.0, 255.0), (-1.0, 1.0))
    """
    first: Any = model
    while isinstance(first, keras.Model):
        inner = [layer for layer in first.layers if not isinstance(layer, keras.layers.InputLayer)]
        first = inner[0] if inner else None
    if isinstance(first, keras.layers.Rescaling) and np.ndim(first.scale) == 0 and np.ndim(first.offset) == 0:
        low, high = ((limit - first.offset) / first.scale for limit in SCALED)
        return round(low, 6), round(high, 6)
    return SCALED if getattr(first, "name", None) in _STEMS else None


def check_input_range(model: keras.Model, images: Any, *, stacklevel: int = 2) -> None:
    """Warns when images do not lie in the range that a MobileNet takes.

    Models of this package call it themselves on arrays and tensors (see `ImageModel`). Only what is certain is
    reported: negative values or fractions below 1 where pixels are expected, values beyond 4 where scaled ones are.

    Args:
        model: a model of this package, or one around it.
        images: an array or tensor of shape (batch, height, width, channels), or a list of which the first is one;
            anything else, and tensors without values yet, are passed over.
        stacklevel: of the warning.

    Warns:
        UserWarning: the images were scaled twice, or not at all.

    Example:

    >>> check_input_range(MobileNetV2(weights=None), np.zeros((1, 224, 224, 3)))
    """
    values = sample_values(images)
    if values is None:
        return
    expected = input_range(model)
    low, high = float(values.min()), float(values.max())
    if expected == PIXELS and looks_scaled(values):
        advice = "They seem to be scaled already: give pixels, or build with `include_preprocessing=False`."
    elif expected == SCALED and high > _LARGEST_SCALED:
        advice = "They seem not to be scaled: call the module's `preprocess_input` on them first."
    else:
        return
    warnings.warn(
        f"{model.name} takes images with values in [{expected[0]:g}, {expected[1]:g}], but these lie in "
        f"[{low:.3g}, {high:.3g}]. {advice}",
        stacklevel=stacklevel + 1,
    )


def looks_scaled(values: np.ndarray) -> bool:
    """Whether values cannot be pixels in [0, 255]: some are negative, or all are at most 1 and some are fractions."""
    return bool(values.min() < 0 or (values.max() <= 1 and np.any(values % 1)))


def sample_values(images: Any) -> np.ndarray | None:
    """The values of the first few images; None where there are none to be had (symbolic tensors, data sets)."""
    if isinstance(images, list | tuple) and images:
        images = images[0]
    if isinstance(images, keras.KerasTensor) or not (hasattr(images, "shape") and hasattr(images, "dtype")):
        return None
    if type(images).__module__.startswith("tensorflow") and not hasattr(images, "numpy"):
        return None  # a tensor of a graph
    try:
        values = keras.ops.convert_to_numpy(images[:_SAMPLE])
    except TypeError:  # a tracer of JAX
        return None
    return values if values.size and values.dtype.kind in "iuf" else None
