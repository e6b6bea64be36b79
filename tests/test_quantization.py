"""The rewrite: where quantizers are put, what becomes of weights, and what is refused."""

import keras
import numpy as np
import pytest
from keras import layers as L
from runs import slow_but

import keras_mobilenets as km
from keras_mobilenets.quantization import (
    FakeQuant,
    InputQuant,
    MinMax,
    Percentile,
    QuantConv2D,
    QuantDense,
    QuantDepthwiseConv2D,
    QuantizeConfig,
    QuantizedModel,
    calibrate,
    is_quantized,
    quantize_annotate_layer,
    quantize_apply,
    quantize_model,
    strip_quantization,
)
from keras_mobilenets.quantization.layers import QuantHardSigmoid, QuantHardSwish
from keras_mobilenets.quantization.settings import Settings
from keras_mobilenets.quantization.twin import target_for

FAMILIES = {
    "v1": lambda: km.MobileNet(input_shape=(32, 48, 3), alpha=0.25, weights=None, classes=4),
    "v1_friendly": lambda: km.MobileNet(
        input_shape=(32, 48, 3), alpha=0.25, weights=None, classes=4, quantization_friendly=True
    ),
    "v2": lambda: km.MobileNetV2(input_shape=(32, 48, 3), alpha=0.35, weights=None, classes=4),
    "v2_no_top": lambda: km.MobileNetV2(input_shape=(32, 48, 3), alpha=0.35, weights=None, include_top=False),
    "v3_small": lambda: km.MobileNetV3Small(input_shape=(32, 48, 3), alpha=0.75, weights=None, classes=4),
    "v3_large": lambda: km.MobileNetV3Large(input_shape=(32, 48, 3), alpha=0.75, weights=None, classes=4),
    "v3_minimalistic": lambda: km.MobileNetV3Small(input_shape=(32, 48, 3), weights=None, classes=4, minimalistic=True),
}


@pytest.fixture(scope="module")
def families():
    """Each family and its quantized twin, built once; not to be changed."""
    made = {}

    def get(name):
        if name not in made:
            keras.utils.set_random_seed(0)
            model = FAMILIES[name]()
            made[name] = model, quantize_model(model)
        return made[name]

    return get


def images_for(model, count=4, seed=0):
    images = np.random.default_rng(seed).uniform(-1, 1, (count, *model.input_shape[1:])).astype("float32")
    return (images + 1) * 127.5 if any(isinstance(layer, L.Rescaling) for layer in km.inline(model).layers) else images


def quantized_behind(model):
    """Names of the layers behind which a feature map is rounded."""
    return [layer.name.removesuffix("_quant") for layer in model.layers if isinstance(layer, FakeQuant)]


def small(*, activation="relu", bias=False):
    inputs = keras.Input((8, 8, 3), name="image")
    x = L.Conv2D(4, 3, use_bias=bias, name="conv")(inputs)
    x = L.BatchNormalization(name="bn")(x)
    x = L.Activation(activation, name="act")(x)
    x = L.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, L.Dense(2, name="head")(x))


@pytest.mark.parametrize("name", slow_but(FAMILIES, "v1", "v3_small"))
def test_uncalibrated_twin_computes_nearly_the_same(families, name):
    model, quantized = families(name)
    images = images_for(model)
    expected, found = model(images), quantized(images)
    # Kernels and pixels are rounded, feature maps not yet: a few hundredths of the spread of the outputs.
    assert np.abs(expected - found).max() < 0.15 * max(np.std(expected), 1e-2)


@pytest.mark.parametrize("name", slow_but(FAMILIES, "v1", "v3_small"))
def test_strip_gives_the_float_model_back_to_the_bit(families, name):
    model, quantized = families(name)
    images = images_for(model)
    stripped = strip_quantization(quantized)
    assert not is_quantized(stripped)
    # The same operations on the same weights; V3's rescaling and hard-sigmoid too.
    np.testing.assert_array_equal(stripped(images), km.inline(model)(images))


@pytest.mark.parametrize("name", slow_but(FAMILIES, "v1", "v3_small"))
def test_every_kernel_is_quantized_per_channel(families, name):
    model, quantized = families(name)
    kernels = (QuantConv2D, QuantDepthwiseConv2D, QuantDense)
    for layer in quantized.layers:
        if isinstance(layer, L.Conv2D | L.DepthwiseConv2D | L.Dense):
            assert isinstance(layer, kernels), layer.name
            scales = np.ptp(np.asarray(layer.quantized_kernel()), axis=layer.kernel_axes)
            assert len(np.unique(scales)) > 1
    assert {layer.name for layer in quantized.layers} >= {layer.name for layer in km.inline(model).layers}


