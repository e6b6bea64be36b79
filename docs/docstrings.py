"""How mkdocstrings reads our docstrings: their examples become blocks of code."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)  # up to the next empty line


class Examples(griffe.Extension):
    """Puts fences around the examples, and takes the doctest's directives out of them."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrites one docstring."""
        if obj.docstring is not None:
            plain = re.sub(r" *# doctest: .*", "", obj.docstring.value)
            plain = re.sub(r"^Example:$", "**Example**", plain, flags=re.MULTILINE)
            obj.docstring.value = EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}\n```", plain)
