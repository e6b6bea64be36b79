"""Training that stops and goes on; classifiers from weights; what is frozen stays; learning from a teacher."""

import dataclasses
import json
import signal
import types
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
from runs import slow_but, write_colours

from keras_mobilenets.applications import MobileNetV2
from keras_mobilenets.data import load
from keras_mobilenets.layers import inline
from keras_mobilenets.quantization import FakeQuant, FreezeQuantization, is_quantized, quantize_model
from keras_mobilenets.tasks import Classification
from keras_mobilenets.training import (
    Checkpoint,
    build_classifier,
    distiller,
    fine_tune,
    fit,
    fit_head,
    freeze_normalization,
    quantize_aware,
    unfreeze,
)

EPOCHS = 4


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two classes that differ in colour; 16 pictures to train on, 4 held out."""
    folder = write_colours(tmp_path_factory.mktemp("colours"), 10, apart=100)
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
    """Ctrl-C in the second step of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.stop = epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (self.stop, 1):
            signal.raise_signal(signal.SIGINT)


def test_fit_learns_and_tells_its_history(data):
    model = small_model()
    history = fit(model, data, epochs=15, learning_rate=0.02)
    assert history.epoch == list(range(15)) and model.history is history
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert history.history["val_accuracy"][-1] == 1.0  # the classes' brightness does not even overlap


@pytest.mark.parametrize("stop", slow_but([0, 2], 2))
def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(data, tmp_path, stop):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background jobs
    whole = small_model()
    history = fit(whole, data, epochs=EPOCHS).history
    with pytest.raises(KeyboardInterrupt):
        fit(small_model(), data, epochs=EPOCHS, checkpoint=Checkpoint(tmp_path), callbacks=[Interrupt(stop)])
    assert Checkpoint(tmp_path).position() == (stop, 2)  # saved after the step in which Ctrl-C came
    resumed = small_model(seed=1)  # another start, which the checkpoint must replace
    assert fit(resumed, data, epochs=EPOCHS, checkpoint=Checkpoint(tmp_path)).history == history
    for one, other in zip(whole.variables, resumed.variables, strict=True):
        assert np.array_equal(one, other), one.path  # to the bit: one CPU, the same pictures, crops and masks
    again = small_model()
    assert fit(again, data, epochs=EPOCHS, checkpoint=Checkpoint(tmp_path)).history == history  # nothing left to do
    assert np.array_equal(again.get_weights()[0], whole.get_weights()[0])


def test_a_damaged_checkpoint_is_passed_over(data, tmp_path):
    fit(small_model(), data, epochs=2, checkpoint=Checkpoint(tmp_path))
    newest = sorted(tmp_path.glob("*.npz"))[-1]
    newest.write_bytes(newest.read_bytes()[:1000])
    model = small_model()
    history = fit(model, data, epochs=2, checkpoint=Checkpoint(tmp_path))
    assert len(history.epoch) == 2
    assert model.optimizer.iterations == 8


def test_the_checkpoint_of_another_model_is_refused(data, tmp_path):
    fit(small_model(), data, epochs=1, checkpoint=Checkpoint(tmp_path))
    inputs = keras.Input((16, 16, 3))
    other = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(keras.layers.Flatten()(inputs)))
    with pytest.raises(ValueError, match="checkpoint of another model"):
        fit(other, data, epochs=2, checkpoint=Checkpoint(tmp_path))


def test_a_loss_that_is_no_number_stops_at_once(data, tmp_path):
    model = small_model()
    fit(model, data, epochs=1, checkpoint=Checkpoint(tmp_path))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(FloatingPointError, match=r"epoch 2, step \d.*train_from\(1, \d\), are in \[.*a lower learning"):
        fit(model, data, epochs=2, learning_rate=1e30, checkpoint=Checkpoint(tmp_path))
    assert sorted(tmp_path.iterdir()) == before  # nothing of it was saved


def test_a_batch_that_is_no_number_is_named(data):
    images = np.full((8, 16, 16, 3), np.nan, "float32")
    batches = tf.data.Dataset.from_tensors((images, np.zeros(8))).repeat()
    broken = types.SimpleNamespace(
        batch_size=8, steps_per_epoch=1, val=data.val, train_from=lambda epoch, step=0: batches
    )
    with pytest.raises(FloatingPointError, match=r"epoch 1, step 1\. The images of its batch.*not all numbers"):
        fit(small_model(), broken, epochs=1)


