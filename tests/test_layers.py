"""What the layers compute, against NumPy, Keras and the papers."""

import keras
import numpy as np
import pytest

from keras_mobilenets import (
    BatchNormalization,
    DepthwiseSeparableConv,
    HardSigmoid,
    HardSwish,
    InvertedResidual,
    SqueezeExcite,
    inline,
    make_divisible,
)
from keras_mobilenets.layers.convolution import Conv2D


def flat_names(layer, shape=(16, 16, 16)):
    inputs = keras.Input(shape)
    return [part.name for part in inline(keras.Model(inputs, layer(inputs))).layers[1:]]


@pytest.mark.parametrize(
    ("value", "expected"),
    # By hand: nearest multiple of 8, at least 8, and one step up where that would lose more than 10 %.
    [(1, 8), (8, 8), (11.2, 16), (12, 16), (18, 24), (20, 24), (33.6, 32), (35.9, 40), (44.8, 48), (72, 72), (89, 88)],
)
def test_make_divisible(value, expected):
    assert make_divisible(value) == expected


@pytest.mark.parametrize("arguments", [(0,), (-8,), (16, 0)])
def test_make_divisible_refuses(arguments):
    with pytest.raises(ValueError, match="must be > 0. Received"):
        make_divisible(*arguments)


def test_hard_activations_are_their_formulas():
    x = np.linspace(-8, 8, 1001, dtype="float32")
    sigmoid = np.clip(x + 3, 0, 6) / 6
    # 1e-6: one rounding of float32 at values up to 8.
    np.testing.assert_allclose(HardSigmoid()(x), sigmoid, atol=1e-7)
    np.testing.assert_allclose(HardSwish()(x), x * sigmoid, atol=1e-6)


def test_squeeze_excite_is_its_formula(rng):
    x = rng.normal(size=(2, 5, 7, 32)).astype("float32")
    layer = SqueezeExcite(ratio=0.5)
    result = layer(x)
    w1, b1, w2, b2 = (weight.numpy() for weight in layer.weights)
    squeezed = np.maximum(x.mean((1, 2)) @ w1[0, 0] + b1, 0)
    gate = np.clip(squeezed @ w2[0, 0] + b2 + 3, 0, 6) / 6
    np.testing.assert_allclose(result, x * gate[:, None, None], atol=1e-6)  # order of summation in float32


def test_depthwise_separable_is_one_standard_convolution(rng):
    """Without normalization and activation the two factors are a convolution with kernel d[h, w, m] * p[m, n]."""
    layer = DepthwiseSeparableConv(8, normalization=None, activation=None)
    x = rng.normal(size=(1, 9, 9, 4)).astype("float32")
    result = layer(x)
    depthwise, pointwise = (w.numpy() for w in layer.weights if w.name == "kernel")
    kernel = depthwise[:, :, :, 0, None] * pointwise[0, 0][None, None]
    expected = keras.ops.conv(x, kernel, padding="same")
    np.testing.assert_allclose(result, expected, atol=1e-5)  # sums of 36 terms of order 1 in float32


def test_sublayer_names_are_those_of_keras_applications():
    assert flat_names(DepthwiseSeparableConv(8, name="conv_3")) == [
        f"conv_{part}_3{what}" for part in ("dw", "pw") for what in ("", "_bn", "_relu")
    ]
    v2 = InvertedResidual(16, normalization_suffix="BN", name="block_2")
    assert flat_names(v2) == [
        *(f"block_2_{part}{what}" for part in ("expand", "depthwise") for what in ("", "_BN", "_relu")),
        "block_2_project",
        "block_2_project_BN",
        "block_2_add",
    ]


def test_quantization_friendly_block_has_nothing_between_its_convolutions():
    assert flat_names(DepthwiseSeparableConv(8, quantization_friendly=True, name="conv_1")) == [
        "conv_dw_1",
        "conv_pw_1",
        "conv_pw_1_bn",
        "conv_pw_1_relu",
    ]
    layer = DepthwiseSeparableConv(8, quantization_friendly=True)
    assert layer.stages[-1].max_value is None  # ReLU, not ReLU6
    assert not layer.stages[0].use_bias


@pytest.mark.parametrize(
    ("arguments", "adds"),
    [({}, True), ({"strides": 2}, False), ({"filters": 24}, False), ({"residual": False}, False)],
)
def test_residual_where_shapes_allow(arguments, adds):
    names = flat_names(InvertedResidual(**{"filters": 16, **arguments}, name="block"))
    assert ("block_add" in names) == adds


