"""Pictures with masks out of TensorFlow Datasets and out of anyone's `tf.data.Dataset`, as sources."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mobilenets.data import given, sources
from keras_mobilenets.data.masks import Color, Ignored, Legend, legend, read_values
from keras_mobilenets.data.sources import Source
from keras_mobilenets.utils import require

MASK = re.compile("mask|segm|annotation|label", re.IGNORECASE)  # what TensorFlow Datasets call them
HIGHEST = 255
NUMBERS = f"masks of whole numbers from 0 to {HIGHEST}"
Names = Sequence[str] | Mapping[int, str] | None
Colors = Mapping[str, Color] | None


def tfds_mask_sources(
    name: str,
    *,
    class_names: Names,
    colors: Colors,
    ignore: Ignored,
    validation_split: float,
    seed: int,
    data_dir: str | os.PathLike[str] | None,
) -> tuple[Source, Source, Legend]:
    """The training split, the held-out split and the masks' values of a data set with masks.

    Without names all masks to train on are read once, for their values.

    Raises:
        ValueError: it holds none, or must first be downloaded and there is no way to.
    """
    tfds = require("tensorflow_datasets", "all")
    builder = sources.tfds_builder(name, data_dir)
    keys = _keys(builder)
    sources.prepare(builder)

    def split(word: str) -> Source:
        read_config = tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False, add_tfds_id=False)
        decoders = {key: tfds.decode.SkipDecoding() for key in keys}
        examples = builder.as_dataset(split=word, shuffle_files=False, decoders=decoders, read_config=read_config)
        count = builder.info.splits[word].num_examples
        pairs = examples.map(lambda example: (*(example[key] for key in keys), True))
        return Source(pairs, count, min(count, sources.SHUFFLE_BUFFER), tf.identity)

    held_out = sources.held_out_split(builder)
    train = split("train")
    names = class_names or getattr(builder.info.features[keys[1]], "names", None)
    values: set[int] = set()
    for _, mask, _ in train.examples.as_numpy_iterator() if names is None and colors is None else ():
        values |= set(np.unique(read_values(mask)).tolist())
    train, val = (train, split(held_out)) if held_out else sources.draw(train, validation_split, seed)
    return train, val, legend(names, colors, ignore, values)


def _keys(builder: Any) -> tuple[str, str]:
    """The features that hold the picture and its mask."""
    tfds = require("tensorflow_datasets", "all")
    images = [key for key, one in builder.info.features.items() if isinstance(one, tfds.features.Image)]
    masks = [key for key in images if MASK.search(key)]
    pictures = [key for key in images if key not in masks]
    if not pictures or not masks:
        kinds = ", ".join(f"{key} ({type(one).__name__})" for key, one in builder.info.features.items())
        raise ValueError(f"{builder.name!r} does not hold pictures with masks; it holds {kinds}")
    return pictures[0], masks[0]


def dataset_mask_sources(
    data: given.Given, *, class_names: Names, colors: Colors, ignore: Ignored, validation_split: float, seed: int
) -> tuple[Source, Source, Legend]:
    """The same of a `tf.data.Dataset` of (image, mask) or {"image", "mask"}, or a pair to train on and to hold out.

    Raises:
        ValueError: it gives something else, or something else on each pass.
    """
    every: list[Any] = list(data) if isinstance(data, tuple | list) else [data]
    if not 1 <= len(every) <= 2:
        raise ValueError(f"`data` must be a dataset, or one to train on and one to hold out. Received: {len(every)}")
    examples = [_examples(one) for one in every]
    facts = [given.facts_of(one.map(_summary), NUMBERS) for one in examples]
    given.check_second_pass(examples[-1], facts[-1])
    values = np.flatnonzero(np.concatenate([one.labels for one in facts]).any(0)).tolist()
    known = legend(class_names, colors, ignore, values)
    if colors is None and (strange := set(values) - {*known.codes, *known.ignored}):
        known.read(np.array([sorted(strange)]))  # which says what is wrong
    read = given.reader(examples[0], facts)
    train, val = given.split_sources(examples, facts, read, validation_split=validation_split, seed=seed)
    return train, val, known


def _examples(data: tf.data.Dataset) -> tf.data.Dataset:
    """Single (image, mask, whether TensorFlow reads it as Pillow does)."""
    pick = given.pair(data.element_spec, "mask", _is_mask, "an image and a mask (both encoded, or pixels)")
    return given.singles(data, pick).map(lambda image, mask: (image, mask, False))


def _is_mask(mask: tf.TensorSpec, batched: bool) -> bool:
    return mask.dtype == tf.string or mask.shape.rank in (batched + 2, batched + 3)


def _summary(image: tf.Tensor, mask: tf.Tensor, plain: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """For `facts_of`: which numbers are in the mask, and whether all could be classes; of colours nothing."""
    if mask.dtype != tf.string and mask.shape.rank == 3 and mask.shape[-1] == 3:
        return image, tf.zeros(HIGHEST + 1, tf.bool), tf.constant(True)

    def present(values: Any) -> np.ndarray:
        found = np.unique(read_values(values)) if isinstance(values, bytes) else np.unique(values)
        whole = bool((found == np.rint(found)).all() and found.min() >= 0 and found.max() <= HIGHEST)
        marks = np.zeros(HIGHEST + 2, bool)
        marks[found.astype(int) if whole else []] = True
        marks[-1] = whole
        return marks

    marks = tf.ensure_shape(tf.numpy_function(present, [mask], tf.bool), (HIGHEST + 2,))
    return image, marks[:-1], marks[-1]
