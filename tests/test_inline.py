"""The flat view: the same layers, the same weights, the same answers."""

import keras
import numpy as np
import pytest

from keras_mobilenets import DepthwiseSeparableConv, InvertedResidual, inline
from keras_mobilenets.layers import CompositeLayer

# At inference a composite folds its normalizations into the convolutions: sums of float32 around 1, in another order.
ROUNDING = {"rtol": 1e-5, "atol": 1e-6}


@pytest.fixture
def base():
    inputs = keras.Input((16, 16, 3))
    x = DepthwiseSeparableConv(8, strides=2, name="conv_1")(inputs)
    x = InvertedResidual(8, se_ratio=0.25, activation="hard_swish", name="block_1")(x)
    return keras.Model(inputs, x, name="base")


@pytest.fixture
def x(rng):
    return rng.uniform(-1, 1, (4, 16, 16, 3)).astype("float32")


def transfer_models(base):
    """The shapes of a transfer-learning model: sequential, functional, and nested twice."""
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(5)]
    yield keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Rescaling(2.0), base, *head])
    inputs = keras.Input((16, 16, 3))
    y = base(inputs, training=False)
    for layer in head:
        y = layer(y)
    yield keras.Model(inputs, y)
    inner = keras.Sequential([keras.Input((16, 16, 3)), base], name="inner")
    yield keras.Sequential([keras.Input((16, 16, 3)), inner, *head])


def test_no_parts_are_left_and_nothing_changes(base, x):
    for model in (base, *transfer_models(base)):
        flat = inline(model)
        assert not any(isinstance(layer, CompositeLayer | keras.Model) for layer in flat.layers)
        assert {id(w) for w in flat.weights} == {id(w) for w in model.weights}
        np.testing.assert_allclose(flat(x), model(x), **ROUNDING)


def test_weights_stay_shared_through_training(base, x):
    flat = inline(base)
    base.compile("sgd", "mse")
    base.fit(x, np.zeros((4, 8, 8, 8), "float32"), verbose=0)
    np.testing.assert_allclose(flat(x), base(x), **ROUNDING)
    np.testing.assert_array_equal(flat(x, training=True), base(x, training=True))


def test_flat_view_stands_on_the_models_own_input(base, x):
    inside = inline(base).get_layer("block_1_expand_hard_swish").output
    features = keras.Model(base.inputs[0], inside)
    assert features(x).shape == (4, 8, 8, 48)


def test_flat_model_is_given_back(base):
    flat = inline(base)
    assert inline(flat) is flat


def test_layer_used_twice_stays_one_layer(x):
    shared = DepthwiseSeparableConv(3, name="conv_1")
    inputs = keras.Input((16, 16, 3))
    model = keras.Model(inputs, shared(shared(inputs)))
    flat = inline(model)
    assert len(flat.layers) == 1 + 6
    np.testing.assert_allclose(flat(x), model(x), **ROUNDING)


def test_several_inputs_and_outputs(base, x):
    left, right = keras.Input((16, 16, 3), name="left"), keras.Input((16, 16, 3), name="right")
    features = base(left)
    model = keras.Model({"left": left, "right": right}, [features, keras.layers.Flatten()(base(right))])
    ours, theirs = inline(model)({"left": x, "right": -x}), model({"left": x, "right": -x})
    for flat, whole in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(flat, whole, **ROUNDING)


def test_clashing_names_are_both_named(base):
    head = keras.layers.Dense(5, name="block_1_project")
    model = keras.Sequential([keras.Input((16, 16, 3)), inline(base), keras.layers.Flatten(), head])
    with pytest.raises(ValueError, match="'block_1_project': base/block_1_project and block_1_project"):
        inline(model)


def test_subclassed_and_unbuilt_models_are_refused():
    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match="must be a functional or sequential Keras model"):
        inline(Subclassed())
    with pytest.raises(ValueError, match=r"give 'head' a `keras.Input`"):
        inline(keras.Sequential([keras.layers.Dense(1)], name="head"))