def test_residual_is_the_input_plus_the_block(rng):
    x = rng.normal(size=(2, 6, 6, 16)).astype("float32")
    block, bare = InvertedResidual(16), InvertedResidual(16, residual=False)
    block.build(x.shape)
    bare.build(x.shape)
    bare.set_weights(block.get_weights())
    np.testing.assert_array_equal(block(x), x + bare(x))


def test_projection_is_linear(rng):
    """A linear bottleneck goes below zero (arXiv:1801.04381, section 3.2)."""
    x = rng.normal(size=(4, 6, 6, 16)).astype("float32")
    assert np.min(InvertedResidual(24)(x)) < 0


def test_drop_path_skips_whole_samples_in_training_only(rng):
    x = rng.normal(size=(64, 4, 4, 16)).astype("float32")
    block = InvertedResidual(16, drop_path=0.5)
    trained = np.asarray(block(x, training=True))
    skipped = (trained == x).all(axis=(1, 2, 3))
    # 64 fair coins: fewer than 12 or more than 52 heads has a probability under 1e-6.
    assert 12 <= skipped.sum() <= 52
    assert not (np.asarray(block(x)) == x).all(axis=(1, 2, 3)).any()


@pytest.mark.parametrize(
    ("layer", "arguments", "message"),
    [
        (InvertedResidual, {"filters": 0}, "`filters` must be > 0. Received: filters=0"),
        (InvertedResidual, {"filters": 8, "expansion": -1}, "`expansion` must be > 0. Received: expansion=-1"),
        (InvertedResidual, {"filters": 8, "drop_path": 1.0}, r"`drop_path` must be in \[0, 1\). Received: drop_path=1"),
        (InvertedResidual, {"filters": 8, "momentum": 1}, r"`momentum` must be in \[0, 1\). Received: momentum=1"),
        (DepthwiseSeparableConv, {"filters": -8}, "`filters` must be > 0. Received: filters=-8"),
        (DepthwiseSeparableConv, {"filters": 8, "epsilon": 0}, "`epsilon` must be > 0. Received: epsilon=0"),
        (DepthwiseSeparableConv, {"filters": 8, "normalization": "layer"}, "`normalization` must be 'batch' or None."),
        (DepthwiseSeparableConv, {"filters": 8, "activation": "hard_swich"}, "hard_swich"),
        (SqueezeExcite, {"ratio": 0}, "`ratio` must be > 0. Received: ratio=0"),
        (SqueezeExcite, {"gate": "sigmoidal"}, "sigmoidal"),
    ],
)
def test_bad_arguments_are_named(layer, arguments, message):
    with pytest.raises(ValueError, match=message):
        layer(**arguments)


def test_residual_that_does_not_fit_is_refused(rng):
    with pytest.raises(ValueError, match="`residual=True` needs strides 1 and as many filters as input channels"):
        InvertedResidual(24, residual=True)(np.zeros((1, 8, 8, 16), "float32"))


def test_channels_first_is_refused():
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match="channels_last only"):
            SqueezeExcite()
    finally:
        keras.config.set_image_data_format("channels_last")


def test_unknown_channels_are_refused():
    with pytest.raises(ValueError, match="number of input channels must be known"):
        SqueezeExcite().build((None, 8, 8, None))


@pytest.mark.parametrize("arguments", [{}, {"scale": False}, {"center": False, "momentum": 0.5}])
def test_fused_normalization_equals_keras(arguments, rng):
    x = rng.normal(2, 3, (4, 5, 7, 8)).astype("float32")
    ours, theirs = BatchNormalization(**arguments), keras.layers.BatchNormalization(**arguments)
    for layer in (ours, theirs):
        layer.build(x.shape)
    ours.set_weights(weights := [rng.uniform(0.5, 2, w.shape) for w in ours.weights])
    theirs.set_weights(weights)
    # Values of order 10, float32: a few units in the last place, since the fused operation subtracts the mean first.
    np.testing.assert_allclose(ours(x), theirs(x), atol=1e-5)
    np.testing.assert_allclose(ours(x, training=True), theirs(x, training=True), atol=1e-5)
    for mine, keras_own in zip(ours.weights, theirs.weights, strict=True):
        np.testing.assert_allclose(mine, keras_own, rtol=1e-6)  # the variance too: biased, as Keras averages it


