"""Run by test_training_interrupted.py: a training that is killed again and again, and one that is not.

TensorFlow is imported once; each life of the training is a fork from before TensorFlow has threads, so that it begins
in a second.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import keras
import tensorflow as tf

from keras_mobilenets.data import load
from keras_mobilenets.quantization import quantize_model
from keras_mobilenets.training import Checkpoint, JsonLines, Recipe, fit
from keras_mobilenets.training.logs import rows_of
from keras_mobilenets.utils import atomic_path

EPOCHS = 10
RECIPE = Recipe(
    name="test",
    source="every kind of state: schedule, momentum, weight decay, EMA",
    batch_size=4,
    learning_rate=1e-2,
    epochs=EPOCHS,
    optimizer="RMSprop",
    options={"momentum": 0.9},
    l2=1e-4,
    label_smoothing=0.1,
    ema=0.9,
)


class Steps(keras.callbacks.Callback):
    """Writes a byte to a pipe as each step that is really done begins."""

    def __init__(self, pipe, checkpoint):
        super().__init__()
        self.pipe, self.checkpoint = pipe, checkpoint

    def on_train_batch_begin(self, batch, logs=None):
        if batch >= self.checkpoint.step:
            os.write(self.pipe, b".")


def model():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, strides=4, use_bias=False)(keras.layers.Rescaling(1 / 127.5, -1)(inputs))
    x = keras.layers.ReLU(6.0)(keras.layers.BatchNormalization(momentum=0.9)(x))
    x = keras.layers.Dropout(0.3)(keras.layers.GlobalAveragePooling2D()(x))
    return quantize_model(keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x)))


def train(folder, pictures, pipe):
    """One life of the training."""
    tf.config.experimental.enable_op_determinism()
    data = load(pictures, image_size=16, batch_size=4)
    trained = model()
    checkpoint = Checkpoint(folder / "checkpoints", every=1)
    log = JsonLines(folder / "log.jsonl", every=1)
    history = fit(
        trained, data, recipe=RECIPE, epochs=EPOCHS, checkpoint=checkpoint, callbacks=[log, Steps(pipe, checkpoint)]
    )
    with atomic_path(folder / "history.json") as path:
        path.write_text(json.dumps(rows_of(history)))
    trained.save_weights(folder / "final.weights.h5")


def live(folder, pictures, number=None, steps=0, delay=0.0):
    """Forks a training, and sends it a signal some time after some steps; gives how it ended."""
    folder.mkdir(exist_ok=True)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        try:
            train(folder, pictures, writing)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(9)
        os._exit(0)
    os.close(writing)
    for _ in range(steps):
        if not os.read(reading, 1):
            break
    time.sleep(delay)
    if number is not None:
        os.kill(child, number)
    status = os.waitpid(child, 0)[1]
    os.close(reading)
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def main(folder, pictures, kills):
    draw = random.Random(0)
    assert live(folder / "whole", pictures) == 0
    ends = []
    for _ in range(kills):
        ends.append(live(folder / "killed", pictures, signal.SIGKILL, draw.randint(1, 4), draw.uniform(0, 0.01)))
    ends.append(live(folder / "killed", pictures, signal.SIGTERM, 3))
    left = sorted(path.name for path in (folder / "killed" / "checkpoints").iterdir())
    ends.append(live(folder / "killed", pictures))
    print(json.dumps({"ends": ends, "left": left}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
