"""Average precision as COCO defines it: pycocotools decides."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np

from keras_mobilenets.tasks.task import Answers

FIGURES = ("mAP", "mAP_50", "mAP_75", "mAP_small", "mAP_medium", "mAP_large")


def evaluate(
    answers: Answers,
    truth: Answers,
    image_size: tuple[int, int],
    classes: int,
) -> tuple[dict[str, float | None], np.ndarray]:
    """Compares found boxes with true ones.

    Args:
        answers: for each image "boxes" (found, 4) `rel_yxyx`, "labels" and "scores" (found,).
        truth: for each image "boxes" and "labels"; a label of -1 is no box, -2 a crowd.
        image_size: (height, width): small are boxes below 32x32 pixels of it, large those from 96x96.
        classes: number of classes.

    Returns:
        `FIGURES`, None where there are no boxes of the kind; and for each class its average precision (classes,), NaN
        where it has no box.
    """
    precision = _precision(answers, truth, image_size, classes)
    parts = {
        "mAP": precision[..., 0, -1],
        "mAP_50": precision[0, ..., 0, -1],
        "mAP_75": precision[5, ..., 0, -1],
        **{f"mAP_{name}": precision[..., place, -1] for place, name in enumerate(("small", "medium", "large"), 1)},
    }
    figures = {name: _mean(values) for name, values in parts.items()}
    each = np.array([_mean(precision[:, :, label, 0, -1]) for label in range(classes)])
    return {name: None if np.isnan(figure) else figure for name, figure in figures.items()}, each


def precision_at_recall(
    answers: Answers, truth: Answers, image_size: tuple[int, int], classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Recalls (101,) from 0 to 1 and, at an overlap of .5, the precision of each class there, (101, classes); NaN where
    a class has no box. Arguments as of `evaluate`."""
    found = _precision(answers, truth, image_size, classes)[0, :, :, 0, -1]
    return np.linspace(0, 1, len(found)), np.where(found < 0, np.nan, found)


def _precision(answers: Answers, truth: Answers, image_size: tuple[int, int], classes: int) -> np.ndarray:
    """(thresholds, recalls, classes, sizes, most); -1 where there are no boxes of the kind."""
    from pycocotools import coco, cocoeval

    true, found = coco.COCO(), []
    true.dataset = {
        "images": [{"id": number} for number in range(len(truth))],
        "categories": [{"id": label} for label in range(classes)],
        "annotations": [],
    }
    for number, (answer, right) in enumerate(zip(answers, truth, strict=True)):
        for box, label in zip(_pixels(right["boxes"], image_size), np.asarray(right["labels"]), strict=True):
            if label == -1:
                continue
            for of in [int(label)] if label >= 0 else range(classes):  # a crowd is of any class
                row = _row(number, of, box) | {"id": len(true.dataset["annotations"]) + 1, "iscrowd": int(label < 0)}
                true.dataset["annotations"].append(row)
        scores = np.asarray(answer["scores"], float)
        for box, label, score in zip(_pixels(answer["boxes"], image_size), answer["labels"], scores, strict=True):
            found.append(_row(number, int(label), box) | {"score": float(score)})
    with contextlib.redirect_stdout(io.StringIO()):  # it prints tables
        true.createIndex()
        # It fails on an empty list: nothing found is one box without area, at the end of all.
        run = cocoeval.COCOeval(true, true.loadRes(found or [_row(0, 0, np.zeros(4)) | {"score": 0.0}]), "bbox")
        run.evaluate()
        run.accumulate()
    return run.eval["precision"]


def _mean(values: np.ndarray) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else float("nan")


def _pixels(boxes: Any, image_size: tuple[int, int]) -> np.ndarray:
    return np.asarray(boxes, float).reshape(-1, 4) * np.tile(image_size, 2)


def _row(image: int, label: int, box: np.ndarray) -> dict[str, Any]:
    top, left, bottom, right = box.tolist()
    size = [left, top, right - left, bottom - top]
    return {"image_id": image, "category_id": label, "bbox": size, "area": size[2] * size[3]}
