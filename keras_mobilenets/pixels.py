"""Which pixels a model takes: the one home of that fact. Needs NumPy only, until a model is looked into."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_mobilenets.serialization import register_layers

CONVENTIONS = ((0.0, 255.0), (0.0, 1.0), (-1.0, 1.0))
"""The ranges, from black to white, in which people give images to models."""

NETWORKS: dict[tuple[str, str], tuple[float, float]] = {}
"""What the first convolution of a network takes, by its name and that of a layer behind; each family tells its own."""

_CLOSE = 0.02  # of the range: 1 / 127.5 and 1 / 128 mean the same, and so does an untrained batch normalization
_ROUNDING = 1e-6  # of float32
_CENTRED = 0.04  # 0 that is farther than this share of the range from both its ends lies within it
_SAMPLE = 4  # as many images as it takes to know; more would cost time in a large batch
_LARGEST_SCALED = 4.0  # scaled images reach 1, those scaled by ImageNet's mean and deviation 2.7: beyond it is pixels


@dataclass(frozen=True)
class PixelScale:
    """What a model takes for a pixel: `scale * pixel + offset`, for pixels in [0, 255].

    Args:
        scale: one number, or one for each channel; not 0.
        offset: likewise.

    Raises:
        ValueError: a scale is 0, or a number is not finite.

    Example:

    >>> PixelScale(1 / 127.5, -1).range, PixelScale.of(MobileNetV3Small((32, 32, 3), weights=None)).range
    ((-1.0, 1.0), (0.0, 255.0))
    """

    scale: float | tuple[float, ...]
    offset: float | tuple[float, ...]

    def __post_init__(self):
        numbers = {"scale": self.scale, "offset": self.offset}
        scale, offset = (_number_or_numbers(name, one) for name, one in numbers.items())
        if not np.all(scale):
            raise ValueError(f"`scale` must not be 0. Received: scale={scale}")
        object.__setattr__(self, "scale", scale)
        object.__setattr__(self, "offset", offset)

    @classmethod
    def between(cls, black: Any, white: Any) -> PixelScale:
        """The scale that takes pixel 0 to `black` and pixel 255 to `white`."""
        black, white = _array(black=black), _array(white=white)
        if np.any(black == white):
            raise ValueError(f"`white` must be another value than `black`. Received: white={white.tolist()}")
        return cls((white - black) / 255, black)

    @classmethod
    def standardizing(cls, mean: Any, std: Any) -> PixelScale:
        """The scale `(pixel - mean) / std`, as metadata and torchvision write it.

        Raises:
            ValueError: a standard deviation is 0.
        """
        mean, std = _array(mean=mean), _array(std=std)
        if not np.all(std):
            raise ValueError(f"`std` must be a std other than 0, as it divides pixels. Received: std={std.tolist()}")
        return cls(1 / std, -mean / std)

    @classmethod
    def of(cls, model: Any, images: Any = None) -> PixelScale:
        """Reads off a model what it takes.

        Constant images in each of the usual ranges go through everything in front of the first layer with kernels:
        Rescaling, Normalization, arithmetic, casts, augmentation, whatever is nested in what. The range that comes out
        as the network wants it, or of unit size, is the one that the model takes. Where nothing is scaled inside, a
        MobileNet takes what its first convolution does, and of another model `images` must tell.

        Args:
            model: a functional or sequential model, float or quantized.
            images: a few, as the model takes them; None where there are none.

        Raises:
            ValueError: it cannot be known.
        """
        if not hasattr(model, "name"):
            raise ValueError(f"`model` must be a Keras model. Received: model={model!r}")
        found = cls.known(model, images)
        if found is None:
            raise unknown(model, "Pass `normalization=(mean, std)` of (pixel - mean) / std, or put")
        return found

    @classmethod
    def known(cls, model: Any, images: Any = None, *, image: str | None = None) -> PixelScale | None:
        """As `of`; None where it cannot be known.

        Args:
            model: a model, or its `Graph`.
            images: as in `of`.
            image: name of the input that is asked about; by default the first that takes images.
        """
        front = _Front(model, image)
        found = front.scale()
        if images is None or not (found is None or front.is_bare):
            return found
        seen = observed(np.asarray(images))
        # A bare network was perhaps trained on [0, 1], whatever the published one takes.
        return seen if found is None or (seen is not None and seen.range == CONVENTIONS[1]) else found

    @property
    def mean(self) -> tuple[float, ...]:
        """Of `(pixel - mean) / std`."""
        return tuple((-np.atleast_1d(self.offset) / np.atleast_1d(self.scale) + 0.0).tolist())

    @property
    def std(self) -> tuple[float, ...]:
        """Of `(pixel - mean) / std`."""
        return tuple((1 / np.atleast_1d(self.scale)).tolist())

    @property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest value that a pixel becomes."""
        ends = [np.asarray(self.scale) * pixel + np.asarray(self.offset) for pixel in (0, 255)]
        return round(float(np.min(ends)), 6), round(float(np.max(ends)), 6)

    @property
    def ends(self) -> tuple[Any, Any]:
        """What pixels 0 and 255 become: numbers, or tuples with one for each channel."""
        scale, offset = np.asarray(self.scale), np.asarray(self.offset)
        return _number_or_numbers("offset", offset), _number_or_numbers("scale", 255 * scale + offset)

    def __call__(self, pixels: Any) -> Any:
        """Pixels as the model takes them: float32 of an array, a tensor of a tensor."""
        if isinstance(pixels, np.ndarray):
            pixels = pixels.astype(np.float32)
        # In this order and not scale * pixel + offset: 255 becomes 1, where the other becomes 1.0000001.
        return (pixels - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)

    def pixels(self, values: np.ndarray) -> np.ndarray:
        """The pixels, uint8, that values stand for."""
        restored = np.asarray(values, np.float32) * np.asarray(self.std, np.float32) + np.asarray(self.mean, np.float32)
        return np.clip(np.rint(restored), 0, 255).astype(np.uint8)


