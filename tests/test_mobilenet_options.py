"""What the builders offer beyond keras.applications, and what they refuse."""

import copy
import functools

import keras
import numpy as np
import pytest
from runs import slow_but

from keras_mobilenets import MobileNet, MobileNetV2, MobileNetV3Large, MobileNetV3Small, applications, endpoints, inline
from keras_mobilenets.applications import variants
from keras_mobilenets.applications.common import strides_and_dilations

SMALLEST = {"MobileNet": 0.25, "MobileNetV2": 0.35, "MobileNetV3Small": 0.25, "MobileNetV3Large": 0.25}
SMALLEST |= {"MobileNetV4ConvSmall": 0.25}  # for all five, which have one `_build`
builders = pytest.mark.parametrize("builder", slow_but(SMALLEST, "MobileNetV3Small"))
SCALING = ("MobileNetV3Small", "MobileNetV3Large", "MobileNetV4ConvSmall")
"""Those that scale pixels themselves, and by default take images of any size."""


def build(builder, input_shape=(64, 64, 3), **kwargs):
    """The narrowest model of a family."""
    return getattr(applications, builder)(input_shape, **{"alpha": SMALLEST[builder], "weights": None, **kwargs})


@functools.cache
def base(builder):
    """The narrowest model of a family as it is by default; for looking at only."""
    return build(builder)


@builders
def test_rho_scales_the_default_size(builder):
    assert build(builder, None, rho=5 / 7).input_shape == (None, 160, 160, 3)
    without_top = build(builder, None, rho=4 / 7, include_top=False)
    assert without_top.input_shape == (None, 128, 128, 3)


@builders
def test_default_sizes_are_those_of_keras_applications(builder):
    with_top = (None, None, None, 3) if builder in SCALING else (None, 224, 224, 3)
    assert build(builder, None).input_shape == with_top
    assert build(builder, None, include_top=False).input_shape == (None, None, None, 3)


@builders
@pytest.mark.parametrize("channels", [5])
def test_any_number_of_channels(builder, channels):
    model, rgb = build(builder, (32, 48, channels)), base(builder)
    stem = inline(model).get_layer(index=2 if builder in SCALING else 1)
    assert stem.kernel.shape[2] == channels
    assert model.count_params() - rgb.count_params() == 9 * (channels - 3) * stem.filters


@builders
@pytest.mark.parametrize(("stem_stride", "smallest"), [(2, 16), (1, 8)])
def test_smaller_stem_for_smaller_images(builder, stem_stride, smallest):
    model = build(builder, (smallest, 2 * smallest, 3), stem_stride=stem_stride)
    assert endpoints(model)[f"stride_{8 * stem_stride}"].shape[1:3] == (1, 2)
    shapes = [[weight.shape for weight in each.weights] for each in (model, base(builder))]
    assert shapes[0] == shapes[1]  # so that any weights fit
    with pytest.raises(
        ValueError, match=f"at least {smallest}x{smallest}.*Received: input_shape=\\({smallest - 1}, 64, 3\\)"
    ):
        build(builder, (smallest - 1, 64, 3), stem_stride=stem_stride)


