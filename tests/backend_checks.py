"""Run by test_backends.py with KERAS_BACKEND=jax or torch: all that is checked there, in one process.

It starts in `KERAS_MOBILENETS_SESSION`, a folder with `model.tflite` and `images.npy`, and leaves what TensorFlow is
to look at: a model that was quantized and trained here with its answers, and the integer file's answers.
"""

import os
import signal
from pathlib import Path

import catalog
import keras
import numpy as np
import pytest
from runs import write_colours

import keras_mobilenets as km
from keras_mobilenets.data import load, load_grain
from keras_mobilenets.integer import integer_model
from keras_mobilenets.quantization import FakeQuant, FreezeQuantization, calibrate, deployable, quantize_model
from keras_mobilenets.training import Checkpoint, distribute, fit

FOLDER = Path(os.environ["KERAS_MOBILENETS_SESSION"])
on_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="of JAX")
# Sums over parts of a batch are taken in another order, which rounding carries on for some steps.
TOLERANCE = 1e-4


@pytest.mark.parametrize("row", [row for row in catalog.LAYERS + catalog.BUILDERS if not row.slow], ids=str)
def test_catalogue(row, tmp_path):
    if row in catalog.BUILDERS:
        model = row.make(input_shape=row.input_shape)
    else:
        inputs = keras.Input(row.input_shape)
        model = keras.Model(inputs, row.make()(inputs))
    x = np.random.default_rng(0).uniform(*row.input_range, (2, *row.input_shape)).astype("float32")
    y = keras.ops.convert_to_numpy(model(x))
    assert y.shape == (2, *row.output_shape)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(km.inline(model)(x)), y)
    if model.trainable_weights:
        model.compile("sgd", "mse")
        model.fit(x, np.zeros_like(y), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    answers = [keras.ops.convert_to_numpy(each(x)) for each in (model, loaded)]
    np.testing.assert_array_equal(*answers)


def test_quantized_and_trained():
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (16, 32, 32, 3)).astype("float32")
    labels = rng.integers(0, 3, 16)
    quantized = quantize_model(km.MobileNetV3Small((32, 32, 3), alpha=0.75, weights=None, classes=3))
    calibrate(quantized, images, batch_size=8)
    calibrated = [layer.range for layer in quantized.layers if isinstance(layer, FakeQuant)]
    assert None not in calibrated

    quantized.compile(keras.optimizers.SGD(1e-3), "sparse_categorical_crossentropy")
    quantized.fit(images, labels, batch_size=8, epochs=2, verbose=0, callbacks=[FreezeQuantization(1, 1)])
    trained = [layer.range for layer in quantized.layers if isinstance(layer, FakeQuant)]
    assert trained != calibrated
    observing = [layer for layer in quantized.layers if isinstance(layer, FakeQuant) and layer.weights]
    assert all(float(layer.observed[2]) == 4 for layer in observing)
    quantized.save(FOLDER / "model.keras")
    np.savez(FOLDER / "trained.npz", images=images, answers=quantized.predict(images, verbose=0))
    with pytest.raises(RuntimeError, match="A model is deployed from the TensorFlow backend"):
        deployable(quantized)


@on_jax
def test_integer_file_answers():
    answers = integer_model(FOLDER / "model.tflite").predict(np.load(FOLDER / "images.npy"), verbose=0)
    np.save(FOLDER / "answers.npy", answers)


class Interrupt(keras.callbacks.Callback):
    """Ctrl-C after a step."""

    def __init__(self, epoch, step):
        super().__init__()
        self.position = epoch, step

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.position:
            signal.raise_signal(signal.SIGINT)


def small():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, strides=4, use_bias=False)(keras.layers.Rescaling(1 / 127.5, -1)(inputs))
    x = keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.9)(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))


def trained(data, **options):
    model = small()
    history = fit(model, data, epochs=2, **options).history
    return [keras.ops.convert_to_numpy(one) for one in model.weights], history


def test_fit_takes_grain_is_interrupted_and_goes_on(tmp_path):
    """To the bit; and on JAX on two devices alike."""
    data = load_grain(write_colours(tmp_path, 9), image_size=16, batch_size=4)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs
    whole, history = trained(data)
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    with pytest.raises(KeyboardInterrupt):
        trained(data, checkpoint=Checkpoint(tmp_path / "checkpoints"), callbacks=[Interrupt(1, 1)])
    resumed, again = trained(data, checkpoint=Checkpoint(tmp_path / "checkpoints"))
    assert again == history and all(map(np.array_equal, resumed, whole))
    if keras.backend.backend() == "jax":
        with distribute(2):
            split, _ = trained(data)
        assert max(np.abs(one - other).max() for one, other in zip(split, whole, strict=True)) <= TOLERANCE


def test_all_of_that_without_tensorflow():
    import sys

    assert "tensorflow" not in sys.modules


# From here on TensorFlow reads the pictures.


@on_jax
def test_an_interrupted_run_goes_on(tmp_path):
    from interrupted_script import RECIPE, model

    data = load(write_colours(tmp_path, 30), image_size=16, batch_size=4)
    whole, killed = model(), model()
    history = fit(whole, data, recipe=RECIPE, epochs=3).history
    for position in ((0, 4), (1, 0), (2, 7)):
        checkpoint = Checkpoint(tmp_path / "checkpoints")
        with pytest.raises(KeyboardInterrupt):
            fit(killed, data, recipe=RECIPE, epochs=3, checkpoint=checkpoint, callbacks=[Interrupt(*position)])
        killed = model()
        assert checkpoint.position() == (position[0], position[1] + 1)
    assert (
        fit(killed, data, recipe=RECIPE, epochs=3, checkpoint=Checkpoint(tmp_path / "checkpoints")).history == history
    )
    assert all(np.array_equal(one, other) for one, other in zip(whole.weights, killed.weights, strict=True))


@on_jax
def test_two_devices_train_as_one(tmp_path):
    from devices_script import train

    pictures = write_colours(tmp_path, 26)
    for count in (1, 2):
        with distribute(count) as devices:
            assert devices == count
            train(pictures, tmp_path / f"{count}.npz")
    first, second = np.load(tmp_path / "1.npz"), np.load(tmp_path / "2.npz")
    assert first.files == second.files and len(first.files) == 20
    for name in first.files:
        assert np.abs(first[name] - second[name]).max() <= TOLERANCE, name
