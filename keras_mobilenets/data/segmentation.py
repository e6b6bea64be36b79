"""`load_segmentation`: pictures in which each pixel has a class, from wherever they come."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mobilenets.data.given import Given
from keras_mobilenets.data.images import read_pixels
from keras_mobilenets.data.load import ImageData, Preprocess, leave_devices
from keras_mobilenets.data.mask_folder import scan_masks
from keras_mobilenets.data.mask_polygons import MaskPhotos
from keras_mobilenets.data.mask_sources import dataset_mask_sources, tfds_mask_sources
from keras_mobilenets.data.mask_view import MaskView
from keras_mobilenets.data.masks import Color, Ignored
from keras_mobilenets.data.names import SCATTERED, check_arguments, decided, is_folder, mask_augmentations
from keras_mobilenets.data.sources import Source

SMALL, USUAL = 128, 256
"""Sides of images where nobody says: of pictures that are hardly larger, and of others."""


def load_segmentation(
    data: str | os.PathLike[str] | Given = SCATTERED,
    *,
    image_size: int | tuple[int, int] | None = None,
    batch_size: int = 8,
    seed: int = 0,
    augment: str | Sequence[str] = "auto",
    validation_split: float = 0.2,
    class_names: Sequence[str] | Mapping[int, str] | None = None,
    colors: Mapping[str, Color] | None = None,
    ignore: Ignored = 255,
    on_error: str = "skip",
    preprocess: Preprocess | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ImageData:
    """Loads pictures with a mask each, from a folder, TensorFlow Datasets or a `tf.data.Dataset`.

    Pixels come as values in [0, 255] unless `preprocess` scales them; masks as uint8 labels from 0, with 255 where
    nobody labelled a pixel. Pictures are stretched to `image_size`, their masks alike.

    Args:
        data: a folder of pictures and masks or of pictures and COCO's polygons (see `scan_masks`), the name of a data
            set of TensorFlow Datasets with masks, such as `"oxford_iiit_pet"`, or a `tf.data.Dataset`, or a pair to
            train on and to hold out: (image, mask) or {"image": ..., "mask": ...}, batched or not.
        image_size: side of a square in pixels, or (height, width); by default 256, and 128 of small pictures.
            A network wants multiples of 32.
        batch_size: pictures in a training batch.
        seed: of the split, the order and the augmentation.
        augment: `"none"`; `"crop"`: scaled by .5 to 2 and moved; `"crop_flip"`: mirrored, too; `"auto"`: all but data
            sets of written characters are mirrored.
        validation_split: share that is held out of data without a split of its own.
        class_names: in the order of the masks' values 0, 1, ...; or a dictionary by value. By default the data's own,
            or numbers.
        colors: for masks in colours, the (red, green, blue) of each class by its name.
        ignore: the value, or colour, of pixels that are neither right nor wrong; or several of them; None for none.
        on_error: what happens to pictures of a folder without a whole mask: `"skip"` or `"raise"`.
        preprocess: applied to batches of float32 images in [0, 255], such as a family's `preprocess_input`.
        data_dir: where TensorFlow Datasets keeps its data; its own default if None.
        progress: called with (files checked, files in all) while a folder is read.

    Returns:
        An `ImageData`; `data.train` and `data.val` are `tf.data.Dataset`s of images and masks.

    Raises:
        ValueError: an unknown name, a folder or a data set that cannot be used; see `scan_masks`.

    Example:

    >>> data = load_segmentation("camvid", image_size=(192, 256), ignore=11)          # doctest: +SKIP
    >>> model = LRASPP("MobileNetV3Small", (192, 256, 3), classes=11)                 # doctest: +SKIP
    >>> fit(model, data, task=Segmentation(11), recipe="segmentation")                # doctest: +SKIP
    """
    check_arguments(image_size, batch_size)
    leave_devices()
    wanted = mask_augmentations(augment)
    known: dict[str, Any] = {"class_names": class_names, "colors": colors, "ignore": ignore}
    draw: dict[str, Any] = {"validation_split": validation_split, "seed": seed}
    broken: tuple[str, ...] = ()
    if isinstance(data, tf.data.Dataset | tuple | list):
        name = "dataset"
        train, val, legend = dataset_mask_sources(data, **known, **draw)
    elif is_folder(data):
        found = scan_masks(data, **known, **draw, on_error=on_error, progress=progress)
        train, val, legend, broken = _source(found.train), _source(found.val), found.legend, found.broken
        name = os.path.basename(os.path.abspath(os.path.expanduser(data)))
    else:
        name = os.path.expanduser(data)
        train, val, legend = tfds_mask_sources(name, **known, **draw, data_dir=data_dir)
    size = _usual_size(val) if image_size is None else image_size
    size = (size, size) if isinstance(size, int) else (size[0], size[1])
    augmented = decided(wanted, name)
    view = MaskView(size, augmented, legend)
    batch = min(batch_size, train.count)
    return ImageData(name, legend.class_names, size, batch, seed, augmented, broken, preprocess, train, val, view)


def _source(photos: MaskPhotos) -> Source:
    paths = [os.fsencode(path) for path in photos.paths]
    masks = [mask if isinstance(mask, bytes) else os.fsencode(mask) for mask in photos.masks]
    examples = tf.data.Dataset.from_tensor_slices((paths, masks, np.ones(len(paths), bool)))
    return Source(examples, len(paths), len(paths), tf.io.read_file)


def _usual_size(source: Source) -> int:
    item, _, _ = next(iter(source.examples))
    return SMALL if max(read_pixels(source.read(item).numpy()).shape[:2]) <= 1.25 * SMALL else USUAL
