"""Costs are counted as the papers count them."""

import keras
import pytest

from keras_mobilenets import MobileNet, MobileNetV2, MobileNetV3Small
from keras_mobilenets.analysis import profile
from keras_mobilenets.applications import MobileNetV3Large
from keras_mobilenets.quantization import quantize_model

BUILDERS = {b.__name__: b for b in (MobileNet, MobileNetV2, MobileNetV3Small, MobileNetV3Large)}


@pytest.mark.parametrize(
    ("builder", "alpha", "size", "options", "millions"),
    [
        # arXiv:1704.04861 and TF-slim's table, in whole millions there.
        ("MobileNet", 1.0, 224, {}, 569),
        ("MobileNet", 0.5, 160, {}, 77),
        ("MobileNet", 0.25, 128, {}, 14),
        # arXiv:1801.04381.
        ("MobileNetV2", 1.0, 224, {}, 300),
        ("MobileNetV2", 0.35, 96, {}, 11),
        # arXiv:1905.02244 gives 219, 56 and (minimalistic) 209, counted by another tool: these are this architecture's.
        ("MobileNetV3Large", 1.0, 224, {}, 216.6),
        ("MobileNetV3Small", 1.0, 224, {}, 56.5),
        ("MobileNetV3Large", 1.0, 224, {"minimalistic": True}, 209.1),
    ],
)
def test_madds_are_the_published_ones(builder, alpha, size, options, millions):
    model = BUILDERS[builder]((size, size, 3), alpha=alpha, weights=None, **options)
    tolerance = 0.05 if isinstance(millions, float) else 1.0  # V2 is printed cut off: 300 for 300.8, 11 for 11.9
    found = profile(model)
    assert found.madds / 1e6 == pytest.approx(millions, abs=tolerance)
    assert found.parameters == model.count_params()


def test_shares_of_the_mobilenet_paper():
    """Table 2: 1x1 convolutions are 94.86 % of the multiply-adds and 74.59 % of the parameters."""
    found = profile(MobileNet(weights=None))
    kinds = found.by_kind()
    # The classifier is a 1x1 convolution here and a fully connected layer there.
    classifier = next(layer for layer in found.layers if layer.name == "conv_preds")
    assert (kinds["Conv2D 1x1"][1] - classifier.madds) / found.madds == pytest.approx(0.9486, abs=5e-5)
    # The paper leaves out batch normalization and the classifier's bias.
    parameters = found.parameters - kinds["BatchNormalization"][0] - 1000
    assert (kinds["Conv2D 1x1"][0] - classifier.parameters) / parameters == pytest.approx(0.7459, abs=5e-5)
    assert kinds["DepthwiseConv2D"][1] / found.madds == pytest.approx(0.0306, abs=5e-5)


def test_a_layer_of_each_kind_by_hand():
    inputs = keras.Input((8, 6, 3))
    x = keras.layers.Conv2D(5, (3, 2), strides=2, padding="same", name="conv")(inputs)
    x = keras.layers.DepthwiseConv2D(3, depth_multiplier=2, use_bias=False, padding="same", name="depthwise")(x)
    outputs = keras.layers.Dense(7, name="dense")(keras.layers.GlobalAveragePooling2D(name="pool")(x))
    conv, depthwise, pool, dense = profile(keras.Model(inputs, outputs)).layers
    assert (conv.madds, conv.parameters, conv.output_shape) == (3 * 2 * 3 * 5 * 4 * 3, 95, (4, 3, 5))
    assert (depthwise.madds, depthwise.parameters) == (9 * 10 * 4 * 3, 90)
    assert (pool.madds, pool.parameters, pool.activation_bytes) == (0, 0, 40)
    assert (dense.madds, dense.weight_bytes) == (70, 4 * 77)


def test_images_of_any_size_are_counted_at_the_size_asked_for():
    model = MobileNetV2((None, None, 3), alpha=0.35, weights=None, include_top=False)
    fixed = MobileNetV2((96, 96, 3), alpha=0.35, weights=None, include_top=False)
    assert profile(model, image_size=96).madds == profile(fixed).madds
    assert profile(model).input_shape == (224, 224, 3)


def test_quantized_twin_costs_the_same_multiply_adds():
    model = MobileNet((32, 32, 3), alpha=0.25, weights=None, classes=3)
    assert profile(quantize_model(model)).madds == profile(model).madds


def test_table_and_dictionary_hold_the_totals():
    from rich.console import Console

    found = profile(MobileNet((32, 32, 3), alpha=0.25, weights=None, classes=3))
    console = Console(width=160)
    with console.capture() as capture:
        console.print(found)
    assert f"{found.madds:,}" in capture.get() and "conv_dw_13" in capture.get()
    assert found.to_dict()["parameters"] == found.parameters
