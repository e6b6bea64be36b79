"""What MediaPipe's tasks ask of a file beyond its tensors: flatbuffers among the metadata of its graph.

Fields and their numbers: object_detector_metadata_schema.fbs, image_segmenter_metadata_schema.fbs
(https://github.com/google-ai-edge/mediapipe, mediapipe/tasks/metadata).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from keras_mobilenets.tflite import flat

DETECTOR, SEGMENTER = "DETECTOR_METADATA", "SEGMENTER_METADATA"
IDENTIFIER = b"V001"
ANCHORS, DECODING = 1, 2
ACTIVATIONS = ("none", "sigmoid", "softmax")
# Of the table of decoding; x_scale and the others are what encodings are multiplied by.
DECODING_FIELDS = {"classes": 0, "anchors": 1, "coordinates": 2, "values_per_keypoint": 5}
SCALES = {"x": 6, "y": 7, "width": 8, "height": 9}
IS_LOGARITHM, IS_LOGIT = 10, 11


def detector_options(anchors: np.ndarray, classes: int, scales: Sequence[float]) -> bytes:
    """What MediaPipe needs to decode boxes and probabilities itself.

    Args:
        anchors: (anchors, 4) as (y, x, height, width) in shares of the image.
        classes: columns of scores.
        scales: what encodings of y, x, height and width are multiplied by.
    """
    rows = [dict(enumerate(row)) for row in np.asarray(anchors, np.float32)[:, [1, 0, 3, 2]]]
    numbers = {"classes": classes, "anchors": len(anchors), "coordinates": 4, "values_per_keypoint": 2}
    by_name = dict(zip(("y", "x", "height", "width"), scales, strict=True))
    decoding = {
        **{DECODING_FIELDS[name]: np.int32(number) for name, number in numbers.items()},
        **{place: np.float32(by_name[name]) for name, place in SCALES.items()},
        IS_LOGARITHM: np.bool_(True),
        IS_LOGIT: np.bool_(False),
    }
    return flat.write({ANCHORS: {0: {0: rows}}, DECODING: decoding}, IDENTIFIER)


def read_detector_anchors(options: bytes) -> np.ndarray:
    """The anchors in a detector's options: (anchors, 4) as (y, x, height, width)."""
    schema = flat.field(flat.root(options), ANCHORS)
    fixed = flat.field(schema, 0) if schema is not None else None
    rows = flat.children(fixed, 0) if fixed is not None else []
    found = [[flat.scalar(row, place, flat.FLOAT) for place in (1, 0, 3, 2)] for row in rows]
    return np.array(found, np.float32).reshape(-1, 4)


def segmenter_options(activation: str) -> bytes:
    """What makes probabilities of a segmenter's scores, one of `ACTIVATIONS`: MediaPipe applies it."""
    return flat.write({0: np.int8(ACTIVATIONS.index(activation))}, IDENTIFIER)
