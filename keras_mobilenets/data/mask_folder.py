"""Folders of pictures and of their masks: which belong together, which are held out, and what is wrong with them."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from keras_mobilenets.data.folder import check_scan_arguments, count_broken
from keras_mobilenets.data.images import BrokenImage, check_image, opened_picture, printable
from keras_mobilenets.data.layout import picture_files
from keras_mobilenets.data.mask_polygons import MaskPhotos, drawn_masks, polygon_files, split_folders, sub_folders
from keras_mobilenets.data.masks import NOT_CLASSES, Color, Ignored, Legend, legend, read_values
from keras_mobilenets.tflite.labels import parse_labels
from keras_mobilenets.utils import user_path

IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "leftimg8bit", "pictures", "photos")
MASK_FOLDERS = (
    "masks",
    "mask",
    "segmentationclass",
    "gtfine",
    "annotations",
    "annot",
    "labels",
    "label",
    "segmentation",
)
# What names of pictures and of masks have beside what they share: aachen_0_leftImg8bit, aachen_0_gtFine_labelIds.
ADDED = re.compile(
    r"([\s_.-]+(leftimg8bit|gtfine|masks?|labels?|label(train)?ids|annot\w*|segm?\w*|gt|image|img|l))+$", re.IGNORECASE
)
OTHER_MASKS = re.compile(r".*[_-](color|instanceids)", re.IGNORECASE)  # of Cityscapes: of something else
CLASSES_FILES, COLORS_FILES = ("labels.txt", "classes.txt"), ("class_dict.csv", "label_colors.txt")
COLOR_LINE = re.compile(r"\b(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})\b")
SIDEWAYS = (5, 6, 7, 8)  # EXIF's orientations that swap width and height


@dataclasses.dataclass(frozen=True)
class MaskFolder:
    """What a folder of pictures and masks holds.

    Attributes:
        legend: what the values of the masks stand for.
        train: the pictures to train on.
        val: the held-out pictures.
        broken: why something was left out, one line each that begins with its path.
    """

    legend: Legend
    train: MaskPhotos
    val: MaskPhotos
    broken: tuple[str, ...]

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the labels."""
        return self.legend.class_names


def scan_masks(
    folder: str | os.PathLike[str],
    *,
    class_names: Sequence[str] | Mapping[int, str] | None = None,
    colors: Mapping[str, Color] | None = None,
    ignore: Ignored = 255,
    validation_split: float = 0.2,
    seed: int = 0,
    on_error: str = "skip",
    progress: Callable[[int, int], None] | None = None,
) -> MaskFolder:
    """Lists the pictures of a folder that have masks, and opens each pair once.

    Pictures lie in a folder `images` and masks in a folder `masks` beside it (or named as Pascal VOC, Cityscapes and
    others do), the splits inside of both or around both; a mask has its picture's name, or that and `_mask`,
    `_labelIds` and the like. COCO's polygons and runs, in a JSON file, are masks as well; what they leave over is class
    0, "background", and crowds are ignored. Without splits a share is drawn with `seed`.

    Names of classes are those given, or those in a file of the folder: `labels.txt` with one a line, or, for masks in
    colours, `class_dict.csv` or `label_colors.txt` with the three numbers of a colour and a name in each line. A class
    called "void" or "ignore" is none: its pixels are neither right nor wrong.

    Args:
        folder: the folder.
        class_names: in the order of the masks' values 0, 1, ...; or a dictionary by value.
        colors: for masks in colours, the (red, green, blue) of each class by its name.
        ignore: the value, or colour, of pixels that are neither right nor wrong; or several of them; None for none.
        validation_split: share that is held out, if the folder has no split of its own.
        seed: of that draw.
        on_error: `"skip"` leaves pictures without a whole mask out and lists them; `"raise"` refuses the folder.
        progress: called with (files opened, files in all).

    Returns:
        A `MaskFolder`.

    Raises:
        ValueError: no such folder, no masks, masks of another size than their pictures or with values that no class
            has, masks in colour without `colors`, or anything broken under `on_error="raise"`.

    Example:

    >>> streets = scan_masks("camvid", ignore=11)  # doctest: +SKIP
    """
    check_scan_arguments(validation_split, on_error)
    root, broken = _folder(folder), list[str]()
    polygons = polygon_files(root)
    if polygons:
        splits, class_names = drawn_masks(root, polygons, broken)
    else:
        splits = [_paired(images, masks, names, broken) for images, masks, names in _splits(root)]
        class_names, colors = _names(root, class_names, colors)
    values = [_checked(split, colors is not None, broken, progress) for split in splits]
    if broken and on_error == "raise":
        raise ValueError(count_broken(broken))
    kept = [split.take(list(found)) for split, found in zip(splits, values, strict=True)]
    if not all(map(len, kept)):
        raise ValueError(f"{printable(root)} holds no picture with a whole mask. {count_broken(broken)}".rstrip())
    known = legend(class_names, colors, ignore, set().union(*(one for found in values for one in found.values())))
    for split, found in zip(splits, values, strict=True):
        _check_values(known, split, found)
    kept = kept[:2] if len(kept) > 1 else _drawn(kept[0], validation_split, seed)
    train, val = (dataclasses.replace(one, legend=known) for one in kept)
    return MaskFolder(known, train, val, tuple(broken))


