"""Anyone's `tf.data.Dataset`: what it gives, the range of its pixels, and a split that no shuffling undoes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from keras_mobilenets.data.images import OVERSHOOT, value_range
from keras_mobilenets.data.sources import SHUFFLE_BUFFER, Source

SHUFFLED_IMAGES = 1_000  # held decoded for shuffling: they take ten times the room of encoded ones
READ_TOGETHER = 256
CLASSES = "an image (encoded, or pixels of 1 or 3 channels) and a class (a number or a one-hot vector)"
SINGLE = "one class for each picture: a number >= 0, or one 1 among 0"
CHECKED = 64  # pictures that a second pass is tried on

Given: TypeAlias = tf.data.Dataset | tuple[tf.data.Dataset, tf.data.Dataset] | list[tf.data.Dataset]


class Facts(NamedTuple):
    """What one pass over a dataset finds, an entry for each picture."""

    keys: np.ndarray  # that follow from the pixels
    labels: np.ndarray
    single: np.ndarray  # whether the label is one class
    low: np.ndarray
    high: np.ndarray


def dataset_sources(
    data: Given, *, class_names: Sequence[str] | None, validation_split: float, seed: int
) -> tuple[Source, Source, tuple[str, ...]]:
    """The training split, the held-out split and the class names of a dataset, or of a pair of them.

    Which pictures of a single dataset are held out depends on the pictures, not on their order: it may be shuffled
    anew on each pass, as Keras' `image_dataset_from_directory` does.

    Raises:
        ValueError: it does not give pictures with one class each, in a range that is known, the same on every pass.
    """
    given: list[Any] = list(data) if isinstance(data, tuple | list) else [data]
    if not all(isinstance(one, tf.data.Dataset) for one in given):
        kinds = ", ".join(type(one).__name__ for one in given)
        raise ValueError(
            "`data` must be a folder, the name of a data set, or a tf.data.Dataset (of arrays: "
            f"tf.data.Dataset.from_tensor_slices((images, labels))). Received: {kinds}"
        )
    if not 1 <= len(given) <= 2:
        raise ValueError(f"`data` must be a dataset, or one to train on and one to hold out. Received: {len(given)}")
    examples, vectors = zip(*(_examples(one) for one in given), strict=True)
    facts = [facts_of(one, SINGLE) for one in examples]
    check_second_pass(examples[-1], facts[-1])
    classes = max(*vectors, *(int(one.labels.max()) + 1 for one in facts))
    names = class_names or getattr(given[0], "class_names", None) or [str(label) for label in range(classes)]
    if len(names) < classes:
        raise ValueError(f"`class_names` must name all classes. Received: {len(names)} names, a label {classes - 1}")
    read = reader(examples[0], facts)
    train, val = split_sources(examples, facts, read, validation_split=validation_split, seed=seed)
    return train, val, tuple(names)


def split_sources(
    examples: Sequence[tf.data.Dataset],
    facts: Sequence[Facts],
    read: Callable[[tf.Tensor], tf.Tensor],
    *,
    validation_split: float,
    seed: int,
) -> list[Source]:
    """What is trained on and what is held out: the two that are given, or shares of the one."""
    if len(examples) == 2:
        parts = [(one, len(found.keys)) for one, found in zip(examples, facts, strict=True)]
    else:
        parts = _drawn(examples[0], facts[0].keys, validation_split, seed)
    return [_source(one, count, read) for one, count in parts]


def _source(examples: tf.data.Dataset, count: int, read: Callable[[tf.Tensor], tf.Tensor]) -> Source:
    if not count:
        raise ValueError("`data` must hold pictures to train on and others to hold out. Received: too few")
    most = SHUFFLE_BUFFER if examples.element_spec[0].dtype == tf.string else SHUFFLED_IMAGES
    return Source(examples.map(lambda image, label, _: (image, label, False)), count, min(count, most), read)


def _examples(data: tf.data.Dataset) -> tuple[tf.data.Dataset, int]:
    """Single (image, label, whether the label is one class), and how many classes its vectors tell; 0 of numbers."""
    data = singles(data, pair(data.element_spec, "label", _is_class, CLASSES))
    shape = data.element_spec[1].shape

    def example(image: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        if image.dtype != tf.string and image.shape.rank == 2:
            image = image[..., tf.newaxis]
        label = tf.cast(label, tf.float64)
        if shape.rank and shape[0] > 1:
            return image, tf.argmax(label), tf.reduce_all((label == 0) | (label == 1)) & (tf.reduce_sum(label) == 1)
        label = label[0] if shape.rank else label
        return image, tf.cast(label, tf.int64), (label >= 0) & (label == tf.round(label))

    return data.map(example), shape[0] if shape.rank and shape[0] > 1 else 0


def _is_class(label: tf.TensorSpec, batched: bool) -> bool:
    """Whether it can be numbers of classes or vectors of them."""
    rank = label.shape.rank
    return label.dtype != tf.string and (rank == batched or bool(rank == batched + 1 and label.shape[-1]))


def pair(spec: Any, name: str, fits: Callable[[tf.TensorSpec, bool], bool], wanted: str) -> Callable[..., Any]:
    """How to take (image, target) out of an element that is such a pair, or a dictionary with both.

    Args:
        spec: of the element.
        name: of the target in a dictionary.
        fits: whether a target is one, beside images that are batched or not.
        wanted: what pairs must be of, for the refusal.

    Raises:
        ValueError: the element is something else.
    """
    pick: Callable[..., Any] = lambda image, target: (image, target)  # noqa: E731
    parts = spec
    if isinstance(spec, dict) and {"image", name} <= set(spec):
        pick = lambda element: (element["image"], element[name])  # noqa: E731
        parts = spec["image"], spec[name]
    if isinstance(parts, tuple) and len(parts) == 2 and all(isinstance(one, tf.TensorSpec) for one in parts):
        batched = is_batched(parts[0])
        if batched is not None and fits(parts[1], batched):
            return pick
    raise ValueError(
        f'`data` must give pairs of {wanted}, or dictionaries with "image" and "{name}", batched or not. '
        f"Received: {spec}"
    )


def singles(data: tf.data.Dataset, pick: Callable[..., Any]) -> tf.data.Dataset:
    """What `pick` takes out of each element, an image first; taken apart where images come in batches."""
    if int(data.cardinality()) == tf.data.INFINITE_CARDINALITY:
        raise ValueError("`data` must have an end: training repeats it. Received: an infinite dataset")
    data = data.map(pick)
    return data.unbatch() if is_batched(data.element_spec[0]) else data


def is_batched(image: tf.TensorSpec) -> bool | None:
    """Whether images come in batches; None if it cannot be an image."""
    rank, last = image.shape.rank, image.shape[-1] if image.shape.rank else None
    if image.dtype == tf.string:
        return {0: False, 1: True}.get(rank)
    if rank == 2 or (rank == 3 and last in (1, 3)):
        return False
    return True if (rank == 3 and last) or (rank == 4 and last in (1, 3)) else None  # grey without a channel


def _key(image: tf.Tensor) -> tf.Tensor:
    """A number, in a vector, that follows from a picture and, as good as surely, from no other."""
    values = tf.reshape(image, [1] if image.dtype == tf.string else [1, -1])
    return tf.bitcast(tf.fingerprint(values), tf.int64)


def facts_of(examples: tf.data.Dataset, refusal: str) -> Facts:
    """What is in (image, label, whether that is right); `refusal` says what it must be."""

    def found(image: tf.Tensor, label: tf.Tensor, single: tf.Tensor) -> tuple[tf.Tensor, ...]:
        values = tf.zeros(1) if image.dtype == tf.string else tf.cast(image, tf.float64)
        return _key(image)[0], label, single, tf.reduce_min(values), tf.reduce_max(values)

    batches = list(examples.map(found, tf.data.AUTOTUNE).batch(READ_TOGETHER).as_numpy_iterator())
    if not batches:
        raise ValueError("There are no pictures in `data`")
    facts = Facts(*(np.concatenate(part) for part in zip(*batches, strict=True)))
    if not facts.single.all():
        place = int(np.argmin(facts.single))
        raise ValueError(f"`data` must give {refusal}. See no. {place}")
    return facts


def check_second_pass(examples: tf.data.Dataset, facts: Facts) -> None:
    """Refuses a dataset that gives other pictures when it is read again."""
    again = [int(_key(image)[0]) for image, _, _ in examples.take(CHECKED)]
    if not np.isin(again, facts.keys).all():
        raise ValueError(
            "`data` must give the same pictures on every pass, or some would be both trained on and held out; a second "
            "pass gave others. Leave random changes to `augment`; where `take` or `skip` follows a `shuffle`, give "
            "that reshuffle_each_iteration=False"
        )


def reader(examples: tf.data.Dataset, facts: Sequence[Facts]) -> Callable[[tf.Tensor], tf.Tensor]:
    """Encoded pictures as they are, others as uint8 RGB."""
    dtype = examples.element_spec[0].dtype
    if dtype == tf.string:
        return tf.identity
    black, white = 0.0, 255.0
    low, high = float(min(one.low.min() for one in facts)), float(max(one.high.max() for one in facts))
    if dtype != tf.uint8 or high <= 1:
        known = value_range(low, high, overshoot=OVERSHOOT if dtype.is_floating else 0.0)
        if known is None:
            raise ValueError(
                f"`data` must have pixels in [0, 255], [0, 1] or [-1, 1]. Received: values from {low:g} to {high:g}"
            )
        black, white = known

    def pixels(image: tf.Tensor) -> tf.Tensor:
        if image.dtype != tf.uint8 or white == 1:
            scaled = (tf.cast(image, tf.float32) - black) * (255 / (white - black))
            image = tf.saturate_cast(tf.round(scaled), tf.uint8)
        return image if image.shape[-1] == 3 else tf.image.grayscale_to_rgb(image)

    return pixels


def _drawn(
    examples: tf.data.Dataset, keys: np.ndarray, validation_split: float, seed: int
) -> list[tuple[tf.data.Dataset, int]]:
    """A share to hold out and the rest, by keys, each with its count; pictures that are the same stay together."""
    different, counts = np.unique(keys, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(different))
    wanted = max(round(len(keys) * validation_split), 1)
    chosen = order[: int(np.searchsorted(counts[order].cumsum(), wanted)) + 1]
    held_out = tf.constant(np.sort(different[chosen]))
    count = int(counts[chosen].sum())

    def is_held_out(image: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        key = _key(image)
        place = tf.minimum(tf.searchsorted(held_out, key), len(chosen) - 1)
        return (tf.gather(held_out, place) == key)[0]

    rest = examples.filter(lambda *example: ~is_held_out(*example))
    return [(rest, len(keys) - count), (examples.filter(is_held_out), count)]
