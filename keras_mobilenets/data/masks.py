"""The class of each pixel, out of whatever a mask was kept in: numbers, a palette's, or colours."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from keras_mobilenets.data.images import BrokenImage, Picture, opened_picture, printable
from keras_mobilenets.tasks.segmentation import IGNORE

NOT_CLASSES = ("void", "ignore")
"""What classes are called that are none: their pixels are neither right nor wrong."""
PNG_MAGIC = b"\x89PNG"
Color = tuple[int, int, int]
Ignored = int | Color | Sequence[int | Color] | None


@dataclasses.dataclass(frozen=True)
class Legend:
    """What the values of masks stand for.

    Attributes:
        class_names: in the order of the labels.
        codes: the value of each class: a number, or red * 65536 + green * 256 + blue.
        ignored: the values of pixels that nobody labelled.
        in_color: whether masks are read as colours, their palette's included.
    """

    class_names: tuple[str, ...]
    codes: tuple[int, ...]
    ignored: tuple[int, ...] = (IGNORE,)
    in_color: bool = False

    def read(self, source: Picture) -> np.ndarray:
        """The label of each pixel, (height, width) uint8; `IGNORE` where nobody labelled it.

        Raises:
            BrokenImage: the mask cannot be read, or holds a value that is no class.
        """
        values = read_values(as_source(source), in_color=self.in_color)
        labels = {code: label for label, code in enumerate(self.codes)} | dict.fromkeys(self.ignored, IGNORE)
        known = np.array(sorted(labels))
        places = np.searchsorted(known, values).clip(max=len(known) - 1)
        strange = values[known[places] != values]
        if strange.size:
            raise BrokenImage(
                f"{_called(source)} holds {self._written(np.unique(strange).tolist())}, which no class has: "
                f"{self._known()}. What is no class belongs into `ignore`"
            )
        return np.array([labels[code] for code in known.tolist()], np.uint8)[places]

    def _known(self) -> str:
        pairs = list(zip(self.class_names, self.codes, strict=True))
        shown = [f"{name} is {self._written([code])}" if name != str(code) else str(code) for name, code in pairs[:5]]
        return ", ".join(shown) + (f" and so on, {len(pairs)} in all" if len(pairs) > 5 else "")

    def _written(self, codes: Sequence[int]) -> str:
        shown = [str(color(code)) if self.in_color else str(code) for code in codes[:5]]
        return ", ".join(shown) + (" and more" if len(codes) > 5 else "")


def legend(
    class_names: Sequence[str] | Mapping[int, str] | None,
    colors: Mapping[str, Color] | None,
    ignore: Ignored,
    values: Iterable[int] = (),
) -> Legend:
    """What is known of the values of masks.

    Args:
        class_names: in the order of the values 0, 1, ...; or by value. "void" and "ignore" are no classes.
        colors: of each class by its name, in the order of the labels; then `class_names` must be None.
        ignore: one value, or several, of pixels that nobody labelled: numbers, or colours with `colors`.
        values: that the masks hold, to go by where no names are given.

    Raises:
        ValueError: arguments that contradict each other.
    """
    one = ignore is None or isinstance(ignore, int) or (bool(colors) and isinstance(ignore[0], int))
    several: Sequence[Any] = ([] if ignore is None else [ignore]) if one else ignore  # type: ignore[assignment]
    if colors is not None:
        if class_names is not None:
            raise ValueError("`class_names` and `colors` both name the classes: give one of them")
        ignored = tuple(code(value) for value in several if not isinstance(value, int))
        known = Legend(tuple(colors), tuple(code(value) for value in colors.values()), ignored, in_color=True)
    else:
        ignored = tuple(int(value) for value in several)
        if class_names is None:
            class_names = _numbers(values, ignored)
        named = class_names if isinstance(class_names, Mapping) else dict(enumerate(class_names))
        ignored = tuple(value for value in ignored if value not in named)
        known = Legend(tuple(named.values()), tuple(int(value) for value in named), ignored)
    known = _without_ignored(known)
    if not 2 <= len(known.class_names) <= IGNORE or len(set(known.codes)) < len(known.codes):
        raise ValueError(f"Masks need from 2 to {IGNORE} classes of different values. Received: {known.class_names}")
    return known


def _without_ignored(known: Legend) -> Legend:
    """With classes that are none among the ignored values."""
    pairs = list(zip(known.class_names, known.codes, strict=True))
    kept = [pair for pair in pairs if pair[0] not in NOT_CLASSES]
    ignored = (*known.ignored, *(value for name, value in pairs if name in NOT_CLASSES))
    return dataclasses.replace(
        known, class_names=tuple(name for name, _ in kept), codes=tuple(value for _, value in kept), ignored=ignored
    )


def _numbers(values: Iterable[int], ignored: tuple[int, ...]) -> dict[int, str]:
    """Classes without names: of masks of black and white these two, else all numbers up to the highest."""
    found = set(values)
    if found and found <= {0, IGNORE} and IGNORE in found:
        return {0: "0", IGNORE: str(IGNORE)}
    highest = max(found - set(ignored), default=0)
    if highest >= IGNORE:
        raise ValueError(f"The masks hold {highest}, which is more than {IGNORE} classes: give `class_names` by value")
    return {value: str(value) for value in range(highest + 1) if value not in ignored}


def read_values(source: Picture, *, in_color: bool = False) -> np.ndarray:
    """The numbers of a mask's pixels, those of its palette's entries; or its colours, as `code` writes them.

    Raises:
        BrokenImage: it is no picture, or in colour where numbers are wanted.
    """
    values = source if isinstance(source, np.ndarray) else _from_file(source, in_color)
    if values.ndim == 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim == 3 and not in_color:
        if (values[..., :3] != values[..., :1]).any():
            raise BrokenImage(
                f"{_called(source)} is in colour: say by `colors` which colour each class has, or keep the numbers of "
                "classes in it"
            )
        values = values[..., 0]
    if values.ndim == 3:
        return np.dot(values[..., :3].astype(np.int64), (65536, 256, 1))
    return values.astype(np.int64) * (code((1, 1, 1)) if in_color else 1)


def code(value: Color) -> int:
    """One number for a colour.

    Example:

    >>> code((1, 2, 3)), color(66051)
    (66051, (1, 2, 3))
    """
    red, green, blue = (int(part) for part in value)
    if not all(0 <= part <= 255 for part in (red, green, blue)):
        raise ValueError(f"A colour must be red, green and blue from 0 to 255. Received: {tuple(value)}")
    return (red * 256 + green) * 256 + blue


def color(number: int) -> Color:
    """The colour that a code stands for."""
    return number // 65536, number // 256 % 256, number % 256


def _from_file(source: str | os.PathLike[str] | bytes, in_color: bool) -> np.ndarray:
    with opened_picture(source) as image:
        if image.format == "JPEG":
            raise BrokenImage(f"{_called(source)} is a JPEG, which blurs the values of masks: keep masks as PNG")
        if in_color:
            return np.asarray(image.convert("RGB"))
        if image.mode in ("LA", "PA", "RGBA"):
            return np.asarray(image)[..., :-1]
        return np.asarray(image)


def resized_mask(mask: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """A mask in another size, (height, width): of each pixel the nearest one."""
    return np.asarray(Image.fromarray(mask).resize(image_size[::-1], Image.Resampling.NEAREST))


def as_source(target: Any) -> Picture:
    """A mask as `Legend.read` takes it: pixels, an encoded picture, or the path that other bytes are."""
    is_path = isinstance(target, bytes) and not target.startswith(PNG_MAGIC)
    return os.fsdecode(target) if is_path else target


def _called(source: Picture) -> str:
    return "A mask" if isinstance(source, bytes | np.ndarray) else printable(source)