def test_v1_is_rounded_behind_each_relu_the_pool_and_the_head(families):
    _, quantized = families("v1")
    expected = ["conv1_relu"]
    expected += [f"conv_{kind}_{i}_relu" for i in range(1, 14) for kind in ("dw", "pw")]
    assert quantized_behind(quantized) == [*expected, "avg_pool", "conv_preds", "predictions"]


def test_friendly_v1_is_rounded_between_its_convolutions_too(families):
    names = quantized_behind(families("v1_friendly")[1])
    assert "conv_dw_1" in names and "conv_pw_1_relu" in names
    assert not any("bn" in name for name in names)


def test_v2_is_rounded_behind_linear_bottlenecks_and_additions(families):
    names = quantized_behind(families("v2")[1])
    assert {"block_2_expand_relu", "block_2_depthwise_relu", "block_2_project_BN", "block_2_add"} <= set(names)
    assert not {"block_2_expand", "block_2_expand_BN", "block_2_project"} & set(names)
    assert names[-2:] == ["predictions", "predictions_softmax"]


def test_v3_rounds_hard_swish_before_inside_and_behind(families):
    _, quantized = families("v3_small")
    names = quantized_behind(quantized)
    assert {"conv_bn", "conv_hard_swish", "expanded_conv_squeeze_excite_mul"} <= set(names)
    # relu6(x + 3) is on the grid of [0, 6] inside the layer; a convolution in front of it is not rounded
    assert not any("squeeze_excite_conv_1" in name for name in names)
    assert sum(isinstance(layer, QuantHardSwish) for layer in quantized.layers) == 19
    assert sum(isinstance(layer, QuantHardSigmoid) for layer in quantized.layers) == 9


def test_targets_with_a_hard_swish_operation_keep_it():
    quantized = quantize_model(FAMILIES["v3_small"](), target="npu")
    assert not any(isinstance(layer, QuantHardSwish) for layer in quantized.layers)
    assert sum(isinstance(layer, km.HardSwish) for layer in quantized.layers) == 19


@pytest.mark.parametrize("suffix", ["keras", "h5", None])
def test_settings_are_kept_by_files_and_clones(tmp_path, suffix):
    asked = {"target": "edgetpu", "observer": Percentile(99.0), "input_range": (0.0, 1.0), "activation_bits": 16}
    quantized = quantize_model(small(activation="hard_swish"), **asked)
    path = tmp_path / f"model.{suffix}"
    quantized.save(path) if suffix else None
    other = keras.models.load_model(path, compile=False) if suffix else keras.models.clone_model(quantized)
    assert type(other) is QuantizedModel
    assert other.settings == quantized.settings == Settings(**asked)


@pytest.mark.parametrize(
    ("trained_for", "exported_for"), [("npu", "xnnpack"), ("tflite-micro", "edgetpu"), ("edgetpu", "npu")]
)
def test_a_target_that_rounds_elsewhere_is_refused(trained_for, exported_for):
    quantized = quantize_model(small(activation="hard_swish"), target=trained_for)
    assert target_for(quantized) == trained_for
    with pytest.raises(ValueError, match=f"quantized for target='{trained_for}'.*target='{exported_for}'"):
        target_for(quantized, exported_for)
    friend = {"npu": "tflite-micro", "tflite-micro": "npu", "edgetpu": "xnnpack"}[trained_for]
    assert target_for(quantized, friend) == friend
    assert target_for(quantize_model(small(), target=trained_for), exported_for) == exported_for  # no hard-swish in it
    for layer in quantized.layers:  # as saved by 0.1.0
        layer.settings = None
    assert target_for(quantized) == {"npu": "npu", "tflite-micro": "npu", "edgetpu": "xnnpack"}[trained_for]


@pytest.mark.parametrize("builder", ["MobileNet", "MobileNetV2", "MobileNetV3Small"])
def test_keras_applications_get_the_same_plan(families, builder):
    """Padding layers, `x * hard_sigmoid(x)` written out, and other names apart."""
    ours = {"MobileNet": "v1", "MobileNetV2": "v2", "MobileNetV3Small": "v3_small"}[builder]
    alpha = {"MobileNet": 0.25, "MobileNetV2": 0.35, "MobileNetV3Small": 1.0}[builder]
    theirs = getattr(keras.applications, builder)(input_shape=(32, 48, 3), alpha=alpha, weights=None, classes=4)
    quantized = quantize_model(theirs)
    assert len(quantized_behind(quantized)) == len(quantized_behind(families(ours)[1]))
    kinds = (QuantHardSwish, QuantHardSigmoid)
    for kind in kinds:
        count = sum(isinstance(layer, kind) for layer in families(ours)[1].layers)
        assert sum(isinstance(layer, kind) for layer in quantized.layers) == count


