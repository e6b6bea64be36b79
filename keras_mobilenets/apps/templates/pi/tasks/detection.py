"""What a detector's boxes and scores mean."""

from __future__ import annotations

from typing import Any

import numpy as np
from boxes import Suppression
from boxes import decode as decode_boxes

CHOICE = ("most", "least_score", "most_overlap", "by_class", "most_of_class")


def decode(outputs: dict[str, np.ndarray], about: dict[str, Any]) -> dict[str, Any]:
    """The boxes that the model is sure of, best first; each as top, left, bottom, right in shares of the picture."""
    options = about["options"]
    if "count" in outputs:  # the file has chosen them itself
        count = int(np.ravel(outputs["count"])[0])
        found = {name: values[:count] for name, values in outputs.items() if name != "count"}
    else:
        boxes = decode_boxes(outputs["boxes"], np.array(options["anchors"], np.float32))
        scores = outputs["scores"][:, outputs["scores"].shape[-1] - options["classes"] :]  # without the background
        found = Suppression(**{name: options[name] for name in CHOICE})(boxes, scores)
    answers = []
    for box, label, score in zip(found["boxes"], found["labels"], found["scores"], strict=True):
        if score >= options["sure"]:
            name = about["labels"][int(label)] if about["labels"] else f"class {int(label)}"
            answers.append({"name": name, "score": float(score), "box": [float(side) for side in box]})
    return {"answers": answers}
