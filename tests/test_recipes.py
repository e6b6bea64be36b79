"""Recipes: the published figures, what they become for another batch size, and what Keras is made to do of them."""

import keras
import numpy as np
import pytest
from runs import slow_but

from keras_mobilenets.layers import inline
from keras_mobilenets.quantization import quantize_model
from keras_mobilenets.training import RECIPES, Recipe, build_classifier, compile_model, recipe


@pytest.mark.parametrize(
    ("name", "batch_size", "rate"),
    [("v1-paper", 64, 0.045), ("v2-paper", 192, 0.09), ("v3-paper", 1024, 0.025), ("scratch", 16, 2.5e-3)],
)
def test_rates_are_scaled_by_batch_size(name, batch_size, rate):
    assert recipe(name).rate(batch_size) == pytest.approx(rate)


def test_averages_look_back_over_as_many_pictures():
    v3 = recipe("v3-paper")
    many = 10**7
    assert v3.momentum(0.9999, batch_size=4096, steps=many) == 0.9999
    assert v3.momentum(0.9999, batch_size=64, steps=many) == pytest.approx(1 - 1e-4 / 64)
    assert v3.momentum(0.9999, batch_size=64, steps=200) == 0.95  # a tenth of a short run
    assert v3.momentum(0.99, batch_size=10**6, steps=200) == 0.0


def test_every_recipe_is_whole():
    for name, one in RECIPES.items():
        assert one.name == name and one.source
        assert one.quantize is None or RECIPES[one.quantize].quantize is None
        assert sum(share for _, share, _ in one.stages) == pytest.approx(1.0 if one.stages else 0.0)
    with pytest.raises(ValueError, match="no recipe 'v3-papr'. Did you mean v3-paper"):
        recipe("v3-papr")


def small():
    return build_classifier("MobileNet", classes=2, image_size=32, alpha=0.25)


def compiled(model, name, **options):
    given = {"epochs": 10, "steps_per_epoch": 100, "batch_size": 64, **options}
    compile_model(model, RECIPES[name] if isinstance(name, str) else name, **given)
    model.optimizer.build(model.trainable_variables)
    return model.optimizer


@pytest.mark.parametrize("quantized", [False, True])
def test_weight_decay_spares_depthwise_kernels_normalizations_and_biases(quantized):
    model = quantize_model(small()) if quantized else small()
    decay = Recipe("decay", "here", 64, 0.1, 10, optimizer="SGD", decay=1.0, l2=0.5)
    optimizer = compiled(model, decay)
    before = {variable.path: np.array(variable) for variable in model.trainable_variables}
    optimizer.apply([keras.ops.zeros_like(variable) for variable in model.trainable_variables])
    decayed = {
        variable.path for variable in model.trainable_variables if not np.array_equal(variable, before[variable.path])
    }
    layers = inline(model).layers
    kernels = [one.kernel for one in layers if isinstance(one, keras.layers.Conv2D | keras.layers.Dense)]
    assert decayed == {kernel.path for kernel in kernels} and len(decayed) == 15
    for kernel in kernels:
        np.testing.assert_allclose(kernel, before[kernel.path] * (1 - 0.5 * 0.1), rtol=1e-6)


def test_schedules():
    optimizer = compiled(small(), "v2-paper", batch_size=96)  # 10 epochs instead of 300: 30 times as fast
    rates = [float(optimizer._learning_rate(step)) for step in (0, 3, 4, 1000)]
    # A step is 3.33, rounded to 3.
    assert rates == pytest.approx([0.045, 0.045 * 0.98, 0.045 * 0.98, 0.045 * 0.98**333], rel=1e-4)  # float32
    optimizer = compiled(small(), "scratch")
    rates = [float(optimizer._learning_rate(step)) for step in (0, 50, 100, 550, 1000)]
    assert rates == pytest.approx([0, 2.5e-3, 5e-3, 2.5e-3, 0], abs=1e-9)
    assert float(compiled(small(), "qat-paper").learning_rate) == pytest.approx(1e-5)
    assert float(compiled(small(), "qat-paper", learning_rate=0.5).learning_rate) == 0.5


def test_smoothed_labels_are_those_of_the_formula():
    model = small()
    smooth = Recipe("smooth", "here", 64, 0.1, 10, label_smoothing=0.2)
    compiled(model, smooth)
    images, labels = np.random.default_rng(0).uniform(0, 255, (8, 32, 32, 3)), np.arange(8) % 2
    scores = model.predict(images).astype("float64")
    vectors = np.eye(2)[labels] * 0.8 + 0.1
    expected = -(vectors * np.log(scores)).sum(-1).mean()
    assert model.evaluate(images, labels, return_dict=True)["loss"] == pytest.approx(expected, rel=1e-4)  # float32


@pytest.mark.parametrize("soft_labels", slow_but([False, True], True))
def test_a_model_is_saved_with_its_loss(soft_labels, tmp_path):
    layers = [keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(), keras.layers.GlobalAveragePooling2D()]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers, keras.layers.Dense(3, activation="softmax")])
    compile_model(model, recipe("v2-paper"), epochs=1, steps_per_epoch=1, batch_size=4)
    images, labels = np.random.uniform(0, 255, (4, 8, 8, 3)), np.array([0, 1, 2, 0])
    labels = np.eye(3, dtype="float32")[labels] if soft_labels else labels
    model.train_on_batch(images, labels)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.evaluate(images, labels, verbose=0), model.evaluate(images, labels, verbose=0))


def test_the_average_of_the_weights_is_evaluated_and_left():
    """Against averages computed here."""
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(inputs))
    x, labels = np.random.default_rng(0).normal(size=(8, 2)).astype("float32"), np.arange(8) % 2
    average = Recipe("average", "here", 8, 0.5, 50, optimizer="SGD", decay=1.0, ema=0.8)
    compile_model(model, average, epochs=50, steps_per_epoch=1, batch_size=8)
    assert model.optimizer.ema_momentum == 0.8
    kernels = []
    keep = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: kernels.append(np.array(model.layers[-1].kernel))
    )
    model.fit(x, labels, epochs=6, batch_size=8, verbose=0, callbacks=[keep])
    expected = kernels[0]
    for kernel in kernels[1:]:
        expected = 0.8 * expected + 0.2 * kernel
    np.testing.assert_allclose(model.layers[-1].kernel, expected, rtol=1e-5)
