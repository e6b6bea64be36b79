"""What the scores of pixels mean."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image


def decode(outputs: dict[str, np.ndarray], about: dict[str, Any]) -> dict[str, Any]:
    """The classes of pixels with their shares, and a PNG of class numbers, as small as the model gives them."""
    (values,), classes = outputs.values(), about["options"]["classes"]
    numbers = (
        values.argmax(-1) if values.ndim == 3 and values.shape[-1] == classes else values.reshape(values.shape[:2])
    )
    numbers, file = numbers.astype(np.uint8), io.BytesIO()
    Image.fromarray(numbers).save(file, "PNG")
    shares = np.bincount(numbers.ravel(), minlength=classes) / numbers.size
    labels = about["labels"] or [f"class {index}" for index in range(classes)]
    first = [int(index) for index in np.argsort(-shares, kind="stable") if shares[index]]
    answers = [{"name": labels[index], "score": float(shares[index])} for index in first]
    return {"answers": answers, "mask_png_base64": base64.b64encode(file.getvalue()).decode()}
