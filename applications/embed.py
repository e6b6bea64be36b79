"""A small network that knows faces: it learns a large one's embedding, as section 4.7 of the MobileNet paper does.

    python applications/embed.py FACES --teacher FACERES.h5 --weights MOBILENET_0.25_128.h5

`FACES/` holds one sub-folder per person. A quarter of the people is held out: neither the student nor its integer file
has seen them, and each is to be known by one picture. The steps, each a few lines below:

1. the teacher (MobileNetV1 1.0/224) answers some crops of each picture once; who is on
   them does not matter;
2. the student (V1 0.25/128) learns these vectors by squared difference, and again with 8-bit arithmetic simulated;
3. conversion to a `.tflite` file that computes in integers throughout;
4. all of them are asked about the people that were held out.

Measured results are in README.md beside this file. Faces are personal data: see docs/embedding.md on consent and bias.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_mobilenets import MobileNet
from keras_mobilenets.analysis import profile
from keras_mobilenets.data import ImageData, load_identities
from keras_mobilenets.export import export_tflite
from keras_mobilenets.tasks import Embedding
from keras_mobilenets.tflite import TFLiteModel
from keras_mobilenets.training import fit, freeze_normalization, quantize_aware
from keras_mobilenets.training.building import build_model

TEACHER_SIZE = 224
BGR_MEANS = (103.939, 116.779, 123.68)  # that the teacher was trained with
WIDTH = 1024


@dataclasses.dataclass(frozen=True)
class Taught(Embedding):
    """An embedding whose truth is a teacher's vector."""

    headline = "cosine"

    def losses(self, recipe: Any) -> dict[str, Any]:
        return {"loss": "mse"}

    def score(self, answers: Any, truth: Any) -> dict[str, float | None]:
        return {"cosine": float(np.mean(self.agreement(answers, truth)))}


class Answered:
    """Training data with the teacher's vectors: the crops of some epochs of `data`, answered once.

    Args:
        data: pictures.
        teacher: a model of pixels.
        passes: how many crops of each picture.
    """

    def __init__(self, data: ImageData, teacher: keras.Model, passes: int) -> None:
        self.batch_size, self.val_count = data.batch_size, data.val_count
        batches = data.train_from(0).take(passes * data.steps_per_epoch).as_numpy_iterator()
        images = np.concatenate([images for images, _ in batches])
        vectors = in_batches(teacher.predict_on_batch, images)
        mean = vectors.mean(0)  # what all faces share tells nobody apart
        self.pixels, self.vectors = images, vectors - mean
        held_out = np.concatenate([images for images, _ in data.val.as_numpy_iterator()]).astype("float32")
        self.val = held_out, in_batches(teacher.predict_on_batch, held_out) - mean
        self.steps_per_epoch = len(images) // self.batch_size

    def train_from(self, epoch: int, step: int = 0) -> tf.data.Dataset:
        def batches() -> Any:
            for number in range(epoch, 10**6):
                order = np.random.default_rng(number).permutation(len(self.pixels))
                for at in range(step if number == epoch else 0, self.steps_per_epoch):
                    chosen = order[at * self.batch_size : (at + 1) * self.batch_size]
                    yield self.pixels[chosen], self.vectors[chosen]

        form = [tf.TensorSpec((self.batch_size, *one.shape[1:])) for one in (self.pixels, self.vectors)]
        return tf.data.Dataset.from_generator(batches, output_signature=tuple(form)).prefetch(2)


def main() -> None:
    """Does what the head of this file says."""
    args = parse_arguments()
    keras.utils.set_random_seed(args.seed)
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    size = args.image_size
    data = load_identities(args.data, image_size=size, batch_size=args.batch_size, seed=args.seed)
    print(f"{data.train_count} pictures to learn from; {data.val_count} of other people")

    began = time.process_time()
    teacher = load_teacher(args.teacher, size)
    answered = Answered(data, teacher, args.passes)
    task = Taught(WIDTH)
    student = build_model("MobileNet", task, image_size=size, alpha=args.alpha, weights=args.weights, momentum=0.9)
    options: dict[str, Any] = {"task": task, "verbose": 2}
    fit(student, answered, epochs=args.epochs, learning_rate=args.learning_rate, **options)
    student.save(folder / "float.keras")
    rate = args.learning_rate / 10
    freeze_normalization(student)
    quantized = quantize_aware(student, answered, epochs=args.quantize_epochs, learning_rate=rate, **options)
    export_tflite(quantized, folder / "model.tflite", task=task, verify=answered.val[0], strict=True)

    file = TFLiteModel(folder / "model.tflite")
    models: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "teacher": teacher.predict_on_batch,
        "float": student.predict_on_batch,
        "tflite": lambda images: file.predict(images.astype("uint8")),
    }
    facts = {"seed": args.seed, "alpha": args.alpha, "image_size": size, "minutes": (time.process_time() - began) / 60}
    facts |= {"madds_millions": profile(student).madds / 1e6, "parameters": student.count_params()}
    results: dict[str, dict[str, Any]] = {name: {} if name == "teacher" else dict(facts) for name in models}
    for name, predict in models.items():
        results[name] |= score(data, answered.val[0], predict)
    (folder / "metrics.json").write_text(json.dumps(results, indent=2))
    print(json.dumps(results, indent=2))
    if args.csv:
        write_rows(Path(args.csv), results)


def load_teacher(weights: str, size: int) -> keras.Model:
    """The large network, of RGB pixels of the student's size."""
    network = MobileNet((TEACHER_SIZE, TEACHER_SIZE, 3), include_top=False, pooling="avg", weights=weights)
    pixels = keras.Input((size, size, 3), name="image")
    large = keras.layers.Resizing(TEACHER_SIZE, TEACHER_SIZE)(pixels)
    return keras.Model(pixels, network(keras.ops.flip(large, -1) - np.array(BGR_MEANS, "float32")), name="teacher")


def score(data: ImageData, images: np.ndarray, predict: Callable[[np.ndarray], np.ndarray]) -> dict[str, float | None]:
    """How well the people that were held out are told apart."""
    task = Embedding(WIDTH)
    labels = np.concatenate([labels for _, labels in data.val.as_numpy_iterator()])
    return task.score(task.decode(in_batches(predict, images)), labels)


def in_batches(predict: Callable[[np.ndarray], np.ndarray], images: np.ndarray, size: int = 50) -> np.ndarray:
    """All answers, some pictures at a time."""
    return np.concatenate([predict(images[at : at + size]) for at in range(0, len(images), size)])


def write_rows(path: Path, results: dict[str, dict[str, Any]]) -> None:
    """The results as a table, one row for each model."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["model", *results["tflite"]], lineterminator="\n")
        writer.writeheader()
        for name, one in results.items():
            shown = {key: round(value, 4) if isinstance(value, float) else value for key, value in one.items()}
            writer.writerow({"model": name, **shown})


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder with one sub-folder of pictures per person")
    parser.add_argument("--teacher", required=True, help="weight file of MobileNetV1 1.0/224 without top")
    parser.add_argument("--weights", help="weight file that the student starts from; random without")
    parser.add_argument("--alpha", type=float, default=0.25)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=30)
    parser.add_argument("--passes", type=int, default=12, help="crops of each picture that the teacher answers")
    parser.add_argument("--epochs", type=int, default=5, help="over all crops")
    parser.add_argument("--quantize-epochs", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="highest; a tenth in 8 bits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="runs/embed", help="folder for the models and metrics.json")
    parser.add_argument("--csv", help="where to write the results as a table, too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
