"""MobileNetV4: the papers' networks, counted."""

import keras
import numpy as np
import pytest

import keras_mobilenets
from keras_mobilenets.analysis import profile

# arXiv:2404.10518, Tables 11 to 15. Trainable parameters are those of timm's mobilenetv4_*, which has the same tables
# (3.77, 9.72, 32.59, 11.07 and 37.76 M); multiply-accumulates in millions are counted, without attention's products.
NETWORKS = [
    ("ConvSmall", 224, 3_774_024, 1_284_192, 186.0),
    *[
        pytest.param(*row, marks=pytest.mark.slow)
        for row in (
            ("ConvMedium", 256, 9_715_512, 7_268_496, 1080.2),
            ("ConvLarge", 384, 32_590_864, 30_225_496, 6376.2),
            ("HybridMedium", 256, 11_074_648, 8_635_568, 1229.2),
            ("HybridLarge", 384, 37_764_624, 35_414_104, 7372.1),
        )
    ],
]


@pytest.mark.parametrize(("network", "size", "trainable", "without_top", "madds"), NETWORKS)
def test_counts(network, size, trainable, without_top, madds):
    builder = getattr(keras_mobilenets, f"MobileNetV4{network}")
    model = builder((size, size, 3))
    assert sum(int(np.prod(weight.shape)) for weight in model.trainable_weights) == trainable
    assert builder((size, size, 3), include_top=False).count_params() == without_top
    assert profile(model).madds / 1e6 == pytest.approx(madds, abs=0.05)  # one digit is printed


def test_attention_is_that_of_its_heads(rng):
    """Heads and pixels as one axis give what each head alone gives."""
    query, key, value = (rng.normal(size=(2, 3, 4, size)).astype("float32") for size in (10, 5, 5))
    attended = keras_mobilenets.layers.MultiQueryAttention()([query, key, value])
    expected = keras.layers.MultiHeadAttention(1, 5, use_bias=False)
    for head in range(2):
        rows = [one.reshape(2, 12, -1) for one in (query[..., 5 * head : 5 * head + 5], value, key)]
        expected(*rows)
        expected.set_weights([np.eye(5).reshape(weight.shape) for weight in expected.weights])
        alone = keras.ops.convert_to_numpy(expected(*rows)).reshape(2, 3, 4, 5)
        # The same products in another order: a few units in the last place of float32.
        np.testing.assert_allclose(attended[..., 5 * head : 5 * head + 5], alone, atol=1e-5)


def test_drop_path_rises_to_the_last_block():
    model = keras_mobilenets.MobileNetV4ConvSmall((32, 32, 3), alpha=0.25, drop_path=0.2)
    rates = [layer.drop_path for layer in model.layers if hasattr(layer, "drop_path")]
    assert rates == sorted(rates) and rates[-1] == 0.2


def test_there_are_no_imagenet_weights():
    with pytest.raises(ValueError, match="no published weights"):
        keras_mobilenets.MobileNetV4ConvSmall(weights="imagenet")


def test_strides_need_a_depthwise_convolution():
    with pytest.raises(ValueError, match=r"`strides` must be 1.*strides=2"):
        keras_mobilenets.UniversalInvertedBottleneck(8, kernel_size=None, strides=2)
