"""Annotated pictures as people keep them: COCO's JSON, Pascal VOC's XML, YOLO's text, the detection API's CSV.

Each is read to the same records, as they are written; what is wrong with them is for `box_folder` to say.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import yaml

from keras_mobilenets.data.images import printable
from keras_mobilenets.data.layout import HELD_OUT, TRAINING, files_below, is_picture, parsed, picture_files
from keras_mobilenets.tflite.labels import read_label_list
from keras_mobilenets.utils import user_path

FORMATS = "COCO JSON, Pascal VOC XML, YOLO text or a CSV with filename, class, xmin, ymin, xmax and ymax"
NAME_LISTS = ("classes.txt", "obj.names", "labels.txt", "names.txt", "predefined_classes.txt")
WORDS = (*TRAINING, "trainval", *HELD_OUT)
COLUMNS = {  # of a CSV, as tools call them
    "picture": ("filename", "image", "file", "path", "image_path", "image_name", "imageid"),
    "name": ("class", "label", "name", "labelname", "category"),
    "left": ("xmin", "x_min", "x1", "left"),
    "top": ("ymin", "y_min", "y1", "top"),
    "right": ("xmax", "x_max", "x2", "right"),
    "bottom": ("ymax", "y_max", "y2", "bottom"),
}


@dataclasses.dataclass
class Record:
    """What is written about one picture.

    Attributes:
        picture: its file, or its name where no file is found.
        origin: the file that says it.
        size: (width, height) that it states; None or with a 0 where it does not.
        rows: (class name or number, (left, top, right, bottom), whether it is around a crowd), numbers as written.
        relative: whether numbers are shares of the picture, else pixels.
    """

    picture: Path | str
    origin: Path
    size: tuple[int, int] | None = None
    rows: list[tuple[Any, tuple[Any, ...], bool]] = dataclasses.field(default_factory=list)
    relative: bool = False


@dataclasses.dataclass
class Annotations:
    """What a folder holds.

    Attributes:
        kind: name of the format.
        splits: the records by the word that names their split; "" where none does.
        names: the classes in the order of the labels, where the format has one; keys are what rows have.
        broken: what could not be read, one line each.
    """

    kind: str
    splits: dict[str, list[Record]]
    names: dict[Any, str] | None = None
    broken: list[str] = dataclasses.field(default_factory=list)


class Files:
    """The files of a data set by kind, and its pictures by name.

    Args:
        given: a folder, or the one file in it that has all annotations.

    Raises:
        ValueError: there is none, or it holds no pictures or no annotations.
    """

    def __init__(self, given: str | os.PathLike[str]) -> None:
        path = user_path(given)
        if not path.exists():
            raise ValueError(f"There is no folder {printable(path)}")
        self.root = path if path.is_dir() else path.parent
        every = files_below(self.root)
        self.pictures = [one for one in every if is_picture(one)]
        self.chosen = every if path.is_dir() else [path]
        self._by_name: dict[str, list[Path]] = {}
        for one in self.pictures:
            for name in {one.name, one.stem}:
                self._by_name.setdefault(name, []).append(one)
        if not self.pictures:
            raise ValueError(f"There is no picture in {printable(self.root)}")
        if not any(self.of(ending) for ending in (".json", ".xml", ".yaml", ".yml", ".csv", ".txt")):
            raise ValueError(f"{printable(self.root)} must hold pictures and boxes: {FORMATS}; found only pictures")

    def of(self, *endings: str) -> list[Path]:
        """All files with one of these endings."""
        return [one for one in self.chosen if one.suffix.lower() in endings]

    def find(self, name: str, near: Path, word: str = "") -> Path | str:
        """The picture that is meant, the nearest where several have the name; the name itself if there is none."""
        parts = Path(name.replace("\\", "/"))
        found = self._by_name.get(parts.name) or self._by_name.get(parts.stem) or []
        return max(found, key=lambda one: _likeness(one, parts, near, word), default=name)


def _likeness(path: Path, name: Path, near: Path, word: str) -> tuple[int, int, int]:
    """How many folders of the written name it lies in, whether in the split's folder, and how near."""
    shared = os.path.commonpath([path, near]).count(os.sep)
    ending = sum(one == other for one, other in zip(path.parts[::-1], name.parts[::-1], strict=False))
    return ending, bool(word) and word in map(split_word, path.parts[:-1]), shared


def split_word(name: str) -> str:
    """The word in a name that says which split it is: of "instances_val2017.json", "val"."""
    words = re.split(r"[\W\d_]+", name.lower())
    return next((word for word in WORDS if word in words), "")


def split_of(path: Path, root: Path) -> str:
    """The word of the innermost name that has one, below the root."""
    parts = path.relative_to(root).with_suffix("").parts if path.is_relative_to(root) else ()
    return next((word for word in map(split_word, reversed(parts)) if word), "")


