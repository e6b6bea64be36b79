"""`load_detection`: pictures with boxes of any origin, as one form to train on and to evaluate with."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_mobilenets.data.box_folder import scan_boxes
from keras_mobilenets.data.box_sources import dataset_box_sources, tfds_box_sources
from keras_mobilenets.data.box_views import BoxView
from keras_mobilenets.data.given import Given
from keras_mobilenets.data.images import read_pixels
from keras_mobilenets.data.load import ImageData, Preprocess, leave_devices
from keras_mobilenets.data.names import ANNOTATED, SCATTERED, box_augmentations, check_arguments, is_folder, is_written
from keras_mobilenets.data.sources import folder_source

SMALL, PUBLISHED = 128, 320  # sizes of small pictures and of others, if nobody says
THUMBNAIL = 160  # longest side of a small one


def load_detection(
    data: str | os.PathLike[str] | Given = SCATTERED,
    *,
    image_size: int | tuple[int, int] | None = None,
    batch_size: int = 32,
    seed: int = 0,
    augment: str | Sequence[str] = "auto",
    validation_split: float = 0.2,
    class_names: Sequence[str] | None = None,
    box_format: str = "rel_yxyx",
    on_error: str = "skip",
    preprocess: Preprocess | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ImageData:
    """Loads pictures with boxes for training and evaluation of detectors.

    Targets are {"boxes": (batch, most, 4), "labels": (batch, most)}: boxes as `rel_yxyx`, that is (top, left, bottom,
    right) in shares of the upright picture, as many rows for each as the picture with most has; rows with a label of -1
    are no boxes, those of -2 crowds. Pictures are seen whole, stretched to `image_size`, as MediaPipe shows them.

    Args:
        data: a folder in the form of COCO, Pascal VOC, YOLO or the detection API's CSV, or its one file with the
            annotations (see `scan_boxes`); a data set of TensorFlow Datasets with boxes, such as "coco/2017",
            "voc/2007" or the bundled "scattered_digits"; or a `tf.data.Dataset`, or a pair to train on and to hold
            out, of {"image", "boxes", "labels"}, batched or not.
        image_size: side of a square in pixels, or (height, width). By default 320, and 128 of small pictures.
        batch_size: pictures in a training batch.
        seed: of the split, the order and the augmentation.
        augment: "none", or of "crop" (SSD's, by overlap), "zoom_out", "flip" and "colour"; "auto" is crop, and flip
            where nothing written is read.
        validation_split: share that is held out of data without a split of its own.
        class_names: of a `tf.data.Dataset`; by default numbers.
        box_format: of a `tf.data.Dataset`: "yxyx", "xyxy", "xywh" or "center_xywh" in pixels, or with "rel_" before it.
        on_error: "skip" leaves out and lists what is wrong in a folder, "raise" refuses it; see `scan_boxes`.
        preprocess: applied to batches of float32 images in [0, 255].
        data_dir: where TensorFlow Datasets keeps its data; its own default if None.
        progress: called with (files checked, files in all) while a folder is read.

    Returns:
        An `ImageData`.

    Raises:
        ValueError: an unknown name, or data that cannot be used.

    Reference:
        The augmentation: SSD, arXiv:1512.02325, section 2.2.

    Example:

    >>> data = load_detection("raccoons", image_size=320)  # doctest: +SKIP
    >>> images, targets = next(iter(data.train))  # doctest: +SKIP
    """
    check_arguments(image_size, batch_size)
    leave_devices()
    wanted = box_augmentations(augment)
    options: dict[str, Any] = {"validation_split": validation_split, "seed": seed, "on_error": on_error}
    if isinstance(data, tf.data.Dataset | tuple | list):
        name = "dataset"
        found = dataset_box_sources(data, class_names=class_names, box_format=box_format, **options)
    elif class_names is not None:
        raise ValueError("`class_names` are for a `tf.data.Dataset`: folders and data sets have their own")
    elif is_folder(data, ANNOTATED):
        folder = scan_boxes(data, progress=progress, **options)
        found = folder_source(folder.train), folder_source(folder.val), folder.class_names, folder.broken
        name = os.path.basename(os.path.abspath(os.path.expanduser(data)))
    else:
        name = os.path.expanduser(os.fspath(data))
        found = tfds_box_sources(name, data_dir=data_dir, **options)
    train, val, names, broken = found
    size = _usual_size(val) if image_size is None else image_size
    size = (size, size) if isinstance(size, int) else (size[0], size[1])
    augmented = tuple(one for one in wanted if one != "auto")
    if "auto" in wanted:
        augmented = ("crop",) if is_written(name) else ("crop", "flip")
    batch_size = min(batch_size, train.count)
    view = BoxView(size, augmented)
    return ImageData(name, names, size, batch_size, seed, augmented, broken, preprocess, train, val, view)


def _usual_size(source: Any) -> int:
    item, _, _ = next(iter(source.examples))
    return SMALL if max(read_pixels(source.read(item).numpy()).shape[:2]) <= THUMBNAIL else PUBLISHED
