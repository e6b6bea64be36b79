"""What the tests know of Markdown: its blocks of code, the commands in it, its links."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"(?:^ {0,4}|`|&& |/|=\w+ |srun )keras-mobilenets ([a-z][^`\n#]*)", re.MULTILINE)
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def blocks(path: str, language: str) -> list[str]:
    """The blocks of one language in a page."""
    return [code for found, code in BLOCK.findall((ROOT / path).read_text()) if found == language]


def run(path: str, names: dict[str, Any], instead: dict[str, str] | None = None) -> int:
    """Runs a page's Python in one session, with some texts replaced; returns how many blocks there were."""
    codes = blocks(path, "python")
    for number, code in enumerate(codes, 1):
        for text, other in (instead or {}).items():
            code = code.replace(text, other)
        exec(compile(code, f"{path}, block {number}", "exec"), names)
    return len(codes)


def commands(path: str) -> list[list[str]]:
    """The arguments of each `keras-mobilenets` in a page, in blocks and in sentences; not where it is only named."""
    text = (ROOT / path).read_text().replace("\\\n", " ")
    return [shlex.split(command) for command in COMMAND.findall(text) if " " in command.strip()]


def links(path: str) -> list[Path]:
    """The files that a page links to."""
    return [(ROOT / path).parent / target for target in LINK.findall((ROOT / path).read_text())]