def find_boxes(data: str | os.PathLike[str]) -> Files:
    """Looks whether a folder, or a file of annotations, may be a detection data set; nothing is opened.

    Raises:
        ValueError: it holds no pictures, or nothing beside them.
    """
    return Files(data)


def read_annotations(data: str | os.PathLike[str]) -> Annotations:
    """Reads all annotations, of the first of `FORMATS` that there is.

    Raises:
        ValueError: there are none in a known form.
    """
    files = find_boxes(data)
    for read in (_coco, _yolo_yaml, _csv, _voc, _yolo_plain):
        with parsed(files.root):
            if found := read(files):
                return found
    raise ValueError(f"{printable(files.root)} must hold pictures and boxes: {FORMATS}; found none of these")


def _coco(files: Files) -> Annotations | None:
    every = files.of(".json")
    every = [one for one in every if one.name.startswith("instances")] or every
    contents = [(path, found) for path in every if (found := _coco_file(path)) is not None]
    if not contents:
        return None
    splits: dict[str, list[Record]] = {}
    names: dict[Any, str] = {}
    broken: list[str] = []
    for path, content in contents:
        word = split_of(path, files.root)
        with parsed(path):
            names |= {one["id"]: str(one["name"]) for one in content.get("categories", [])}
            records = {
                one["id"]: Record(files.find(str(one["file_name"]), path, word), path, _size(one))
                for one in content["images"]
            }
            for row in content["annotations"]:
                if "bbox" not in row:
                    continue
                if row.get("image_id") not in records:
                    broken.append(f"{printable(path)}: a box of the image {row.get('image_id')}, which is not listed")
                    continue
                records[row["image_id"]].rows.append(_coco_row(row))
        splits.setdefault(word, []).extend(records.values())
    return Annotations("COCO", splits, dict(sorted(names.items())), broken)


def _coco_file(path: Path) -> dict[str, Any] | None:
    with parsed(path):
        content = json.loads(path.read_bytes())
    return content if isinstance(content, dict) and {"images", "annotations"} <= set(content) else None


def _coco_row(row: dict[str, Any]) -> tuple[Any, tuple[Any, ...], bool]:
    label, box = row.get("category_id"), row["bbox"]
    label = label if isinstance(label, int | str) else str(label)
    left, top, width, height = box if isinstance(box, list) and len(box) == 4 else [None] * 4
    return label, (left, top, _sum(left, width), _sum(top, height)), bool(row.get("iscrowd"))


