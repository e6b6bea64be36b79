"""The file, run by LiteRT: a picture in, what it says out. `model.json` says what the file takes and gives."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from images import read_image
from task import decode

HERE = Path(__file__).parent
ABOUT: dict[str, Any] = json.loads((HERE / "model.json").read_text(encoding="utf-8"))


class Model:
    """Answers about pictures, one at a time: an interpreter belongs to one thread.

    Args:
        threads: how many threads compute.
    """

    def __init__(self, threads: int = 2) -> None:
        self._lock = threading.Lock()
        self._interpreter = Interpreter(model_path=str(HERE / "model.tflite"), num_threads=threads)
        self._interpreter.allocate_tensors()

    def __call__(self, picture: bytes | np.ndarray) -> dict[str, Any]:
        """What the picture shows; task.py says in which form.

        Raises:
            BrokenImage: it is no whole picture.
        """
        given = ABOUT["input"]
        pixels = read_image(picture, (given["height"], given["width"]), channels=given["channels"], crop=ABOUT["crops"])
        return decode(self._run(prepare(pixels)), ABOUT)

    def _run(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs as real numbers, by the names in `model.json`, which are in the file's order."""
        with self._lock:
            self._interpreter.set_tensor(self._interpreter.get_input_details()[0]["index"], values[np.newaxis])
            self._interpreter.invoke()
            details = self._interpreter.get_output_details()
            given = [self._interpreter.get_tensor(one["index"])[0] for one in details]
        return {one["name"]: real(values, one) for values, one in zip(given, ABOUT["outputs"], strict=True)}


def prepare(pixels: np.ndarray) -> np.ndarray:
    """Pixels as the file takes them: as they are, or normalized as it says and, in an integer file, quantized."""
    given = ABOUT["input"]
    dtype = np.dtype(given["dtype"])
    if given["mean"] is None:
        return pixels if dtype != np.int8 else (pixels.astype(np.int16) - 128).astype(np.int8)
    values = (pixels.astype(np.float32) - np.float32(given["mean"])) / np.float32(given["std"])
    if given["scale"] is None:
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    codes = np.rint(values / np.float32(given["scale"])) + given["zero_point"]
    return np.clip(codes, limits.min, limits.max).astype(dtype)


def real(values: np.ndarray, output: dict[str, Any]) -> np.ndarray:
    """The numbers that an integer output stands for."""
    if output["scale"] is None:
        return values
    return (values.astype(np.float32) - output["zero_point"]) * np.float32(output["scale"])