def test_frozen_normalization_is_in_inference_mode(rng):
    layer = BatchNormalization(trainable=False)
    x = rng.normal(2, 3, (4, 5, 7, 8)).astype("float32")
    np.testing.assert_array_equal(layer(x, training=True), layer(x, training=False))
    assert not layer.moving_mean.numpy().any()


def test_normalization_configs_load_into_each_other():
    config = BatchNormalization(momentum=0.9, epsilon=1e-2, name="bn").get_config()
    assert (
        BatchNormalization.from_config(keras.layers.BatchNormalization.from_config(config).get_config()).epsilon == 1e-2
    )


def test_regularizers_and_initializers_reach_the_kernels():
    layer = InvertedResidual(
        16, kernel_regularizer=keras.regularizers.L2(0.5), kernel_initializer="ones", depthwise_initializer="zeros"
    )
    layer.build((None, 8, 8, 16))
    assert len(layer.losses) == 2  # expand and project; little or no decay on the depthwise kernel, as the paper says
    by_path = {weight.path.split("/")[-2]: weight.numpy() for weight in layer.weights if weight.name == "kernel"}
    values = {path.rsplit("_", 1)[-1]: set(np.unique(kernel)) for path, kernel in by_path.items()}
    assert values == {"expand": {1.0}, "depthwise": {0.0}, "project": {1.0}}


def test_equal_kernels_do_not_start_equal():
    """One initializer given to a layer of several kernels must not draw the same numbers for each."""
    layer = DepthwiseSeparableConv(16, 1, kernel_initializer="he_normal", depthwise_initializer="he_normal")
    first, second = layer, DepthwiseSeparableConv(16, 1, kernel_initializer=layer.kernel_initializer)
    first.build((None, 8, 8, 16))
    second.build((None, 8, 8, 16))
    assert not np.array_equal(first.weights[-5].numpy(), second.weights[-5].numpy())


def operations(function, *shape):
    """Names of the TensorFlow operations in a traced function of an image."""
    tensorflow = pytest.importorskip("tensorflow")
    traced = tensorflow.function(function).get_concrete_function(tensorflow.TensorSpec(shape))
    return {operation.type for operation in traced.graph.get_operations()}


@pytest.mark.parametrize("shape", [(4, 1, 1, 8), (4, 2, 1, 8), (1, 1, 1, 8)])
def test_convolution_equals_keras(shape, rng):
    ours, theirs = Conv2D(16, 1), keras.layers.Conv2D(16, 1)
    x = rng.normal(0, 1, shape).astype("float32")
    for layer in (ours, theirs):
        layer.build(x.shape)
    ours.set_weights(weights := [rng.normal(0, 1, w.shape) for w in ours.weights])
    theirs.set_weights(weights)
    np.testing.assert_allclose(ours(x), theirs(x), atol=1e-5)  # sums of 8 products of order 1, in another order


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="on other backends it is Keras' own")
def test_convolution_of_one_pixel_is_a_product():
    layer = Conv2D(16, 1)
    assert "MatMul" in operations(layer, None, 1, 1, 8)
    assert "Conv2D" in operations(layer, 1, 1, 1, 8)  # what TFLite's converter is given
    assert "Conv2D" in operations(layer, None, 2, 2, 8)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: InvertedResidual(16, kernel_size=5, se_ratio=0.25, activation="hard_swish"),
        lambda: DepthwiseSeparableConv(24, strides=2, depth_multiplier=2),
        lambda: DepthwiseSeparableConv(24, quantization_friendly=True),
    ],
)
def test_normalization_with_fixed_statistics_is_part_of_the_convolution(layer, rng):
    x = rng.normal(0, 1, (2, 12, 12, 16)).astype("float32")
    inputs = keras.Input(x.shape[1:])
    model = keras.Model(inputs, layer()(inputs))
    model.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in model.weights])
    flat = inline(model)  # shows every layer, and computes each by itself
    expected = keras.ops.convert_to_numpy(flat(x))
    # In float32, through three convolutions of up to 200 products.
    np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    model.trainable = False
    np.testing.assert_allclose(model(x, training=True), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="on other backends every layer stands alone")
def test_only_normalization_with_fixed_statistics_is_folded():
    layer = InvertedResidual(16)
    layer(np.zeros((1, 8, 8, 16), "float32"))
    assert "FusedBatchNormV3" not in operations(layer, None, 8, 8, 16)
    assert "FusedBatchNormV3" in operations(lambda x: layer(x, training=True), None, 8, 8, 16)
