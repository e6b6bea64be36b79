"""COCO's polygons and runs as masks, and the splits of a folder of masks."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keras_mobilenets.data.images import printable
from keras_mobilenets.data.layout import HELD_OUT, SPLIT, TRAINING, picture_files
from keras_mobilenets.data.masks import Legend
from keras_mobilenets.tasks.segmentation import IGNORE

BACKGROUND = "background"


@dataclasses.dataclass(frozen=True)
class MaskPhotos:
    """One split of a folder with masks.

    Attributes:
        paths: the pictures, in a fixed order.
        masks: the mask of each: a path, or an encoded picture.
        legend: what the values of the masks stand for; None as long as that is not known.
    """

    paths: tuple[str, ...]
    masks: tuple[str | bytes, ...]
    legend: Legend | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def targets(self) -> list[np.ndarray]:
        """The labels of each picture's pixels, (height, width) uint8, read anew."""
        assert self.legend is not None
        return [self.legend.read(mask) for mask in self.masks]

    def take(self, indices: Sequence[int] | np.ndarray) -> MaskPhotos:
        """The chosen ones, in the order of `indices`."""
        return MaskPhotos(tuple(self.paths[i] for i in indices), tuple(self.masks[i] for i in indices), self.legend)


def split_folders(folder: Path) -> dict[str, Path]:
    """The sub-folders "train" and "val", whatever they are called; the first of what may be held out."""
    named = {match[1].lower(): path for path in sub_folders(folder) if (match := SPLIT.fullmatch(path.name))}
    order = {"train": TRAINING, "val": HELD_OUT}
    return {
        split: named[first]
        for split, words in order.items()
        if (first := next((word for word in words if word in named), None))
    }


def sub_folders(folder: Path) -> list[Path]:
    """Sorted."""
    return sorted(path for path in folder.iterdir() if path.is_dir())


def polygon_files(root: Path) -> dict[str, Path]:
    """The files of a folder with COCO's polygons or runs, by split: "train" and "val", or "" for the only one."""
    found = {}
    for path in sorted([*root.glob("*.json"), *root.glob("annotations/*.json"), *root.glob("*/_annotations*.json")]):
        name = path.parent.name if path.name.startswith("_annotations") else path.stem.removeprefix("instances_")
        if any(one.get("segmentation") for one in _content(path).get("annotations", ())):
            match = SPLIT.fullmatch(name)
            found[match[1].lower() if match else ""] = path
    order = {"train": TRAINING, "val": HELD_OUT}
    words = {split: next((word for word in order[split] if word in found), None) for split in order}
    named = {split: found[word] for split, word in words.items() if word is not None}
    return named if "train" in named else dict(list(found.items())[:1])


def _content(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return content if isinstance(content, dict) and isinstance(content.get("annotations"), list) else {}


def drawn_masks(root: Path, files: Mapping[str, Path], broken: list[str]) -> tuple[list[MaskPhotos], list[str]]:
    """The pictures of each file with masks drawn of their polygons, and the class names, the background first.

    Args:
        root: folder that the pictures are somewhere in.
        files: as `polygon_files` gives them.
        broken: gets a line for each picture that is not there.
    """
    contents = [_content(path) for path in files.values()]
    categories = {one["id"]: str(one["name"]) for content in contents for one in content.get("categories", ())}
    labels = {number: label for label, number in enumerate(sorted(categories), 1)}
    pictures = {path.name: path for path in picture_files(root)}
    splits = []
    for content in contents:
        shapes: dict[Any, list[Any]] = {}
        for one in content["annotations"]:
            shapes.setdefault(one["image_id"], []).append(one)
        pairs = []
        for image in content["images"]:
            path = pictures.get(Path(image["file_name"]).name)
            if path is None:
                broken.append(f"{printable(image['file_name'])}: there is no such picture in {printable(root)}")
            else:
                pairs.append((str(path), _drawn(image, shapes.get(image["id"], []), labels)))
        paths, masks = zip(*pairs, strict=True) if pairs else ((), ())
        splits.append(MaskPhotos(tuple(paths), tuple(masks)))
    return splits, [BACKGROUND, *(categories[number] for number in sorted(categories))]


def _drawn(image: Mapping[str, Any], shapes: Sequence[Mapping[str, Any]], labels: Mapping[Any, int]) -> bytes:
    """A PNG file: small things over large ones, as what lies in front mostly is; crowds are ignored."""
    from pycocotools import mask as coco

    height, width = image["height"], image["width"]
    drawn = np.zeros((height, width), np.uint8)
    for one in sorted(shapes, key=lambda shape: -shape.get("area", 0)):
        shape = one.get("segmentation")
        if not shape:
            continue
        if isinstance(shape, list):
            runs = coco.merge(coco.frPyObjects(shape, height, width))
        else:
            runs = coco.frPyObjects(shape, height, width) if isinstance(shape["counts"], list) else shape
        drawn[coco.decode(runs) > 0] = IGNORE if one.get("iscrowd") else labels[one["category_id"]]
    file = io.BytesIO()
    Image.fromarray(drawn).save(file, "PNG")
    return file.getvalue()
