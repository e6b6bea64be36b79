"""An image folder with one sub-folder per class: which pictures are whole, and which of them are held out."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from keras_mobilenets.data.images import BrokenImage, check_image, printable
from keras_mobilenets.data.layout import class_paths, files_below, find_layout


@dataclasses.dataclass(frozen=True)
class Photos:
    """One split of an image folder.

    Attributes:
        paths: the files, in a fixed order.
        labels: int64 array, the index of each file's class.
        plain: bool array, whether TensorFlow's own decoders read the file as Pillow does.
    """

    paths: tuple[str, ...]
    labels: np.ndarray
    plain: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def targets(self) -> np.ndarray:
        """What is to be answered about each."""
        return self.labels

    def take(self, indices: np.ndarray) -> Photos:
        """The chosen files, in the order of `indices`."""
        return Photos(tuple(self.paths[i] for i in indices), self.labels[indices], self.plain[indices])


@dataclasses.dataclass(frozen=True)
class ImageFolder:
    """What a folder of classes holds.

    Attributes:
        class_names: names of the sub-folders, sorted, as a label file has them; a label is an index into them.
        train: the pictures to train on.
        val: the held-out pictures.
        broken: why something was left out, one line each that begins with its path.
    """

    class_names: tuple[str, ...]
    train: Photos
    val: Photos
    broken: tuple[str, ...]


def scan_folder(
    folder: str | os.PathLike[str],
    *,
    validation_split: float = 0.2,
    seed: int = 0,
    on_error: str = "skip",
    class_names: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ImageFolder:
    """Lists the pictures of a folder that has one sub-folder per class, and opens each of them once.

    If the folder holds `train` and `val` (or `validation`, `valid`, `dev`, `eval`, `test`; `Training/Testing`,
    `seg_train/seg_test` and the like), these are the splits; else a share of each class is drawn with `seed`. Labels
    follow the sorted names of the sub-folders. Hidden files, and what file managers leave, are passed over; folders
    that are no class, or empty, are named in `broken`.

    Args:
        folder: the folder.
        validation_split: share of each class that is held out, if the folder has no split of its own.
        seed: of that draw.
        on_error: `"skip"` leaves broken files out and lists them; `"raise"` refuses the folder.
        class_names: the classes of a trained model, which the sub-folders must be among; for evaluation.
        progress: called with (files opened, files in all).

    Returns:
        An `ImageFolder`.

    Raises:
        ValueError: no such folder, no pictures, fewer than two classes, a class without a readable picture, splits
            of other classes, folders that may be splits or classes, or a broken file under `on_error="raise"`.

    Example:

    >>> flowers = scan_folder("flowers", validation_split=0.25)  # doctest: +SKIP
    """
    check_scan_arguments(validation_split, on_error)
    layout = find_layout(folder)
    names = tuple(class_names) if class_names else layout.class_names
    broken: list[str] = []
    train = _read_split(layout.train, names, broken, progress)
    _check_counts(layout.train, train, names, broken, partial=class_names is not None)
    if layout.val is None:
        train, val = draw(train, validation_split, seed)
    else:
        val = _read_split(layout.val, names, broken, progress)
    if broken and on_error == "raise":
        raise ValueError(count_broken(broken))
    if not len(val):
        raise ValueError(f"No picture is left to hold out in {printable(layout.val or layout.train)}")
    missing = [] if class_names else [names[label] for label in np.setdiff1d(train.labels, val.labels)]
    absent = [f"{printable(layout.val)}: no picture of {', '.join(missing)}"] if layout.val and missing else []
    return ImageFolder(names, train, val, (*broken, *absent, *layout.unread))


def check_scan_arguments(validation_split: float, on_error: str) -> None:
    """Refuses what no scan of a folder takes."""
    if not 0 < validation_split < 1:
        raise ValueError(f"`validation_split` must be between 0 and 1. Received: validation_split={validation_split}")
    if on_error not in {"skip", "raise"}:
        raise ValueError(f'`on_error` must be "skip" or "raise". Received: on_error={on_error!r}')


def _read_split(
    root: Path, names: tuple[str, ...], broken: list[str], progress: Callable[[int, int], None] | None
) -> Photos:
    """Opens every file below the class folders of `root`; adds a line to `broken` for each that does not read."""
    folders = class_paths(root)
    strange = sorted(set(folders) - set(names))
    if strange:
        raise ValueError(
            f"{printable(root)} holds folders that are no class of the training data: {', '.join(strange)}"
        )
    found = [(label, folders[name]) for label, name in enumerate(names) if name in folders]
    return read_files([(str(path), label) for label, folder in found for path in files_below(folder)], broken, progress)


def read_files(files: list[tuple[str, int]], broken: list[str], progress: Callable[[int, int], None] | None) -> Photos:
    """Opens (path, label) each; adds a line to `broken` for each that does not read."""
    kept: list[tuple[str, int, bool]] = []
    with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as pool:  # Pillow decodes without holding the GIL
        for done, ((path, label), verdict) in enumerate(zip(files, pool.map(_verdict, files), strict=True), 1):
            if isinstance(verdict, str):
                broken.append(verdict)
            else:
                kept.append((path, label, verdict))
            if progress:
                progress(done, len(files))
    paths, labels, plain = zip(*kept, strict=True) if kept else ((), (), ())
    return Photos(tuple(paths), np.array(labels, np.int64), np.array(plain, bool))


def _verdict(file: tuple[str, int]) -> bool | str:
    try:
        return check_image(file[0])
    except BrokenImage as error:
        return str(error)


def count_broken(broken: Sequence[str], what: str = "files are not whole pictures") -> str:
    """All lines in one text, after the tenth their number."""
    more = f"\n  and {len(broken) - 10} more" if len(broken) > 10 else ""
    return f"{len(broken)} {what}:\n  " + "\n  ".join(broken[:10]) + more


def _check_counts(root: Path, photos: Photos, names: tuple[str, ...], broken: list[str], partial: bool) -> None:
    hint = f". {count_broken(broken)}" if broken else ""
    if not len(photos):
        raise ValueError(f"{printable(root)} holds no readable picture{hint}")
    counts = np.bincount(photos.labels, minlength=len(names))
    empty = [name for name, count in zip(names, counts, strict=True) if not count]
    if empty and not partial:
        raise ValueError(
            f"{printable(root)} holds no readable picture of the class {' or '.join(map(repr, empty))}{hint}"
        )


def draw(photos: Photos, validation_split: float, seed: int) -> tuple[Photos, Photos]:
    """Holds out a share of each class, at least one picture of a class that has two."""
    random = np.random.default_rng(seed)
    held_out = np.zeros(len(photos), bool)
    for label in np.unique(photos.labels):
        indices = random.permutation(np.flatnonzero(photos.labels == label))
        count = min(max(round(len(indices) * validation_split), 1), len(indices) - 1)
        held_out[indices[:count]] = True
    return photos.take(np.flatnonzero(~held_out)), photos.take(np.flatnonzero(held_out))
