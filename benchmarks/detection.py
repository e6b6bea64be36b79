"""Detectors of one's own, trained on some hundred photographs: in float, quantized, and as integer files.

    python -m benchmarks.detection DATA --runs FOLDER [--case bccd ...] [--seed 0] [--quantize-epochs 0]

DATA holds `data/bccd` (Pascal VOC: 205 pictures to train on, 87 to choose the epoch in 8 bits by, 72 that nothing else
sees), `data/raccoon` (COCO: 160 and 40, which choose it, too) and ImageNet weights in `weights/`. A model that lies in
FOLDER is not trained again. Writes benchmarks/detection.csv: COCO's average precision of the last pictures in float,
quantized after training ("ptq file"), simulated after training in 8 bits ("qat") and of its file ("file").
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import os
import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from keras_mobilenets import inline
from keras_mobilenets.data import load_detection
from keras_mobilenets.export import export_tflite
from keras_mobilenets.interop import from_tflite
from keras_mobilenets.tasks import Detection
from keras_mobilenets.tflite import TFLiteModel
from keras_mobilenets.training import build_model, fit, quantize_aware
from keras_mobilenets.training.fitting import held_out_score
from keras_mobilenets.utils import atomic_path

CSV = Path(__file__).with_suffix(".csv")
HEADER = ["case", "model", "pixels", "epochs", "seed", "form", "mAP", "mAP_50", "ms", "bytes"]
BATCH_SIZE = 8
RATE = 1e-3


@dataclasses.dataclass(frozen=True)
class Case:
    """What is trained on what.

    Attributes:
        data: folder in `data/`.
        builder, alpha, image_size: of the model.
        lite: whether it is an SSDLite, else an SSD.
        weights: ImageNet's, or a `.tflite` file in `published/` of which all layers are taken that fit.
        epochs, quantize_epochs: of training in float, and in 8 bits; 0 for none.
        measured: the split that is measured on, if it is not the one that is chosen by.
    """

    data: str
    builder: str = "MobileNetV3Small"
    alpha: float = 1.0
    image_size: int = 256
    lite: bool = True
    weights: str = "weights/weights_mobilenet_v3_small_224_1.0_float.h5"
    epochs: int = 12
    quantize_epochs: int = 2
    measured: str | None = None


_SSD = Case("raccoon", "MobileNet", image_size=192, lite=False, epochs=6, quantize_epochs=0)
CASES = {
    "bccd": Case("bccd", epochs=20, measured="test"),
    "raccoon": Case("raccoon"),
    "raccoon, from COCO": dataclasses.replace(_SSD, weights="published/ssd_mobilenet_v1_coco_300_quant.tflite"),
    "raccoon, from ImageNet": dataclasses.replace(
        _SSD, alpha=0.75, weights="published/mobilenet_v1_0.75_224_quant.tflite"
    ),
}


def main() -> None:
    """Trains what FOLDER lacks, and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--case", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quantize-epochs", type=int, help="in place of the cases' own; 0 for none")
    arguments = parser.parse_args()
    for name in arguments.case:
        keras.utils.set_random_seed(arguments.seed)
        folder = arguments.runs / f"{name.replace(', ', '-').replace(' ', '-')}-{arguments.seed}"
        folder.mkdir(parents=True, exist_ok=True)
        case = CASES[name]
        if arguments.quantize_epochs is not None:
            case = dataclasses.replace(case, quantize_epochs=arguments.quantize_epochs)
        rows = list(measured(case, arguments.data, folder, arguments.seed))
        write([{"case": name, "seed": arguments.seed, **row} for row in rows])


