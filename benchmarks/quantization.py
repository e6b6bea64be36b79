"""What 8 bits cost: integer accuracy by post-training quantization and by training, here and by TensorFlow's own tools.

    KERAS_MOBILENETS_TESTDATA=FOLDER python -m benchmarks.quantization      # hours on two cores; goes on where it was

Every figure is the top-1 accuracy of a full-integer `.tflite` file (of the Keras model for "float") on photographs
that neither trained nor calibrated it. Of ImageNet weights: benchmarks/quantization_post_training.py.

- Transfer to flowers, from ImageNet weights (head, then all layers) and from scratch: a seed draws the head, the order
  and the crops. Quantization-aware training is one more epoch (three from scratch) at a tenth of the rate.
- The hard case: the transferred V1 with its depthwise channels scaled by 1 to 1/50 and its normalizations by the
  inverse. It computes the same function in float; a kernel that is quantized per tensor loses the small channels.
- The quantization-friendly block (arXiv:1803.08607, Table 2) in small: both V1 trained alike from scratch, in float and
  with one grid for each depthwise kernel.

Methods: "float"; "PTQ" (`export_tflite` on the float model); "PTQ tf.lite" (TensorFlow's converter on it); "QAT";
"QAT tfmot" (on the Keras 2 twin); "PTQ per tensor".

Results: benchmarks/quantization.csv, a line for each case, method and seed, and benchmarks/quantization.png.
"""

from __future__ import annotations

import argparse
import csv
import functools
import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import keras_mobilenets as km
from keras_mobilenets.data import ImageData, load
from keras_mobilenets.data.images import read_image
from keras_mobilenets.export import export_tflite
from keras_mobilenets.interop import tfmot_annotate, to_tf_keras
from keras_mobilenets.pixels import PixelScale
from keras_mobilenets.tflite import TFLiteModel
from keras_mobilenets.training import build_classifier, fit, fit_head, freeze_normalization

CSV = Path(__file__).with_suffix(".csv")
FIELDS = ("case", "method", "seed", "top1", "agreement")
CALIBRATION = 100
RESCALED = 50.0


@dataclass(frozen=True)
class Case:
    """A model and what it is trained on.

    Attributes:
        name: in the table.
        builder, alpha, size: of the network.
        weights: the file of ImageNet weights; None is from scratch.
        epochs: of float training.
        quantize_epochs: of quantization-aware training.
        learning_rate: of float training; quantization-aware training has a tenth.
        methods: what is measured.
        hard: whether its depthwise channels are rescaled.
        friendly: whether its depthwise convolutions are the quantization-friendly ones.
    """

    name: str
    builder: str
    alpha: float
    size: int
    weights: str | None = None
    epochs: int = 1
    quantize_epochs: int = 1
    learning_rate: float = 2e-4
    methods: tuple[str, ...] = ("float", "PTQ", "PTQ tf.lite", "QAT", "QAT tfmot")
    hard: bool = False
    friendly: bool = False


BLOCKS = ("float", "PTQ", "PTQ per tensor")
V1_25, V1_5 = "mobilenet_2_5_128_tf.h5", "mobilenet_5_0_160_tf.h5"
V2 = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224.h5"
SCRATCH: dict[str, Any] = {"epochs": 20, "quantize_epochs": 3, "learning_rate": 2e-3}
CASES = (
    Case("flowers, V1 0.5/160", "MobileNet", 0.5, 160, V1_5, epochs=3),
    Case("flowers, V1 0.5/160, hard", "MobileNet", 0.5, 160, V1_5, epochs=3, hard=True),
    Case("flowers, V2 1.0/160", "MobileNetV2", 1.0, 160, V2, epochs=2),
    Case("flowers from scratch, V3 Small/96", "MobileNetV3Small", 1.0, 96, **SCRATCH),
    Case("flowers from scratch, V1 0.5/96", "MobileNet", 0.5, 96, **SCRATCH, methods=BLOCKS),
    Case("flowers from scratch, V1 friendly 0.5/96", "MobileNet", 0.5, 96, **SCRATCH, methods=BLOCKS, friendly=True),
)


