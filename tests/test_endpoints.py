"""The feature maps inside the networks: which, how large, on which input, and by which name."""

import keras
import numpy as np
import pytest
from runs import slow_but

from keras_mobilenets import MobileNet, MobileNetV2, MobileNetV3Large, MobileNetV3Small, endpoints, inline

SHAPE = (96, 64, 3)

# Channels at alpha 1 (the papers' tables), and the layers of keras.applications' models that give them out.
EXPECTED = {
    MobileNet: {
        "stride_2": (64, "conv_pw_1_relu"),
        "stride_4": (128, "conv_pw_3_relu"),
        "stride_8": (256, "conv_pw_5_relu"),
        "stride_16": (512, "conv_pw_11_relu"),
        "stride_32": (1024, "conv_pw_13_relu"),
    },
    MobileNetV2: {
        "stride_2": (16, "expanded_conv_project_BN"),
        "stride_2_expansion": (96, "block_1_expand_relu"),
        "stride_4": (24, "block_2_add"),
        "stride_4_expansion": (144, "block_3_expand_relu"),
        "stride_8": (32, "block_5_add"),
        "stride_8_expansion": (192, "block_6_expand_relu"),
        "stride_16": (96, "block_12_add"),
        "stride_16_expansion": (576, "block_13_expand_relu"),  # SSDLite's, arXiv:1801.04381, section 6.2
        "stride_32_block": (320, "block_16_project_BN"),
        "stride_32": (1280, "out_relu"),
        "stride_32_expansion": (960, "block_16_expand_relu"),
    },
    MobileNetV3Large: {
        "stride_2": (16, "expanded_conv_add"),
        "stride_2_expansion": (64, "expanded_conv_1_expand_relu"),
        "stride_4": (24, "expanded_conv_2_add"),
        "stride_4_expansion": (72, "expanded_conv_3_expand_relu"),
        "stride_8": (40, "expanded_conv_5_add"),
        "stride_8_expansion": (240, "expanded_conv_6_expand_hard_swish"),
        "stride_16": (112, "expanded_conv_11_add"),
        "stride_16_expansion": (672, "expanded_conv_12_expand_hard_swish"),  # of the 13th: arXiv:1905.02244, 6.3
        "stride_32_block": (160, "expanded_conv_14_add"),
        "stride_32": (960, "conv_1_hard_swish"),
        "stride_32_expansion": (960, "expanded_conv_14_expand_hard_swish"),
    },
    MobileNetV3Small: {
        "stride_2": (16, "conv_hard_swish"),
        "stride_4": (16, "expanded_conv_project_bn"),
        "stride_4_expansion": (72, "expanded_conv_1_expand_relu"),
        "stride_8": (24, "expanded_conv_2_add"),
        "stride_8_expansion": (96, "expanded_conv_3_expand_hard_swish"),
        "stride_16": (48, "expanded_conv_7_add"),
        "stride_16_expansion": (288, "expanded_conv_8_expand_hard_swish"),  # of the 9th
        "stride_32_block": (96, "expanded_conv_10_add"),
        "stride_32": (576, "conv_1_hard_swish"),
        "stride_32_expansion": (576, "expanded_conv_10_expand_hard_swish"),
    },
}


def answers(model, tensors, x):
    """What the model's tensors are for `x`, computed from its own input."""
    return keras.Model(model.inputs[0], tensors)(x)


@pytest.mark.parametrize(
    ("builder", "include_top"),
    slow_but(
        [
            (MobileNet, True),
            (MobileNetV2, True),
            (MobileNetV2, False),
            (MobileNetV3Small, True),
            (MobileNetV3Large, False),
        ],
        MobileNet,
        MobileNetV3Small,
    ),
)
def test_names_sizes_and_layers(builder, include_top, rng):
    model = builder(SHAPE, weights=None, include_top=include_top)
    taps = endpoints(model)
    strides = {name: int(name.split("_")[1]) for name in taps}
    expected = EXPECTED[builder]
    assert {name: tuple(map.shape) for name, map in taps.items()} == {
        name: (None, SHAPE[0] // strides[name], SHAPE[1] // strides[name], channels)
        for name, (channels, _) in expected.items()
    }
    assert list(strides.values()) == sorted(strides.values())

    x = rng.uniform(0, 1, (1, *SHAPE)).astype("float32")
    named = [inline(model).get_layer(layer).output for _, layer in expected.values()]
    for found, by_layer in zip(answers(model, [taps[n] for n in expected], x), answers(model, named, x), strict=True):
        np.testing.assert_allclose(found, by_layer, atol=1e-6)  # values around 1; a block folds its normalization


@pytest.mark.parametrize("wrap", ["functional", "sequential", "twice"])
def test_on_models_around_a_base(wrap, rng):
    """The maps belong to the outer input, although the layers were first called on the base's own."""
    base = MobileNetV2(SHAPE, alpha=0.35, weights=None, include_top=False)
    expected = endpoints(base)
    x = rng.uniform(-1, 1, (1, *SHAPE)).astype("float32")
    inputs = keras.Input(SHAPE)
    if wrap == "sequential":
        model = keras.Sequential([inputs, base, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
    else:
        model = keras.Model(inputs, keras.layers.Conv2D(4, 1)(base(keras.layers.Rescaling(1.0)(inputs))))
        if wrap == "twice":
            outer = keras.Input(SHAPE)
            model = keras.Model(outer, model(outer))
    found = endpoints(model)
    assert list(found) == list(expected)
    pairs = zip(answers(model, list(found.values()), x), answers(base, list(expected.values()), x), strict=True)
    for one, another in pairs:
        np.testing.assert_array_equal(one, another)


def test_further_layers_by_name(rng):
    model = MobileNetV2(SHAPE, alpha=0.35, weights=None)
    taps = endpoints(model, layers=["block_5_add", "Conv1_relu"])
    assert list(taps)[-2:] == ["block_5_add", "Conv1_relu"]
    x = rng.uniform(-1, 1, (1, *SHAPE)).astype("float32")
    one, another = answers(model, [taps["block_5_add"], taps["stride_8"]], x)
    np.testing.assert_array_equal(one, another)
    with pytest.raises(ValueError, match="`layers` must be names of layers.*Received: block_99_add, pool"):
        endpoints(model, layers=["block_99_add", "Conv1", "pool"])


def test_strides_are_those_of_the_model():
    dilated = endpoints(MobileNetV2(SHAPE, alpha=0.35, weights=None, output_stride=8))
    assert [*dilated][-2:] == ["stride_8_block", "stride_8"]  # the network's last map comes last
    assert dilated["stride_8"].shape == (None, 12, 8, 1280)
    small = endpoints(MobileNet((32, 32, 3), alpha=0.25, weights=None, stem_stride=1))
    assert {name: map.shape[1] for name, map in small.items()} == {
        "stride_1": 32,
        "stride_2": 16,
        "stride_4": 8,
        "stride_8": 4,
    }
    plain = endpoints(MobileNetV3Small(SHAPE, alpha=0.75, weights=None, minimalistic=True))
    assert plain["stride_16_expansion"].shape == (None, 6, 4, 240)


def test_survives_saving(tmp_path):
    model = MobileNetV3Small(SHAPE, alpha=0.25, weights=None)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert {n: t.shape for n, t in endpoints(loaded).items()} == {n: t.shape for n, t in endpoints(model).items()}


def test_other_models_are_refused():
    other = keras.Sequential([keras.Input(SHAPE), keras.layers.Conv2D(4, 3, name="conv")], name="other")
    with pytest.raises(ValueError, match="`model` must be a MobileNet, or hold one. Received: 'other'"):
        endpoints(other)