def find_masks(folder: str | os.PathLike[str]) -> None:
    """Looks whether a folder may hold pictures and masks; no picture is opened.

    Raises:
        ValueError: it does not.
    """
    root = _folder(folder)
    if not polygon_files(root):
        _splits(root)


def _folder(folder: str | os.PathLike[str]) -> Path:
    root = user_path(folder)
    if not root.is_dir():
        raise ValueError(f"There is no folder {printable(folder)}")
    return root


def _names(
    root: Path, class_names: Sequence[str] | Mapping[int, str] | None, colors: Mapping[str, Color] | None
) -> tuple[Sequence[str] | Mapping[int, str] | None, Mapping[str, Color] | None]:
    """Names and colours as given, or else as a file of the folder has them; also where those are its names."""
    own_names, own_colors = _named_in(root)
    own = [name for name in own_colors or own_names or () if name not in NOT_CLASSES]
    given = list(class_names) if class_names is not None and not isinstance(class_names, Mapping) else None
    if colors is None and (class_names is None or given == own):
        return own_names, own_colors
    return class_names, colors


def _splits(root: Path) -> list[tuple[Path, Path, set[str] | None]]:
    """Folders of pictures and of masks to train on, then those to hold out; and which names in them, None for all."""
    images, masks = _named(root, IMAGE_FOLDERS), _named(root, MASK_FOLDERS)
    if images and masks:
        lists = [root / "ImageSets" / "Segmentation" / f"{split}.txt" for split in ("train", "val")]
        if all(file.is_file() for file in lists):
            return [(images, masks, set(file.read_text().split())) for file in lists]
        inner = split_folders(images), split_folders(masks)
        shared = [split for split in inner[0] if split in inner[1]]
        return [(inner[0][split], inner[1][split], None) for split in shared] or [(images, masks, None)]
    found: list[tuple[Path, Path, set[str] | None]] = []
    for split in split_folders(root).values():
        images, masks = _named(split, IMAGE_FOLDERS), _named(split, MASK_FOLDERS)
        beside = next(
            (one for one in sub_folders(root) if re.fullmatch(f"{split.name}[_-]?(annot|masks?|labels?)", one.name)),
            None,
        )
        if images and masks:
            found.append((images, masks, None))
        elif beside:
            found.append((split, beside, None))
    if not found or not split_folders(root).keys() >= {"train"}:
        raise ValueError(
            f"{printable(root)} must hold a folder `images` and a folder `masks`, or splits (`train` and `val`) that "
            "hold both"
        )
    return found