def test_the_model_is_left_as_it_was():
    model = FAMILIES["v2"]()
    before, names = [w.copy() for w in model.get_weights()], [layer.name for layer in model.layers]
    images = images_for(model)
    outputs = np.asarray(model(images))
    quantized = quantize_model(model)
    calibrate(quantized, images)
    quantized.set_weights([w * 0.5 for w in quantized.get_weights()])
    assert [layer.name for layer in model.layers] == names
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(model(images), outputs)


def test_input_range_is_that_of_the_normalization():
    def quantizer(*layers, **kwargs):
        model = keras.Sequential([keras.Input((8, 8, 3)), *layers, L.Conv2D(2, 3)])
        return next(layer for layer in quantize_model(model, **kwargs).layers if isinstance(layer, InputQuant))

    plain = quantizer()
    assert (plain.low, plain.high) == (-1.0, 1.0)
    assert (plain.zero_point, plain.shift) == (128, pytest.approx(1 / 255))
    rescaled = quantizer(L.Rescaling(1 / 127.5, offset=-1))
    assert (rescaled.low, rescaled.high) == (pytest.approx(-1.0), pytest.approx(1.0))
    unit = quantizer(L.RandomFlip(), L.Rescaling(1 / 255), L.RandomRotation(0.1))
    assert (unit.low, unit.high, unit.shift) == (0.0, pytest.approx(1.0), 0.0)
    given = quantizer(L.Rescaling(2.0, offset=-1), input_range=(0.0, 1.0))
    assert (given.low, given.high) == (-1.0, 1.0)


def test_preprocess_input_inside_a_functional_model_is_a_normalization():
    inputs = keras.Input((8, 8, 3))
    x = keras.applications.mobilenet_v2.preprocess_input(inputs)
    quantized = quantize_model(keras.Model(inputs, L.Conv2D(2, 3)(x)))
    quantizer = next(layer for layer in quantized.layers if isinstance(layer, InputQuant))
    assert (quantizer.low, quantizer.high) == (pytest.approx(-1.0), pytest.approx(1.0))
    assert quantizer.normalization == (pytest.approx(1 / 127.5), pytest.approx(-1.0))


def test_frozen_layers_stay_frozen_and_frozen_statistics_too():
    base = FAMILIES["v2_no_top"]()
    base.trainable = False
    inputs = keras.Input((32, 48, 3))
    x = L.GlobalAveragePooling2D()(base(inputs, training=False))
    quantized = quantize_model(keras.Model(inputs, L.Dense(2, name="head")(x)))
    assert [w.path for w in quantized.trainable_weights] == ["head/kernel", "head/bias"]
    base.trainable = True
    quantized = quantize_model(keras.Model(inputs, L.Dense(2, name="head")(x)))
    norm = quantized.get_layer("bn_Conv1")
    before = np.asarray(norm.moving_mean)
    quantized.compile("sgd", "mse", run_eagerly=True)
    quantized.fit(images_for(base), np.zeros((4, 2)), verbose=0)
    np.testing.assert_array_equal(norm.moving_mean, before)  # training=False of the nested call is kept


def test_shared_layers_stay_shared():
    shared = L.Conv2D(3, 1, name="shared", activation="relu")
    inputs = keras.Input((8, 8, 3))
    model = keras.Model(inputs, L.Add(name="add")([shared(shared(inputs)), inputs]))
    quantized = quantize_model(model)
    assert sum(layer.name == "shared" for layer in quantized.layers) == 1
    assert len(quantized.trainable_weights) == 2
    assert quantized_behind(quantized).count("shared_relu") == 1 and "shared_relu_quant_1" in [
        layer.name for layer in quantized.layers
    ]


