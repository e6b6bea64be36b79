"""Transfer learning to an integer model: a classifier of one's own photographs, as the papers apply MobileNets.

    python applications/classify.py flowers/ --weights imagenet

`flowers/` holds one sub-folder per class (or `train/` and `val/` with those). The steps, each a few lines below:

1. the head alone, on features that the frozen network computes once;
2. the whole network at a low rate, its batch normalization frozen in inference mode;
3. the same with 8-bit arithmetic simulated, so that the network learns to live with it;
4. conversion to a `.tflite` file that computes in integers throughout, and a comparison on the held-out pictures.

Measured results are in README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import keras
import numpy as np

from keras_mobilenets.data import ImageData, load
from keras_mobilenets.export import export_tflite
from keras_mobilenets.tflite import TFLiteModel
from keras_mobilenets.training import build_classifier, fit, fit_head, freeze_normalization, quantize_aware


def main() -> None:
    """Does what the head of this file says."""
    args = parse_arguments()
    keras.utils.set_random_seed(args.seed)
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)

    data = load(args.data, image_size=args.image_size, batch_size=args.batch_size, seed=args.seed)
    print(f"{data.train_count} pictures of {', '.join(data.class_names)}; {data.val_count} held out")
    for line in data.broken:
        print("left out:", line)

    model = build_classifier(
        args.model,
        classes=len(data.class_names),
        image_size=args.image_size,
        alpha=args.alpha,
        weights=args.weights,
    )
    show("head", fit_head(model, data, epochs=args.head_epochs))

    freeze_normalization(model)
    show("fine-tuning", fit(model, data, epochs=args.epochs, learning_rate=args.learning_rate, verbose=2))
    model.save(folder / "float.keras")

    rate = args.learning_rate / 10
    quantized = quantize_aware(model, data, epochs=args.quantize_epochs, learning_rate=rate, verbose=2)
    show("8 bits", quantized.history)
    quantized.save(folder / "qat.keras")

    export_tflite(quantized, folder / "model.tflite", labels=data.class_names, verify=data.val, strict=True)
    results = evaluate(data, {"float": model, "qat": quantized, "tflite": TFLiteModel(folder / "model.tflite")})
    (folder / "metrics.json").write_text(json.dumps(results, indent=2))
    print(json.dumps(results, indent=2))


def evaluate(data: ImageData, models: dict[str, keras.Model | TFLiteModel]) -> dict[str, float]:
    """Top-1 accuracy of each on the same held-out pictures, and how often the file agrees with the float model."""
    answers: dict[str, list[np.ndarray]] = {name: [] for name in models}
    labels = []
    for images, classes in data.val.as_numpy_iterator():
        labels.append(classes)
        for name, model in models.items():
            scores = model.predict(images) if isinstance(model, TFLiteModel) else model.predict_on_batch(images)
            answers[name].append(scores.argmax(-1))
    chosen = {name: np.concatenate(parts) for name, parts in answers.items()}
    results = {f"{name} top-1": float(np.mean(one == np.concatenate(labels))) for name, one in chosen.items()}
    return {**results, "tflite agrees with float": float(np.mean(chosen["tflite"] == chosen["float"]))}


def show(phase: str, history: keras.callbacks.History) -> None:
    """Prints where a phase ended."""
    loss, accuracy = (history.history[name][-1] for name in ("loss", "val_accuracy"))
    print(f"{phase}: loss {loss:.3f}, held out {accuracy:.2%}", flush=True)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder with one sub-folder of pictures per class, or a TFDS name")
    parser.add_argument("--weights", default="imagenet", help="'imagenet' or a weight file")
    parser.add_argument("--model", default="MobileNetV2")
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--head-epochs", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=6, help="of fine-tuning")
    parser.add_argument("--quantize-epochs", type=int, default=1)
    parser.add_argument("--learning-rate", type=float, default=2e-4, help="highest of fine-tuning; a tenth in 8 bits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="runs/classify", help="folder for the models and metrics.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