def test_held_out_arrays_in_another_range_are_warned_of(data):
    pixels, labels = next(data.val.as_numpy_iterator())
    for images, warned in ((pixels, False), (pixels / 255, True)):
        batches = tf.data.Dataset.from_tensors((images, labels)).repeat()
        given = types.SimpleNamespace(
            batch_size=4, steps_per_epoch=1, val=(images, labels), train_from=lambda epoch, step=0, give=batches: give
        )
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            fit(small_model(), given, epochs=1)
        assert [one.filename for one in found if "scaled already" in str(one.message)] == [__file__] * warned


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


@pytest.mark.slow
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
    assert history.history["accuracy"][-1] == 1.0
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


def test_stages_are_unfrozen_from_the_end():
    model = build_classifier("MobileNetV3Small", classes=2, image_size=224, alpha=0.75)
    counts = []
    for stages in (0, 1, 2, None):
        unfreeze(model, stages)
        trained = [layer for layer in inline(model).layers if layer.trainable and layer.weights]
        assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in trained)
        counts.append(len(trained))
    # No layer; the 3 after the last depthwise stride 2, 2 blocks of 5, the last convolutions and the head; ...
    assert counts[0] == 0 and counts[-1] == len([one for one in inline(model).layers if one.weights]) - 34
    assert counts == sorted(set(counts))
    with pytest.raises(ValueError, match="stages=-1"):
        unfreeze(model, -1)


@pytest.mark.slow
def test_fine_tuning_trains_the_head_and_then_the_stages(data, tmp_path):
    def model(seed=0):
        keras.utils.set_random_seed(seed)
        return build_classifier("MobileNet", classes=2, image_size=16, alpha=0.25, momentum=0.1)

    told = []
    tuned = model()
    fit(tuned, data, epochs=2)  # statistics to freeze: with those of random kernels no gradient reaches the stem
    kernels = {name: np.array(inline(tuned).get_layer(name).kernel) for name in ("conv1", "conv_pw_13")}
    history = fine_tune(tuned, data, epochs=3, checkpoints=tmp_path, tell=told.append).history
    assert len(history["loss"]) == 3
    assert [line for line in told if "held out" not in line][1:] == ["its last 2 stages", "the whole network"]
    assert not any(np.array_equal(inline(tuned).get_layer(name).kernel, old) for name, old in kernels.items())
    resumed = model(seed=1)
    assert fine_tune(resumed, data, epochs=3, checkpoints=tmp_path).history == history  # from the checkpoints alone
    assert all(np.array_equal(one, other) for one, other in zip(tuned.weights, resumed.weights, strict=True))


@pytest.mark.parametrize("quantized", slow_but([False, True], True))
def test_a_student_learns_what_only_the_teacher_knows(data, quantized):
    """The teacher calls light pictures the first class; against the labels the student agrees with it."""
    teacher = small_model()
    swapped = types.SimpleNamespace(
        batch_size=data.batch_size,
        steps_per_epoch=data.steps_per_epoch,
        val=data.val.map(lambda images, labels: (images, 1 - labels)),
        train_from=lambda epoch, step=0: data.train_from(epoch, step).map(lambda images, labels: (images, 1 - labels)),
    )
    assert fit(teacher, swapped, epochs=15, learning_rate=0.02).history["val_accuracy"][-1] == 1.0
    student = quantize_model(small_model(seed=1)) if quantized else small_model(seed=1)
    weights = [np.array(weight) for weight in teacher.weights]
    joined = distiller(student, teacher, student_loss_weight=0.0)
    history = fit(joined, data, epochs=15, learning_rate=0.02)
    assert history.history["val_accuracy"][-1] == 0.0
    assert all(map(np.array_equal, weights, teacher.weights))
    images = np.concatenate([images for images, _ in data.val.as_numpy_iterator()])
    assert np.array_equal(student.predict(images).argmax(-1), teacher.predict(images).argmax(-1))


def test_the_distilled_loss_is_that_of_the_formula():
    rng = np.random.default_rng(0)
    inputs = keras.Input((4,))
    models = [keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(inputs)) for _ in range(2)]
    x, labels = rng.normal(size=(8, 4)).astype("float32"), rng.integers(0, 3, 8)
    joined = distiller(*models, temperature=4.0, student_loss_weight=0.25)
    joined.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    student, teacher = (model.predict(x).astype("float64") for model in models)
    soft = [scores ** (1 / 4) / (scores ** (1 / 4)).sum(-1, keepdims=True) for scores in (student, teacher)]
    divergence = (soft[1] * np.log(soft[1] / soft[0])).sum(-1).mean()
    expected = 0.25 * -np.log(student[np.arange(8), labels]).mean() + 0.75 * 16 * divergence
    assert joined.evaluate(x, labels, return_dict=True)["loss"] == pytest.approx(expected, rel=1e-4)  # float32


