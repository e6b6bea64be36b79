"""Distillation: a student learns from a teacher's answers alone, on pictures that nobody has labelled.

    python examples/distillation.py

A large model has had labels for all pictures, a small one for 128 of them. The V1 paper trains face attribute
classifiers so, to "emulate the outputs of a larger model instead of the ground-truth labels": arXiv:1704.04861, section
4.5. Where the student has labels as well: `fit(student, data, teacher=teacher)`.
"""

import argparse

import keras
from matplotlib.figure import Figure

from keras_mobilenets import data
from keras_mobilenets.training import build_classifier, distiller

parser = argparse.ArgumentParser()
parser.add_argument("picture", nargs="?", default="distillation.png")
parser.add_argument("--epochs", type=int, default=8)
options = parser.parse_args()

keras.utils.set_random_seed(0)
digits = data.load("digits", image_size=32, batch_size=64)
teacher, alone, taught = (
    build_classifier("MobileNet", classes=10, image_size=32, alpha=alpha, stem_stride=2) for alpha in (0.5, 0.25, 0.25)
)


def train(model, pictures, from_logits=False):
    """The accuracy on held-out digits after each epoch."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"], jit_compile=False)
    steps = {"epochs": options.epochs, "steps_per_epoch": digits.steps_per_epoch}
    history = model.fit(pictures, validation_data=digits.val, verbose=0, **steps).history
    return [100 * accuracy for accuracy in history["val_accuracy"]]


everything, few = digits.train_from(0), digits.train.take(2).cache().repeat()
curves = {
    f"teacher, {digits.train_count} labels": train(teacher, everything),
    f"student, {2 * digits.batch_size} labels": train(alone, few),
    "student, the teacher's answers": train(distiller(taught, teacher, student_loss_weight=0.0), everything, True),
}
axes = Figure(figsize=(8, 4.5), layout="constrained").subplots()
for name, accuracies in curves.items():
    axes.plot(range(1, options.epochs + 1), accuracies, "o-", label=f"{name}: {accuracies[-1]:.1f} %")
    print(f"{name}: {accuracies[-1]:.1f} % of {digits.val_count} held-out digits")
axes.set(xlabel=f"epochs of {digits.steps_per_epoch} steps", ylabel="accuracy on held-out digits, %")
axes.set_title("A teacher's answers to unlabelled pictures, in place of labels")
axes.legend()
axes.figure.savefig(options.picture)