def unknown(model: Any, remedy: str = "Put") -> ValueError:
    """That a model does not say which pixels it takes, and what to do; `remedy` goes on with "the scaling in front"."""
    return ValueError(
        f"{model.name} does not say which values it takes for pixels: no layer scales them, or one that cannot be "
        f"followed. {remedy} the scaling in front: keras.Sequential([keras.layers.Rescaling(1 / 255), model])."
    )


def _array(**argument: Any) -> np.ndarray:
    """Finite numbers, one or one for each channel; the error names the argument."""
    (name, given), *_ = argument.items()
    try:
        numbers = np.asarray(given, float)
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if not numbers.size or not np.isfinite(numbers).all():
        raise ValueError(f"`{name}` must be a finite number, or one for each channel. Received: {name}={given!r}")
    return numbers


def _number_or_numbers(name: str, given: Any) -> float | tuple[float, ...]:
    numbers = np.ravel(_array(**{name: given}))
    numbers = numbers[:1] if np.ptp(numbers) == 0 else numbers
    return float(numbers[0]) if len(numbers) == 1 else tuple(float(number) for number in numbers)


class _Front:
    """What lies between the image and the first layer with kernels, tried out on constant images.

    Attributes:
        reached: for each probe the values in each channel that come out; empty where that cannot be known.
        wanted: the range that what reads them is known to want, or None.
        is_rounded: whether it is a quantizer that reads them, which wants just this range.
        is_bare: whether the first layer gets the image as it is.
    """

    def __init__(self, model: Any, name: str | None):
        self.reached: dict[float, np.ndarray] = {}
        self.wanted: tuple[float, float] | None = None
        self.is_rounded = False
        self.graph = _graph_of(model)
        image = self._image(name)
        self.takes_integers = image is not None and "int" in str(image.tensor.dtype)
        if image is None or self.takes_integers:
            return
        for probe in (-1.0, 0.0, 1.0, 255.0):
            values = self._values_at_kernel(image, probe)
            if values is None or not np.isfinite(values).all():
                self.reached = {}
                return
            self.reached[probe] = values

    @property
    def is_bare(self) -> bool:
        return all(np.allclose(values, probe, rtol=_CLOSE, atol=_CLOSE) for probe, values in self.reached.items())

    def _image(self, name: str | None) -> Any:
        inputs = [node for node in self.graph.nodes if node.is_input] if self.graph is not None else []
        images = (node for node in inputs if len(node.tensor.shape) == 4 and name in (None, node.name))
        return next(images, None)

    def _values_at_kernel(self, image: Any, probe: float) -> np.ndarray | None:
        """What a constant image is, in each channel, where the first kernel or quantizer reads it."""
        import keras

        from keras_mobilenets.layers.composite import takes_training

        shape = [size or (64 if axis else 1) for axis, size in enumerate(image.tensor.shape)]
        values = {image: keras.ops.full(shape, probe, dtype=image.tensor.dtype)}
        for node in self.graph.nodes:
            if not node.inputs or not all(source in values for source in node.inputs):
                continue
            layer = node.layer
            quantizer = getattr(layer, "pixel_range", None)
            if quantizer or any(len(weight.shape) > 1 for weight in getattr(layer, "weights", ())):
                self.wanted, self.is_rounded = quantizer or self._wanted_by_network(node.name), bool(quantizer)
                array = keras.ops.convert_to_numpy(values[node.inputs[0]]).astype(float)
                return np.median(array.reshape(-1, array.shape[-1]), axis=0)  # padding is at the borders only
            args, kwargs = node.substitute(values.__getitem__)
            if isinstance(layer, keras.layers.Layer) and takes_training(layer):
                kwargs = {**kwargs, "training": False}
            try:
                values[node] = layer(*args, **kwargs)
            except Exception:  # whatever somebody's own layer raises on such an image
                return None
        return None

    def _wanted_by_network(self, stem: str) -> tuple[float, float] | None:
        register_layers()  # and the families with them
        names = {node.name for node in self.graph.nodes}
        known = (ends for (first, second), ends in NETWORKS.items() if first == stem and second in names)
        return next(known, None)

    def scale(self) -> PixelScale | None:
        """The range of the usual ones that comes out as the first kernel wants it; None where it cannot be known."""
        if self.takes_integers:
            return PixelScale(1.0, 0.0)
        if not self.reached:
            return None
        if self.is_bare and self.wanted and not self.is_rounded:
            return PixelScale.between(*self.wanted)
        if self.is_bare:
            return self._solved()
        for ends in (self.wanted, *CONVENTIONS[1:]):
            for black, white in CONVENTIONS:
                if ends and np.allclose(
                    [self.reached[black], self.reached[white]], np.reshape(ends, (2, 1)), atol=_CLOSE
                ):
                    return PixelScale.between(black, white)
        return self._centred() or self._solved()

    def _centred(self) -> PixelScale | None:
        """Where the mean of a data set is taken off, 0 lies between black and white."""
        for black, white in CONVENTIONS:
            low, high = self.reached[black], self.reached[white]
            with np.errstate(all="ignore"):
                zero = low / (low - high)
            if np.all((zero > _CENTRED) & (zero < 1 - _CENTRED) & (abs(high - low) >= 1)):
                return PixelScale.between(black, white)
        return None

    def _solved(self) -> PixelScale | None:
        """What becomes the range that a known network wants, if what is in front is `scale * x + offset`."""
        offset = self.reached[0.0]
        scale = self.reached[1.0] - offset
        if self.wanted is None or not np.all(scale) or not np.allclose(self.reached[255.0], 255 * scale + offset):
            return None
        ends = [(end - offset) / scale for end in self.wanted]
        usual = (one for one in CONVENTIONS if np.allclose(ends, np.reshape(one, (2, 1)), atol=_ROUNDING))
        return PixelScale.between(*next(usual, ends))


