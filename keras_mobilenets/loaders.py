"""The data of each task: how they are checked, scanned and loaded. Light: what does the work is imported for it."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Loader:
    """Where the data of a task come from. Functions are named by module and name in `keras_mobilenets.data`.

    Attributes:
        load: makes an `ImageData` of any data; as `data.load`.
        scan: lists what is in a folder, without TensorFlow; as `data.scan_folder`.
        find: looks whether a folder may hold such data, and opens no picture.
        augmentations: checks words of `--augment`.
        bundled: name of the data that come with this package.
        folder: what a folder of them looks like, in a few words.
        words: of `--augment`, likewise.
        files: endings of files that stand for their folder.
        batch_size: of training, if nobody says.
    """

    load: str
    scan: str
    find: str
    augmentations: str
    bundled: str
    folder: str
    words: str
    files: tuple[str, ...] = ()
    batch_size: int = 64

    def check(self, data: str) -> None:
        """Refuses a name that is no data set's, and a folder that holds something else.

        Raises:
            ValueError: says which, and what is near.
        """
        if self.is_folder(data):
            _function(self.find)(data)

    def is_folder(self, data: str, files: tuple[str, ...] = ()) -> bool:
        """Whether it is a folder, or a file that stands for one; else it is the name of a data set.

        Raises:
            ValueError: it is neither.
        """
        return _function("names.is_folder")(data, self.files + files)

    def augmented(self, words: Sequence[str]) -> list[str]:
        """The words of `--augment`.

        Raises:
            ValueError: one is unknown.
        """
        return list(_function(self.augmentations)(words))

    def loaded(self, data: Any, **options: Any) -> Any:
        """An `ImageData`; options as of `data.load`."""
        return _function(self.load)(data, **options)

    def scanned(self, folder: str, **options: Any) -> Any:
        """What is in a folder: `class_names`, `train` and `val` with `paths` and `targets`, and `broken`."""
        return _function(self.scan)(folder, **options)


LOADERS = {
    "classification": Loader(
        load="load.load",
        scan="folder.scan_folder",
        find="layout.find_layout",
        augmentations="names.augmentations",
        bundled="digits",
        folder="one sub-folder of pictures per class",
        words="none, crop, crop_flip; with rand_augment, random_erasing, mix_up, cut_mix",
    ),
    "detection": Loader(
        load="detection.load_detection",
        scan="box_folder.scan_boxes",
        find="box_formats.find_boxes",
        augmentations="names.box_augmentations",
        bundled="scattered_digits",
        folder="pictures with COCO's, Pascal VOC's, YOLO's or CSV annotations",
        words="none; of crop, zoom_out, flip, colour",
        files=(".json", ".yaml", ".yml", ".csv"),
        batch_size=16,
    ),
    "segmentation": Loader(
        load="segmentation.load_segmentation",
        scan="mask_folder.scan_masks",
        find="mask_folder.find_masks",
        augmentations="names.mask_augmentations",
        bundled="scattered_digits",
        folder="pictures and masks, or COCO's polygons",
        words="none, crop, crop_flip",
    ),
    "embedding": Loader(
        load="identities.load_identities",
        scan="identities.scan_identities",
        find="identities.find_identities",
        augmentations="identities.augmentations",
        bundled="digits",
        folder="one sub-folder of pictures per identity or, with a teacher, pictures alone",
        words="none, crop, crop_flip; with rand_augment, random_erasing",
    ),
}
"""By the name of the task, the usual one first."""
USUAL_TASK = next(iter(LOADERS))


def _function(name: str) -> Callable[..., Any]:
    module, _, function = name.partition(".")
    return getattr(importlib.import_module(f"keras_mobilenets.data.{module}"), function)
