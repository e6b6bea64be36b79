"""Class names as people have them: lists, files of any origin, dictionaries; read and written by one rule."""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from keras_mobilenets.utils import user_path

# "0 daisy", "0: daisy", "0,daisy", "0. daisy", "0 - daisy", "0=daisy"; and "daisy: 0", "daisy,0". "class 0" is a name.
_NUMBERED = re.compile(r"(?P<index>\d+)(?:\s*[:,;=.)|-]\s*|\s+)(?P<name>\S.*)")
_NUMBER_BEHIND = re.compile(r"(?P<name>\S.*?)(?:\s*[:,;=|]\s*|\t+)(?P<index>\d+)")
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_LE: "utf-16",
    codecs.BOM_BE: "utf-16",
}


def read_label_list(labels: Any) -> list[str]:
    """Class names in the order of the scores.

    Args:
        labels: names in order; the path of a file with one a line, in UTF-8, UTF-16, UTF-32 or Latin-1, or of JSON; or
            a dictionary with the indices from 0, as Keras' `class_indices` ({"daisy": 0}) or the other way round. Where
            all names begin with their index ("0 daisy", as Teachable Machine writes them), or in a file end with it
            ("daisy,0"), it says the order. None stands for none.

    Returns:
        The names, without line breaks and without blank ones at the end.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: `labels` are no names or have no order, or their indices are not 0, 1, 2, ...

    Example:

    >>> read_label_list({"tulip": 1, "daisy": 0}), read_label_list(["1 tulip", "0 daisy"])
    (['daisy', 'tulip'], ['daisy', 'tulip'])
    """
    if labels is None:
        return []
    if isinstance(labels, str | os.PathLike):
        path = user_path(labels)
        if not path.is_file():
            raise FileNotFoundError(f"No such label file: {path}")
        return parse_labels(path.read_bytes())
    if isinstance(labels, Mapping):
        return _by_index(_indexed(labels))
    if isinstance(labels, set | frozenset):
        raise ValueError(f"`labels` must be in the order of the scores, and a set has none. Received: {labels}")
    if not isinstance(labels, Iterable) or isinstance(labels, bytes):
        raise ValueError(f"`labels` must be class names in the order of the scores. Received: {labels!r}")
    return _cleaned(map(_name, labels))


def labels_by_output(labels: Any, outputs: Mapping[str, tuple[int, ...]]) -> dict[str, list[str]]:
    """To which output class names belong: the one whose last axis has as many entries.

    Args:
        labels: as `read_label_list` takes them, or a dictionary of that by the name of the output. An output of one
            score may have two names, for 0 and for 1.
        outputs: their shapes without the batch, by name.

    Raises:
        ValueError: they fit no output, or several.

    Example:

    >>> labels_by_output(["cat", "dog"], {"boxes": (4,), "scores": (2,)})
    {'scores': ['cat', 'dog']}
    """
    if _is_by_output(labels, outputs):
        found = {name: read_label_list(one) for name, one in labels.items()}
        for name, names in found.items():
            if not _fit(names, outputs[name]):
                raise ValueError(f"`labels` of {name!r} are {len(names)}, for an output of shape {outputs[name]}.")
        return found
    names = read_label_list(labels)
    if not names:
        return {}
    fitting = [name for name, shape in outputs.items() if _fit(names, shape)]
    if len(fitting) == 1:
        return {fitting[0]: names}
    if len(outputs) == 1:
        (shape,) = outputs.values()
        raise ValueError(f"`labels` must name the model's {shape[-1]} classes. Received: {len(names)} names")
    what = f"fit the outputs {', '.join(fitting)}" if fitting else f"fit none of the outputs {dict(outputs)}"
    raise ValueError(f"`labels`: {len(names)} names {what}. Pass labels={{output name: class names}}.")