def test_several_inputs_and_outputs():
    image, vector = keras.Input((8, 8, 3), name="image"), keras.Input((5,), name="vector")
    x = L.Flatten()(L.Conv2D(4, 3)(image))
    y = L.Add()([L.Dense(6)(x), L.Dense(6)(vector)])
    model = keras.Model({"image": image, "vector": vector}, {"a": L.Dense(2)(y), "b": L.Softmax()(y)})
    quantized = quantize_model(model, input_range={"image": (0.0, 1.0)})
    data = {
        "image": np.random.uniform(0, 1, (4, 8, 8, 3)).astype("float32"),
        "vector": np.random.normal(size=(4, 5)).astype("float32"),
    }
    calibrate(quantized, data)
    expected, found = model(data), quantized(data)
    for key in "ab":
        assert np.abs(expected[key] - found[key]).max() < 0.05 * np.ptp(expected[key])
    kinds = {layer.name: type(layer) for layer in quantized.layers}
    assert kinds["image_quant"] is InputQuant and kinds["vector_quant"] is FakeQuant


def test_softmax_is_split_and_rounded_outside_of_training_only():
    inputs = keras.Input((5,))
    quantized = quantize_model(keras.Model(inputs, L.Dense(300, activation="softmax", name="p")(inputs)))
    values = np.random.normal(size=(3, 5)).astype("float32")
    steps = np.asarray(quantized(values)) * 256
    np.testing.assert_array_equal(steps, np.rint(steps))
    assert (np.asarray(quantized(values, training=True)) > 0).all()  # the loss takes the logarithm


def test_a_layer_on_its_own_in_float():
    quantized = quantize_model(small(), skip=["bn"])
    assert type(quantized.get_layer("conv")) is L.Conv2D  # what is one operation stays together
    assert quantized_behind(quantized) == ["act", "pool", "head"]  # integers again for the pool
    assert not any(isinstance(layer, InputQuant) for layer in quantized.layers)
    values = np.random.uniform(-1, 1, (2, 8, 8, 3)).astype("float32")
    model = small()
    np.testing.assert_array_equal(
        model(values), quantize_model(model, skip=[layer.name for layer in model.layers[1:]])(values)
    )


def test_configs_override_bits_and_observer():
    configs = {"conv": QuantizeConfig(weight_bits=4), L.Dense: QuantizeConfig(activation_bits=16, observer="min_max")}
    quantized = quantize_model(small(), configs=configs)
    assert quantized.get_layer("conv").weight_bits == 4 and quantized.get_layer("head").weight_bits == 8
    head = quantized.get_layer("head_quant")
    assert (head.bits, head.symmetric, type(head.observer)) == (16, True, MinMax)
    assert (quantized.get_layer("act_quant").bits, quantized.get_layer("act_quant").symmetric) == (8, False)


def test_sixteen_bit_feature_maps_are_symmetric_and_finer():
    model = small(activation="hard_swish")
    images = images_for(model)
    errors = {}
    for bits in (8, 16):
        quantized = quantize_model(model, activation_bits=bits)
        calibrate(quantized, images)
        errors[bits] = np.abs(quantized(images) - model(images)).mean()
        assert all(layer.bits == bits for layer in quantized.layers if isinstance(layer, FakeQuant))
    assert errors[16] < errors[8]


@keras.saving.register_keras_serializable("tests")
class Scale(L.Layer):
    """A layer that the package cannot know."""

    def build(self, input_shape):
        self.factor = self.add_weight(shape=(input_shape[-1],), initializer="glorot_normal", name="factor")
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")

    def call(self, inputs):
        self.calls.assign(self.calls + 1.0)
        return inputs * self.factor


def with_scale():
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, L.Conv2D(2, 1, name="conv")(Scale(name="scale")(inputs)))


def test_own_layer_is_named_until_it_has_a_config():
    with pytest.warns(UserWarning, match=r"stay in float.*'scale' \(Scale\).*skip=\['scale'\].*QuantizeConfig"):
        assert quantize_model(with_scale()).float_layers == ("scale",)
    quantized = quantize_model(with_scale(), configs={Scale: QuantizeConfig({"factor": None}, weight_bits=3)})
    factor = np.asarray(quantized.get_layer("scale").quantized_weights()["factor"])
    steps = factor / (np.abs(factor).max() / 3)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-5)
    assert "scale" in quantized_behind(quantized)


def test_own_layer_trains_and_keeps_its_state(tmp_path):
    quantized = quantize_model(with_scale(), configs={"scale": QuantizeConfig({"factor": None})})
    quantized.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=False)
    before = np.asarray(quantized.get_layer("scale").layer.factor)
    quantized.fit(np.ones((4, 8, 8, 3)), np.ones((4, 8, 8, 2)), batch_size=2, verbose=0)
    inner = quantized.get_layer("scale").layer
    assert np.abs(inner.factor - before).max() > 0  # the gradient passes the rounding
    assert float(inner.calls) >= 2
    quantized.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    values = np.random.uniform(-1, 1, (2, 8, 8, 3)).astype("float32")
    np.testing.assert_array_equal(again(values), quantized(values))
    assert type(strip_quantization(again).get_layer("scale")) is Scale


