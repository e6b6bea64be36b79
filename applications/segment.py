"""Segmentation of one's own pictures, from a folder of masks to an integer model that a phone opens.

    python applications/segment.py CAMVID/ --ignore 11 --image-size 192 256 --weights weights_mobilenet_v3_small.h5

`CAMVID/` holds pictures and masks, or pictures and COCO's polygons. The steps, each a few lines below:

1. LR-ASPP on a MobileNet, from ImageNet weights, trained on scaled, moved and mirrored pictures;
2. the same with 8-bit arithmetic simulated, so that the network learns to live with it;
3. conversion to a `.tflite` file that computes in integers throughout, and the mean overlap (mIoU) of all three.

Measured results are in README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import keras

from keras_mobilenets.data import load_segmentation
from keras_mobilenets.export import export_tflite
from keras_mobilenets.tasks import Segmentation
from keras_mobilenets.tflite import TFLiteModel
from keras_mobilenets.training import build_model, fit, quantize_aware, recipe
from keras_mobilenets.training.fitting import held_out_score


def main() -> None:
    """Does what the head of this file says."""
    args = parse_arguments()
    keras.utils.set_random_seed(args.seed)
    folder = Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)

    size = tuple(args.image_size) if args.image_size else None
    options = {"batch_size": args.batch_size, "seed": args.seed, "ignore": args.ignore}
    data = load_segmentation(args.data, image_size=size, **options)
    print(f"{data.train_count} pictures of {', '.join(data.class_names)}; {data.val_count} held out")
    for line in data.broken:
        print("left out:", line)

    task = Segmentation(len(data.class_names), decoder=args.decoder)
    chosen = recipe("segmentation-finetune" if args.weights else "segmentation")
    options = {"alpha": args.alpha, "weights": args.weights, "momentum": chosen.batch_norm_momentum}
    model = build_model(args.model, task, image_size=data.image_size, **options)
    fit(model, data, task=task, recipe=chosen, epochs=args.epochs, verbose=2)
    model.save(folder / "float.keras")

    qat = recipe("segmentation-qat")
    quantized = quantize_aware(model, data, task=task, recipe=qat, epochs=args.quantize_epochs, verbose=2)
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
    parser.add_argument("data", help="folder of pictures and masks, or a TFDS name such as scattered_digits")
    parser.add_argument("--weights", help="'imagenet' or a weight file; by default random")
    parser.add_argument("--model", default="MobileNetV3Small")
    parser.add_argument("--decoder", default="lraspp", help="lraspp, deeplab or deeplab_aspp")
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--image-size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="multiples of 32")
    parser.add_argument("--ignore", type=int, default=255, help="value of pixels that are neither right nor wrong")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--epochs", type=int, help="the recipe's if not given")
    parser.add_argument("--quantize-epochs", type=int, help="likewise")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="runs/segment", help="folder for the models and metrics.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()