@pytest.mark.parametrize(
    ("builder", "arguments"),
    # Not with squeeze-excite, whose mean over the map is another one where the map is another one.
    [
        ("MobileNet", {}),
        ("MobileNetV2", {}),
        ("MobileNetV3Small", {"minimalistic": True, "include_preprocessing": False}),
    ],
)
@pytest.mark.parametrize(("output_stride", "step"), slow_but([(16, 2), (8, 4)], 8))
def test_dilation_computes_the_same_features_more_densely(builder, arguments, output_stride, step, rng):
    """With even maps and "same" padding, a kernel with stride 2 is centred on the odd positions 1, 3, 5, ...

    So the strided map is every second one of the dilated map, or every fourth, from the last of the first window on.
    The sums are the same and in another order: float32 leaves 1e-6 of values around 1.
    """
    strided = build(builder, (96, 64, 3), include_top=False, momentum=0.0, **arguments)
    dilated = build(builder, (96, 64, 3), include_top=False, output_stride=output_stride, **arguments)
    x = rng.uniform(-1, 1, (1, 96, 64, 3)).astype("float32")
    strided(x, training=True)  # statistics of this image, or the signal of random weights dies out
    dilated.set_weights(strided.get_weights())
    assert dilated.output_shape[1:3] == (96 // output_stride, 64 // output_stride)
    sparse, dense = (keras.ops.convert_to_numpy(model(x)) for model in (strided, dilated))
    assert sparse.std() > 0.01
    np.testing.assert_allclose(dense[:, step - 1 :: step, step - 1 :: step], sparse, atol=1e-5)


def test_dilated_blocks_have_the_residual_connections_of_the_table():
    """At small widths a block with a stride has as many outputs as inputs, and would add them once it has none."""
    strided, dilated = (inline(build("MobileNetV3Small", output_stride=stride)) for stride in (32, 8))
    assert [layer.name for layer in strided.layers][1:] == [layer.name for layer in dilated.layers][1:]


def test_strides_and_dilations():
    def plan(**kwargs):
        return strides_and_dilations([2, 1, 2, 2, 2, 1, 2, 1], **{"output_stride": 32, "stem_stride": 4, **kwargs})

    assert plan() == [(2, 1), (1, 1), (2, 1), (2, 1), (2, 1), (1, 1), (2, 1), (1, 1)]
    assert plan(output_stride=16) == [(2, 1), (1, 1), (2, 1), (2, 1), (2, 1), (1, 1), (1, 1), (1, 2)]
    assert plan(output_stride=8) == [(2, 1), (1, 1), (2, 1), (2, 1), (1, 1), (1, 2), (1, 2), (1, 4)]
    assert plan(stem_stride=2) == [(1, 1), (1, 1), (2, 1), (2, 1), (2, 1), (1, 1), (2, 1), (1, 1)]
    assert plan(stem_stride=1, output_stride=8) == [(1, 1), (1, 1), (1, 1), (2, 1), (2, 1), (1, 1), (2, 1), (1, 1)]


def test_quantization_friendly_v1():
    """Of each block remain two convolutions, one normalization and a ReLU (arXiv:1803.08607, Figure 2)."""
    flat = inline(build("MobileNet", quantization_friendly=True, include_top=False))
    block = [layer.name for layer in flat.layers if layer.name.endswith(("_2", "_2_bn", "_2_relu"))]
    assert block == ["conv_dw_2", "conv_pw_2", "conv_pw_2_bn", "conv_pw_2_relu"]
    assert flat.get_layer("conv_pw_2_relu").max_value is None


@builders
def test_normalization_settings(builder):
    norms = [
        layer
        for layer in inline(build(builder, momentum=0.9, epsilon=1e-5)).layers
        if "norm" in type(layer).__name__.lower()
    ]
    assert norms
    assert {(layer.momentum, layer.epsilon) for layer in norms} == {(0.9, 1e-5)}
    bare = inline(build(builder, normalization=None, include_top=False))
    assert not [layer for layer in bare.layers if isinstance(layer, keras.layers.BatchNormalization)]
    convolutions = [
        layer for layer in bare.layers if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D)
    ]
    assert all(layer.use_bias for layer in convolutions)


@builders
def test_dropout(builder):
    argument = "dropout_rate" if "V3" in builder else "dropout"
    assert build(builder, **{argument: 0.3}).get_layer("dropout").rate == 0.3
    if builder != "MobileNet":  # keras.applications' V1 has the layer for any rate
        assert "dropout" not in [layer.name for layer in build(builder, **{argument: 0.0}).layers]


@builders
def test_input_tensor_and_what_leads_to_it(builder, rng):
    inputs = keras.Input((64, 64, 1), name="gray")
    image = keras.layers.Conv2D(3, 1, name="colour")(inputs)
    model = build(builder, None, input_tensor=image, include_top=False, pooling="avg")
    assert model.inputs[0] is inputs
    assert "colour" in [layer.name for layer in model.layers]
    assert model(rng.uniform(0, 1, (2, 64, 64, 1)).astype("float32")).shape[0] == 2


