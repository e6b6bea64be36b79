"""What is trained is what is deployed: quantized models against the integer files that are made of them."""

import collections

import keras
import numpy as np
import pytest
from keras import layers as L
from runs import slow_but

import keras_mobilenets as km
from keras_mobilenets.export.conversion import convert
from keras_mobilenets.export.signature import Signature
from keras_mobilenets.quantization import (
    FakeQuant,
    QuantizeConfig,
    calibrate,
    deployable,
    quantize_model,
)
from keras_mobilenets.quantization.deploy import ConstantFakeQuant
from keras_mobilenets.tflite import TFLiteModel, audit
from keras_mobilenets.tflite.edit.slim import pack
from keras_mobilenets.tflite.file import read_tflite, unpack
from keras_mobilenets.tflite.runner import make_interpreter

HEIGHT, WIDTH = 48, 32
SHAPE = (HEIGHT, WIDTH, 3)
FAMILIES = {
    "v1": lambda: km.MobileNet(SHAPE, alpha=0.25, weights=None, classes=4, classifier_activation=None),
    "v1_friendly": lambda: km.MobileNet(SHAPE, alpha=0.25, weights=None, classes=4, quantization_friendly=True),
    "v2": lambda: km.MobileNetV2(SHAPE, alpha=0.35, weights=None, classes=4, classifier_activation=None),
    "v3_small": lambda: km.MobileNetV3Small(SHAPE, weights=None, classes=4, classifier_activation=None),
    "v3_large_no_top": lambda: km.MobileNetV3Large(SHAPE, alpha=0.75, weights=None, include_top=False, pooling="avg"),
    "v3_minimalistic": lambda: km.MobileNetV3Small(SHAPE, alpha=0.75, weights=None, classes=4, minimalistic=True),
}
NAMES = slow_but(FAMILIES, "v3_small")

Case = collections.namedtuple("Case", "model quantized deployed content pixels")


