"""Pages that hold all that they show: one HTML file, to look at anywhere."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from keras_mobilenets.utils import require


def render(template: str, **values: Any) -> str:
    """Fills in one of the templates beside this module, by its file's name; `page.html` is there to be extended."""
    jinja2 = require("jinja2", "all")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, size=_size, titled=titled)
    return environment.get_template(template).render(**values)


def png(figure: Any) -> bytes:
    """A figure of matplotlib as a file."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def data_uri(content: bytes) -> str:
    """A PNG file as an address that needs no file."""
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def titled(name: str) -> str:
    """A figure's name at the beginning of a line: Accuracy, but mAP."""
    return name if name != name.lower() else name.capitalize()


def percent(share: float | None, digits: int = 1) -> str:
    """A share in percent; a dash where there is none."""
    return "–" if share is None else f"{share * 100:.{digits}f} %"


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:,.0f} kB"
