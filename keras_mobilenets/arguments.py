"""Checks of arguments: one error at the public edge, which names the argument, what it must be and what it was."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any


def check_numbers(interval: str, *, optional: bool = False, **arguments: Any) -> None:
    """Refuses what is no number in an interval.

    Args:
        interval: as mathematics writes it: "[0, 1)", "(0, inf)".
        optional: whether None will do, too.
        **arguments: by name.

    Raises:
        ValueError: names the first that is none.
    """
    _check(interval, Real, "", optional, arguments)


def check_integers(interval: str, *, optional: bool = False, **arguments: Any) -> None:
    """As `check_numbers`, of integers: "[2, 16]"."""
    _check(interval, Integral, "an integer ", optional, arguments)


def check_sizes(**arguments: Any) -> None:
    """Refuses what is neither an integer > 0 nor a pair of them."""
    for name, value in arguments.items():
        if isinstance(value, Integral):
            _check("(0, inf)", Integral, "an integer ", False, {name: value})
        pair = value if isinstance(value, tuple | list) and len(value) == 2 else (None,)
        if not isinstance(value, Integral) and not all(isinstance(one, Integral) and int(one) > 0 for one in pair):
            raise ValueError(f"`{name}` must be an integer > 0 or a pair of them. Received: {name}={value!r}")


def check_choice(known: Collection[Any], **arguments: Any) -> None:
    """Refuses what is none of the known values."""
    *others, last = map(repr, known)
    text = f"{', '.join(others)} or {last}" if 0 < len(others) < 3 else f"one of {list(known)}"
    for name, value in arguments.items():
        # Not `in`, as True is 1, and what has no hash can be looked for in a list only.
        if not any(type(value) is type(one) and value == one for one in known):
            raise ValueError(f"`{name}` must be {text}. Received: {name}={value!r}")


def check_pair(**arguments: Any) -> None:
    """Refuses what is no pair of finite numbers."""
    for name, value in arguments.items():
        pair = value if isinstance(value, tuple | list) and len(value) == 2 else (None,)
        if not all(isinstance(one, Real) and math.isfinite(one) for one in pair):
            raise ValueError(f"`{name}` must be a pair of finite numbers. Received: {name}={value!r}")


def check_range(**arguments: Any) -> None:
    """Refuses what is no range (low, high) that holds 0."""
    check_pair(**arguments)
    for name, (low, high) in arguments.items():
        if not (low <= 0 <= high and low < high):
            raise ValueError(f"`{name}` must be (low, high) around 0. Received: {name}={(low, high)}")


def _check(interval: str, kind: Any, noun: str, optional: bool, arguments: dict[str, Any]) -> None:
    low, high = (float(end) for end in interval[1:-1].split(","))
    for name, value in arguments.items():
        if value is None and optional:
            continue
        is_kind = isinstance(value, kind) and not isinstance(value, bool)
        above = is_kind and (low <= value if interval[0] == "[" else low < value)
        if not (above and (value <= high if interval[-1] == "]" else value < high)):
            prefix = "" if is_kind else f"None or {noun}" if optional else noun
            text = prefix + _in_words(interval, kind)
            raise ValueError(f"`{name}` must be {text}. Received: {name}={value!r}")


def _in_words(interval: str, kind: Any) -> str:
    low, high = (end.strip() for end in re.split(",", interval[1:-1]))
    if (low, high) == ("-inf", "inf"):
        return "a finite number"
    if high == "inf":
        return f"{'>=' if interval[0] == '[' else '>'} {low}"
    return f"from {low} to {high}" if kind is Integral else f"in {interval}"
