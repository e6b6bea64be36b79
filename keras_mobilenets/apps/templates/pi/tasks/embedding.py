"""What an embedding means."""

from __future__ import annotations

from typing import Any

import numpy as np


def decode(outputs: dict[str, np.ndarray], about: dict[str, Any]) -> dict[str, Any]:
    """The vector, of length 1: the sum of the products of two is their cosine."""
    (vector,) = outputs.values()
    return {"vector": [float(value) for value in vector / (np.linalg.norm(vector) or 1)]}
