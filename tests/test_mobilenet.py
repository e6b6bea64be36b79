"""The builders against keras.applications: signatures, parameters, names and answers, exactly."""

import inspect

import keras
import numpy as np
import pytest

from keras_mobilenets import applications, inline
from keras_mobilenets.applications import variants
from keras_mobilenets.layers import BatchNormalization

NETWORKS = sorted({(v.builder, v.alpha, v.minimalistic) for v in variants.VARIANTS})
NARROWEST = {network[0]: network for network in reversed(NETWORKS)}
QUICK = [NARROWEST[name] for name in ("MobileNet", "MobileNetV2", "MobileNetV3Small")]
networks = pytest.mark.parametrize(
    ("builder", "alpha", "minimalistic"),
    [one if one in QUICK else pytest.param(*one, marks=pytest.mark.slow) for one in NETWORKS],
    ids=lambda value: {True: "minimalistic", False: ""}.get(value, str(value)) if isinstance(value, bool) else None,
)


def build(package, builder, minimalistic=False, **kwargs):
    kwargs = {**kwargs, "minimalistic": True} if minimalistic else kwargs
    return getattr(package, builder)(weights=None, **kwargs)


def twins(builder, **kwargs):
    """keras.applications' model with batch normalization off its initial values, and ours with the same weights."""
    theirs, ours = (build(package, builder, **kwargs) for package in (keras.applications, applications))
    rng = np.random.default_rng(0)
    for layer in theirs.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            statistics = [rng.uniform(0.5, 1.5, shape), rng.normal(0, 0.1, shape), rng.normal(0, 0.1, shape)]
            layer.set_weights([*statistics, rng.uniform(0.5, 1.5, shape)])
    flat = inline(ours)
    for layer in theirs.layers:
        if layer.weights:
            flat.get_layer(layer.name).set_weights(layer.get_weights())
    return theirs, ours


def images(builder, rng, *size):
    pixels = rng.uniform(0, 255, (1, *size, 3)).astype("float32")
    return pixels if "V3" in builder else pixels / 127.5 - 1


def assert_equal_answers(theirs, ours, x, monkeypatch):
    """Nothing at all differs where the operations come in the same order: layer by layer, Keras' own normalization."""
    expected = keras.ops.convert_to_numpy(theirs(x))
    assert expected.std() > 0.01  # else any two models would be equal
    with monkeypatch.context() as patch:
        patch.setattr(BatchNormalization, "call", keras.layers.BatchNormalization.call)
        np.testing.assert_array_equal(inline(ours)(x), expected)


def assert_close_answers(theirs, ours, x):
    """As shipped, batch normalization scales the kernel before the convolution, and Keras the sum behind it.

    Each is rounded once or twice on the way, by up to 6e-8 of values around 1.
    """
    np.testing.assert_allclose(ours(x), theirs(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("builder", dict.fromkeys(one.builder for one in variants.VARIANTS))
def test_positional_signature_is_that_of_the_installed_keras(builder):
    theirs, ours = (inspect.signature(getattr(p, builder)).parameters for p in (keras.applications, applications))
    positional = [p for p in ours.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert [(p.name, p.default) for p in positional] == [(p.name, p.default) for p in theirs.values()]
    assert all(p.kind is p.KEYWORD_ONLY for p in list(ours.values())[len(positional) :])


@networks
def test_equals_keras_applications_with_top(builder, alpha, minimalistic, rng, monkeypatch):
    arguments = {"input_shape": (96, 96, 3), "alpha": alpha, "minimalistic": minimalistic}
    theirs, ours = twins(builder, **arguments, classifier_activation=None)  # logits: the softmax hides differences
    assert ours.name == theirs.name
    assert ours.count_params() == theirs.count_params()
    assert {ours.count_params()} == {
        v.parameters for v in variants.published(builder, alpha=alpha, minimalistic=minimalistic)
    }
    names = [[layer.name for layer in model.layers if layer.weights] for model in (theirs, inline(ours))]
    assert names[0] == names[1]
    x = images(builder, rng, 96, 96)
    assert_equal_answers(theirs, ours, x, monkeypatch)
    assert_close_answers(theirs, ours, x)


@networks
def test_equals_keras_applications_without_top(builder, alpha, minimalistic, rng, monkeypatch):
    arguments = {"input_shape": (None, None, 3), "alpha": alpha, "minimalistic": minimalistic}
    theirs, ours = twins(builder, **arguments, include_top=False)
    assert ours.name == theirs.name
    assert ours.count_params() == theirs.count_params()
    published = {v.size for v in variants.published(builder, alpha=alpha, minimalistic=minimalistic)}
    for size in sorted({(size, size) for size in published | {96, 160}} | {(64, 96)}):
        assert_equal_answers(theirs, ours, images(builder, rng, *size), monkeypatch)


@pytest.mark.parametrize("builder", ["MobileNetV2", "MobileNetV3Small"])
@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_equals_keras_applications_at_odd_sizes(builder, pooling, rng, monkeypatch):
    """Maps of 25, 13 and 7 rows: "same" pads as keras.applications' explicit padding does (V1's does not)."""
    theirs, ours = twins(builder, input_shape=(100, 70, 3), include_top=False, pooling=pooling)
    assert ours.output_shape == theirs.output_shape
    assert_equal_answers(theirs, ours, images(builder, rng, 100, 70), monkeypatch)


def test_probabilities_and_depth_multiplier(rng, monkeypatch):
    theirs, ours = twins("MobileNet", input_shape=(64, 64, 3), alpha=0.25, depth_multiplier=2, classes=3)
    x = images("MobileNet", rng, 64, 64)
    assert ours.count_params() == theirs.count_params()
    assert_equal_answers(theirs, ours, x, monkeypatch)
    np.testing.assert_allclose(np.sum(ours(x)), 1, atol=1e-6)  # three float32 that were rounded


@pytest.mark.parametrize(
    ("builder", "arguments", "expected"),
    [
        ("MobileNet", {}, 3_228_864),
        ("MobileNet", {"alpha": 0.75}, 1_832_976),
        ("MobileNet", {"alpha": 0.5}, 829_536),
        ("MobileNet", {"alpha": 0.25}, 218_544),
        ("MobileNetV3Small", {}, 939_120),
        ("MobileNetV3Large", {"alpha": 0.75}, 1_808_736),
    ],
)
def test_parameters_without_top(builder, arguments, expected):
    assert build(applications, builder, include_top=False, **arguments).count_params() == expected


@pytest.mark.parametrize(("builder", "trainable"), [("MobileNetV3Small", 2_542_856), ("MobileNetV3Large", 5_483_032)])
def test_trainable_parameters(builder, trainable):
    model = build(applications, builder)
    assert sum(np.prod(weight.shape) for weight in model.trainable_weights) == trainable
