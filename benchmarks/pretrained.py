"""Integer files from real ImageNet weights without training, and published integer files back as Keras models.

    KERAS_MOBILENETS_TESTDATA=FOLDER python benchmarks/pretrained.py

Post-training quantization is the one line `keras-mobilenets export BUILDER --weights FILE --calibration PICTURES`. One
half of the 500 photographs of the sample calibrates, the other is tested, and then the other way round, so that the
accuracies are of all 500 and none was seen. Reading back is `from_tflite(FILE)`, and `from_tflite(FILE, images)` with
64 photographs of flowers, of which none is in the sample.

Results: benchmarks/pretrained.csv, a line for each file. `float_top1` is of the Keras model, `file_top1` of the integer
file. `agreement` is the share of photographs on which the Keras model's answer is the file's: scores in steps of 1/256
tie for the first place here and there, and then each of them is; `same_argmax` counts the first of them only.
`runtimes_agree` says what rounding alone does: the answer of TFLite's plain kernels against XNNPACK's, on the same
file, counted as `agreement`.
"""

from __future__ import annotations

import csv
import dataclasses
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_mobilenets as km
from keras_mobilenets.cli import app
from keras_mobilenets.data import read_image
from keras_mobilenets.interop import from_tflite
from keras_mobilenets.tflite import TFLiteModel
from keras_mobilenets.utils import atomic_path

CSV = Path(__file__).with_suffix(".csv")
WEIGHTS = {
    "V1 0.25/128": ("MobileNet", 0.25, 128, "mobilenet_2_5_128_tf.h5"),
    "V1 0.5/160": ("MobileNet", 0.5, 160, "mobilenet_5_0_160_tf.h5"),
    "V2 1.0/224": ("MobileNetV2", 1.0, 224, "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5"),
}


@dataclass(frozen=True)
class Result:
    """A line of the table."""

    file: str
    float_top1: float
    file_top1: float
    agreement: float
    same_argmax: float
    runtimes_agree: float
    size_bytes: int


def main() -> None:
    """Measures and writes the CSV file."""
    folder = Path(os.environ["KERAS_MOBILENETS_TESTDATA"])
    photographs = sorted((folder / "data" / "imagenet_sample").glob("*.jpg"))
    with atomic_path(CSV) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in dataclasses.fields(Result)], lineterminator="\n")
        writer.writeheader()
        for result in [*post_training(folder, photographs), *read_back(folder, photographs)]:
            writer.writerow(dataclasses.asdict(result))


def post_training(folder: Path, photographs: list[Path]) -> Iterator[Result]:
    """Each of the weight files as an integer file that was not trained."""
    second = np.arange(len(photographs)) % 4 >= 2
    for name, (builder, alpha, size, weights) in WEIGHTS.items():
        model = getattr(km, builder)((size, size, 3), alpha=alpha, weights=folder / "weights" / weights)
        pixels = read(photographs, size)
        scores, plain = np.zeros((2, len(pixels), 1000), np.float32)
        for calibrates in (second, ~second):
            with tempfile.TemporaryDirectory() as place:
                path = Path(place) / "model.tflite"
                pictures = Path(place) / "pictures"
                pictures.mkdir()
                for index in np.flatnonzero(calibrates):
                    (pictures / photographs[index].name).symlink_to(photographs[index])
                line = f"export {builder} {path} --alpha {alpha} --image-size {size} --strict --calibration {pictures}"
                app([*line.split(), "--weights", str(folder / "weights" / weights)], standalone_mode=False)
                scores[~calibrates] = TFLiteModel(path).predict(pixels[~calibrates])
                plain[~calibrates] = TFLiteModel(path, delegate=False).predict(pixels[~calibrates])
                size_bytes = path.stat().st_size
        yield compare(f"{name} post-training", model, pixels, scores, plain, labels(photographs), size_bytes)


def read_back(folder: Path, photographs: list[Path]) -> Iterator[Result]:
    """Each of Google's files as a Keras model, without images and with some."""
    flowers = sorted((folder / "data" / "flowers" / "train").rglob("*.jpg"))
    for path in sorted((folder / "published").glob("*.tflite")):
        file = TFLiteModel(path)
        size = file.input_shape[0]
        pixels, others = read(photographs, size), read(flowers[:: len(flowers) // 63], size)
        scores, plain = file.predict(pixels), TFLiteModel(path, delegate=False).predict(pixels)
        for name, images in ((path.name, None), (f"{path.name}, with images", others / np.float32(127.5) - 1)):
            model, truth = from_tflite(path, images=images), labels(photographs) + 1  # class 0 is the background
            yield compare(name, model, pixels, scores, plain, truth, path.stat().st_size)


def compare(
    name: str,
    model: keras.Model,
    pixels: np.ndarray,
    scores: np.ndarray,
    plain: np.ndarray,
    truth: np.ndarray,
    size_bytes: int,
) -> Result:
    """A Keras model on images in [-1, 1] beside a file's scores, of both kinds of kernels."""
    answers = model.predict(pixels / np.float32(127.5) - 1, batch_size=25, verbose=0).argmax(-1)
    result = Result(
        name,
        float_top1=share(answers == truth),
        file_top1=share(scores.argmax(-1) == truth),
        agreement=share(is_first(scores, answers)),
        same_argmax=share(scores.argmax(-1) == answers),
        runtimes_agree=share(is_first(scores, plain.argmax(-1))),
        size_bytes=size_bytes,
    )
    print(result, flush=True)
    return result


def is_first(scores: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Whether no class has a higher score than the one that was answered."""
    return scores[np.arange(len(scores)), answers] == scores.max(-1)


def share(right: np.ndarray) -> float:
    """Of all photographs."""
    return round(float(np.mean(right)), 4)


def read(photographs: list[Path], size: int) -> np.ndarray:
    """As evaluated: the central square of 87.5 % of the short side, bilinear."""
    return np.stack([read_image(path, size) for path in photographs])


def labels(photographs: list[Path]) -> np.ndarray:
    """The file names begin with the index of the class."""
    return np.array([int(path.name[:4]) for path in photographs])


if __name__ == "__main__":
    main()
