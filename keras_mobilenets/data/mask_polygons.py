"""COCO's polygons and runs as masks, and the splits of a folder of masks."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keras_mobilenets.data.images import printable
from keras_mobilenets.data.layout import HELD_OUT, SPLIT, TRAINING, UnreadableFile, parsed, picture_files
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
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return {}
    shapes = content.get("annotations") if isinstance(content, dict) else None
    return content if isinstance(shapes, list) and all(isinstance(one, dict) for one in shapes) else {}


def drawn_masks(root: Path, files: Mapping[str, Path], broken: list[str]) -> tuple[list[MaskPhotos], list[str]]:
    """The pictures of each file with masks drawn of their polygons, and the class names, the background first.

    Args:
        root: folder that the pictures are somewhere in.
        files: as `polygon_files` gives them.
        broken: gets a line for each picture that is not there, or whose shapes cannot be drawn.
    """
    contents = {path: _content(path) for path in files.values()}
    with parsed(root):
        categories = {
            one["id"]: str(one["name"]) for content in contents.values() for one in content.get("categories", ())
        }
        labels = {number: label for label, number in enumerate(sorted(categories), 1)}
    pictures = {path.name: path for path in picture_files(root)}
    splits = []
    for origin, content in contents.items():
        with parsed(origin):
            pairs = list(_pairs(origin, content, pictures, labels, broken))
        paths, masks = zip(*pairs, strict=True) if pairs else ((), ())
        splits.append(MaskPhotos(tuple(paths), tuple(masks)))
    return splits, [BACKGROUND, *(categories[number] for number in sorted(categories))]


def _pairs(
    origin: Path, content: Mapping[str, Any], pictures: Mapping[str, Path], labels: Mapping[Any, int], broken: list[str]
) -> Iterator[tuple[str, bytes]]:
    """Each picture of one file with its mask; a line in `broken` for each that has none."""
    shapes: dict[Any, list[Any]] = {}
    for one in content["annotations"]:
        shapes.setdefault(one["image_id"], []).append(one)
    for image in content["images"]:
        name = str(image["file_name"])
        path = pictures.get(Path(name).name)
        if path is None:
            broken.append(f"{printable(name)}: there is no such picture in {printable(origin.parent)}")
            continue
        try:
            with parsed(origin):
                yield str(path), _drawn(image, shapes.get(image["id"], []), labels)
        except UnreadableFile as error:
            broken.append(f"{printable(name)}: {error}")


def _drawn(image: Mapping[str, Any], shapes: Sequence[Mapping[str, Any]], labels: Mapping[Any, int]) -> bytes:
    """A PNG file: small things over large ones, as what lies in front mostly is; crowds are ignored."""
    from pycocotools import mask as coco

    height, width = int(image["height"]), int(image["width"])
    if not 0 < height * width <= (Image.MAX_IMAGE_PIXELS or np.inf):
        raise ValueError(f"a picture of {width} x {height} pixels")
    drawn = np.zeros((height, width), np.uint8)
    for one in sorted(shapes, key=lambda shape: -shape.get("area", 0)):
        if shape := one.get("segmentation"):
            mask = coco.decode(_runs(shape, height, width)) > 0
            drawn[mask] = IGNORE if one.get("iscrowd") else labels[one["category_id"]]
    file = io.BytesIO()
    Image.fromarray(drawn).save(file, "PNG")
    return file.getvalue()


def _runs(shape: Any, height: int, width: int) -> Any:
    """As pycocotools has them, which trusts what it is given, and fills all memory for a point far away."""
    from pycocotools import mask as coco

    if isinstance(shape, list):
        for points in (np.asarray(one, float) for one in shape):
            if points.ndim != 1 or len(points) < 6 or len(points) % 2:
                raise ValueError("a polygon is no list of three points or more")
            if not (np.abs(points) <= 2 * max(height, width)).all():
                raise ValueError("a polygon lies far outside of its picture")
        return coco.merge(coco.frPyObjects(shape, height, width))
    if list(shape["size"]) != [height, width]:
        raise ValueError(f"runs for {shape['size'][::-1]} pixels in a picture of {[width, height]}")
    if not isinstance(shape["counts"], list):
        return shape
    if min(shape["counts"]) < 0 or sum(shape["counts"]) != height * width:
        raise ValueError("runs that do not fill their picture")
    return coco.frPyObjects(shape, height, width)