@builders
def test_copies(builder, rng):
    """Keras' ways to make one model of another keep its answers, its layers and its class."""
    model = build(builder, rho=1.0)
    x = rng.uniform(0, 2, (1, 64, 64, 3)).astype("float32")
    copies = [keras.models.clone_model(model), type(model).from_config(model.get_config())]
    copies += [keras.models.model_from_json(model.to_json()), copy.deepcopy(model)]
    for other in copies:
        other.set_weights(model.get_weights())
        assert type(other) is type(model)
        assert [layer.name for layer in other.layers][1:] == [layer.name for layer in model.layers][1:]
        np.testing.assert_array_equal(other(x), model(x))


@builders
def test_transfer_learning_on_a_nested_base(builder, rng):
    base = build(builder, include_top=False, pooling="avg")
    base.trainable = False
    model = keras.Sequential([keras.Input((64, 64, 3)), base, keras.layers.Dense(2)])
    model.compile("sgd", "mse", run_eagerly=True)  # one step: tracing would take longer
    before = [weight.numpy().copy() for weight in base.weights]
    model.fit(rng.uniform(0, 1, (4, 64, 64, 3)), np.ones((4, 2)), verbose=0)
    assert len(model.trainable_weights) == 2
    assert all(np.array_equal(old, new) for old, new in zip(before, base.weights, strict=True))


@builders
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": 0}, "`alpha` must be > 0. Received: alpha=0"),
        ({"alpha": -1}, "`alpha` must be > 0. Received: alpha=-1"),
        ({"alpha": float("nan")}, "`alpha` must be > 0. Received: alpha=nan"),
        ({"alpha": "1.0"}, "`alpha` must be > 0. Received: alpha='1.0'"),
        ({"rho": 0, "input_shape": None}, "`rho` must be > 0. Received: rho=0"),
        ({"rho": 0.5}, "`rho` scales the default size of 224 and must be 1 .* Received: rho=0.5"),
        ({"rho": 0.1, "input_shape": None}, "at least 32x32.*Received: input_shape=\\(22, 22, 3\\)"),
        ({"classes": 0}, "`classes` must be an integer > 0. Received: classes=0"),
        ({"classes": 2.5}, "`classes` must be an integer > 0. Received: classes=2.5"),
        ({"pooling": "mean"}, "`pooling` must be None, 'avg' or 'max'. Received: pooling='mean'"),
        ({"output_stride": 4}, "`output_stride` must be 8, 16 or 32. Received: output_stride=4"),
        ({"stem_stride": 3}, "`stem_stride` must be 1, 2 or 4. Received: stem_stride=3"),
        ({"normalization": "layer"}, "`normalization` must be 'batch' or None. Received: normalization='layer'"),
        (
            {"weights": "imagnet"},
            "`weights` must be None .*path of a weight file that exists. Received: weights='imagnet'",
        ),
        ({"weights": True}, "`weights` must be None .* Received: weights=True"),
        ({"weights": "imagenet", "classes": 10}, "`classes` must be 1000 for `weights='imagenet'`.*classes=10"),
        (
            {"weights": "imagenet", "classifier_activation": "sigmoid"},
            "`classifier_activation` must be None or 'softmax' for `weights='imagenet'`.*'sigmoid'",
        ),
        ({"weights": "imagenet", "alpha": 0.6}, "`alpha` must be one of .*the nearest is .*Received: alpha=0.6"),
        (
            {"weights": "imagenet", "alpha": 1.0, "normalization": None},
            "`normalization` must be 'batch' for `weights='imagenet'`. Received: normalization=None",
        ),
        (
            {"weights": "imagenet", "alpha": 1.0, "input_shape": (224, 224, 1)},
            "3 channels for `weights='imagenet'`. Received: input_shape=\\(224, 224, 1\\)",
        ),
        (
            {"input_shape": (224, 224)},
            "`input_shape` must be \\(height, width, channels\\). Received: .*\\(224, 224\\)",
        ),
        ({"input_shape": 224}, "`input_shape` must be \\(height, width, channels\\). Received: input_shape=224"),
        ({"input_shape": (64, 64, None)}, "end with the number of channels.*Received: input_shape=\\(64, 64, None\\)"),
        ({"input_shape": (3, 224, 224)}, "at least 32x32.*Received: input_shape=\\(3, 224, 224\\)"),
        ({"input_shape": (64, 64.0, 3)}, "at least 32x32.*Received: input_shape=\\(64, 64.0, 3\\)"),
        ({"input_tensor": np.zeros(3)}, "`input_tensor` must be a KerasTensor.*ndarray"),
        ({"input_tensor": keras.Input((64, 3))}, "`input_tensor` must have 4 axes.*\\(None, 64, 3\\)"),
        ({"input_tensor": keras.Input((96, 96, 3))}, "must equal the shape of `input_tensor`.*\\(64, 64, 3\\)"),
    ],
    ids=str,
)
def test_bad_input_is_named(builder, arguments, message):
    if "V4" in builder and arguments.get("weights") == "imagenet":
        message = "`weights` must be None or a path: MobileNetV4 has no published weights"
    with pytest.raises(ValueError, match=message):
        build(builder, **arguments)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MobileNet(weights=None, dropout=1.0), "`dropout` must be in \\[0, 1\\). Received: dropout=1.0"),
        (lambda: MobileNetV2(weights=None, dropout=-0.1), "`dropout` must be in \\[0, 1\\). Received: dropout=-0.1"),
        (
            lambda: MobileNetV3Large(weights=None, dropout_rate=2),
            "`dropout_rate` must be .*Received: dropout_rate=2",
        ),
        (lambda: MobileNet(weights=None, alpha=0.01), "`alpha` is too small: conv1 would have 0 filters"),
        (lambda: MobileNet(depth_multiplier=2), "`depth_multiplier` must be 1 .* Received: depth_multiplier=2"),
        (lambda: MobileNet(quantization_friendly=True), "`quantization_friendly` must be False .*imagenet"),
        (lambda: MobileNetV3Small(minimalistic=True, alpha=0.75), "`alpha` must be one of \\[1.0\\]"),
    ],
)
def test_bad_input_of_one_family_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_smallest_alpha_leaves_eight_filters():
    """As in keras.applications, V2 and V3 never round a width below 8."""
    for make, package in (
        (MobileNetV2, keras.applications.MobileNetV2),
        (MobileNetV3Small, keras.applications.MobileNetV3Small),
    ):
        arguments = {"alpha": 0.01, "weights": None, "include_top": False}
        assert make((64, 64, 3), **arguments).count_params() == package((64, 64, 3), **arguments).count_params()


