"""MobileNetV4: the papers' networks, counted."""

import keras
import numpy as np
import pytest

import keras_mobilenets
from keras_mobilenets import export_tflite, layers, quantize_model, strip_quantization
from keras_mobilenets.analysis import profile
from keras_mobilenets.applications.variants import FAMILIES
from keras_mobilenets.quantization import calibrate
from keras_mobilenets.training import recipe

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


def alive(model, rng):
    """Batch statistics, layer scales and biases as a trained model has them: away from where they begin."""
    for layer in keras_mobilenets.inline(model).layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            shape = layer.gamma.shape
            layer.set_weights(
                [rng.uniform(0.5, 1.5, shape), *rng.normal(0, 0.3, (2, *shape)), rng.uniform(1, 2, shape)]
            )
        if isinstance(layer, layers.LayerScale):
            layer.gamma.assign(rng.uniform(-1, 1, layer.gamma.shape))
    return model


def with_attention(activation="relu", kv_strides=2):
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(16, 3, strides=2, padding="same", name="conv")(inputs)
    x = layers.MobileMQA(2, 8, kv_strides, layer_scale=1e-5, name="attention")(x)
    options = {"start_kernel_size": 3, "kernel_size": None, "layer_scale": 1e-5, "activation": activation}
    x = layers.UniversalInvertedBottleneck(16, 2, **options, name="block")(x)
    x = layers.LayerScale(name="alone")(x)  # behind an addition: no kernel is there to fold it into
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(4, activation="softmax")(x))


@pytest.mark.parametrize(("activation", "kv_strides"), [("gelu", 2), pytest.param("relu", 1, marks=pytest.mark.slow)])
def test_attention_and_layer_scale_are_integer(activation, kv_strides, rng, tmp_path):
    model = alive(with_attention(activation, kv_strides), rng)
    images = rng.uniform(-1, 1, (16, 16, 16, 3)).astype("float32")
    twin = quantize_model(model, input_range=(-1, 1))
    calibrate(twin, images)
    assert twin.exact and not twin.float_layers
    report = export_tflite(twin, tmp_path / "model.tflite", verify=images, verbose=False)
    assert report.parity.equal == len(images) and report.audit.is_integer
    assert report.audit.partitions == 2 + (activation == "gelu")  # neither softmax nor GELU has a kernel in XNNPACK
    operations = report.audit.operations
    assert "MUL" not in operations and operations["BATCH_MATMUL"] == 2  # all factors are in kernels
    # Quantization loses some hundredths of probabilities; a factor that is lost changes all of them.
    np.testing.assert_allclose(twin.predict(images, verbose=0), model.predict(images, verbose=0), atol=0.1)
    stripped = strip_quantization(twin)
    np.testing.assert_allclose(stripped(images), model(images), atol=1e-5)  # other operations, float32


@pytest.mark.slow
@pytest.mark.parametrize(("network", "partitions"), [("ConvMedium", 1), ("HybridMedium", 9)])
def test_whole_networks_are_integer(network, partitions, rng, tmp_path):
    model = getattr(keras_mobilenets, f"MobileNetV4{network}")((64, 64, 3), alpha=0.25, classes=10)
    twin, images = quantize_model(alive(model, rng)), rng.uniform(0, 255, (4, 64, 64, 3)).astype("uint8")
    calibrate(twin, images)
    report = export_tflite(twin, tmp_path / "model.tflite", verify=images, verbose=False)
    assert report.parity.equal == len(images) and report.audit.is_integer
    assert report.audit.partitions == partitions  # one more than attentions


def small(size, **options):
    return keras_mobilenets.MobileNetV4ConvSmall(
        (size, size, 3), alpha=0.25, classes=4, classifier_activation=None, include_preprocessing=False, **options
    )


def test_origin_is_where_the_zeros_are(rng):
    theirs, ours = small(33, origin="timm"), small(33, epsilon=1e-5)
    ours.set_weights(alive(theirs, rng).get_weights())
    images = rng.normal(size=(2, 33, 33, 3)).astype("float32")
    np.testing.assert_allclose(theirs(images), ours(images), rtol=1e-4)  # sizes are odd all along: the zeros are alike
    even = [small(32, origin=origin, epsilon=1e-5) for origin in ("timm", "tensorflow")]
    for one in even:
        one.set_weights(theirs.get_weights())
    assert not np.allclose(*(one(images[:, :32, :32]) for one in even), rtol=1e-2)
    taps = [{k: v.shape for k, v in keras_mobilenets.endpoints(one).items()} for one in even]
    assert taps[0] == taps[1]