def labels_of_task(labels: Any, outputs: Collection[str]) -> list[str]:
    """The class names where a task says to which output they belong: as `read_label_list` or `labels_by_output`."""
    if not _is_by_output(labels, outputs):
        return read_label_list(labels)
    if len(labels) > 1:
        raise ValueError(f"`labels` are of one output. Received: {list(labels)}")
    return read_label_list(next(iter(labels.values())))


def _is_by_output(labels: Any, outputs: Collection[str]) -> bool:
    is_named = isinstance(labels, Mapping) and bool(labels) and set(labels) <= set(outputs)
    return is_named and not any(isinstance(one, int | np.integer) for one in labels.values())


def _fit(names: list[str], shape: tuple[int, ...]) -> bool:
    return bool(shape) and (shape[-1] == len(names) or (shape[-1] == 1 and len(names) == 2))


def parse_labels(content: bytes) -> list[str]:
    """The class names in the content of a label file: one a line, or JSON as `read_label_list` takes it."""
    text = _decoded(content)
    if text.lstrip()[:1] in ("{", "["):
        try:
            return read_label_list(json.loads(text))
        except json.JSONDecodeError:
            pass
    lines = re.split("\r\n|\r|\n", text)
    return _by_number(_cleaned(lines), _NUMBER_BEHIND)


def write_labels(names: Iterable[str]) -> bytes:
    """The content of a label file, from which `parse_labels` gives the same names."""
    return ("\n".join(_cleaned(names)) + "\n").encode()


def _decoded(content: bytes) -> str:
    marked = next((encoding for mark, encoding in _MARKS.items() if content.startswith(mark)), None)
    if marked is None and b"\0" in content:  # UTF-16 of Latin letters has one in every other byte
        marked = "utf-16-le" if content[1::2].count(0) > content[::2].count(0) else "utf-16-be"
    if marked is not None:
        return content.decode(marked)
    for encoding in ("utf-8-sig", "cp1252"):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            pass
    return content.decode("latin-1")


def _cleaned(names: Iterable[str]) -> list[str]:
    """A line for each name: what `readlines` leaves and bytes of file names that are no UTF-8 are not in it."""
    lines = [_in_one_line(_decoded(name.encode("utf-8", "surrogateescape"))) for name in names]
    while lines and not lines[-1]:
        lines.pop()
    return _by_number(lines, _NUMBERED)


def _by_number(lines: list[str], form: re.Pattern[str]) -> list[str]:
    """The names by their numbers, where each line has one of 0, 1, 2, ...; else the lines."""
    found = [form.fullmatch(line) for line in lines]
    numbered = {int(one["index"]): one["name"] for one in found if one}
    if lines and set(numbered) == set(range(len(lines))):
        return _by_index(numbered)
    return lines


def _name(one: Any) -> str:
    one = one.numpy() if hasattr(one, "numpy") else one  # a tensor
    if isinstance(one, bytes):
        return _decoded(one)
    if one is None or isinstance(one, list | tuple | Mapping):
        raise ValueError(f"`labels` must be class names in the order of the scores. Received among them: {one!r}")
    return str(one)


def _in_one_line(name: str) -> str:
    """Without what anyone's reader takes for the end of a line, U+2028 too."""
    return " ".join(name.strip().splitlines())


def _indexed(labels: Mapping[Any, Any]) -> dict[int, str]:
    """By index, whichever side of a dictionary it is on."""
    if all(isinstance(one, int | np.integer) for one in labels.values()):
        pairs = [(int(index), _name(name)) for name, index in labels.items()]
    else:
        pairs = [(int(index), _name(name)) for index, name in labels.items() if str(index).isdecimal()]
    if sorted(index for index, _ in pairs) != list(range(len(labels))):
        raise ValueError(f"`labels` must give each of the indices 0 to {len(labels) - 1} one name. Received: {labels}")
    return dict(pairs)


def _by_index(names: Mapping[int, str]) -> list[str]:
    return [_in_one_line(names[index]) for index in range(len(names))]
