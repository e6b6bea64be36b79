"""The same pictures without TensorFlow: Grain reads them, Pillow and NumPy crop them, for Keras on JAX and torch."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from keras_mobilenets.data.folder import Photos, scan_folder
from keras_mobilenets.data.images import EDGE_TO_EDGE, read_image, read_pixels
from keras_mobilenets.data.names import (
    PHOTO_AREA,
    STRETCH,
    THUMBNAIL_SHIFT,
    augmentations,
    check_arguments,
    decided,
    is_folder,
)
from keras_mobilenets.utils import require

Records = Sequence[tuple[Any, int]]  # a path or the encoded picture, and its label


@dataclasses.dataclass(frozen=True)
class GrainData:
    """Pictures with one class each as Grain gives them. Made by `load_grain`; `fit` takes it.

    Attributes:
        class_names: in the order of the labels.
        image_size: (height, width) in pixels.
        batch_size: of the training batches, never more than there are pictures.
        seed: of order and augmentation.
        augment: `("none",)`, `("crop",)` or `("crop_flip",)`.
        broken: files that were left out, one line each.
        preprocess: what is done to batches of images, if anything.
    """

    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    batch_size: int
    seed: int
    augment: tuple[str, ...]
    broken: tuple[str, ...]
    preprocess: Callable[[Any], Any] | None
    _train: Records = dataclasses.field(repr=False)
    _val: Records = dataclasses.field(repr=False)
    _share: tuple[int, int] = dataclasses.field(default=(0, 1), repr=False)

    @property
    def train_count(self) -> int:
        return len(self._train)

    @property
    def val_count(self) -> int:
        return len(self._val)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of one epoch."""
        return self.train_count // self.batch_size

    def train_from(self, epoch: int, step: int = 0) -> Any:
        """An endless `grain.IterDataset` of training batches that begins with batch `step` of `epoch` (from 0).

        An epoch depends on its number and the seed alone.
        """
        grain = require("grain", "grain")
        whole = self.steps_per_epoch * self.batch_size
        order = grain.MapDataset.source(self._train).seed(self.seed).shuffle()[:whole]
        batches = self._batches(order.random_map(self._training_image).repeat())
        return batches[epoch * self.steps_per_epoch + step :].map(self._preprocessed).to_iter_dataset()

    @property
    def val(self) -> Any:
        """A `grain.MapDataset` of batches, cropped as for the published accuracies, in a fixed order."""
        grain = require("grain", "grain")
        pictures = grain.MapDataset.source(self._val).map(lambda one: (read_image(one[0], self.image_size), one[1]))
        return self._batches(pictures).map(self._preprocessed)

    def shared(self, process: int, processes: int) -> GrainData:
        """The same data as a process of several has them: of each batch an even part, by its place in the whole.

        What the others have is not read. All counts stay those of the whole.
        """
        return dataclasses.replace(self, _share=(process, processes))

    def _batches(self, pictures: Any) -> Any:
        own = require("grain", "grain").MapDataset.source(_Share(pictures, self.batch_size, *self._share))
        return own.batch(self.batch_size // self._share[1], drop_remainder=False)

    def _preprocessed(self, batch: tuple[np.ndarray, np.ndarray]) -> tuple[Any, np.ndarray]:
        images, labels = batch
        return (self.preprocess(images.astype(np.float32)) if self.preprocess else images), labels

    def _training_image(self, record: tuple[Any, int], rng: np.random.Generator) -> tuple[np.ndarray, int]:
        source, label = record
        if "none" in self.augment:
            return read_image(source, self.image_size).astype(np.float32), label
        image = _random_crop(read_pixels(source), self.image_size, rng)
        if "crop_flip" in self.augment and rng.integers(2):
            image = image[:, ::-1]
        return image.astype(np.float32), label


class _Share:
    """What a process has of the batches of a dataset that is read by index, as many pictures as any other."""

    def __init__(self, pictures: Any, batch_size: int, process: int, processes: int) -> None:
        self.pictures, self.batch_size = pictures, batch_size
        self.process, self.size = process, batch_size // processes
        self.batches, rest = divmod(len(pictures), batch_size)
        self.last = rest // processes

    def __len__(self) -> int:
        return self.batches * self.size + self.last

    def __getitem__(self, index: int) -> Any:
        batch, place = divmod(index, self.size)
        size = self.size if batch < self.batches else self.last
        return self.pictures[batch * self.batch_size + self.process * size + place]


def load_grain(
    data: str | os.PathLike[str],
    *,
    image_size: int | tuple[int, int],
    batch_size: int = 32,
    seed: int = 0,
    augment: str = "auto",
    validation_split: float = 0.2,
    on_error: str = "skip",
    preprocess: Callable[[Any], Any] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> GrainData:
    """Loads pictures as `load` does, without TensorFlow; needs the extra `grain`.

    Args:
        data: a folder with one sub-folder per class, or a data set that TensorFlow Datasets prepared as ArrayRecord:
            its name or its folder.
        image_size: side of a square in pixels, or (height, width).
        batch_size: pictures in a training batch.
        seed: of the split, the order and the augmentation.
        augment: `"none"`, `"crop"`, `"crop_flip"` or `"auto"`, see `load`.
        validation_split: share that is held out of a folder without a split of its own.
        on_error: what happens to broken files in a folder: `"skip"` or `"raise"`.
        preprocess: applied to batches of float32 images in [0, 255].
        data_dir: where TensorFlow Datasets keeps its data; its own default if None.

    Returns:
        A `GrainData`, whose `train_from` and `val` are Grain datasets.

    Raises:
        ValueError: an unknown name, or data that cannot be used.

    Example:

    >>> data = load_grain("flowers", image_size=160)  # doctest: +SKIP
    >>> history = fit(model, data, epochs=5)  # doctest: +SKIP
    """
    check_arguments(image_size, batch_size)
    wanted = augmentations(augment)
    if wanted[1:]:
        raise ValueError(f"`augment` must be a way of cropping without TensorFlow. Received: augment={augment!r}")
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    broken: tuple[str, ...] = ()
    train: Records
    val: Records
    if is_folder(data):
        folder = scan_folder(data, validation_split=validation_split, seed=seed, on_error=on_error)
        names, broken, train, val = folder.class_names, folder.broken, _files(folder.train), _files(folder.val)
    else:
        train, val, names = _prepared(os.path.expanduser(data), data_dir)
    batch_size = min(batch_size, len(train))
    return GrainData(names, size, batch_size, seed, decided(wanted, os.fspath(data)), broken, preprocess, train, val)


def _files(photos: Photos) -> Records:
    return list(zip(photos.paths, photos.labels.tolist(), strict=True))


class _ArrayRecords:
    """What `tfds.data_source` reads, as pairs of encoded picture and label."""

    def __init__(self, builder: Any, split: str) -> None:
        tfds = require("tensorflow_datasets", "all")
        self.image, self.label = builder.info.supervised_keys
        self.source = builder.as_data_source(split=split, decoders={self.image: tfds.decode.SkipDecoding()})

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        found = self.source[int(index)]
        return found[self.image], int(found[self.label])


def _prepared(name: str, data_dir: str | os.PathLike[str] | None) -> tuple[Any, Any, tuple[str, ...]]:
    tfds = require("tensorflow_datasets", "all")
    if os.path.isdir(name):
        builder = tfds.builder_from_directory(name)
    else:
        builder = tfds.builder(name, data_dir=data_dir, file_format="array_record")
    held_out = next((split for split in ("validation", "test") if split in builder.info.splits), None)
    if "train" not in builder.info.splits or held_out is None or builder.info.file_format.value != "array_record":
        raise ValueError(
            f"Grain reads {name!r} where it is prepared as ArrayRecord, with a split to hold out. Prepare it once: "
            f"tfds.builder({builder.name!r}, file_format='array_record').download_and_prepare()"
        )
    train, val = _ArrayRecords(builder, "train"), _ArrayRecords(builder, held_out)
    return train, val, tuple(builder.info.features[train.label].names)


def _random_crop(pixels: np.ndarray, image_size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """The law of `pipeline`: a random part of a photograph, or a thumbnail moved by a few pixels."""
    height, width = pixels.shape[:2]
    aspect = image_size[1] / image_size[0]
    is_photo = min(height, width) > EDGE_TO_EDGE
    share, stretch, down, right = rng.random(4)
    share = PHOTO_AREA + (1 - PHOTO_AREA) * share if is_photo else 1.0
    stretch = STRETCH ** (2 * stretch - 1) if is_photo else 1.0
    largest = min(width, height * aspect)
    crop_width = int(np.clip(largest * np.sqrt(share * stretch), 1, width))
    crop_height = int(np.clip(largest / aspect * np.sqrt(share / stretch), 1, height))
    top, left = int((height - crop_height) * down), int((width - crop_width) * right)
    part = Image.fromarray(pixels[top : top + crop_height, left : left + crop_width])
    image = np.asarray(part.resize(image_size[::-1], Image.Resampling.BILINEAR))
    if is_photo:
        return image
    rows, columns = (round(side * THUMBNAIL_SHIFT) for side in image_size)
    top, left = int(rng.integers(2 * rows + 1)), int(rng.integers(2 * columns + 1))
    padded = np.pad(image, ((rows, rows), (columns, columns), (0, 0)))
    return padded[top : top + image_size[0], left : left + image_size[1]]
