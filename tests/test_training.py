"""Training that stops anywhere and goes on; classifiers from weights; what is frozen stays."""

import keras
import numpy as np
import pytest
from PIL import Image

from keras_mobilenets.applications import MobileNetV2
from keras_mobilenets.data import load
from keras_mobilenets.layers import inline
from keras_mobilenets.training import Checkpoint, build_classifier, fit, fit_head, freeze_normalization

EPOCHS = 4


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two classes that differ in colour; 16 pictures to train on, 4 held out."""
    folder = tmp_path_factory.mktemp("colours")
    random = np.random.default_rng(0)
    for label, name in enumerate(("dark", "light")):
        (folder / name).mkdir()
        for index in range(10):
            pixels = random.integers(100 * label, 100 * label + 120, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return load(folder, image_size=16, batch_size=4)


def small_model(seed=0):
    """Every kind of state that training changes: weights, moving averages, a random layer's seed."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, strides=4)(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.Flatten()(keras.layers.BatchNormalization(momentum=0.9)(x))
    x = keras.layers.Dropout(0.3, seed=1)(x)
    return keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))


class Interrupt(keras.callbacks.Callback):
    """Ctrl-C in the middle of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.stop = epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (self.stop, 1):
            raise KeyboardInterrupt


def test_fit_learns_and_tells_its_history(data):
    history = fit(small_model(), data, epochs=15, learning_rate=0.01)
    assert len(history) == 15
    assert set(history[0]) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert history[-1]["val_accuracy"] == 1.0  # the classes' brightness does not even overlap


@pytest.mark.parametrize("stop", [0, 2])
def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(data, tmp_path, stop):
    whole = small_model()
    history = fit(whole, data, epochs=EPOCHS)
    with pytest.raises(KeyboardInterrupt):
        fit(small_model(), data, epochs=EPOCHS, checkpoint=Checkpoint(tmp_path), callbacks=[Interrupt(stop)])
    assert Checkpoint(tmp_path).epochs_done() == stop
    resumed = small_model(seed=0 if stop == 0 else 1)  # another start, which the checkpoint must replace
    assert fit(resumed, data, epochs=EPOCHS, checkpoint=Checkpoint(tmp_path)) == history
    for one, other in zip(whole.variables, resumed.variables, strict=True):
        assert np.array_equal(one, other), one.path  # to the bit: one CPU, the same pictures, crops and masks
    again = small_model()
    assert fit(again, data, epochs=EPOCHS, checkpoint=Checkpoint(tmp_path)) == history  # nothing left to do
    assert np.array_equal(again.get_weights()[0], whole.get_weights()[0])


def test_a_damaged_checkpoint_is_passed_over(data, tmp_path):
    fit(small_model(), data, epochs=2, checkpoint=Checkpoint(tmp_path))
    newest = sorted(tmp_path.glob("*.npz"))[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    model = small_model()
    history = fit(model, data, epochs=2, checkpoint=Checkpoint(tmp_path))
    assert len(history) == 2
    assert len(list(tmp_path.glob("*.npz"))) == 2  # the two newest are kept


def test_a_full_disk_leaves_the_checkpoints_whole(data, tmp_path, monkeypatch):
    fit(small_model(), data, epochs=1, checkpoint=Checkpoint(tmp_path))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def full(path, **arrays):
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space left"):
        fit(small_model(), data, epochs=2, checkpoint=Checkpoint(tmp_path))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_checkpoint_of_another_model_is_refused(data, tmp_path):
    fit(small_model(), data, epochs=1, checkpoint=Checkpoint(tmp_path))
    inputs = keras.Input((16, 16, 3))
    other = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(inputs)))
    with pytest.raises(ValueError, match="checkpoint of another model"):
        fit(other, data, epochs=2, checkpoint=Checkpoint(tmp_path))


def test_a_loss_that_is_no_number_stops_at_once(data):
    model = small_model()
    model.layers[-1].kernel.assign(np.full(model.layers[-1].kernel.shape, np.nan))
    with pytest.raises(FloatingPointError, match=r"epoch 1, step 1\b.*learning rate"):
        fit(model, data, epochs=1)


@pytest.mark.parametrize("builder", ["MobileNet", "MobileNetV2", "MobileNetV3Small", "MobileNetV3Large"])
def test_classifiers_take_pixels(builder):
    model = build_classifier(builder, classes=3, image_size=32, alpha=0.35)
    assert model.output_shape == (None, 3)
    assert [layer.name for layer in model.layers[-2:]] == ["dropout", "predictions"]
    scalings = [layer for layer in inline(model).layers if isinstance(layer, keras.layers.Rescaling)]
    assert [(layer.scale, layer.offset) for layer in scalings] == [(1 / 127.5, -1)]


@pytest.mark.parametrize(("size", "height"), [(16, 2), (32, 4), (64, 4), (128, 4), (160, 5)])
def test_small_images_get_a_small_stem(size, height):
    model = build_classifier("MobileNetV2", classes=2, image_size=size, alpha=0.35)
    assert inline(model).get_layer("out_relu").output.shape[1] == height


def test_weights_with_and_without_top_give_the_same_features(tmp_path):
    keras.utils.set_random_seed(1)
    whole = MobileNetV2((32, 32, 3), alpha=0.35, weights=None, classes=1000)
    base = MobileNetV2((32, 32, 3), alpha=0.35, weights=None, include_top=False)
    for layer in base.layers[1:]:
        layer.set_weights(whole.get_layer(layer.name).get_weights())
    whole.save_weights(tmp_path / "top.weights.h5")
    base.save_weights(tmp_path / "no_top.weights.h5")
    kernels = []
    for name in ("top", "no_top"):
        weights = tmp_path / f"{name}.weights.h5"
        model = build_classifier("MobileNetV2", classes=2, image_size=32, alpha=0.35, weights=weights)
        kernels.append(inline(model).get_layer("block_16_project").kernel.numpy())
        assert np.array_equal(kernels[-1], inline(whole).get_layer("block_16_project").kernel)
    with pytest.raises(ValueError, match="does not fit"):
        build_classifier("MobileNetV2", classes=2, image_size=32, alpha=0.5, weights=tmp_path / "top.weights.h5")


@pytest.mark.parametrize("wrong", [{"builder": "MobileNetV4"}, {"classes": 1}, {"alpha": 0}])
def test_classifier_arguments_are_checked(wrong):
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        build_classifier(**{"builder": "MobileNetV2", "classes": 2, "image_size": 32, **wrong})


def test_fit_head_trains_the_last_layer_alone(data):
    model = small_model()
    before = [np.array(weight) for weight in model.weights]
    history = fit_head(model, data, epochs=40, passes=4, learning_rate=0.05)
    changed = {w.path for w, b in zip(model.weights, before, strict=True) if not np.array_equal(w, b)}
    assert changed == {weight.path for weight in model.layers[-1].weights}
    assert history[-1]["accuracy"] == 1.0
    body = keras.Model(model.input, model.layers[-1].input)
    with pytest.raises(ValueError, match="must end in a Dense layer"):
        fit_head(body, data)


def test_frozen_normalization_keeps_its_statistics(data):
    model = build_classifier("MobileNetV2", classes=2, image_size=16, alpha=0.35)
    freeze_normalization(model)
    normalizations = [one for one in inline(model).layers if isinstance(one, keras.layers.BatchNormalization)]
    kernel = inline(model).get_layer("block_3_expand").kernel
    before = [np.array(weight) for layer in normalizations for weight in layer.weights], np.array(kernel)
    fit(model, data, epochs=1)
    after = [np.array(weight) for layer in normalizations for weight in layer.weights]
    assert len(normalizations) == 52
    assert all(map(np.array_equal, before[0], after))
    assert not np.array_equal(before[1], kernel)
