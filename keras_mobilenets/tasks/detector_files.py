"""The detector that a file holds, by its last operation or MediaPipe's metadata, whoever wrote it. Needs no Keras."""

from __future__ import annotations

import dataclasses

import numpy as np

from keras_mobilenets.tasks.boxes import Anchors, Suppression, ssd_anchors, torchvision_anchors
from keras_mobilenets.tasks.detection import Detection
from keras_mobilenets.tflite.edit.answers import POSTPROCESS
from keras_mobilenets.tflite.file import Operator, TFLiteFile
from keras_mobilenets.tflite.mediapipe import DETECTOR, read_detector_anchors
from keras_mobilenets.tflite.runner import named_tensors

QUANTIZED = 0.005
"""How far anchors in 8 bits are from what was meant: half a step of anchors up to twice as long as the image."""


def detector_of_file(file: TFLiteFile) -> Detection | None:
    """What a file with TFLite_Detection_PostProcess or DETECTOR_METADATA is for; None for any other."""
    shape = file.graph.tensors[file.graph.inputs[0]].shape
    if len(shape) != 4:
        return None
    choice = next((one for one in file.graph.operators if one.name == POSTPROCESS), None)
    if choice is not None:
        return _deciding(file, choice, shape[1:3])
    if DETECTOR not in file.task_options:
        return None
    # What MediaPipe calls the outputs in the metadata, and what the signature calls them.
    names = {info.name: name for info, name in zip(file.outputs, named_tensors(file, "outputs"), strict=False)}
    if not {"location", "score"} <= set(names):
        return None
    classes = named_tensors(file, "outputs")[names["score"]].shape[-1]
    task = Detection(classes, image_size=shape[1:3], outputs=(names["location"], names["score"]))
    return _with_anchors(task, read_detector_anchors(file.task_options[DETECTOR]))


def _deciding(file: TFLiteFile, choice: Operator, image_size: tuple[int, ...]) -> Detection:
    scores, anchors = (file.graph.operand(choice, place) for place in (1, 2))
    options = choice.options
    suppression = Suppression(
        most=int(options["max_detections"]),
        least_score=float(options["nms_score_threshold"]),
        most_overlap=float(options["nms_iou_threshold"]),
        by_class=bool(options.get("use_regular_nms", False)),
        most_of_class=int(options.get("detections_per_class", 100)),  # as the kernel has it
    )
    height, width = image_size
    classes = int(options["num_classes"])
    background = scores.shape[-1] > classes
    task = Detection(classes, (height, width), background=background, suppression=suppression)
    return _with_anchors(task, anchors.dequantized())


def _with_anchors(task: Detection, rows: np.ndarray) -> Detection:
    """With known anchors, or with those of the file, which may be known ones in 8 bits."""
    found = Anchors((), ())
    for known in (ssd_anchors(), torchvision_anchors()):
        of_image = dataclasses.replace(task, anchors=known).anchors_of_image()
        if of_image.shape == rows.shape and np.abs(of_image - rows).max() <= QUANTIZED:
            found = known
            if np.array_equal(of_image, rows):
                return dataclasses.replace(task, anchors=known)
    return dataclasses.replace(task, anchors=dataclasses.replace(found, rows=tuple(map(tuple, rows.tolist()))))