def _graph_of(model: Any) -> Any:
    """The graph of a model; None where only its `call` knows what it does."""
    from keras_mobilenets.graph import Graph
    from keras_mobilenets.layers import inline

    if isinstance(model, Graph):
        return model
    try:
        return Graph.of(inline(model))
    except ValueError:
        return None


def observed(values: np.ndarray) -> PixelScale | None:
    """Which of the usual ranges images lie in; None where they lie in no such range."""
    low, high = float(values.min()), float(values.max())
    if low >= 0 and 1 + _CLOSE < high <= 255:
        return PixelScale.between(*CONVENTIONS[0])
    for black, white in CONVENTIONS[1:]:
        if low >= black - _CLOSE and high <= white + _CLOSE:  # resizing overshoots a little
            return PixelScale.between(black, white)
    return None


def looks_scaled(values: np.ndarray) -> bool:
    """Whether values cannot be pixels in [0, 255]: some are negative, or all are at most 1 and some are fractions."""
    return bool(values.min() < 0 or (values.max() <= 1 and np.any(values % 1)))


def sample_values(images: Any) -> np.ndarray | None:
    """The values of the first few images; None where there are none to be had (symbolic tensors, generators)."""
    import keras

    leaves = keras.tree.flatten(_first_batch(images))
    images = next((leaf for leaf in leaves if len(getattr(leaf, "shape", None) or ()) == 4), next(iter(leaves), None))
    if isinstance(images, keras.KerasTensor) or not (hasattr(images, "shape") and hasattr(images, "dtype")):
        return None
    if type(images).__module__.startswith("tensorflow") and not hasattr(images, "numpy"):
        return None  # a tensor of a graph
    try:
        values = keras.ops.convert_to_numpy(images[:_SAMPLE])
    except TypeError:  # a tracer of JAX
        return None
    return values if values.size and values.dtype.kind in "iuf" else None


