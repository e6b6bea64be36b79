"""What a classifier's scores mean."""

from __future__ import annotations

from typing import Any

import numpy as np

TOP = 5


def decode(outputs: dict[str, np.ndarray], about: dict[str, Any]) -> dict[str, Any]:
    """The likeliest classes, best first."""
    (scores,), options = outputs.values(), about["options"]
    if options["from_logits"]:
        one_of_several = len(scores) > 1 and not options["multi_label"]
        powers = np.exp(scores - scores.max())
        scores = powers / powers.sum() if one_of_several else np.exp(-np.logaddexp(0, -scores))
    if len(scores) == 1:
        scores = np.array([1 - scores[0], scores[0]])
    labels = about["labels"] or [f"class {index}" for index in range(len(scores))]
    first = np.argsort(-scores, kind="stable")[:TOP]
    return {"answers": [{"name": labels[index], "score": float(scores[index])} for index in first]}
