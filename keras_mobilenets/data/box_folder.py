"""A folder of pictures with boxes: which pictures and boxes are sound, how many are not and why, what is held out."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keras_mobilenets.data.box_formats import Annotations, Record, read_annotations
from keras_mobilenets.data.folder import check_scan_arguments, count_broken
from keras_mobilenets.data.images import BrokenImage, check_image, printable
from keras_mobilenets.data.layout import HELD_OUT, TRAINING

PADDING, CROWD = -1, -2  # labels; as tasks.box_losses has them
BACKGROUND = ("background", "__background__", "???", "none")  # what label maps begin with
WRONG = "boxes or pictures are left out"
TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange width and height


@dataclasses.dataclass(frozen=True)
class BoxPhotos:
    """One split of annotated pictures.

    Attributes:
        paths: the files, in a fixed order.
        rel_yxyx: float32 (pictures, most, 4): top, left, bottom, right in shares of the upright picture.
        labels: int32 (pictures, most): class of each box; -1 for rows that are none, -2 for crowds.
        plain: bool array, whether TensorFlow's own decoders read the file as Pillow does.
    """

    paths: tuple[str, ...]
    rel_yxyx: np.ndarray
    labels: np.ndarray
    plain: np.ndarray

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def targets(self) -> dict[str, np.ndarray]:
        """What is to be answered about each."""
        return {"boxes": self.rel_yxyx, "labels": self.labels}

    def take(self, indices: np.ndarray) -> BoxPhotos:
        """The chosen files, in the order of `indices`."""
        paths = tuple(self.paths[i] for i in indices)
        return BoxPhotos(paths, self.rel_yxyx[indices], self.labels[indices], self.plain[indices])


@dataclasses.dataclass(frozen=True)
class BoxFolder:
    """What a folder of annotated pictures holds.

    Attributes:
        class_names: in the order of the labels.
        train: the pictures to train on.
        val: the held-out pictures.
        broken: why something was left out, one line each that begins with the file that says it.
        kind: name of the format.
    """

    class_names: tuple[str, ...]
    train: BoxPhotos
    val: BoxPhotos
    broken: tuple[str, ...]
    kind: str


def scan_boxes(
    folder: str | os.PathLike[str],
    *,
    validation_split: float = 0.2,
    seed: int = 0,
    on_error: str = "skip",
    class_names: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> BoxFolder:
    """Lists the pictures of a folder with their boxes, and opens each of them once.

    COCO (JSON), Pascal VOC (XML), YOLO (text, with or without data.yaml) and the detection API's CSV are known by
    their files. Splits are what files or folders are called after (train, val, test; of the last two the first is held
    out), or drawn with `seed`. Pictures without boxes are kept: they show what is none. Crowds (COCO) and what is
    difficult (VOC) are neither right nor wrong. Boxes are of the upright picture; where the stated size is that of the
    stored one, they are turned with it. What lies partly outside of the picture is cut.

    Args:
        folder: the folder, or the one file in it that has the annotations.
        validation_split: share of the pictures that is held out, if the folder has no split of its own.
        seed: of that draw.
        on_error: "skip" leaves out and lists boxes without a size, reversed, outside of the picture or of an unknown
            class, pictures that are broken, absent or of another size than stated; "raise" refuses the folder.
        class_names: the classes of a trained model; for evaluation.
        progress: called with (files opened, files in all).

    Returns:
        A `BoxFolder`.

    Raises:
        ValueError: no such folder, no annotations in a known form, no boxes, or, with "raise", anything left out.

    Example:

    >>> raccoons = scan_boxes("raccoons")  # doctest: +SKIP
    """
    check_scan_arguments(validation_split, on_error)
    found = read_annotations(folder)
    broken = list(found.broken)
    train, val, notes = _splits(found)
    names, labels = _classes(found, [*train, *(val or ())], class_names)
    reader = _Reader(labels, broken, progress, len(train) + len(val or ()))
    read = [reader.read(train), *([reader.read(val)] if val else [])]
    if broken and on_error == "raise":
        raise ValueError(count_broken(broken, WRONG))
    if not any((one.labels >= 0).any() for one in read[0]):
        hint = f". {count_broken(broken, WRONG)}" if broken else ""
        raise ValueError(f"{printable(folder)} holds no sound box to train on{hint}")
    if class_names is None:
        notes += _without_boxes(read[0], names)
    if len(read) == 1:
        read = _drawn(read[0], validation_split, seed)
    if not read[1]:
        raise ValueError(f"No picture is left to hold out in {printable(folder)}")
    most = max(len(one.labels) for part in read for one in part)
    train_photos, val_photos = (_photos(part, max(most, 1)) for part in read)
    return BoxFolder(names, train_photos, val_photos, (*broken, *notes), found.kind)


@dataclasses.dataclass
class _Picture:
    path: str
    boxes: np.ndarray
    labels: np.ndarray
    plain: bool


def _splits(found: Annotations) -> tuple[list[Record], list[Record] | None, list[str]]:
    """The records to train on, those to hold out, if there are, and what is not read."""
    splits = dict(found.splits)
    train = next((splits.pop(word) for word in (*TRAINING, "trainval") if word in splits), None)
    splits.pop("trainval", None)  # holds train and val
    val = next((splits.pop(word) for word in HELD_OUT if word in splits), None)
    rest = splits.pop("", [])
    if train is None and rest:
        train, rest = rest, []
    if train is None:
        raise ValueError(f"There is nothing to train on, only {', '.join(word for word in found.splits)}")
    unread = {**({"in no split": rest} if rest else {}), **splits}
    return train, val, [f"{word}: not read, {len(records)} pictures" for word, records in unread.items()]


def _classes(
    found: Annotations, records: list[Record], given: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[Any, int]]:
    """The names in order, and the label of whatever rows have."""
    used = {row[0] for one in records for row in one.rows}
    known = found.names if found.names is not None else {name: name for name in sorted(filter(None, used))}
    if given is None:
        known = {key: name for key, name in known.items() if name.lower() not in BACKGROUND or key in used}
    names = tuple(given or dict.fromkeys(known.values()))
    place = {name: label for label, name in enumerate(names)}
    return names, {key: place[name] for key, name in known.items() if name in place}


def _without_boxes(pictures: list[_Picture], names: Sequence[str]) -> list[str]:
    counts = Counter(label for one in pictures for label in one.labels.tolist())
    absent = [name for label, name in enumerate(names) if not counts[label]]
    return [f"{', '.join(absent)}: no box to train on"] if absent else []


class _Reader:
    """Opens pictures, and makes sound boxes of what is written."""

    def __init__(
        self, labels: dict[Any, int], broken: list[str], progress: Callable[[int, int], None] | None, total: int
    ) -> None:
        self.labels, self.broken, self.progress, self.total = labels, broken, progress, total
        self.done = 0

    def read(self, records: list[Record]) -> list[_Picture]:
        found = []
        with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as pool:
            for record, opened in zip(records, pool.map(_opened, records), strict=True):
                self.done += 1
                if self.progress:
                    self.progress(self.done, self.total)
                picture = opened if isinstance(opened, str) else self._picture(record, *opened)
                if isinstance(picture, str):
                    self.broken.append(picture)
                else:
                    found.append(picture)
        return found

    def _picture(self, record: Record, plain: bool, stored: tuple[int, int], orientation: int) -> _Picture | str:
        upright = stored[::-1] if orientation in TURNED else stored
        stated = record.size if record.size and min(record.size) > 0 else upright
        if not record.relative and stated not in (upright, stored):
            return (
                f"{printable(record.origin)}: says {stated[0]} x {stated[1]}, but {printable(record.picture)} is "
                f"{upright[0]} x {upright[1]}"
            )
        boxes, labels = [], []
        for name, sides, crowd in record.rows:
            try:
                left, top, right, bottom = (float(one) for one in sides)
            except (TypeError, ValueError, OverflowError):
                self._left_out(record, name, sides, "sides that are no numbers")
                continue
            if not record.relative:
                left, top, right, bottom = (
                    value / stated[axis % 2] for axis, value in enumerate((left, top, right, bottom))
                )
            if stated == stored != upright:
                left, top, right, bottom = _turned((left, top, right, bottom), orientation)
            wrong = _wrong(left, top, right, bottom)
            label = self.labels.get(name)
            if wrong or label is None:
                self._left_out(record, name, sides, wrong or "an unknown class")
                continue
            boxes.append(np.clip([top, left, bottom, right], 0, 1))
            labels.append(CROWD if crowd else label)
        array = np.array(boxes, np.float32).reshape(-1, 4)
        return _Picture(str(record.picture), array, np.array(labels, np.int32), plain)

    def _left_out(self, record: Record, name: Any, sides: Sequence[Any], why: str) -> None:
        shown = ", ".join(f"{one:g}" if isinstance(one, float | int) else str(one) for one in sides)
        self.broken.append(f"{printable(record.origin)}: a box of {name} with {why}: {shown}")


def _wrong(left: float, top: float, right: float, bottom: float) -> str | None:
    if not np.isfinite([left, top, right, bottom]).all():
        return "sides that are no numbers"
    if right < left or bottom < top:
        return "its sides reversed"
    if right == left or bottom == top:
        return "no area"
    if min(right, bottom) <= 0 or left >= 1 or top >= 1:
        return "nothing inside of the picture"
    return None


def _turned(sides: tuple[float, float, float, float], orientation: int) -> tuple[float, float, float, float]:
    """A box of the stored picture in the upright one; EXIF's orientations that exchange width and height."""
    left, top, right, bottom = sides
    x, y = (left, right), (top, bottom)
    flipped_x, flipped_y = (1 - right, 1 - left), (1 - bottom, 1 - top)
    across, down = {5: (y, x), 6: (flipped_y, x), 7: (flipped_y, flipped_x), 8: (y, flipped_x)}[orientation]
    return across[0], down[0], across[1], down[1]


