"""Starts of an Android and an iOS app around a `.tflite` file, by MediaPipe Tasks.

MediaPipe reads normalization out of the file; that it opens this package's files, tests/test_mediapipe.py shows.
"""

from __future__ import annotations

from keras_mobilenets.apps.about import Deployed
from keras_mobilenets.apps.writing import Folder, fill, new_folder
from keras_mobilenets.tasks.classification import Classification
from keras_mobilenets.tflite.labels import write_labels

ASSETS = {"android": "app/src/main/assets", "ios": "App"}
"""Where each platform's build looks for files to ship."""


def write_phone(model: Deployed, output: Folder, platform: str) -> None:
    """Writes the start of an app: a folder for Android Studio or, by XcodeGen, for Xcode.

    Args:
        model: what it runs.
        output: the folder, which is new or empty.
        platform: "android" or "ios".

    Raises:
        FileExistsError: something would be lost.
        ValueError: MediaPipe's classifier cannot run the file.
    """
    _check(model)
    with new_folder(output) as folder:
        fill(platform, folder, about=model.about())
        assets = folder / ASSETS[platform]
        assets.mkdir(exist_ok=True)
        (assets / "model.tflite").write_bytes(model.file.content)
        (assets / "labels.txt").write_bytes(write_labels(model.labels or ()))


def _check(model: Deployed) -> None:
    task = model.task
    if not isinstance(task, Classification) or task.from_logits or task.classes == 1:
        raise ValueError("The start is for a classifier of several classes that gives probabilities; this file is none")
    dtype = model.about()["input"]["dtype"]
    if dtype not in ("uint8", "float32"):
        raise ValueError(f"MediaPipe takes uint8 or float32, and this file takes {dtype}. Convert it again.")