def test_an_embedding_is_learned_by_squared_difference(data):
    def embedding(seed):
        model = small_model(seed)
        return keras.Model(model.input, keras.layers.Dense(6)(model.layers[-2].output))

    teacher, student = embedding(0), embedding(1)
    history = fit(distiller(student, teacher, embeddings=True), data, epochs=15, learning_rate=0.02).history
    assert history["val_loss"][-1] < history["val_loss"][0] / 4
    images, _ = next(data.val.as_numpy_iterator())
    difference = np.mean((student.predict(images) - teacher.predict(images)) ** 2)
    assert history["val_loss"][-1] == pytest.approx(difference, rel=1e-4)  # one batch of four pictures
    with pytest.raises(ValueError, match="must end in a softmax"):
        distiller(student, teacher)


@dataclasses.dataclass(frozen=True)
class Brightness(Classification):
    """A task of two outputs whose headline is no metric of Keras', and whose truth is a dictionary."""

    outputs: tuple[str, ...] = ("mean", "scores")
    headline = "closeness"

    def encode(self, targets):
        return {"mean": keras.ops.cast(targets["label"], "float32"), "scores": targets["label"]}

    def losses(self, recipe):
        return {"loss": {"mean": "mse", "scores": "sparse_categorical_crossentropy"}}

    def decode(self, outputs, image_size=None):
        assert image_size == (16, 16)
        return list(outputs["mean"][:, 0])

    def score(self, answers, truth):
        return {"closeness": float(np.mean([1 - abs(a - t["label"]) for a, t in zip(answers, truth, strict=True)]))}


def test_another_task_needs_nothing_of_fit(data, tmp_path):
    """Targets by name, encoded in the pipeline; a headline that is decoded and scored; the best epoch by it."""

    def named(batches):
        return batches.map(lambda images, labels: (images, {"label": labels}))

    labelled = types.SimpleNamespace(
        batch_size=data.batch_size,
        steps_per_epoch=data.steps_per_epoch,
        val=named(data.val),
        train_from=lambda epoch, step=0: named(data.train_from(epoch, step)),
    )

    def model():
        base = small_model()
        mean = keras.layers.Dense(1, name="mean")(base.layers[-2].output)
        return keras.Model(base.input, {"mean": mean, "scores": base.output})

    with pytest.raises(ValueError, match="pass `task`"):
        fit(model(), labelled, epochs=1)
    options = {"task": Brightness(2), "epochs": 3, "learning_rate": 0.02}
    whole = model()
    history = fit(whole, labelled, checkpoint=Checkpoint(tmp_path / "whole"), keep_best=True, **options).history
    best = np.argmax(history["val_closeness"])
    assert json.loads((tmp_path / "whole" / "best.json").read_text())["epoch"] == best + 1
    images, labels = (np.concatenate(parts) for parts in zip(*data.val.as_numpy_iterator(), strict=True))
    closeness = 1 - np.abs(whole.predict(images)["mean"][:, 0] - labels).mean()
    assert closeness == pytest.approx(history["val_closeness"][best], abs=1e-5)  # float32, in other batches
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        fit(model(), labelled, checkpoint=Checkpoint(tmp_path / "cut"), callbacks=[Interrupt(1)], **options)
    again = fit(model(), labelled, checkpoint=Checkpoint(tmp_path / "cut"), **options).history
    assert again == history  # the sums of each output's loss were saved, too
    with pytest.raises(ValueError, match="`keep_best` needs a `checkpoint`"):
        fit(model(), labelled, keep_best=True, **options)


def test_quantize_aware_is_the_whole_sequence(data):
    model = small_model()
    given = [np.array(weight) for weight in model.weights]
    quantized = quantize_aware(model, data, epochs=2, learning_rate=1e-3)
    assert all(map(np.array_equal, given, model.weights))
    assert is_quantized(quantized) and len(quantized.history.history["val_accuracy"]) == 2
    for layer in inline(quantized).layers:
        assert not (isinstance(layer, keras.layers.BatchNormalization) and layer.trainable)
        if isinstance(layer, FakeQuant):
            layer.check()  # has seen data
    best = max(quantized.history.history["val_accuracy"])
    assert quantized.evaluate(data.val, verbose=0, return_dict=True)["accuracy"] == pytest.approx(best)
    freeze = FreezeQuantization(0, 0)
    again = quantize_aware(quantize_model(model, target="edgetpu"), data, epochs=1, freeze=freeze)
    norms = [one for one in inline(again).layers if isinstance(one, keras.layers.BatchNormalization)]
    assert all(layer.frozen for layer in inline(again).layers if isinstance(layer, FakeQuant))
    assert norms and all(layer.trainable and layer.frozen_statistics for layer in norms)