def _opened(record: Record) -> tuple[bool, tuple[int, int], int] | str:
    """Whether TensorFlow reads the picture as Pillow does, its stored size and its orientation; or what is wrong."""
    if not isinstance(record.picture, Path) or not record.picture.is_file():
        return f"{printable(record.origin)}: there is no picture {printable(record.picture)}"
    try:
        plain = check_image(record.picture)
    except BrokenImage as error:
        return str(error)
    with Image.open(record.picture) as image:
        return plain, image.size, image.getexif().get(0x0112, 1)


def _drawn(pictures: list[_Picture], validation_split: float, seed: int) -> list[list[_Picture]]:
    order = np.random.default_rng(seed).permutation(len(pictures))
    count = min(max(round(len(pictures) * validation_split), 1), len(pictures) - 1)
    return [[pictures[i] for i in np.sort(part)] for part in (order[count:], order[:count])]


def _photos(pictures: list[_Picture], most: int) -> BoxPhotos:
    boxes, labels = padded([one.boxes for one in pictures], [one.labels for one in pictures], most)
    paths = tuple(one.path for one in pictures)
    return BoxPhotos(paths, boxes, labels, np.array([one.plain for one in pictures], bool))


def padded(boxes: Sequence[np.ndarray], labels: Sequence[np.ndarray], most: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (pictures, most, 4) and labels (pictures, most) of one size; rows that are no box have the label -1."""
    of_all, numbers = np.zeros((len(boxes), most, 4), np.float32), np.full((len(boxes), most), PADDING, np.int32)
    for index, (some, classes) in enumerate(zip(boxes, labels, strict=True)):
        of_all[index, : len(some)], numbers[index, : len(some)] = some, classes
    return of_all, numbers