def _size(stated: Any) -> tuple[int, int] | None:
    try:
        return int(float(stated["width"])), int(float(stated["height"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _sum(one: Any, other: Any) -> float | None:
    return one + other if isinstance(one, int | float) and isinstance(other, int | float) else None


def _voc(files: Files) -> Annotations | None:
    every = [(path, found) for path in files.of(".xml") if (found := _voc_file(path)) is not None]
    if not every:
        return None
    lists = {path.stem: set(_lines(path)) for path in files.of(".txt") if path.parent.name == "Main"}
    lists = {name: stems for name, stems in lists.items() if name in WORDS}
    broken: list[str] = []
    splits: dict[str, list[Record]] = {}
    for path, content in every:
        if isinstance(content, str):
            broken.append(f"{printable(path)}: {content}")
            continue
        words = [word for word, stems in lists.items() if path.stem in stems]
        words = words or [split_of(path.parent, files.root)]
        near = files.find(path.stem, path)
        picture = near if isinstance(near, Path) else files.find(content.findtext("filename") or path.stem, path)
        size = content.find("size")
        stated = None if size is None else _size({one.tag: one.text for one in size})
        rows = [
            (
                (row.findtext("name") or "").strip(),
                tuple(row.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")),
                (row.findtext("difficult") or "0").strip() == "1",
            )
            for row in content.iter("object")
        ]
        for word in words:
            splits.setdefault(word, []).append(Record(picture, path, stated, rows))
    return Annotations("Pascal VOC", splits, None, broken)


def _voc_file(path: Path) -> ElementTree.Element | str | None:
    """Its content, or why that cannot be read; None for XML of another kind."""
    try:
        content = ElementTree.parse(path).getroot()
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the latter two of encodings
        return f"not whole XML ({error})"
    return content if content.tag == "annotation" else None


def _csv(files: Files) -> Annotations | None:
    splits: dict[str, list[Record]] = {}
    for path in files.of(".csv"):
        with parsed(path), path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            names = {key: _column(table.fieldnames or (), known) for key, known in COLUMNS.items()}
            if None in names.values():
                continue
            rows = list(table)
        word = split_of(path, files.root)
        columns: dict[str, str] = {key: str(name) for key, name in names.items()}
        records: dict[str, Record] = {}
        sides = [tuple(row[columns[side]] for side in ("left", "top", "right", "bottom")) for row in rows]
        relative = _are_shares(sides)
        for row, box in zip(rows, sides, strict=True):
            name = row[columns["picture"]]
            if name not in records:
                records[name] = Record(files.find(name, path, word), path, _size(row), [], relative)
            if any(box):
                records[name].rows.append((row[columns["name"]].strip(), box, False))
        splits.setdefault(word, []).extend(records.values())
    return Annotations("CSV", splits) if splits else None


def _column(header: Sequence[str], known: Sequence[str]) -> str | None:
    lower = {one.strip().lower(): one for one in header}
    return next((lower[name] for name in known if name in lower), None)


def _are_shares(sides: Sequence[tuple[str, ...]]) -> bool:
    try:
        values = [float(value) for box in sides for value in box if value]
    except ValueError:
        return False
    return bool(values) and max(values) <= 1 and any(value % 1 for value in values)


def _yolo_yaml(files: Files) -> Annotations | None:
    for path in files.of(".yaml", ".yml"):
        with parsed(path):
            content = _yaml(path)
        if not isinstance(content, dict) or not {"names", "train"} <= set(content):
            continue
        with parsed(path):
            names = content["names"]
            names = {
                int(key): str(name) for key, name in (names.items() if isinstance(names, dict) else enumerate(names))
            }
            splits = {
                word: [_yolo_record(picture) for picture in _yolo_pictures(path, content, content[word])]
                for word in ("train", "val", "test")
                if content.get(word)
            }
        found = {word: records for word, records in splits.items() if records}
        if not found.get("train"):
            raise ValueError(f"{printable(path)} names no pictures to train on: there is nothing in {content['train']}")
        return Annotations("YOLO", found, dict(sorted(names.items())))
    return None


def _yaml(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_bytes())
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None


def _lines(path: Path) -> list[str]:
    """Without blank ones; what is no UTF-8 shows as such, and fits nothing."""
    lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _yolo_pictures(path: Path, content: dict[str, Any], entry: Any) -> Iterator[Path]:
    """Those of a folder, a list in a file, or several of these, below `path:` or wherever the folder has gone."""
    root = path.parent / str(content.get("path") or "")
    for one in entry if isinstance(entry, list) else [entry]:
        plain = re.sub(r"^(\.\./)+", "", str(one))
        found = next((base for base in (root / one, path.parent / one, path.parent / plain) if base.exists()), None)
        if found is None:
            continue
        if found.is_file():
            yield from (found.parent / line for line in _lines(found))
        else:
            yield from picture_files(found) if any(found.iterdir()) else ()


def _yolo_plain(files: Files) -> Annotations | None:
    every = [_yolo_record(picture) for picture in files.pictures]
    written = [one for one in every if isinstance(one.origin, Path) and one.origin.is_file()]
    if not written:
        return None
    lists = [path for path in files.of(".txt", ".names") if path.name in NAME_LISTS]
    names = {number: name for number, name in enumerate(read_label_list(lists[0]) if lists else []) if name}
    if not names:
        known = sorted({row[0] for one in written for row in one.rows if isinstance(row[0], int)})
        names = {number: str(number) for number in known}
    folders = {one.picture.parent for one in written if isinstance(one.picture, Path)}
    splits: dict[str, list[Record]] = {}
    for one in every:
        if isinstance(one.picture, Path) and one.picture.parent in folders:  # beside others it is one without boxes
            splits.setdefault(split_of(one.picture.parent, files.root), []).append(one)
    return Annotations("YOLO", splits, names)


def _yolo_record(picture: Path) -> Record:
    """What its file in the folder `labels` beside `images`, or beside itself, says; nothing is no box."""
    parts = list(picture.parts)
    if "images" in parts:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    places = [Path(*parts).with_suffix(".txt"), picture.with_suffix(".txt")]
    origin = next((one for one in places if one.is_file()), places[0])
    with parsed(origin):
        rows = list(_yolo_rows(_lines(origin) if origin.is_file() else []))
    return Record(picture, origin, None, rows, True)


def _yolo_rows(lines: Iterable[str]) -> Iterator[tuple[Any, tuple[Any, ...], bool]]:
    """Class, centre and size in shares; or class and a polygon, whose box is meant."""
    for line in lines:
        number, *written = line.split()
        label = int(number) if number.isdecimal() else number
        try:
            values = [float(one) for one in written]
        except ValueError:
            values = []
        if len(values) in (4, 5):
            x, y, width, height = values[:4]
            yield label, (x - width / 2, y - height / 2, x + width / 2, y + height / 2), False
        elif len(values) >= 6 and len(values) % 2 == 0:
            yield label, (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])), False
        else:
            yield label, (None,) * 4, False