def test_a_checkpoint_of_timm_needs_its_origin(tmp_path, monkeypatch):
    from keras_mobilenets.applications import timm_weights

    path = tmp_path / "model.safetensors"
    path.write_bytes((2).to_bytes(8, "little") + b"{}")
    kernel = np.zeros((1, 1, 1, 1), "float32")
    monkeypatch.setattr(
        timm_weights, "_tensors", lambda path: dict.fromkeys(["conv_stem.weight", "blocks.0.0.conv.weight"], kernel)
    )
    with pytest.raises(ValueError, match="origin='timm'"):
        keras_mobilenets.applications.load_weights(small(32), path)
    with pytest.raises(ValueError, match="does not fit"):
        small(32, weights=path)
    monkeypatch.setattr(timm_weights, "_tensors", lambda path: {"layer1.0.conv1.weight": kernel})
    with pytest.raises(ValueError, match="not a MobileNetV4 of timm. It begins with layer1"):
        keras_mobilenets.applications.load_weights(small(32), path)


@pytest.mark.needs("timm", "safetensors")
@pytest.mark.parametrize(
    ("name", "builder", "alpha"),
    [("conv_small_050", "ConvSmall", 0.5), ("conv_medium", "ConvMedium", 1.0), ("hybrid_medium", "HybridMedium", 1.0)],
)
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_answers_are_those_of_timm(name, builder, alpha, suffix, tmp_path):
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    theirs = timm.create_model(f"mobilenetv4_{name}", num_classes=10)
    norms = [module for module in theirs.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
        torch.nn.init.normal_(norm.bias, 0.0, 0.3)
    with torch.no_grad():
        theirs.train()(torch.randn(8, 3, 64, 64))  # through statistics of its own signals live
        for norm in norms:
            norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.7, 1.4)
        images = torch.randn(2, 3, 64, 64)
        expected = theirs.eval()(images).softmax(-1).numpy()
    path = tmp_path / f"model.{suffix}"
    {"safetensors": save_file, "pth": torch.save}[suffix](theirs.state_dict(), path)
    build = getattr(keras_mobilenets, f"MobileNetV4{builder}")
    ours = build((64, 64, 3), alpha=alpha, classes=10, include_preprocessing=False, weights=path)
    np.testing.assert_allclose(ours(images.permute(0, 2, 3, 1).numpy()), expected, atol=1e-4)


V4 = [name for name in FAMILIES if "V4" in name]
# Ratio of input to output by option; channels of the taps at alpha .5.
TRUNKS = [({}, 32), ({"output_stride": 16}, 16), ({"output_stride": 8}, 8), ({"stem_stride": 1}, 8)]


@pytest.mark.parametrize(("options", "largest"), TRUNKS)
@pytest.mark.parametrize("builder", [V4[0], *(pytest.param(one, marks=pytest.mark.slow) for one in V4[1:])])
def test_taps_of_backbones(builder, options, largest):
    trunk = getattr(keras_mobilenets, builder)((64, 96, 3), alpha=0.25, include_top=False, **options)
    maps = keras_mobilenets.endpoints(trunk)
    strides = [2**power for power in range(1, 6) if 2**power <= largest]
    for stride in strides:
        assert maps[f"stride_{stride}"].shape[1:3] == (64 // stride, 96 // stride)
    assert maps[f"stride_{largest}"].shape[-1] == 240 and maps[f"stride_{largest}_block"].shape[-1] < 240
    assert f"stride_{2 * largest}" not in maps


@pytest.mark.parametrize(("network", "rate"), [("conv-small", 0.002), ("hybrid-medium", 0.016)])
def test_recipes(network, rate):
    one = recipe(f"v4-{network}-paper")
    assert (one.rate(one.batch_size), one.optimizer, one.label_smoothing) == (rate, "AdamW", 0.1)
    steps = one.epochs * 1_281_167 / one.batch_size
    assert one.warm_up * steps == pytest.approx(1560)
