"""A detector of one's own, from a folder of annotated pictures to an integer model that a phone opens.

    python applications/detect.py BCCD/ --weights weights_mobilenet_v3_small_224_1.0_float.h5

`BCCD/` holds pictures with boxes in the form of COCO, Pascal VOC, YOLO or a CSV. The steps, each a few lines below:

1. how the anchors cover the boxes: what no anchor covers is not found;
2. SSDLite on a MobileNet, from ImageNet weights, trained with SSD's crop and the focal loss;
3. the same with 8-bit arithmetic simulated, so that the network learns to live with it;
4. conversion to a `.tflite` file, integer up to the choice of the boxes, and COCO's average precision of all three.

Measured results are in README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import keras

from keras_mobilenets.data import load_detection
from keras_mobilenets.export import export_tflite
from keras_mobilenets.tasks import Detection
from keras_mobilenets.tflite import TFLiteModel
from keras_mobilenets.training import build_model, fit, quantize_aware, recipe
from keras_mobilenets.training.fitting import held_out_score


def main() -> None:
    """Does what the head of this file says."""
    args = parse_arguments()
    keras.utils.set_random_seed(args.seed)
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)

    data = load_detection(args.data, image_size=args.image_size, batch_size=args.batch_size, seed=args.seed)
    print(f"{data.train_count} pictures of {', '.join(data.class_names)}; {data.val_count} held out")
    for line in data.broken:
        print("left out:", line)
    task = Detection(len(data.class_names), image_size=data.image_size, alpha=args.alpha)
    print("\n".join(task.examine(data.targets())))

    chosen = recipe("detection-finetune" if args.weights else "detection")
    options = {"alpha": args.alpha, "weights": args.weights, "momentum": chosen.batch_norm_momentum}
    model = build_model(args.model, task, image_size=data.image_size, **options)
    fit(model, data, task=task, recipe=chosen, epochs=args.epochs, verbose=2)
    model.save(folder / "float.keras")

    quantized = quantize_aware(model, data, task=task, recipe="detection-qat", epochs=args.quantize_epochs, verbose=2)
    quantized.save(folder / "qat.keras")

    path = folder / "model.tflite"
    export_tflite(quantized, path, task=task, labels=data.class_names, verify=data.val, strict=True)
    predictions = {
        "float": model.predict_on_batch,
        "qat": quantized.predict_on_batch,
        "tflite": TFLiteModel(path).predict,
    }
    results = {name: held_out_score(predict, data, task) for name, predict in predictions.items()}
    (folder / "metrics.json").write_text(json.dumps(results, indent=2))
    print(json.dumps(results, indent=2))


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder of annotated pictures, or a TFDS name")
    parser.add_argument("--weights", help="'imagenet' or a weight file; by default random")
    parser.add_argument("--model", default="MobileNetV3Small")
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--image-size", type=int, default=320)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--epochs", type=int, help="the recipe's if not given")
    parser.add_argument("--quantize-epochs", type=int, help="likewise")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="runs/detect", help="folder for the models and metrics.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
