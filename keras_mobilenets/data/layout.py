"""Which folders below a folder are splits and classes, and which are neither; no picture is opened."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import os
import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from keras_mobilenets.data.images import printable
from keras_mobilenets.tflite.labels import read_label_list
from keras_mobilenets.utils import SHOWN, user_path

TRAINING = ("train", "training")
HELD_OUT = ("val", "validation", "valid", "dev", "eval", "evaluation", "test", "testing")  # of these, the first is used
# train, Training, seg_train, test_set, train2017; "bullet train" and "test tube" are classes.
SPLIT = re.compile(
    rf"(?:\S*[\d_.-])?({'|'.join((*TRAINING, *HELD_OUT))})[\s\d_.()-]*(?:set|data|dataset|images|pictures|photos)?\d*",
    re.IGNORECASE,
)
JUNK = {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir"}  # what file managers leave


class UnreadableFile(ValueError):
    """A file of annotations with a content that is not what it should be."""


@contextlib.contextmanager
def parsed(path: Path) -> Iterator[None]:
    """Turns whatever the content of a file breaks inside of the `with` into one `UnreadableFile` with its name."""
    try:
        yield
    except UnreadableFile:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, csv.Error) as error:
        wrong_kind = isinstance(error, TypeError | AttributeError)
        said = f"a value in it is of another kind than it must be ({error})" if wrong_kind else str(error)
        said = f"it lacks {error}" if isinstance(error, KeyError) else said
        raise UnreadableFile(f"{printable(path)} cannot be read: {said}") from error


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the pictures of an image folder are.

    Attributes:
        train: the folder of the class folders to train on.
        val: that of the held-out ones; None if they are to be drawn from `train`.
        class_names: of the sub-folders of `train`, sorted, as a label file has them: one line of text each, in the
            order of their numbers where all have one ("0 daisy").
        unread: one line per folder in which something else was found.
    """

    train: Path
    val: Path | None
    class_names: tuple[str, ...]
    unread: tuple[str, ...]


def find_layout(folder: str | os.PathLike[str]) -> Layout:
    """Finds the splits and the classes.

    Raises:
        ValueError: no such folder, fewer than two classes, or folders that may be splits or classes.
    """
    given = user_path(folder)
    if not given.is_dir():
        raise ValueError(f"There is no folder {printable(folder)}")
    root = _unpacked(given)
    train, val = _splits(root)
    classes = class_paths(train)
    if len(classes) < 2:
        raise ValueError(_too_few(train, list(classes)))
    splits = [one for one in (train, val) if one]
    between = {one for split in splits for one in split.parents if one.is_relative_to(given)}
    unread = [_unread(one, [split for split in splits if split.is_relative_to(one)]) for one in sorted(between)]
    unread += [_unread(one, list(class_paths(one).values())) for one in splits]
    return Layout(train, val, tuple(classes), tuple(line for line in unread if line))


def class_paths(folder: Path) -> dict[str, Path]:
    """The sub-folders that hold files, by the names of their classes, in the order that a label file of them has.

    Raises:
        ValueError: two have the same name once each is one line of text.
    """
    found = [path for path in sorted(folder.iterdir()) if path.is_dir() and _holds_files(path)]
    lines = read_label_list([f"{path.name}/{index}" for index, path in enumerate(found)])  # no name holds a slash
    named = {name.strip(): found[int(index)] for name, _, index in (line.rpartition("/") for line in lines)}
    if len(named) < len(found):
        raise ValueError(
            f"{printable(folder)} holds two folders of the same class: of {len(found)}, {', '.join(named)}"
        )
    return named


def files_below(folder: Path) -> list[Path]:
    """All files that are not hidden, sorted, and links to files that are gone."""
    return sorted(_walk(folder))


def picture_files(folder: str | os.PathLike[str]) -> tuple[Path, ...]:
    """The pictures in a folder of any layout, sorted, as far as their endings tell; none is opened.

    Raises:
        ValueError: no such folder, or no pictures.
    """
    given = user_path(folder)
    if not given.is_dir():
        raise ValueError(f"There is no folder {printable(folder)}")
    found = tuple(path for path in files_below(given) if is_picture(path))
    if not found:
        raise ValueError(f"There is no picture in {printable(folder)}")
    return found


def is_picture(path: Path) -> bool:
    """As far as its ending tells."""
    return not _is_junk(path.name) and Image.registered_extensions().get(path.suffix.lower()) in Image.OPEN


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not _is_junk(name)]
        for path in (Path(parent, name) for name in files if not _is_junk(name)):
            if path.is_file() or not path.exists():  # no pipes
                yield path


def _is_junk(name: str) -> bool:
    return name.startswith(".") or name.lower() in JUNK


def _holds_files(folder: Path) -> bool:
    return not _is_junk(folder.name) and any(True for _ in _walk(folder))


def _unpacked(folder: Path) -> Path:
    """The folder, or the one in it that holds all, as archives are often unpacked: seg_train/seg_train."""
    inner = list(class_paths(folder).values())
    return _unpacked(inner[0]) if len(inner) == 1 and class_paths(inner[0]) else folder


def _splits(root: Path) -> tuple[Path, Path | None]:
    """The folders of class folders to train on and to hold out.

    Raises:
        ValueError: it cannot be told which they are.
    """
    classes = list(class_paths(root).values())
    named = {path: match[1].lower() for path in classes if (match := SPLIT.fullmatch(path.name))}
    whole = {path: name for path, name in named.items() if class_paths(path)}  # a class seldom holds folders
    listed = ", ".join(printable(path.name) for path in named)
    train = [path for path, name in whole.items() if name in TRAINING]
    val = sorted((path for path in whole if path not in train), key=lambda path: HELD_OUT.index(whole[path]))
    if not whole:
        if len({name in TRAINING for name in named.values()}) == 2:
            raise ValueError(f"{printable(root)} holds splits ({listed}) whose pictures are not in folders of classes")
        return root, None
    if len(train) != 1 or (len(val) > 1 and whole[val[0]] == whole[val[1]]):
        raise ValueError(f"{printable(root)} must hold one split to train on and one to hold out; found {listed}")
    others = [printable(path.name) for path in classes if path not in named and not class_paths(path)]
    if not val and others:
        raise ValueError(
            f"{printable(root)} holds {printable(train[0].name)} beside {', '.join(others[:5])}: "
            "a split or a class? Move or rename one of them"
        )
    return _unpacked(train[0]), _unpacked(val[0]) if val else None


def _unread(folder: Path, read: list[Path]) -> str:
    """The folders and pictures that lie beside those that are read, in one line; empty if nothing."""
    tops = {path.relative_to(folder).parts[0] for path in read}
    others = (path for path in sorted(folder.iterdir()) if path.is_dir() or not path.exists() or is_picture(path))
    names = [printable(path.name) for path in others if path.name not in tops]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{printable(folder)}: not read: {', '.join(names[:SHOWN])}{more}" if names else ""


def _too_few(folder: Path, names: list[str]) -> str:
    files = sum(path.is_file() for path in folder.iterdir())
    empty = [printable(path.name) for path in sorted(folder.iterdir()) if path.is_dir() and not _holds_files(path)]
    if not names and not files and not empty:
        return f"The folder is empty: {printable(folder)}"
    found = f"found only one, {names[0]!r}" if names else f"found none, but {files} files" if files else "found none"
    more = f"; without pictures: {', '.join(empty)}" if empty else ""
    return f"{printable(folder)} must hold one sub-folder of pictures per class, at least two; {found}{more}"