def test_channels_first_is_refused():
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match="channels_last only"):
            MobileNetV2((3, 96, 96), weights=None)
    finally:
        keras.config.set_image_data_format("channels_last")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MobilenetV3small", "Unknown model 'MobilenetV3small'. Did you mean MobileNetV3Small\\? Known: MobileNet, "),
        ("MobileNetV3", "Did you mean MobileNetV3Small or MobileNetV3Large\\?"),
        ("MobilNet_V2", "Did you mean MobileNetV2"),
        ("ResNet50", "Unknown model 'ResNet50'. Known: MobileNet, MobileNetV2, .*MobileNetV4HybridLarge$"),
        ("", "Unknown model ''. Known: "),
    ],
)
def test_unknown_builder_names_the_near_ones(name, message):
    with pytest.raises(ValueError, match=message):
        variants.check_builder(name)


def test_variants():
    assert len({v.name for v in variants.VARIANTS}) == len(variants.VARIANTS) == 44
    assert {v.builder for v in variants.VARIANTS} == {one for one in variants.BUILDERS if "V4" not in one}
    assert [v.size for v in variants.published("MobileNetV2", alpha=1.4)] == [224]
    assert [v.name for v in variants.published("MobileNetV3Large", minimalistic=True)] == [
        "mobilenet_v3_large_minimalistic_1.0_224"
    ]
    assert all(v.top1_8bit is None or v.top1_8bit < v.top1 for v in variants.VARIANTS)
