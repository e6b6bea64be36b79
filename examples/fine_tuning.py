"""Fine-tuning: a network that has seen other digits learns new ones from twenty pictures of each.

    python examples/fine_tuning.py

It is trained on 0 to 4; then its body is taken over to 5 to 9, of which there are about 100. Beside it, the same
network from random weights. The pictures lie in one folder for each class, as yours would.
"""

import argparse
from pathlib import Path

import keras
from matplotlib.figure import Figure
from PIL import Image
from sklearn.datasets import load_digits

from keras_mobilenets import data
from keras_mobilenets.training import build_classifier, fine_tune, fit

parser = argparse.ArgumentParser()
parser.add_argument("picture", nargs="?", default="fine_tuning.png")
parser.add_argument("--epochs", type=int, default=20)
options = parser.parse_args()

keras.utils.set_random_seed(0)
for number, (pixels, label) in enumerate(zip(*load_digits(return_X_y=True), strict=True)):
    if label >= 5 and number >= 700:
        continue
    task, train = ("digits_low", number >= 300) if label < 5 else ("digits_high", number < 200)  # about twenty of each
    folder = Path(task, "train" if train else "val", str(label))
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray((pixels.reshape(8, 8) * 15.9).astype("uint8")).save(folder / f"{number}.png")
low, high = (data.load(f"digits_{task}", image_size=32, batch_size=n) for task, n in (("low", 32), ("high", 16)))

network = {"builder": "MobileNet", "classes": 5, "image_size": 32, "alpha": 0.25, "stem_stride": 2}
pretrained, scratch = build_classifier(**network), build_classifier(**network)
fit(pretrained, low, epochs=options.epochs)
body = keras.Model(pretrained.input, pretrained.get_layer("dropout").input)  # all but its head for other digits
body.save_weights("body.weights.h5")
tuned = build_classifier(**network, weights="body.weights.h5")
curves = {
    "fine-tuned": fine_tune(tuned, high, epochs=options.epochs, learning_rate=3e-3),
    "from random weights": fit(scratch, high, epochs=options.epochs),
}

axes = Figure(figsize=(8, 4.5), layout="constrained").subplots()
for name, history in curves.items():
    accuracies = [100 * share for share in history.history["val_accuracy"]]
    axes.plot(range(1, len(accuracies) + 1), accuracies, "o-", label=f"{name}: {accuracies[-1]:.1f} %")
    print(f"{name}: {accuracies[-1]:.1f} % of {high.val_count} held-out pictures, from {high.train_count}")
axes.set(xlabel=f"epochs over {high.train_count} pictures of the digits 5 to 9", ylabel="accuracy, held out, %")
axes.set_title("What was learned on the digits 0 to 4 helps with 5 to 9")
axes.legend()
axes.figure.savefig(options.picture)