def _named(folder: Path, names: Sequence[str]) -> Path | None:
    by_name = {path.name.lower(): path for path in sub_folders(folder)}
    return next((by_name[name] for name in names if name in by_name), None)


def _paired(images: Path, masks: Path, names: set[str] | None, broken: list[str]) -> MaskPhotos:
    """Each picture with its mask; a line in `broken` for each that has none."""
    files = [path for path in picture_files(masks) if not OTHER_MASKS.fullmatch(path.stem)]
    known = {_key(path, masks, short): path for short in (True, False) for path in files}
    pairs = []
    for path in picture_files(images):
        if names is not None and path.stem not in names:
            continue
        mask = known.get(_key(path, images)) or known.get(_key(path, images, short=True))
        if mask is None:
            broken.append(f"{printable(path)}: there is no mask for it in {printable(masks)}")
        else:
            pairs.append((str(path), str(mask)))
    paths, found = zip(*pairs, strict=True) if pairs else ((), ())
    return MaskPhotos(tuple(paths), tuple(found))


def _key(path: Path, folder: Path, short: bool = False) -> tuple[Path, str]:
    return path.relative_to(folder).parent, ADDED.sub("", path.stem) if short else path.stem


def _checked(
    split: MaskPhotos, in_color: bool, broken: list[str], progress: Callable[[int, int], None] | None
) -> dict[int, set[int]]:
    """The values of each whole mask by its place; a line in `broken` for each other."""
    found: dict[int, set[int]] = {}
    pairs = list(zip(split.paths, split.masks, strict=True))
    with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as pool:
        for place, verdict in enumerate(pool.map(lambda pair: _values(pair[0], pair[1], in_color), pairs)):
            if isinstance(verdict, str):
                broken.append(verdict)
            else:
                found[place] = verdict
            if progress:
                progress(place + 1, len(pairs))
    return found


def _values(path: str, mask: str | bytes, in_color: bool) -> set[int] | str:
    """What a mask holds, or what is wrong with it or its picture. What all masks may have wrong is an error at once."""
    try:
        check_image(path)
        with opened_picture(path) as image:
            width, height = image.size
            if image.getexif().get(0x0112, 1) in SIDEWAYS:
                width, height = height, width
        values = read_values(mask, in_color=in_color)
    except BrokenImage as error:
        return str(error)
    if values.shape != (height, width):
        raise ValueError(
            f"{printable(mask)} is {values.shape[1]} x {values.shape[0]} pixels, its picture {printable(path)} "
            f"{width} x {height}: a mask must be as large as its picture"
        )
    return set(np.unique(values).tolist())


def _check_values(known: Legend, split: MaskPhotos, found: Mapping[int, set[int]]) -> None:
    legal = {*known.codes, *known.ignored}
    for place, values in found.items():
        if values - legal:
            known.read(split.masks[place])  # which says what is wrong


def _drawn(photos: MaskPhotos, validation_split: float, seed: int) -> list[MaskPhotos]:
    """The rest, and a share to hold out."""
    if len(photos) < 2:
        raise ValueError("One picture cannot be both trained on and held out: add a folder `val`, or pictures")
    order = np.random.default_rng(seed).permutation(len(photos))
    count = min(max(round(len(photos) * validation_split), 1), len(photos) - 1)
    return [photos.take(np.sort(order[count:])), photos.take(np.sort(order[:count]))]


def _named_in(root: Path) -> tuple[list[str] | None, dict[str, Color] | None]:
    """The names, and the colours, that files of the folder give the classes."""
    for file in (root / name for name in COLORS_FILES):
        if file.is_file():
            colors = {}
            for line in file.read_text().splitlines():
                if match := COLOR_LINE.search(line):
                    name = COLOR_LINE.sub("", line).strip(' ,;\t"')
                    colors[name] = (int(match[1]), int(match[2]), int(match[3]))
            return None, colors
    for file in (root / name for name in CLASSES_FILES):
        if file.is_file():
            return parse_labels(file.read_bytes()), None
    return None, None