def measured(case: Case, root: Path, folder: Path, seed: int) -> Iterator[dict[str, Any]]:
    """The rows of one case and seed."""
    data, last = loaded(case, root, folder.parent, seed)
    task = Detection(len(data.class_names), image_size=data.image_size, alpha=case.alpha, lite=case.lite)
    print("\n".join(task.examine(data.targets())), flush=True)
    options = {"task": task, "learning_rate": RATE}

    def trained() -> keras.Model:
        model = begun(case, root, task)
        fit(model, data, recipe="detection-finetune", epochs=case.epochs, verbose=2, **options)
        return model

    def adapted() -> keras.Model:
        options = {"recipe": "detection-qat", "epochs": case.quantize_epochs, "verbose": 2}
        return quantize_aware(model, data, task=task, **options)

    model = kept(folder / "float.keras", trained)
    forms: dict[str, tuple[Any, Path]] = {"float": (model.predict_on_batch, folder / "float.keras")}
    images = np.concatenate([np.asarray(images) for images, _ in last.val.take(2)])
    given = {"task": task, "labels": data.class_names, "verify": images, "strict": True, "verbose": False}
    calibration = np.concatenate([np.asarray(images) for images, _ in data.train.take(8)])
    export_tflite(model, folder / "ptq.tflite", quantize="int8", calibration=calibration, **given)
    forms["ptq file"] = TFLiteModel(folder / "ptq.tflite").predict, folder / "ptq.tflite"
    if case.quantize_epochs:
        quantized = kept(folder / "qat.keras", adapted)
        export_tflite(quantized, folder / "model.tflite", **given)
        forms["qat"] = quantized.predict_on_batch, folder / "qat.keras"
        forms["file"] = TFLiteModel(folder / "model.tflite").predict, folder / "model.tflite"
    name = f"{'SSDLite' if case.lite else 'SSD'} {case.builder.removeprefix('MobileNet') or 'V1'} {case.alpha:g}"
    for form, (predict, path) in forms.items():
        found = held_out_score(predict, last, task)
        row = {"model": name, "pixels": case.image_size, "epochs": f"{case.epochs} + {case.quantize_epochs}"}
        row |= {"form": form, **{key: f"{found[key]:.4f}" for key in ("mAP", "mAP_50")}, "bytes": path.stat().st_size}
        row["ms"] = f"{latency(predict, images[:1]):.1f}"
        print(row, flush=True)
        yield row


def begun(case: Case, root: Path, task: Detection) -> keras.Model:
    """The model before training."""
    weights = root / case.weights
    build = partial(build_model, case.builder, task, image_size=case.image_size, alpha=case.alpha, momentum=0.97)
    if weights.suffix == ".h5":
        return build(weights=weights)
    model = build()
    given = {layer.name: layer.get_weights() for layer in inline(from_tflite(weights)).layers}
    for layer in inline(model).layers:
        values = given.get(layer.name, [])
        if [one.shape for one in values] == [tuple(one.shape) for one in layer.weights]:
            layer.set_weights(values)
        else:
            print("begins anew:", layer.name)
    return model


def kept(path: Path, make: Callable[[], keras.Model]) -> keras.Model:
    """A model that was made before, or is made now."""
    if not path.exists():
        began, model = time.process_time(), make()
        print(f"{path}: {time.process_time() - began:.0f} s of processor time", flush=True)
        with atomic_path(path) as temporary:
            type(model)(model.inputs, model.output, name=model.name).save(temporary)
    return keras.models.load_model(path)


def loaded(case: Case, root: Path, runs: Path, seed: int) -> tuple[Any, Any]:
    """The data to train on and to choose by, and those to measure on, which may be the same."""
    source = root / "data" / case.data
    options = {"image_size": case.image_size, "batch_size": BATCH_SIZE, "seed": seed}
    data = load_detection(source, **options)
    if case.measured is None:
        return data, data
    # A folder of the same pictures, in whose lists those that are measured on are held out.
    folder = runs / f"{case.data}-{case.measured}"
    for path in (one for name in ("JPEGImages", "Annotations") for one in (source / name).iterdir()):
        link = folder / path.parent.name / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(path.resolve())
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True, exist_ok=True)
    for split in ("train", case.measured):
        shutil.copy(source / "ImageSets" / "Main" / f"{split}.txt", lists)
    return data, load_detection(folder, **options)


def latency(predict: Callable[[np.ndarray], Any], image: np.ndarray, runs: int = 20) -> float:
    """Median milliseconds of one picture."""
    times = []
    for _ in range(runs):
        began = time.perf_counter()
        predict(image)
        times.append(time.perf_counter() - began)
    return float(np.median(times)) * 1e3


def write(rows: list[dict[str, Any]]) -> None:
    """Puts rows into the CSV, in place of those of the same case, seed and form."""
    key = lambda row: (row["case"], str(row["seed"]), row["form"])  # noqa: E731
    kept_rows = []
    if CSV.exists():
        with CSV.open() as file:
            kept_rows = list(csv.DictReader(file))
    every = {key(row): row for row in [*kept_rows, *rows]}
    with atomic_path(CSV) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, HEADER, lineterminator="\n")
        writer.writeheader()
        writer.writerows(every.values())


if __name__ == "__main__":
    main()
