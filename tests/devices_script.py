"""Run by test_devices.py: quantization-aware training on the devices and in the job of the environment."""

import os
import signal
import sys
from pathlib import Path

import keras
import numpy as np

from keras_mobilenets.data import load
from keras_mobilenets.quantization import quantize_model
from keras_mobilenets.training import Checkpoint, Recipe, distribute, fit

RECIPE = Recipe(
    name="test",
    source="momentum, schedule and EMA",
    batch_size=8,
    learning_rate=1e-2,
    epochs=3,
    optimizer="SGD",
    options={"momentum": 0.9},
    ema=0.9,
)


class Die(keras.callbacks.Callback):
    """Ends this process as the kernel does, after some steps."""

    def __init__(self, steps):
        super().__init__()
        self.left = steps

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)


def model():
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3, strides=2, use_bias=False)(keras.layers.Rescaling(1 / 127.5, -1)(inputs))
    x = keras.layers.ReLU(6.0)(keras.layers.BatchNormalization(momentum=0.9)(x))
    x = keras.layers.DepthwiseConv2D(3, use_bias=False)(x)
    x = keras.layers.ReLU(6.0)(keras.layers.BatchNormalization(momentum=0.9)(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return quantize_model(keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x)))


def train(pictures, output, checkpoints=None, die=0):
    keras.utils.set_random_seed(0)
    trained = model()
    data = load(pictures, image_size=16, batch_size=8)
    callbacks = [Die(die)] if die else []
    checkpoint = Checkpoint(checkpoints, every=1) if checkpoints else None
    history = fit(trained, data, recipe=RECIPE, checkpoint=checkpoint, callbacks=callbacks)
    weights = {str(index): keras.ops.convert_to_numpy(one) for index, one in enumerate(trained.weights)}
    np.savez(output, **weights, loss=history.history["loss"], val=history.history["val_loss"])


def main(pictures, output, devices, checkpoints="", die="0"):
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    with distribute(devices if devices == "all" else int(devices)) as count:
        print("devices", count)
        train(Path(pictures), output, checkpoints, int(die))


if __name__ == "__main__":
    main(*sys.argv[1:])