def test_own_layer_whose_weight_is_not_there():
    with pytest.raises(ValueError, match="no weight in an attribute 'kernel'"):
        quantize_model(with_scale(), configs={"scale": QuantizeConfig({"kernel": -1})})


def test_annotated_layers_alone_are_quantized():
    def annotate(layer):
        chosen = isinstance(layer, L.Conv2D)
        return quantize_annotate_layer(layer, QuantizeConfig(weight_bits=4)) if chosen else layer

    model = small()
    annotated = keras.models.clone_model(model, clone_function=annotate)
    quantized = quantize_apply(annotated)
    assert quantized.get_layer("conv").weight_bits == 4
    assert type(quantized.get_layer("head")) is L.Dense
    assert quantized_behind(quantized) == ["act"]  # with its normalization and ReLU, one operation
    assert any(isinstance(layer, InputQuant) for layer in quantized.layers)
    np.testing.assert_array_equal(quantized.get_layer("conv").kernel, model.get_layer("conv").kernel)


def test_an_annotated_composite_or_model_is_quantized_in_all_its_parts(tmp_path):
    base = keras.Sequential(
        [keras.Input((8, 8, 3)), km.DepthwiseSeparableConv(4, name="conv_1"), km.SqueezeExcite(name="se")]
    )
    inputs = keras.Input((8, 8, 3))
    x = L.GlobalAveragePooling2D()(quantize_annotate_layer(base)(inputs))
    model = keras.Model(inputs, L.Dense(2, name="head")(x))
    model.save(tmp_path / "annotated.keras")
    quantized = quantize_apply(keras.models.load_model(tmp_path / "annotated.keras"))
    assert isinstance(quantized.get_layer("conv_pw_1"), QuantConv2D)
    assert sum(isinstance(layer, QuantHardSigmoid) for layer in quantized.layers) == 1
    assert type(quantized.get_layer("head")) is L.Dense


def test_configs_of_annotations_count_in_quantize_model():
    model = keras.Sequential([keras.Input((4,)), quantize_annotate_layer(L.Dense(3), QuantizeConfig(weight_bits=2))])
    layer = next(layer for layer in quantize_model(model).layers if isinstance(layer, QuantDense))
    assert layer.weight_bits == 2


def test_nothing_annotated():
    with pytest.raises(ValueError, match="No layer .* is annotated"):
        quantize_apply(small())
    with pytest.raises(TypeError, match="`quantize_config` must be a QuantizeConfig"):
        quantize_annotate_layer(L.Dense(2), {"weight_bits": 2})


def model_of(*layers, shape=(8, 8, 3)):
    return keras.Sequential([keras.Input(shape), *layers])


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (small, {"skip": ["cnv"]}, r"no layer 'cnv'. It has: \['image', 'conv'"),
        (small, {"configs": {"cnv": QuantizeConfig()}}, "no layer 'cnv'"),
        (small, {"configs": {"conv": QuantizeConfig({"kernel": 3})}}, "'conv' names weights, but what .* is known"),
        (small, {"target": "phone"}, r"`target` must be one of .*'xnnpack'.* Received: target='phone'"),
        (small, {"weight_bits": 9}, "`weight_bits` must be from 2 to 8"),
        (small, {"activation_bits": 1}, "`activation_bits` must be from 2 to 16"),
        (small, {"observer": "mean"}, "`observer` must be"),
        (small, {"input_range": (1.0, 1.0)}, r"`input_range` must be \(low, high\), finite and unlike.*Received"),
        (small, {"input_range": (0.0, float("nan"))}, "`input_range` must be"),
    ],
)
def test_refusals_name_the_layer_and_what_to_do(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        quantize_model(make(), **arguments)


def test_quantized_twice_or_never():
    quantized = quantize_model(small())
    assert is_quantized(quantized) and is_quantized(keras.Sequential([keras.Input((8, 8, 3)), quantized]))
    with pytest.raises(ValueError, match="quantized already"):
        quantize_model(quantized)
    for function in (strip_quantization, lambda model: calibrate(model, np.zeros((1, 8, 8, 3)))):
        with pytest.raises(ValueError, match="is not quantized"):
            function(small())


def test_subclassed_models_are_refused():
    class Opaque(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="functional or sequential"):
        quantize_model(Opaque())


def test_pooling_and_concatenation_keep_to_one_grid():
    inputs = keras.Input((8, 8, 3))
    a = L.Conv2D(4, 1, activation="relu", name="a")(inputs)
    b = L.AveragePooling2D(2, name="average")(a)
    c = L.Conv2D(4, 1, strides=2, name="c")(a)
    d = L.Concatenate(name="join")([b, c])
    quantized = quantize_model(keras.Model(inputs, d))
    assert quantized_behind(quantized) == ["a_relu", "join"]  # c is read by nothing else: it has the grid of the whole
    values = np.random.uniform(-1, 1, (4, 8, 8, 3)).astype("float32")
    calibrate(quantized, values)
    grid = quantized.get_layer("a_relu_quant")
    average = keras.Model(quantized.input, quantized.get_layer("join").output)(values)
    steps = np.asarray(average)[..., :4] / float(grid.scale)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)