def pixels(count, seed=0):
    """Blocks of colour: noise alone would leave every image alike after the first average."""
    rng = np.random.default_rng(seed)
    values = rng.uniform(0, 255, (count, 1, 1, 3)) + rng.normal(0, 60, (count, HEIGHT // 8, WIDTH // 8, 3))
    return np.clip(np.rint(values), 0, 255).repeat(8, 1).repeat(8, 2).astype("uint8")


def as_taken(model, values):
    """Pixels as the model takes them."""
    has_rescaling = any(isinstance(layer, L.Rescaling) for layer in km.inline(model).layers)
    return values.astype("float32") if has_rescaling else (values / 127.5 - 1).astype("float32")


def enliven(model, images):
    """Gives batch normalization the statistics of the images: at random weights the signal would die out."""
    norms = [layer for layer in km.inline(model).layers if isinstance(layer, L.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0
    model(images, training=True)
    for norm in norms:  # some channels upside down, some off
        gamma = np.random.uniform(-1.5, 1.5, norm.gamma.shape)
        gamma[0] = 0.0
        norm.gamma.assign(gamma)
        norm.beta.assign(np.random.normal(size=gamma.shape))


def case(model, target="xnnpack", **settings):
    values = pixels(32)
    images = as_taken(model, values)
    enliven(model, images)
    quantized = quantize_model(model, target=target, **settings)
    calibrate(quantized, images)
    deployed = deployable(quantized, target=target)
    content = convert(deployed, Signature.of(deployed), scheme="int8", input_dtype="uint8")
    return Case(model, quantized, deployed, content, values)


@pytest.fixture(scope="module")
def cases():
    """Each family converted once."""
    made = {}

    def get(name):
        if name not in made:
            keras.utils.set_random_seed(1)
            made[name] = case(FAMILIES[name]())
        return made[name]

    return get


def grid_values(images, quantized):
    """What `deployable` takes for these images: what the quantizer of the input gives."""
    first = next(layer for layer in quantized.layers if layer.name.endswith("_quant"))
    return keras.Model(quantized.input, first.output).predict(images, verbose=0)


@pytest.mark.parametrize("name", NAMES)
def test_the_file_is_integer_throughout(cases, name):
    found = audit(cases(name).content)
    assert found.float_tensors == () and found.float_operations == () and found.conversions_inside == ()
    assert found.depthwise_per_channel
    assert found.operations["QUANTIZE"] == 2  # uint8 to int8 and back
    assert "HARD_SWISH" not in found.operations and "DEQUANTIZE" not in found.operations


@pytest.mark.parametrize("name", NAMES)
def test_no_operation_is_left_that_the_plan_does_without(cases, name):
    """Hard-swish takes one ADD and one MUL; hard-sigmoid, its division, padding and normalization take nothing."""
    layers = km.inline(cases(name).model).layers
    swishes = sum(isinstance(layer, km.HardSwish) for layer in layers)
    outputs = name == "v3_large_no_top"  # a hard-swish that leaves the model has to be divided by 6
    expected = {
        "CONV_2D": sum(isinstance(layer, L.Conv2D) for layer in layers),
        "DEPTHWISE_CONV_2D": sum(isinstance(layer, L.DepthwiseConv2D) for layer in layers),
        "ADD": sum(isinstance(layer, L.Add) for layer in layers) + swishes,
        "MUL": sum(isinstance(layer, L.Multiply) for layer in layers) + swishes + outputs,
        "MEAN": sum(isinstance(layer, L.GlobalAveragePooling2D) for layer in layers),
    }
    found = audit(cases(name).content).operations
    assert {key: found.get(key, 0) for key in expected} == expected


@pytest.mark.parametrize("name", NAMES)
def test_deployed_graph_computes_what_the_quantized_model_does(cases, name):
    one = cases(name)
    images = as_taken(one.model, one.pixels)
    points = [layer.name for layer in one.quantized.layers if isinstance(layer, FakeQuant)][:6]
    values = keras.Model(one.quantized.input, [one.quantized.get_layer(point).output for point in points])(images)
    outputs = [one.deployed.get_layer(point).output for point in points]
    deployed = keras.Model(one.deployed.input, outputs)(grid_values(images, one.quantized))
    for point, expected, found in zip(points, values, deployed, strict=True):
        scale = float(one.quantized.get_layer(point).scale)
        factor = round(float(np.max(np.abs(found)) / np.max(np.abs(expected))))  # 6 behind a hard-swish
        steps = np.abs(np.asarray(found) / factor - expected) / scale
        # Biases are rounded in the one only, float operations come in another order: a few values fall on the other
        # side of a tie, and this passes on from layer to layer.
        assert (steps > 0.5).mean() < 0.05 and steps.mean() < 0.05, point


def runtime(content, indices=None, delegate=True):
    """An interpreter; with `indices` one in which these inner tensors are outputs, so that XNNPACK computes them."""
    if indices is not None:
        model = unpack(content)
        model.subgraphs[0].outputs, model.signatureDefs = list(indices), []
        content = pack(model)
    return make_interpreter(content, "the file", threads=1, delegate=delegate)


def match(one):
    """The file's tensor for each quantizer of the deployed graph: those of one size and scale come in one order."""
    graph = read_tflite(one.content).graph
    tensors = collections.defaultdict(list)
    for operator in graph.operators:
        tensor = graph.results(operator)[0]
        if tensor.dtype == "int8":
            tensors[_key(tensor.size, tensor.scales[0])].append(tensor)
    matched = {}
    for layer in one.deployed.layers:
        if isinstance(layer, ConstantFakeQuant):
            key = _key(np.prod(layer.output.shape[1:]), (layer.high - layer.low) / 255)
            matched[layer.name] = tensors[key].pop(0)
    return matched


def _key(size, scale):
    return int(size), f"{scale:.4g}"


def sources(layer, stop):
    """The quantizers that a layer's values come from, walking backwards."""
    found, pending = [], [layer.input]
    while pending:
        for tensor in keras.tree.flatten(pending.pop()):
            producer = tensor._keras_history.operation
            if producer.name in stop:
                found.append(producer)
            elif not isinstance(producer, L.InputLayer):
                pending.append(keras.tree.flatten(producer.input))
    return list(dict.fromkeys(found))


@pytest.mark.parametrize("name", NAMES)
def test_each_layer_fed_the_same_integers_differs_by_at_most_one_step(cases, name):
    one = cases(name)
    matched = match(one)
    engine = runtime(one.content, [tensor.index for tensor in matched.values()])
    real = collections.defaultdict(list)
    for image in one.pixels[:8]:
        engine.set_tensor(engine.get_input_details()[0]["index"], image[None])
        engine.invoke()
        for name_, tensor in matched.items():
            real[name_].append((engine.get_tensor(tensor.index) - float(tensor.zero_points[0])) * tensor.scales[0])
    real = {key: np.concatenate(values).astype("float32") for key, values in real.items()}
    flips = total = 0
    for layer in one.deployed.layers:
        before = sources(layer, set(real)) if layer.name in real else []
        if not before:
            continue  # the input, and what is between quantizers
        part = keras.Model([source.output for source in before], layer.output)
        given = [real[source.name].reshape((8, *source.output.shape[1:])) for source in before]
        steps = np.abs(np.asarray(part(given)).ravel() - real[layer.name].ravel()) / ((layer.high - layer.low) / 255)
        assert steps.max() < 1.01, layer.name
        if "avg_pool" in layer.name:
            continue  # the mean of 2 pixels is a tie every other time; XNNPACK rounds half to even, TensorFlow up
        assert (steps > 0.5).mean() < 0.01, layer.name
        flips, total = flips + (steps > 0.5).sum(), total + steps.size
    assert total > 1000 and flips / total < 2e-3  # biases, which `deployable` leaves to the converter to round


@pytest.mark.parametrize("name", slow_but(["v2", "v3_small"], "v3_small"))
def test_integers_of_kernels_and_biases_are_the_trained_ones(cases, name):
    one = cases(name)
    engine = runtime(one.content, delegate=False)
    kernels = [layer for layer in one.quantized.layers if hasattr(layer, "quantized_kernel")]
    operations = [
        op for op in engine._get_ops_details() if op["op_name"] in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    ]
    for layer, operation in zip(kernels, operations, strict=True):
        stored = engine.get_tensor(operation["inputs"][1])
        kernel = np.asarray(layer.quantized_kernel())
        scale = np.abs(kernel).max(axis=layer.kernel_axes, keepdims=True) / 127
        integers = np.rint(kernel / np.where(scale > 0, scale, 1))
        if isinstance(layer, L.DepthwiseConv2D):
            integers = integers.reshape((1, *kernel.shape[:2], -1))
        else:
            integers = np.moveaxis(integers, -1, 0).reshape(stored.shape)
        norm = next((n for n in one.quantized.layers if getattr(n, "kernel_layer", None) == layer.name), None)
        if norm is not None:  # a channel with gamma 0 has no kernel, one with gamma < 0 the opposite one
            sign = np.sign(np.asarray(norm.gamma))
            integers = integers * (sign if isinstance(layer, L.DepthwiseConv2D) else sign[:, None, None, None])
        np.testing.assert_array_equal(integers, stored, err_msg=layer.name)


@pytest.mark.parametrize("name", slow_but(["v1", "v2", "v3_small"], "v3_small"))
def test_file_and_model_agree_on_the_outputs(cases, name):
    one = cases(name)
    values = pixels(64, seed=1)
    expected = one.quantized.predict(as_taken(one.model, values), verbose=0)
    found = TFLiteModel(one.content).predict(values)
    scale = next(layer for layer in one.quantized.layers[::-1] if isinstance(layer, FakeQuant)).scale
    # Random weights spread a flipped bit over everything behind it: the mean difference stays well under the spread.
    assert np.abs(expected - found).mean() < 0.5 * np.std(expected, axis=0).mean() + float(scale)


@pytest.mark.slow
def test_target_with_hard_swish_gets_the_operation():
    found = audit(case(km.MobileNetV3Small(SHAPE, alpha=0.75, weights=None, classes=4), target="tflite-micro").content)
    assert found.is_integer and found.conversions_inside == ()
    assert found.operations["HARD_SWISH"] == 19
    assert found.operations["MUL"] == 9  # squeeze-excite; its gate needs none


def test_hard_swish_that_leaves_the_model_is_divided_by_six():
    inputs = keras.Input(SHAPE)
    x = km.HardSwish(name="swish")(L.Conv2D(4, 3, strides=2, name="conv")(inputs))
    y = km.HardSigmoid(name="sigmoid")(L.Conv2D(4, 1, name="conv_2")(x))
    one = case(keras.Model(inputs, L.Multiply(name="mul")([x, y])))
    assert audit(one.content).is_integer
    expected = one.quantized.predict(as_taken(one.model, one.pixels), verbose=0)
    steps = np.abs(TFLiteModel(one.content).predict(one.pixels) - expected) / float(one.quantized.layers[-1].scale)
    assert steps.max() < 2.01 and (steps > 0.5).mean() < 0.01  # one step, and one more through the multiplication


def test_residual_over_hard_swish_needs_no_division():
    """MobileNetV3-Large's first block: both sides of the addition, and what reads it, are 6 times too large."""
    inputs = keras.Input(SHAPE)
    x = km.HardSwish()(L.Conv2D(4, 3, strides=2)(inputs))
    y = L.Add()([x, L.Conv2D(4, 1)(x)])
    one = case(keras.Model(inputs, L.Dense(3)(L.GlobalAveragePooling2D()(y))))
    assert audit(one.content).operations["MUL"] == 1
    expected = one.quantized.predict(as_taken(one.model, one.pixels), verbose=0)
    steps = np.abs(TFLiteModel(one.content).predict(one.pixels) - expected) / float(one.quantized.layers[-1].scale)
    assert steps.max() < 2.01 and steps.mean() < 0.1


def transfer_functional():
    base = km.MobileNetV2(SHAPE, alpha=0.35, weights=None, include_top=False)
    base.trainable = False
    inputs = keras.Input(SHAPE)
    x = L.RandomRotation(0.1)(L.RandomFlip("horizontal")(inputs))
    x = L.Rescaling(1 / 127.5, offset=-1)(x)
    x = L.Dropout(0.2)(L.GlobalAveragePooling2D()(base(x, training=False)))
    return keras.Model(inputs, L.Dense(5, activation="softmax")(x))


def transfer_sequential():
    base = keras.applications.MobileNet(SHAPE, alpha=0.25, weights=None, include_top=False)
    return keras.Sequential([keras.Input(SHAPE), base, L.Flatten(), L.Dense(8, activation="relu"), L.Dense(5)])


def transfer_resized():
    base = keras.applications.MobileNetV3Small(SHAPE, weights=None, include_top=False, pooling="avg")
    front = [keras.Input((None, None, 3)), L.Resizing(HEIGHT, WIDTH)]
    return keras.Sequential([*front, base, L.Dense(5, activation="sigmoid")])


@pytest.mark.parametrize(
    "make", slow_but([transfer_functional, transfer_sequential, transfer_resized], transfer_functional)
)
def test_transfer_models_are_integer_and_take_raw_pixels(make):
    one = case(make())
    found = audit(one.content)
    assert found.is_integer and found.conversions_inside == ()
    assert one.deployed.input_shape == (None, *SHAPE)
    expected = one.quantized.predict(as_taken(one.model, one.pixels), verbose=0)
    answers = TFLiteModel(one.content).predict(one.pixels)
    assert np.abs(answers - expected).mean() < 0.5 * np.std(expected, axis=0).mean() + 1 / 128


@pytest.mark.parametrize("low", [0.0, -1.0, -0.3])
def test_every_pixel_value_means_the_same(low):
    """One convolution without padding: the file equals the model on all 256 values, whatever the range."""
    inputs = keras.Input((16, 16, 1))
    model = keras.Model(inputs, L.Conv2D(4, 1, bias_initializer="normal")(inputs))
    values = np.arange(256, dtype="uint8").reshape((1, 16, 16, 1))
    normalized = (values / 255 * (1 - low) + low).astype("float32")
    quantized = quantize_model(model, input_range=(low, 1.0), observer="min_max")
    calibrate(quantized, normalized)
    content = convert(deployable(quantized), Signature.of(quantized), scheme="int8", input_dtype="uint8")
    scale = float(quantized.layers[-1].scale)
    steps = np.abs(TFLiteModel(content).predict(values) - quantized.predict(normalized, verbose=0)) / scale
    assert steps.max() < 1.01 and (steps > 0.5).mean() < 0.005  # ties
    float_steps = np.abs(TFLiteModel(content).predict(values) - model.predict(normalized, verbose=0)) / scale
    assert float_steps.max() < 1.6  # half a step of the output, a kernel's half step on an input of up to 1


def test_pooling_concatenation_and_upsampling_stay_integer():
    inputs = keras.Input(SHAPE)
    a = L.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="a")(inputs)
    b = L.UpSampling2D(interpolation="bilinear")(L.AveragePooling2D(2)(a))
    c = L.Conv2D(4, 1, name="c")(a)
    x = L.Subtract()([L.Concatenate(name="join")([b, c]), L.SeparableConv2D(8, 3, padding="same")(a)])
    x = L.Conv2D(8, 1, activation="silu")(L.MaxPooling2D(2)(x))
    one = case(keras.Model(inputs, L.Dense(3, activation="tanh")(L.GlobalMaxPooling2D()(x))))
    found = audit(one.content)
    assert found.is_integer and len(found.conversions_inside) == 1  # b is on the grid of a, which others read too
    expected = one.quantized.predict(as_taken(one.model, one.pixels), verbose=0)
    assert np.abs(TFLiteModel(one.content).predict(one.pixels) - expected).max() < 8 / 128


def test_a_skipped_layer_is_the_only_float_one():
    one_model = keras.Sequential([keras.Input(SHAPE), L.Conv2D(4, 3, name="a"), L.Conv2D(4, 3, name="b")])
    quantized = quantize_model(one_model, skip=["a"])
    images = as_taken(one_model, pixels(8))
    calibrate(quantized, images)
    deployed = deployable(quantized)
    assert np.abs(deployed.predict(images, verbose=0) - quantized.predict(images, verbose=0)).max() < 2 * float(
        quantized.layers[-1].scale
    )


def test_dead_channels_and_constant_outputs_survive():
    inputs = keras.Input(SHAPE)
    conv = L.Conv2D(4, 3, kernel_initializer="zeros", bias_initializer="ones", activation="relu")
    model = keras.Model(inputs, L.Conv2D(2, 1, kernel_initializer="zeros")(conv(inputs)))
    one = case(model)
    np.testing.assert_allclose(TFLiteModel(one.content).predict(one.pixels), 0.0, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight_bits": 4}, "4 bits, which is a simulation"),
        ({"configs": {"head": QuantizeConfig(activation_bits=16)}}, r"8 bits or of 16.*This model has \[8, 16\]"),
    ],
)
def test_what_no_runtime_knows_is_not_deployed(settings, message):
    model = keras.Sequential([keras.Input(SHAPE), L.Conv2D(4, 3), L.Conv2D(4, 3, name="head")])
    quantized = quantize_model(model, **settings)
    calibrate(quantized, as_taken(model, pixels(2)))
    with pytest.raises(ValueError, match=message):
        deployable(quantized)


def test_a_model_without_ranges_is_not_deployed():
    model = keras.Sequential([keras.Input(SHAPE), L.Conv2D(4, 3, name="conv")])
    with pytest.raises(ValueError, match="'conv_quant' has no range yet: train the model, or call"):
        deployable(quantize_model(model))
    with pytest.raises(ValueError, match="is not quantized"):
        deployable(model)
    with pytest.raises(ValueError, match="`target` must be one of"):
        deployable(quantize_model(model), target="toaster")


@pytest.mark.slow
def test_sixteen_bit_graph_has_symmetric_grids():
    model = km.MobileNetV3Small(SHAPE, alpha=0.75, weights=None, classes=4)
    images = as_taken(model, pixels(8))
    enliven(model, images)
    quantized = quantize_model(model, activation_bits=16)
    calibrate(quantized, images)
    deployed = deployable(quantized)
    for layer in deployed.layers:
        if isinstance(layer, ConstantFakeQuant):
            assert layer.bits == 16
            assert layer.low / (layer.high - layer.low) == pytest.approx(-32768 / 65535, rel=1e-6), layer.name
    expected = quantized.predict(images, verbose=0)
    found = deployed.predict(grid_values(images, quantized), verbose=0)
    np.testing.assert_allclose(found, expected, atol=2e-3)  # softmax, 1/32768 a step, after 50 layers of roundings


@pytest.mark.slow
def test_real_weights_on_real_photographs(testdata):
    """V1 0.25/128: 500 photographs give .968; here a fifth of them."""
    from PIL import Image

    files = sorted((testdata / "data" / "imagenet_sample").glob("*.jpg"))[::5]
    squares = []
    for file in files:
        with Image.open(file) as image:
            side = min(image.size) * 0.875
            x, y = ((edge - side) / 2 for edge in image.size)
            square = image.convert("RGB").resize((128, 128), Image.Resampling.BILINEAR, (x, y, x + side, y + side))
            squares.append(np.asarray(square))
    values = np.stack(squares)
    labels = np.array([int(file.name[:4]) for file in files])
    model = km.MobileNet((128, 128, 3), alpha=0.25, weights=testdata / "weights" / "mobilenet_2_5_128_tf.h5")
    images = as_taken(model, values)
    quantized = quantize_model(model)
    calibrate(quantized, images[:64])
    content = convert(deployable(quantized), Signature.of(quantized), scheme="int8", input_dtype="uint8")
    in_keras = quantized.predict(images, verbose=0).argmax(-1)
    in_file = TFLiteModel(content).predict(values).argmax(-1)
    assert (in_keras == in_file).mean() >= 0.93  # .968 less two standard deviations of 100 images
    assert abs((in_keras == labels).mean() - (in_file == labels).mean()) <= 0.02  # two images
