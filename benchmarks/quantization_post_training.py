"""Post-training quantization of published weights, here and by other tools.

    KERAS_MOBILENETS_TESTDATA=FOLDER python -m benchmarks.quantization_post_training  # an hour of one core; goes on

Every fifth of the 500 photographs of the sample may calibrate, the others test; each fold takes other ones. A line for
each model, method, number of photographs that calibrate, and fold: top-1 accuracy, and how often the first choice is
the float model's. MobileNetV3's weights come from a file that was trained quantization-aware, so that an integer file
may be right more often than the float model: look at both figures.

Methods: "float"; "ours" (`export_tflite` with a float model); "tf.lite" (TensorFlow's converter, as its guide does it);
"ai-edge-quantizer" (its recipe for static int8; `pip install ai-edge-quantizer`, left out where it is not);
"ONNX Runtime" (static QDQ, with the extra `onnx`); "Google" (the published file, trained quantization-aware but for
V2's, which is their own post-training quantization).

Result: benchmarks/quantization_post_training.csv.
"""

from __future__ import annotations

import argparse
import csv
import functools
import importlib.util
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_mobilenets as km
from benchmarks.ondevice import onnx_integer, onnx_session
from benchmarks.quantization import V1_5, V1_25, V2, full_integer
from keras_mobilenets.data.images import read_image
from keras_mobilenets.pixels import PixelScale
from keras_mobilenets.tflite import TFLiteModel, read_tflite

CSV = Path(__file__).with_suffix(".csv")
FIELDS = ("model", "method", "calibration", "fold", "top1", "agreement")
FOLDS = 5
V3 = "weights_mobilenet_v3_small_224_1.0_float.h5"
MODELS = {
    "V1 0.25/128": ("MobileNet", 0.25, 128, V1_25, "mobilenet_v1_0.25_128_quant"),
    "V1 0.5/160": ("MobileNet", 0.5, 160, V1_5, "mobilenet_v1_0.5_160_quant"),
    "V2 1.0/224": ("MobileNetV2", 1.0, 224, V2, "tf2_mobilenet_v2_1.0_224_ptq"),
    "V3 Small 1.0/224": ("MobileNetV3Small", 1.0, 224, V3, "v3-small_224_1.0_uint8"),
}


class Bench:
    """One model, and the photographs.

    Args:
        name: of the model.
        folder: with photographs, weights and published files.
    """

    def __init__(self, name: str, folder: Path):
        builder, alpha, self.size, weights, published = MODELS[name]
        self.model = getattr(km, builder)((self.size, self.size, 3), alpha=alpha, weights=folder / "weights" / weights)
        self.published = folder / "published" / f"{published}.tflite"
        files = sorted((folder / "data" / "imagenet_sample").glob("*.jpg"))
        self.pixels = np.stack([read_image(file, self.size) for file in files])
        self.labels = np.array([int(file.name[:4]) for file in files])

    def images(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels as the model takes them."""
        return PixelScale.of(self.model)(pixels)

    @functools.cached_property
    def methods(self) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
        """What gives the chosen class of each photograph, from images to calibrate with."""
        return {
            "float": lambda images: self.model.predict(self.images(self.pixels), verbose=0).argmax(-1),
            "ours": lambda images: self.chosen(self.exported(images)),
            "tf.lite": lambda images: self.chosen(full_integer(self.converter(), images)),
            "ai-edge-quantizer": lambda images: self.chosen(self.by_ai_edge_quantizer(images)),
            "ONNX Runtime": self.by_onnx_runtime,
            "Google": lambda images: self.chosen(self.published.read_bytes()),
        }

    def chosen(self, content: bytes) -> np.ndarray:
        """The classes that a `.tflite` file chooses; Google's have one more, the background, in front."""
        model = TFLiteModel(content)
        answers = model.predict(self.pixels if model.input_dtype != "float32" else self.images(self.pixels))
        return answers[:, -1000:].argmax(-1)

    def exported(self, images: np.ndarray) -> bytes:
        """By this package."""
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "model.tflite"
            km.export_tflite(self.model, path, quantize="int8", calibration=images, strict=True, verbose=False)
            return path.read_bytes()

    def converter(self) -> Any:
        """TensorFlow's."""
        import tensorflow as tf

        clone = keras.models.clone_model(self.model)
        clone.set_weights(self.model.get_weights())
        return tf.lite.TFLiteConverter.from_keras_model(clone)

    def by_ai_edge_quantizer(self, images: np.ndarray) -> bytes:
        """From TensorFlow's float file, as the quantizer's guide does it."""
        from ai_edge_quantizer import Quantizer, recipe

        content = self.converter().convert()
        ((signature, ends),) = read_tflite(content).signatures.items()
        (start,) = ends["inputs"]
        quantizer = Quantizer(content, recipe.static_wi8_ai8())
        data = {signature: [{start: image[None]} for image in images]}
        return bytes(quantizer.quantize(quantizer.calibrate(data)).quantized_model)

    def by_onnx_runtime(self, images: np.ndarray) -> np.ndarray:
        """By ONNX Runtime's static quantization, and run there."""
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "model.onnx"
            onnx_integer(self.model, images, path)
            session = onnx_session(path, threads=1)
        batches = self.images(self.pixels)[:, None]
        return np.concatenate([session.run(None, {"image": batch})[0] for batch in batches]).argmax(-1)


def main() -> None:
    """Measures what is not done yet, prints it and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=MODELS)
    parser.add_argument("--methods", nargs="*")
    parser.add_argument("--calibration", nargs="*", type=int, default=[100, 16])
    parser.add_argument("--folds", type=int, default=1, choices=range(1, FOLDS + 1))
    parser.add_argument("--output", type=Path, default=CSV)
    options = parser.parse_args()
    if "KERAS_MOBILENETS_TESTDATA" not in os.environ:
        parser.error("set KERAS_MOBILENETS_TESTDATA to the folder with photographs and weights")
    if not options.output.exists():
        options.output.write_text(",".join(FIELDS) + "\n")
    done = {tuple(row.values())[:4] for row in csv.DictReader(options.output.open(newline=""))}
    for name in options.models:
        bench = Bench(name, Path(os.environ["KERAS_MOBILENETS_TESTDATA"]))
        for row in measure(bench, name, options, done):
            print(*row.values(), sep="\t", flush=True)
            with options.output.open("a", newline="") as file:  # each line at once
                csv.DictWriter(file, FIELDS, lineterminator="\n").writerow(row)


def measure(bench: Bench, name: str, options: argparse.Namespace, done: set[tuple[str, ...]]) -> Iterator[dict]:
    """The lines of a model that are not done yet."""
    in_float = bench.methods["float"](bench.pixels)
    given = options.methods or bench.methods
    for method, count, fold in itertools.product(given, options.calibration, range(options.folds)):
        calibrates = np.arange(len(bench.pixels)) % FOLDS == fold
        if method in ("float", "Google"):
            count = 0
        if (key := (name, method, str(count), str(fold))) in done:
            continue
        done.add(key)
        if method == "ai-edge-quantizer" and importlib.util.find_spec("ai_edge_quantizer") is None:
            continue
        chosen = bench.methods[method](bench.images(bench.pixels[calibrates][:count]))[~calibrates]
        hits, same = chosen == bench.labels[~calibrates], chosen == in_float[~calibrates]
        yield dict(zip(FIELDS, (*key, round(hits.mean(), 4), round(same.mean(), 4)), strict=True))


if __name__ == "__main__":
    main()
