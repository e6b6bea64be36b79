"""Class names as people have them: lists, files of any origin, dictionaries; read and written by one rule."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from keras_mobilenets.utils import user_path

_NUMBERED = re.compile(r"(\d+)[\s:,]+(\S.*)")


def read_label_list(labels: Any) -> list[str]:
    """Class names in the order of the scores.

    Args:
        labels: names in order; the path of a file with one a line, in UTF-8, UTF-16 or Latin-1; or a dictionary with
            the indices from 0, as Keras' `class_indices` ({"daisy": 0}) or the other way round. Where all names begin
            with their index ("0 daisy", as Teachable Machine writes them), it says the order. None stands for none.

    Returns:
        The names, without line breaks and without blank ones at the end.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: `labels` have no order, or their indices are not 0, 1, 2, ...

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
    return _cleaned(map(str, labels))


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
    """The class names in the content of a label file, one a line."""
    return _cleaned(re.split("\r\n|\r|\n", _decoded(content)))


def write_labels(names: Iterable[str]) -> bytes:
    """The content of a label file, from which `parse_labels` gives the same names."""
    return ("\n".join(_cleaned(names)) + "\n").encode()


def _decoded(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
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
    found = [_NUMBERED.fullmatch(line) for line in lines]
    numbered = {int(one[1]): one[2] for one in found if one}
    if lines and set(numbered) == set(range(len(lines))):
        return _by_index(numbered)
    return lines


def _in_one_line(name: str) -> str:
    """Without what anyone's reader takes for the end of a line, U+2028 too."""
    return " ".join(name.strip().splitlines())


def _indexed(labels: Mapping[Any, Any]) -> dict[int, str]:
    """By index, whichever side of a dictionary it is on."""
    if all(isinstance(one, int | np.integer) for one in labels.values()):
        pairs = [(int(index), str(name)) for name, index in labels.items()]
    else:
        pairs = [(int(index), str(name)) for index, name in labels.items() if str(index).isdecimal()]
    if sorted(index for index, _ in pairs) != list(range(len(labels))):
        raise ValueError(f"`labels` must give each of the indices 0 to {len(labels) - 1} one name. Received: {labels}")
    return dict(pairs)


def _by_index(names: Mapping[int, str]) -> list[str]:
    return [_in_one_line(names[index]) for index in range(len(names))]