class Bench:
    """One case with one seed: a float model, and what is made of it.

    Args:
        case: what to measure.
        seed: of everything that is drawn.
        folder: with photographs and weights.
        models: folder in which trained float models are kept.
    """

    def __init__(self, case: Case, seed: int, folder: Path, models: Path):
        self.case, self.seed, self.folder, self.models = case, seed, folder, models
        keras.utils.set_random_seed(seed)

    @functools.cached_property
    def data(self) -> ImageData:
        """The flowers."""
        batch = 16 if self.case.weights else 32
        size = self.case.size
        return load(str(self.folder / "data" / "flowers"), image_size=size, batch_size=batch, seed=self.seed)

    @functools.cached_property
    def model(self) -> keras.Model:
        """The float model."""
        case = self.case
        name = f"{case.builder}-{case.alpha}-{case.size}{'-friendly' * case.friendly}-{self.seed}.keras"
        path = self.models / name
        if not path.exists():
            self._trained().save(path)
        model = keras.models.load_model(path)
        if case.hard:
            rescale(model, self.seed)
        return model

    def _trained(self) -> keras.Model:
        case = self.case
        if case.weights is None:
            model = self._scratch()
        else:
            weights = self.folder / "weights" / case.weights
            model = build_classifier(case.builder, classes=5, image_size=case.size, alpha=case.alpha, weights=weights)
            fit_head(model, self.data)
            freeze_normalization(model)
        fit(model, self.data, epochs=case.epochs, learning_rate=case.learning_rate)
        return model

    def _scratch(self) -> keras.Model:
        case = self.case
        options = {"quantization_friendly": True} if case.friendly else {}
        inputs = keras.Input((case.size, case.size, 3))
        scaled = inputs if "V3" in case.builder else keras.layers.Rescaling(1 / 127.5, -1)(inputs)
        base = getattr(km, case.builder)
        model = base(input_tensor=scaled, alpha=case.alpha, weights=None, classes=5, momentum=0.9, **options)
        return keras.Model(inputs, model.output)

    @functools.cached_property
    def tested(self) -> tuple[np.ndarray, np.ndarray]:
        """Pixels and labels of the photographs that are kept apart."""
        files = sorted((self.folder / "data" / "flowers" / "val").glob("*/*.jpg"))
        return self._read(files), np.array([self.data.class_names.index(file.parent.name) for file in files])

    @functools.cached_property
    def calibration(self) -> np.ndarray:
        """Pixels to calibrate with."""
        files = sorted((self.folder / "data" / "flowers" / "train").glob("*/*.jpg"))
        return self._read(np.random.default_rng(self.seed).permutation(files)[:CALIBRATION])

    def _read(self, files: Any) -> np.ndarray:
        return np.stack([read_image(file, self.case.size) for file in files])

    def images(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels as the model takes them."""
        return PixelScale.of(self.model)(pixels)

    def accuracy(self, answers: np.ndarray) -> float:
        """Top-1 on what is kept apart."""
        return float((answers.argmax(-1) == self.tested[1]).mean())

    def measure(self, method: str) -> tuple[float, float | None]:
        """(accuracy, how often the trained Keras model and its file agree or None) of one method."""
        if method == "float":
            return self.accuracy(self.model.predict(self.images(self.tested[0]), verbose=0)), None
        makers: dict[str, Callable[[], Any]] = {
            "PTQ": lambda: self.model,
            "PTQ per tensor": lambda: self.converted(per_channel=False),
            "PTQ tf.lite": lambda: self.converted(per_channel=True),
            "QAT": self.trained,
            "QAT tfmot": self.trained_by_tfmot,
        }
        made = makers[method]()
        if isinstance(made, bytes):
            return self.accuracy(TFLiteModel(made).predict(self.tested[0])), None
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "model.tflite"
            export_tflite(
                *(made, path),
                quantize="int8",
                calibration=self.images(self.calibration),
                strict=True,
                verbose=False,
            )
            answers = TFLiteModel(path).predict(self.tested[0])
        if method != "QAT":
            return self.accuracy(answers), None
        in_keras = made.predict(self.images(self.tested[0]), verbose=0)
        return self.accuracy(answers), float((in_keras.argmax(-1) == answers.argmax(-1)).mean())

    def trained(self) -> keras.Model:
        """By this package."""
        model = km.quantize_model(self.model)
        km.calibrate(model, self.images(self.calibration))
        freeze_normalization(model)
        fit(model, self.data, epochs=self.case.quantize_epochs, learning_rate=self.case.learning_rate / 10)
        return model

    def converted(self, per_channel: bool) -> bytes:
        """By TensorFlow's converter, as its guide to post-training quantization does it."""
        images = self.images(self.calibration)
        model = keras.models.clone_model(self.model)
        model.set_weights(self.model.get_weights())
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        converter._experimental_disable_per_channel = not per_channel
        return full_integer(converter, images)

    def trained_by_tfmot(self) -> bytes:
        """By tfmot, on the Keras 2 twin, as its guide does it; the same data, epochs and rate."""
        import tf_keras
        from tensorflow_model_optimization.quantization.keras import quantize_apply

        case, steps = self.case, self.data.steps_per_epoch
        model = quantize_apply(tfmot_annotate(to_tf_keras(self.model)))
        total = case.quantize_epochs * steps
        rate = tf_keras.optimizers.schedules.CosineDecay(
            0.0, total - total // 10, warmup_target=case.learning_rate / 10, warmup_steps=total // 10
        )
        model.compile(tf_keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
        model.fit(self.data.train_from(0), steps_per_epoch=steps, epochs=case.quantize_epochs, verbose=0)
        return full_integer(tf.lite.TFLiteConverter.from_keras_model(model), None)


def full_integer(converter: Any, images: np.ndarray | None) -> bytes:
    """A file with integer input, output and operations."""
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if images is not None:
        converter.representative_dataset = lambda: ([image[None]] for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.uint8
    return converter.convert()


def rescale(model: keras.Model, seed: int) -> None:
    """Scales depthwise channels by 1 to 1/50 and the normalization behind them by the inverse: the same function."""
    rng = np.random.default_rng(seed)
    flat = km.inline(model)
    for layer, norm in zip(flat.layers, flat.layers[1:], strict=False):
        if not isinstance(layer, keras.layers.DepthwiseConv2D):
            continue
        factor = np.exp(rng.uniform(-np.log(RESCALED), 0.0, norm.gamma.shape)).astype("float32")
        variance = np.asarray(norm.moving_variance)
        layer.kernel.assign(np.asarray(layer.kernel) * factor[:, None])
        norm.moving_mean.assign(np.asarray(norm.moving_mean) * factor)
        norm.moving_variance.assign(variance * factor**2)
        scale = np.sqrt((variance * factor**2 + norm.epsilon) / (variance + norm.epsilon)) / factor
        norm.gamma.assign(np.asarray(norm.gamma) * scale)


def rows(options: argparse.Namespace, done: set[tuple[str, str, int]]) -> Iterator[dict]:
    """Measures what is not done yet, all cases of a seed before the next seed."""
    folder = Path(os.environ["KERAS_MOBILENETS_TESTDATA"])
    for seed, case in itertools.product(range(options.seeds), CASES):
        if not any(part in case.name for part in options.cases):
            continue
        bench = Bench(case, seed, folder, options.models)
        for method in case.methods:
            if (case.name, method, seed) not in done and method not in options.without:
                top1, agreement = bench.measure(method)
                shown = "" if agreement is None else round(agreement, 4)
                yield dict(zip(FIELDS, (case.name, method, seed, round(top1, 4), shown), strict=True))
        keras.backend.clear_session()


def summary(results: list[dict], lost: bool = False) -> dict[tuple[str, str], tuple[float, float, int]]:
    """For each case and method: mean accuracy in percent, its standard error, number of seeds.

    With `lost` the points that are lost against the float model of the same seed.
    """
    points = {(row["case"], row["method"], int(row["seed"])): 100 * float(row["top1"]) for row in results}
    found: dict[tuple[str, str], list[float]] = {}
    for (case, method, seed), one in points.items():
        if not lost:
            found.setdefault((case, method), []).append(one)
        elif (case, "float", seed) in points:
            found.setdefault((case, method), []).append(points[case, "float", seed] - one)
    return {
        key: (float(np.mean(one)), float(np.std(one, ddof=1) / len(one) ** 0.5) if one[1:] else float("nan"), len(one))
        for key, one in found.items()
    }


def plot(results: list[dict], path: Path) -> None:
    """Points of accuracy lost against float, a bar for each method."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FuncFormatter

    accuracy, lost = summary(results), summary(results, lost=True)
    cases = [case for case in CASES if (case.name, "float") in accuracy]
    colours = {"PTQ": "C0", "QAT": "C2", "PTQ tf.lite": "C7", "PTQ per tensor": "C1", "QAT tfmot": "C3"}
    figure, axes = plt.subplots(figsize=(9, 0.85 * len(cases) + 1.2), layout="constrained")
    for line, case in enumerate(cases):
        methods = [method for method in colours if (case.name, method) in lost]
        for place, method in enumerate(methods):
            mean, error, _ = lost[case.name, method]
            where = line + (place - (len(methods) - 1) / 2) * 0.2
            axes.barh(where, mean, 0.18, xerr=np.nan_to_num(error), color=colours[method], error_kw={"elinewidth": 0.8})
    for method, colour in colours.items():
        axes.barh(0, 0, color=colour, label=method)
    axes.set_yticks(range(len(cases)), [f"{one.name}\nfloat {accuracy[one.name, 'float'][0]:.1f} %" for one in cases])
    axes.invert_yaxis()
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xscale("symlog", linthresh=2)
    axes.set_xticks([-2, -1, 0, 1, 2, 5, 10, 20, 50])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("points of top-1 accuracy lost to 8 bits (less is better)")
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measures, prints and writes the table and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cases", nargs="+", default=[""], help="those whose names contain one of these")
    parser.add_argument("--without", nargs="+", default=[], help="methods to leave out")
    parser.add_argument("--models", type=Path, default=Path("runs/benchmark"), help="where float models are kept")
    parser.add_argument("--output", type=Path, default=CSV)
    options = parser.parse_args()
    if "KERAS_MOBILENETS_TESTDATA" not in os.environ:
        parser.error("set KERAS_MOBILENETS_TESTDATA to the folder with photographs and weights")
    options.models.mkdir(parents=True, exist_ok=True)
    results: list[dict] = []
    if options.output.exists():
        results = list(csv.DictReader(options.output.open(newline="")))
    done = {(row["case"], row["method"], int(row["seed"])) for row in results}
    if not options.output.exists():
        options.output.write_text(",".join(FIELDS) + "\n")
    for row in rows(options, done):
        print(*row.values(), sep="\t", flush=True)
        results.append(row)
        with options.output.open("a", newline="") as file:  # each line at once: hours of work are not lost
            csv.DictWriter(file, FIELDS, lineterminator="\n").writerow(row)
    for (case, method), (mean, error, count) in summary(results).items():
        print(f"{case:42s} {method:16s} {mean:6.2f} ± {error:.2f} ({count})")
    plot(results, options.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
