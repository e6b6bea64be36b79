"""Where encoded pictures come from: the files of a folder or TensorFlow Datasets."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import tensorflow as tf

from keras_mobilenets.data.names import BUNDLED, SCATTERED
from keras_mobilenets.utils import require

SHUFFLE_BUFFER = 10_000  # encoded pictures held for shuffling a stream; TFDS shuffles when it writes, too
IN_MEMORY_BYTES = 64 * 2**20  # data sets up to this size are read once
NETWORK_TIMEOUT_S = 5


@dataclasses.dataclass(frozen=True)
class Source:
    """One split: a tf.data.Dataset of (item, target, plain) in a fixed order, its size, and item -> encoded bytes.

    Where `two_by_two`, examples of one label stand side by side in training, two at a time.
    """

    examples: tf.data.Dataset
    count: int
    shuffle_buffer: int
    read: Callable[[tf.Tensor], tf.Tensor]
    two_by_two: bool = False


def folder_source(photos: Any) -> Source:
    """The files of one split of a folder: the paths are shuffled whole, files are read as they are needed."""
    paths = [os.fsencode(path) for path in photos.paths]  # names need not be text
    examples = tf.data.Dataset.from_tensor_slices((paths, photos.targets, photos.plain))
    return Source(examples, len(photos), len(photos), tf.io.read_file)


def tfds_sources(
    name: str, *, validation_split: float, seed: int, data_dir: str | os.PathLike[str] | None
) -> tuple[Source, Source, tuple[str, ...]]:
    """The training split, the held-out split and the class names of a data set of TensorFlow Datasets.

    Held out is `validation` or else `test`; of a data set with neither, a share of `train` drawn with `seed`.

    Raises:
        ValueError: it holds no pictures with one label each, or must first be downloaded and there is no way to.
    """
    builder = tfds_builder(name, data_dir)
    image_key, label_key = _keys(builder)
    prepare(builder)
    held_out = held_out_split(builder)
    train = _read(builder, "train", image_key, label_key)
    if held_out:
        val = _read(builder, held_out, image_key, label_key)
    else:
        train, val = draw(train, validation_split, seed)
    return train, val, tuple(builder.info.features[label_key].names)


def held_out_split(builder) -> str | None:
    """`validation`, or else `test`, beside `train`.

    Raises:
        ValueError: there is nothing to train on.
    """
    if "train" not in builder.info.splits:
        raise ValueError(f"The data set {builder.name!r} has no split named train: {', '.join(builder.info.splits)}")
    return next((split for split in ("validation", "test") if split in builder.info.splits), None)


def tfds_builder(name: str, data_dir: str | os.PathLike[str] | None):
    """The builder of a data set, by its name or the folder that it was prepared in."""
    tfds = require("tensorflow_datasets", "all")
    if os.path.isdir(name):
        return tfds.builder_from_directory(name)
    return tfds.builder(name, data_dir=os.path.expanduser(data_dir) if data_dir else None)


def _keys(builder) -> tuple[str, str]:
    """The features that hold the picture and its class."""
    tfds = require("tensorflow_datasets", "all")
    features = builder.info.features
    images = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    labels = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    preferred = [key for key in builder.info.supervised_keys or () if isinstance(key, str)]
    images.sort(key=lambda key: key not in preferred)
    labels.sort(key=lambda key: key not in preferred)
    if not images or not labels:
        kinds = ", ".join(f"{key} ({type(feature).__name__})" for key, feature in features.items())
        raise ValueError(f"{builder.name!r} does not hold pictures with one class each; it holds {kinds}")
    return images[0], labels[0]


def prepare(builder) -> None:
    """Downloads and prepares the data set where needed; without a network, says so at once."""
    if builder.info.splits:
        return
    urls = list(builder.url_infos or ())
    manual = builder.MANUAL_DOWNLOAD_INSTRUCTIONS
    if urls and not manual and not any(_answers(url) for url in {_root(url) for url in urls}):
        hosts = ", ".join(sorted({urlsplit(url).netloc for url in urls}))
        raise ValueError(
            f"The data set {builder.name!r} is not prepared in {builder.data_path} and cannot be downloaded: "
            f"no answer from {hosts}. Without a network, use {BUNDLED!r} or a folder of pictures"
        )
    try:
        with contextlib.ExitStack() as quiet:
            if builder.name in (BUNDLED, SCATTERED):  # over in two seconds: no bars for that
                quiet.enter_context(contextlib.redirect_stdout(io.StringIO()))
                quiet.enter_context(contextlib.redirect_stderr(io.StringIO()))
            builder.download_and_prepare()
    except AssertionError as error:  # TFDS says so when files that only their owner may hand out are missing
        if not manual:
            raise
        raise ValueError(f"The data set {builder.name!r} must be downloaded by hand. {manual.strip()}") from error


def _root(url: str) -> str:
    return "{0.scheme}://{0.netloc}".format(urlsplit(url))


def _answers(url: str) -> bool:
    """Whether anything at all answers there: TFDS itself would try for minutes before it gives up."""
    try:
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=NETWORK_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
    return True


def _read(builder, split: str, image_key: str, label_key: str) -> Source:
    tfds = require("tensorflow_datasets", "all")
    info = builder.info.splits[split]
    encoded = {image_key: tfds.decode.SkipDecoding()}
    if builder.info.file_format.value == "array_record":  # TFDS reads it by index only
        examples = _by_index(builder.as_data_source(split=split, decoders=encoded), image_key, label_key)
    else:
        examples = builder.as_dataset(
            split=split,
            shuffle_files=False,
            decoders=encoded,
            read_config=tfds.ReadConfig(interleave_cycle_length=1, try_autocache=False, add_tfds_id=False),
        ).map(lambda example: (example[image_key], example[label_key]))
    if info.num_bytes <= IN_MEMORY_BYTES:
        images, labels = zip(*examples.as_numpy_iterator(), strict=True)
        examples = tf.data.Dataset.from_tensor_slices((list(images), np.array(labels, np.int64)))
    feature = builder.info.features[image_key]
    plain = feature.np_dtype == np.uint8 and feature.shape[-1] in (1, 3)
    examples = examples.map(lambda image, label: (image, label, plain))
    return Source(examples, info.num_examples, min(info.num_examples, SHUFFLE_BUFFER), tf.identity)


def _by_index(records, image_key: str, label_key: str) -> tf.data.Dataset:
    def example(index: np.ndarray) -> tuple[bytes, np.int64]:
        found = records[int(index)]
        return found[image_key], np.int64(found[label_key])

    def read(index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image, label = tf.numpy_function(example, [index], (tf.string, tf.int64))
        return tf.ensure_shape(image, ()), tf.ensure_shape(label, ())

    return tf.data.Dataset.range(len(records)).map(read)


def draw(source: Source, validation_split: float, seed: int) -> tuple[Source, Source]:
    """Holds out a share of the examples, the same ones on every pass and every machine."""
    count = max(round(source.count * validation_split), 1)
    mixed = source.examples.shuffle(source.shuffle_buffer, seed=seed, reshuffle_each_iteration=False)
    rest = source.count - count
    return (
        Source(mixed.skip(count), rest, min(rest, SHUFFLE_BUFFER), source.read),
        Source(mixed.take(count), count, count, source.read),
    )
