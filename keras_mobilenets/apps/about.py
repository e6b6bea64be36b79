"""What a program must know of a file to run it: its input, its outputs, its task and its labels, as JSON takes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from keras_mobilenets.pixels import PixelScale
from keras_mobilenets.tasks.boxes import SCALES
from keras_mobilenets.tasks.classification import Classification
from keras_mobilenets.tasks.detection import SURE, Detection
from keras_mobilenets.tasks.segmentation import Segmentation
from keras_mobilenets.tasks.task import Task
from keras_mobilenets.tflite.file import Tensor, TFLiteFile
from keras_mobilenets.tflite.runner import named_tensors


@dataclasses.dataclass(frozen=True)
class Deployed:
    """A file that a program is written around.

    Args:
        file: what is in it.
        task: what it is for.
        name: what to call it.
        labels: names of its classes, or None.
        scale: what it takes for pixels where its user says so; else what the file says.

    Raises:
        ValueError: it takes no pictures of one size.
    """

    file: TFLiteFile
    task: Task
    name: str
    labels: Sequence[str] | None = None
    scale: PixelScale | None = None

    def about(self) -> dict[str, Any]:
        """All of it: the content of `model.json`.

        `mean` and `std` are those of (pixel - mean) / std, and null where the file takes pixels as they are. `scale`
        and `zero_point` are null of what is not quantized, and else those of real = scale * (value - zero_point).
        """
        inputs, outputs = (named_tensors(self.file, side) for side in ("inputs", "outputs"))
        image = next(iter(inputs.values()))
        raw = self.scale is None and image.dtype in ("uint8", "int8")
        scale = None if raw else self.scale or self.file.normalization
        _, height, width, channels = image.shape
        return {
            "name": self.name,
            "task": self.task.name,
            "size_bytes": self.file.size_bytes,
            "integer": image.dtype in ("uint8", "int8"),
            "input": {
                "height": height,
                "width": width,
                "channels": channels,
                "mean": scale and list(scale.mean),
                "std": scale and list(scale.std),
                **_numbers(image),
            },
            "outputs": [
                {"name": name, "tensor": tensor.name, "shape": list(tensor.shape), **_numbers(tensor)}
                for name, tensor in outputs.items()
            ],
            "labels": list(self.labels) if self.labels else None,
            "crops": self.task.crops,
            "options": _options(self.task),
        }


def _numbers(tensor: Tensor) -> dict[str, Any]:
    quantized = bool(len(tensor.scales))
    return {
        "dtype": tensor.dtype,
        "scale": float(tensor.scales[0]) if quantized else None,
        "zero_point": int(tensor.zero_points[0]) if quantized else None,
    }


def _options(task: Task) -> dict[str, Any]:
    """What else of the task decides how outputs are read."""
    if isinstance(task, Classification):
        return {"multi_label": task.multi_label, "from_logits": task.from_logits}
    if isinstance(task, Detection):
        anchors = [[round(float(side), 7) for side in one] for one in task.anchors_of_image()]
        return {
            "classes": task.classes,
            "anchors": anchors,
            "scales": SCALES,
            "sure": SURE,
            **dataclasses.asdict(task.suppression),
        }
    return {"classes": task.classes} if isinstance(task, Segmentation) else {}