def _first_batch(data: Any) -> Any:
    """The first batch of what can be read once more; anything else as it is."""
    import keras

    if isinstance(data, keras.utils.PyDataset):
        return data[0] if data.num_batches else None
    if type(data).__module__.startswith("tensorflow") and hasattr(data, "take"):
        return next(iter(data.take(1)), None)
    return data


def check_input_range(model: Any, images: Any, *, stacklevel: int = 2) -> None:
    """Warns when images do not lie in the range that a model takes.

    The exports call it on the images they are given, `training.fit` on held-out arrays. Only what is certain is
    reported: negative values or fractions below 1 where pixels are expected, values beyond 4 where scaled ones are.

    Args:
        model: any model.
        images: an array or tensor of shape (batch, height, width, channels), a batch that holds one in whatever form
            `fit` takes it, or a `tf.data.Dataset` or `keras.utils.PyDataset` of batches, of which the first is looked
            at. Generators, tensors without values yet, and models that do not say what they take, are passed over.
        stacklevel: of the warning.

    Warns:
        UserWarning: the images were scaled twice, or not at all.

    Example:

    >>> check_input_range(MobileNetV2(weights=None), np.zeros((1, 224, 224, 3)))
    """
    values = sample_values(images)
    scale = None if values is None else PixelScale.known(model)
    if values is None or scale is None:
        return
    low, high = scale.range
    if (low, high) == CONVENTIONS[0] and looks_scaled(values):
        advice = "They seem to be scaled already: give pixels, or build with `include_preprocessing=False`."
    elif max(-low, high) <= _LARGEST_SCALED < values.max():
        advice = "They seem not to be scaled: call the module's `preprocess_input` on them first."
    else:
        return
    warnings.warn(
        f"{model.name} takes images with values in [{low:g}, {high:g}], but these lie in "
        f"[{values.min():.3g}, {values.max():.3g}]. {advice}",
        stacklevel=stacklevel + 1,
    )