def test_silu_and_separable_convolutions_are_taken_apart():
    inputs = keras.Input((8, 8, 3))
    x = L.SeparableConv2D(4, 3, strides=2, activation="silu", bias_initializer="normal", name="sep")(inputs)
    model = keras.Model(inputs, x)
    quantized = quantize_model(model, activation_bits=16)
    values = np.random.uniform(-1, 1, (4, 8, 8, 3)).astype("float32")
    calibrate(quantized, values)
    assert np.abs(quantized(values) - model(values)).max() < 0.02 * np.ptp(model(values))
    np.testing.assert_allclose(strip_quantization(quantized)(values), model(values), atol=1e-6)


def test_calibration_sees_all_data_and_starts_anew():
    model = small()
    quantized = quantize_model(model, observer="min_max")
    images = images_for(model, 8)
    calibrate(quantized, images * 0.1)
    narrow = quantized.get_layer("head_quant").range
    calibrate(quantized, images, batch_size=3)
    expected = keras.Model(model.input, model.get_layer("act").output)(images)
    low, high = quantized.get_layer("act_quant").range
    assert low == 0.0
    np.testing.assert_allclose(high, np.max(expected), rtol=0.02)  # the kernel is rounded, the rest is not
    assert np.ptp(narrow) < np.ptp(quantized.get_layer("head_quant").range)


def test_calibration_takes_what_fit_takes():
    import tensorflow as tf

    model = small()
    images = images_for(model, 8)
    quantized = quantize_model(model)
    ranges = []
    for data, arguments in [
        (images, {"batch_size": 4}),
        (tf.data.Dataset.from_tensor_slices((images, np.zeros(8))).batch(4), {}),
        (((images[i : i + 4], np.zeros(4)) for i in (0, 4)), {"steps": 2}),
    ]:
        calibrate(quantized, data, **arguments)
        ranges.append([layer.range for layer in quantized.layers if isinstance(layer, FakeQuant)])
    np.testing.assert_allclose(ranges[0], ranges[1], rtol=1e-5)
    np.testing.assert_allclose(ranges[0], ranges[2], rtol=1e-5)


def test_calibration_with_the_wrong_range_says_which():
    quantized = quantize_model(small())
    with pytest.raises(ValueError, match=r"saw inputs in \[0, 255\], but is quantized for \[-1, 1\]"):
        calibrate(quantized, np.tile(np.array([0.0, 255.0], "float32").reshape(1, 1, 2, 1), (2, 8, 4, 3)))


def test_bias_is_rounded_as_an_int32_would_be():
    model = small(bias=True)
    quantized = quantize_model(model)
    calibrate(quantized, images_for(model))
    conv, norm = quantized.get_layer("conv"), quantized.get_layer("bn")
    zeros = np.full((1, 8, 8, 3), quantized.get_layer("image_quant").low, "float32")
    factor, _ = norm.as_affine()
    unit = np.asarray(conv.bias_unit() * np.abs(factor))
    output = np.asarray(keras.Model(quantized.input, norm.output)(zeros))[0, 0, 0]
    integers = output / unit  # sum of products and bias are both multiples of the unit
    np.testing.assert_allclose(integers, np.rint(integers), atol=0.02)


def test_a_loaded_model_is_wired_as_the_saved_one(tmp_path):
    model = small()
    quantized = quantize_model(model)
    images = images_for(model)
    calibrate(quantized, images)
    quantized.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(again, QuantizedModel)
    assert again.get_layer("conv").bias_unit() is not None
    np.testing.assert_array_equal(again(images), quantized(images))
