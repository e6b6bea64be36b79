"""Pictures with boxes out of TensorFlow Datasets and out of anyone's `tf.data.Dataset`, as sources."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mobilenets.data import given, sources
from keras_mobilenets.data.box_folder import CROWD, PADDING
from keras_mobilenets.data.sources import Source
from keras_mobilenets.utils import require

CROWDED = ("is_crowd", "is_group_of", "is_difficult")  # as TensorFlow Datasets calls what is neither right nor wrong
BOX_FORMATS = ("yxyx", "xyxy", "xywh", "center_xywh")
SOUND = 'boxes (count, 4), finite numbers, each with one of "labels" (count,), at least -2'
Found = tuple[Source, Source, tuple[str, ...], tuple[str, ...]]  # train, val, class names, what is left out


def tfds_box_sources(
    name: str, *, validation_split: float, seed: int, data_dir: str | os.PathLike[str] | None, on_error: str
) -> Found:
    """The training split, the held-out split, the class names and what is left out of a data set with boxes.

    Raises:
        ValueError: it holds none, or must first be downloaded and there is no way to.
    """
    builder = sources.tfds_builder(name, data_dir)
    image_key, objects_key, box_key, label_key = _keys(builder)
    sources.prepare(builder)
    tfds = require("tensorflow_datasets", "all")

    def example(element: Any) -> tuple[tf.Tensor, dict[str, tf.Tensor], bool]:
        objects = element[objects_key]
        boxes = objects[box_key]
        labels = tf.cast(objects[label_key], tf.int32) if label_key else tf.zeros(tf.shape(boxes)[:1], tf.int32)
        for word in CROWDED:
            labels = tf.where(objects[word], CROWD, labels) if word in objects else labels
        return element[image_key], {"boxes": boxes, "labels": labels}, True

    def split(word: str) -> tf.data.Dataset:
        read_config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False, add_tfds_id=False)
        decoders = {image_key: tfds.decode.SkipDecoding()}
        return builder.as_dataset(split=word, shuffle_files=False, decoders=decoders, read_config=read_config).map(
            example
        )

    held_out = sources.held_out_split(builder)
    every = [split("train"), *([split(held_out)] if held_out else [])]
    facts = [_facts(one) for one in every]
    flat = sum(found[1] for found in facts)
    broken = (f"{builder.name}: {flat} boxes without area",) if flat else ()
    if broken and on_error == "raise":
        raise ValueError(broken[0])
    most = max(1, *(found[0] for found in facts))
    parts = [
        Source(_padded(one, most), found[2], min(found[2], sources.SHUFFLE_BUFFER), tf.identity)
        for one, found in zip(every, facts, strict=True)
    ]
    if held_out is None:
        parts = list(sources.draw(parts[0], validation_split, seed))
    names = builder.info.features[objects_key][label_key].names if label_key else [objects_key.rstrip("s")]
    return parts[0], parts[1], tuple(names), broken


def _keys(builder: Any) -> tuple[str, str, str, str | None]:
    """The features that hold the picture, the objects, and of these the box and the class."""
    tfds = require("tensorflow_datasets", "all")
    features = builder.info.features
    image = next((key for key, one in features.items() if isinstance(one, tfds.features.Image)), None)
    for key, one in features.items():
        inner = getattr(one, "feature", None)
        parts = dict(inner.items()) if isinstance(inner, tfds.features.FeaturesDict) else {}
        box = next((name for name, part in parts.items() if isinstance(part, tfds.features.BBoxFeature)), None)
        label = next((name for name, part in parts.items() if isinstance(part, tfds.features.ClassLabel)), None)
        if image is not None and box is not None:
            return image, key, box, label
    kinds = ", ".join(f"{key} ({type(feature).__name__})" for key, feature in features.items())
    raise ValueError(f"{builder.name!r} does not hold pictures with boxes; it holds {kinds}")


def _facts(examples: tf.data.Dataset) -> tuple[int, int, int]:
    """The most boxes of a picture, how many have no area, and how many pictures there are."""
    most, flat, count = 0, 0, 0
    for boxes in examples.map(lambda image, target, plain: target["boxes"]).as_numpy_iterator():
        sound = int((boxes[:, 2:] > boxes[:, :2]).all(-1).sum())
        most, flat, count = max(most, sound), flat + len(boxes) - sound, count + 1
    return most, flat, count


def _padded(examples: tf.data.Dataset, most: int) -> tf.data.Dataset:
    """Without boxes that have no area, padded to one number of them with labels of -1."""

    def example(image: tf.Tensor, target: dict[str, tf.Tensor], plain: Any) -> tuple[Any, ...]:
        boxes = tf.clip_by_value(tf.cast(target["boxes"], tf.float32), 0, 1)
        labels = tf.cast(target["labels"], tf.int32)
        kept = tf.reduce_all(boxes[:, 2:] > boxes[:, :2], -1) & (labels != PADDING)
        boxes, labels = boxes[kept][:most], labels[kept][:most]
        rest = [0, most - tf.shape(labels)[0]]
        return (
            image,
            {
                "boxes": tf.ensure_shape(tf.pad(boxes, [rest, [0, 0]]), (most, 4)),
                "labels": tf.ensure_shape(tf.pad(labels, [rest], constant_values=PADDING), (most,)),
            },
            plain,
        )

    return examples.map(example, tf.data.AUTOTUNE)


def dataset_box_sources(
    data: given.Given,
    *,
    class_names: Sequence[str] | None,
    box_format: str,
    validation_split: float,
    seed: int,
    on_error: str,
) -> Found:
    """The same of a `tf.data.Dataset` of {"image", "boxes", "labels"}, or a pair to train on and to hold out.

    Raises:
        ValueError: it gives something else, or something else on each pass.
    """
    every: list[Any] = list(data) if isinstance(data, tuple | list) else [data]
    if not 1 <= len(every) <= 2:
        raise ValueError(f"`data` must be a dataset, or one to train on and one to hold out. Received: {len(every)}")
    examples = [_examples(one, box_format) for one in every]
    facts = [given.facts_of(one.map(_summary), SOUND) for one in examples]
    given.check_second_pass(examples[-1], facts[-1])
    highest, most, flat = (np.concatenate([one.labels for one in facts])[:, column] for column in range(3))
    if flat.sum() and on_error == "raise":
        raise ValueError(f"`data` must have boxes with an area inside of the picture. {int(flat.sum())} have none")
    classes = max(int(highest.max()) + 1, 1)
    names = tuple(class_names or [str(label) for label in range(classes)])
    if len(names) < classes:
        raise ValueError(f"`class_names` must name all classes. Received: {len(names)} names, a label {classes - 1}")
    padded = [_padded(one, max(int(most.max()), 1)) for one in examples]
    read = given.reader(examples[0], facts)
    train, val = given.split_sources(padded, facts, read, validation_split=validation_split, seed=seed)
    broken = (f"dataset: {int(flat.sum())} boxes without area",) if flat.sum() else ()
    return train, val, names, broken


def _summary(image: tf.Tensor, target: dict[str, tf.Tensor], plain: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """For `facts_of`: the highest label, how many boxes are sound, how many have no area; whether all are numbers."""
    boxes, labels = target["boxes"], tf.cast(target["labels"], tf.int64)
    real = labels != PADDING
    cut = tf.clip_by_value(boxes, 0, 1)
    sound = tf.reduce_all(cut[:, 2:] > cut[:, :2], -1) & real
    counts = [tf.math.count_nonzero(sound), tf.math.count_nonzero(real & ~sound)]
    right = tf.reduce_all(tf.math.is_finite(boxes)) & tf.reduce_all(labels >= CROWD)
    return image, tf.stack([tf.reduce_max(tf.concat([labels, [-1]], 0)), *counts]), right


def _examples(data: tf.data.Dataset, box_format: str) -> tf.data.Dataset:
    """Single (image, {"boxes": rel_yxyx, "labels"}, whether TensorFlow reads it as Pillow does)."""
    data = given.singles(data, _understood(data.element_spec))
    convert = _converter(box_format)

    def example(image: tf.Tensor, boxes: Any, labels: Any) -> tuple[Any, ...]:
        boxes = tf.reshape(tf.cast(boxes, tf.float32), (-1, 4))
        return image, {"boxes": convert(boxes, image), "labels": tf.reshape(tf.cast(labels, tf.int32), (-1,))}, False

    return data.map(example)


def _understood(spec: Any) -> Callable[[Any], tuple[Any, Any, Any]]:
    """How to take image, boxes and labels out of an element."""
    names = set(spec) if isinstance(spec, dict) else set()
    image = "image" if "image" in names else "images"
    if {image, "boxes", "labels"} <= names:
        pick = lambda element: (element[image], element["boxes"], element["labels"])  # noqa: E731
    elif {image, "bounding_boxes"} <= names:
        pick = lambda element: (element[image], *(element["bounding_boxes"][name] for name in ("boxes", "labels")))  # noqa: E731
    else:
        raise ValueError(
            '`data` must give dictionaries with "image", "boxes" and "labels", or with "images" and "bounding_boxes", '
            f"batched or not. Received: {spec}"
        )
    found = spec[image]
    if not isinstance(found, tf.TensorSpec) or given.is_batched(found) is None:
        raise ValueError(f"`data` must give images, encoded or of 1 or 3 channels. Received: {found}")
    return pick


def _converter(box_format: str) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """From one of Keras' forms of boxes, in pixels or shares, to rel_yxyx."""
    plain = box_format.removeprefix("rel_")
    if plain not in BOX_FORMATS:
        known = ", ".join((*BOX_FORMATS, *(f"rel_{one}" for one in BOX_FORMATS)))
        raise ValueError(f"`box_format` must be one of {known}. Received: box_format={box_format!r}")

    def convert(boxes: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        first, second = boxes[:, :2], boxes[:, 2:]
        if plain == "center_xywh":
            first = first - second / 2
        if plain in ("xywh", "center_xywh"):
            second = first + second
        if plain != "yxyx":
            first, second = first[:, ::-1], second[:, ::-1]
        boxes = tf.concat([first, second], -1)
        if box_format.startswith("rel_"):
            return boxes
        if image.dtype == tf.string:
            image = tf.io.decode_image(image, channels=3, expand_animations=False)
        return boxes / tf.tile(tf.cast(tf.shape(image)[:2], tf.float32), [2])

    return convert
