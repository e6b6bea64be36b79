"""`load`: any data that this package trains on, by one name."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_mobilenets.data import pipeline
from keras_mobilenets.data.folder import ImageFolder, scan_folder
from keras_mobilenets.data.given import Given, dataset_sources
from keras_mobilenets.data.names import BUNDLED, augmentations, check_arguments, decided, is_folder
from keras_mobilenets.data.sources import Source, folder_source, tfds_sources
from keras_mobilenets.data.views import ClassView, View

Preprocess = Callable[[Any], Any]
SEED_STRIDE = 1_000_003  # epochs of neighbouring seeds never meet


@dataclasses.dataclass(frozen=True)
class ImageData:
    """Pictures with what is to be answered about them, ready to train on and to evaluate with. Made by `load`.

    Attributes:
        name: the data set's name, or the folder's.
        class_names: in the order of the labels.
        image_size: (height, width) in pixels.
        batch_size: of the training batches, never more than there are pictures.
        seed: of order and augmentation.
        augment: what is done to the pictures to train on.
        train_count: pictures to train on.
        val_count: held-out pictures.
        broken: files that were left out, one line each.
        preprocess: what is done to batches of images, if anything.
    """

    name: str
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    batch_size: int
    seed: int
    augment: tuple[str, ...]
    broken: tuple[str, ...]
    preprocess: Preprocess | None
    _train: Source = dataclasses.field(repr=False)
    _val: Source = dataclasses.field(repr=False)
    _view: View = dataclasses.field(repr=False)
    _share: tuple[int, int] = dataclasses.field(default=(0, 1), repr=False)

    @property
    def train_count(self) -> int:
        return self._train.count

    @property
    def val_count(self) -> int:
        return self._val.count

    @property
    def soft_labels(self) -> bool:
        """Whether the training labels are vectors with a share of each class; the held-out ones are always integers."""
        return not {"mix_up", "cut_mix"}.isdisjoint(self.augment)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one epoch; the last pictures of an epoch that fill no batch wait for the next one."""
        return self.train_count // self.batch_size

    @property
    def train(self) -> tf.data.Dataset:
        """One epoch of float32 images in [0, 255] and targets; each pass over it is shuffled and augmented anew."""
        epoch = tf.data.Dataset.random(self.seed, rerandomize_each_iteration=True).take(1)
        return self._batches(epoch).apply(tf.data.experimental.assert_cardinality(self.steps_per_epoch))

    def train_from(self, epoch: int, step: int = 0) -> tf.data.Dataset:
        """An endless stream of training batches that begins with batch `step` of `epoch` (from 0): a run that goes on.

        An epoch depends on its number and the seed alone. Give `steps_per_epoch` to `fit`.
        """
        first = self.seed * SEED_STRIDE + epoch
        return self._batches(tf.data.Dataset.range(first, np.iinfo(np.int64).max), step)

    @property
    def val(self) -> tf.data.Dataset:
        """Batches of images, seen as they are measured, and targets, in a fixed order.

        Without `preprocess` they are uint8.
        """
        return self._preprocessed(
            pipeline.evaluation_batches(self._val, view=self._view, batch_size=self.batch_size, share=self._share)
        )

    def targets(self, count: int | None = None) -> list[Any]:
        """What is to be answered about the pictures to train on, or the first so many, which are not decoded."""
        examples = self._train.examples if count is None else self._train.examples.take(count)
        return list(examples.map(lambda item, target, plain: target).as_numpy_iterator())

    def shared(self, process: int, processes: int) -> ImageData:
        """The same data as a process of several has them: of each batch an even part, by its place in the whole.

        What the others have is not decoded. All counts stay those of the whole.
        """
        return dataclasses.replace(self, _share=(process, processes))

    def _batches(self, epochs: tf.data.Dataset, step: int = 0) -> tf.data.Dataset:
        return self._preprocessed(
            pipeline.training_batches(
                self._train,
                epochs,
                view=self._view,
                batch_size=self.batch_size,
                skip=step,
                share=self._share,
            )
        )

    def _preprocessed(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        function = self.preprocess
        if function is None:
            return batches
        return batches.map(lambda images, labels: (function(tf.cast(images, tf.float32)), labels), tf.data.AUTOTUNE)


def load(
    data: str | os.PathLike[str] | Given = BUNDLED,
    *,
    image_size: int | tuple[int, int] | None = None,
    batch_size: int = 32,
    seed: int = 0,
    augment: str | Sequence[str] = "auto",
    validation_split: float = 0.2,
    class_names: Sequence[str] | None = None,
    on_error: str = "skip",
    preprocess: Preprocess | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ImageData:
    """Loads pictures for training and evaluation from an image folder, TensorFlow Datasets or a `tf.data.Dataset`.

    Pixels come as values in [0, 255] unless `preprocess` scales them. Labels are integers, but for mixed pictures.

    Args:
        data: a folder with one sub-folder per class (see `scan_folder`), or any classification data set of
            TensorFlow Datasets, such as `"digits"` (bundled), `"cifar10"` or `"imagenet2012"`, or the folder that it
            was prepared in (TFRecord or ArrayRecord). Or a `tf.data.Dataset`, or a pair to train on and to hold out:
            (image, class) or {"image": ..., "label": ...}, batched or not, in any order but the same pictures on every
            pass; encoded pictures, or pixels in [0, 255], [0, 1] or [-1, 1], in colour or grey; class numbers or
            one-hot vectors.
        image_size: side of a square in pixels, or (height, width). By default 32 for thumbnails (short side up to 64
            pixels, by the first held-out one) and 160 for photographs.
        batch_size: pictures in a training batch.
        seed: of the split, the order and the augmentation.
        augment: `"none"`, `"crop"` (random crops), `"crop_flip"` (and mirrored), or `"auto"`: all but data sets
            of written characters are mirrored. This is light, as small networks ask (V1 paper, section 3.2). A sequence
            adds `"rand_augment"`, `"random_erasing"`, `"mix_up"` or `"cut_mix"`: `("crop_flip", "mix_up")`. The labels
            of mixed pictures are vectors, which `fit` knows how to train on.
        validation_split: share that is held out of data without a split of its own.
        class_names: of a `tf.data.Dataset`; by default its own (Keras' have them), or numbers.
        on_error: what happens to broken files in a folder: `"skip"` or `"raise"`.
        preprocess: applied to batches of float32 images in [0, 255], such as a family's `preprocess_input`.
        data_dir: where TensorFlow Datasets keeps its data; its own default if None.
        progress: called with (files checked, files in all) while a folder is read.

    Returns:
        An `ImageData`; `data.train` and `data.val` are `tf.data.Dataset`s.

    Raises:
        ValueError: an unknown name (the near ones are named), a folder or a data set that cannot be used.

    Example:

    >>> data = load("digits", image_size=32)  # doctest: +SKIP
    >>> model.fit(data.train, validation_data=data.val, epochs=5)  # doctest: +SKIP
    """
    check_arguments(image_size, batch_size)
    wanted = augmentations(augment)
    draw: dict[str, Any] = {"validation_split": validation_split, "seed": seed}
    rest: dict[str, Any] = {"class_names": class_names, "on_error": on_error, "data_dir": data_dir}
    found = find(data, **draw, **rest, progress=progress)
    return made(found, image_size, batch_size, seed, wanted, preprocess)


class Found(NamedTuple):
    """Two splits of some data: their name, the sources, the classes, and a line for each file that was left out."""

    name: str
    train: Source
    val: Source
    class_names: tuple[str, ...]
    broken: tuple[str, ...] = ()


def find(
    data: str | os.PathLike[str] | Given,
    *,
    scan: Callable[..., ImageFolder] = scan_folder,
    validation_split: float,
    seed: int,
    class_names: Sequence[str] | None = None,
    on_error: str = "skip",
    data_dir: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Found:
    """What `load` loads, of a folder as `scan` finds it; the other arguments are as there."""
    leave_devices()
    draw: dict[str, Any] = {"validation_split": validation_split, "seed": seed}
    if isinstance(data, tf.data.Dataset | tuple | list):
        return Found("dataset", *dataset_sources(data, class_names=class_names, **draw))
    if class_names is not None:
        raise ValueError("`class_names` are for a `tf.data.Dataset`: folders and data sets have their own")
    if is_folder(data):
        folder = scan(data, **draw, on_error=on_error, progress=progress)
        sources = folder_source(folder.train), folder_source(folder.val)
        name = os.path.basename(os.path.abspath(os.path.expanduser(data)))
        return Found(name, *sources, folder.class_names, folder.broken)
    name = os.path.expanduser(data)
    return Found(name, *tfds_sources(name, **draw, data_dir=data_dir))


def made(
    found: Found,
    image_size: int | tuple[int, int] | None,
    batch_size: int,
    seed: int,
    augment: tuple[str, ...],
    preprocess: Preprocess | None,
    crop: bool = True,
) -> ImageData:
    """Pictures with one class each out of what was found; arguments as of `load`, with checked words of `augment`.

    `crop`: whether held-out pictures are cropped to the middle, or stretched.
    """
    size = pipeline.usual_size(found.val) if image_size is None else image_size
    size = (size, size) if isinstance(size, int) else (size[0], size[1])
    augmented = decided(augment, found.name)
    view = ClassView(size, augmented, len(found.class_names), crop)
    batch_size = min(batch_size, found.train.count)
    facts = (found.name, found.class_names, size, batch_size, seed, augmented, found.broken, preprocess)
    return ImageData(*facts, found.train, found.val, view)


def leave_devices() -> None:
    """Has TensorFlow read without GPUs where another backend trains: it would take their memory."""
    if keras.backend.backend() != "tensorflow":
        with contextlib.suppress(RuntimeError):  # TensorFlow has begun already
            tf.config.set_visible_devices([], "GPU")
