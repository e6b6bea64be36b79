"""The quantization report: figures against NumPy, planted faults found and named, files matched with their model."""

import io
import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L
from rich.console import Console

import keras_mobilenets as km
from keras_mobilenets import quantization_report
from keras_mobilenets.diagnosis.matching import FileSimulation
from keras_mobilenets.diagnosis.simulation import Simulation
from keras_mobilenets.export.conversion import convert
from keras_mobilenets.export.signature import Signature
from keras_mobilenets.quantization import QuantizeConfig, calibrate, deployable, quantize_model
from keras_mobilenets.tflite import TFLiteModel

pytestmark = pytest.mark.usefixtures("eagerly")

SHAPE = (32, 32, 3)


def images(count=48, shape=SHAPE):
    """Blocks of colour: under noise alone every image is alike after the first average."""
    rng = np.random.default_rng(1)
    values = rng.uniform(0, 255, (count, 1, 1, 3)) + rng.normal(0, 60, (count, shape[0] // 8, shape[1] // 8, 3))
    return (np.clip(np.rint(values), 0, 255).repeat(8, 1).repeat(8, 2) / 127.5 - 1).astype("float32")


def decibels(true, found):
    return 10 * np.log10(np.sum(np.square(true, dtype="float64")) / np.sum(np.square(true - found, dtype="float64")))


def on_grid(values, low, high, bits=8):
    """`fake_quant` in NumPy."""
    step = (high - low) / (2**bits - 1)
    zero = np.clip(np.floor(0.5 - low / step), 0, 2**bits - 1)
    return (np.clip(np.round(values / step) + zero, 0, 2**bits - 1) - zero) * step


def kernel_on_grid(kernel, bits=8):
    step = np.abs(kernel).max(0) / (2 ** (bits - 1) - 1)
    return np.round(kernel / step) * step


def chain():
    """A small convolutional classifier with a linear layer 'bad' in the middle."""
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            L.Conv2D(8, 3, strides=2, activation="relu", name="first"),
            L.DepthwiseConv2D(3, name="bad"),
            L.Conv2D(16, 1, name="next"),
            L.ReLU(name="next_relu"),
            L.Conv2D(16, 3, strides=2, activation="relu", name="last"),
            L.GlobalAveragePooling2D(name="pool"),
            L.Dense(6, name="head"),
        ]
    )


def blow_up(model, factor=1000.0):
    """One channel of the depthwise layer times a factor that the next layer takes back: the same function."""
    kernel, bias = model.get_layer("bad").get_weights()
    after, after_bias = model.get_layer("next").get_weights()
    kernel[:, :, 2], bias[2], after[:, :, 2] = kernel[:, :, 2] * factor, bias[2] * factor, after[:, :, 2] / factor
    model.get_layer("bad").set_weights([kernel, bias])
    model.get_layer("next").set_weights([after, after_bias])


@pytest.fixture
def planted():
    model = chain()
    data = images()
    before = model.predict(data, verbose=0)
    blow_up(model)
    np.testing.assert_allclose(model.predict(data, verbose=0), before, rtol=1e-3, atol=1e-4)  # float32, 1000 times
    return model, data, before.argmax(-1)


def by_name(report):
    return {layer.name: layer for layer in report.layers}


def test_figures_are_those_of_numpy():
    inputs = keras.Input((6,), name="numbers")
    hidden = L.Dense(5, activation="relu", name="hidden")(inputs)
    model = keras.Model(inputs, L.Dense(3, name="scores")(hidden))
    data = np.random.default_rng(0).normal(size=(200, 6)).astype("float32")
    quantized = quantize_model(model)
    calibrate(quantized, data[:20])  # of few data: the others are clipped here and there
    report = quantization_report(model, quantized, data, batch_size=64, verbose=False)
    found = by_name(report)
    assert list(found) == ["numbers", "hidden", "scores"] and report.images == 200
    (first, first_bias), (second, second_bias) = (model.get_layer(name).get_weights() for name in ("hidden", "scores"))
    true = {"numbers": data, "hidden": np.maximum(data @ first + first_bias, 0)}
    true["scores"] = true["hidden"] @ second + second_bias
    ranges = {name: (found[name].low, found[name].high) for name in found}
    alone = {
        "numbers": on_grid(data, *ranges["numbers"]),
        "hidden": on_grid(np.maximum(data @ kernel_on_grid(first) + first_bias, 0), *ranges["hidden"]),
        "scores": on_grid(true["hidden"] @ kernel_on_grid(second) + second_bias, *ranges["scores"]),
    }

    def rest(name, value):
        value = value if name != "numbers" else np.maximum(value @ first + first_bias, 0)
        return value if name == "scores" else value @ second + second_bias

    for name, layer in found.items():
        assert layer.alone_db == pytest.approx(decibels(true[name], alone[name]), abs=0.05)  # ties of float32 sums
        answers = rest(name, alone[name])
        assert layer.outputs_db == pytest.approx(decibels(true["scores"], answers), abs=0.05)
        changed = answers.argmax(-1) != true["scores"].argmax(-1)
        assert layer.cost == pytest.approx(changed.mean(), abs=1e-9)
        low, high = ranges[name]
        outside = (true[name] < low - layer.step / 2) | (true[name] > high + layer.step / 2)
        assert layer.saturation == pytest.approx(outside.mean(), abs=1e-9)
        assert (layer.seen_low, layer.seen_high) == pytest.approx((true[name].min(), true[name].max()), rel=1e-5)
        widths = np.ptp(true[name], 0)
        assert layer.spread == pytest.approx(widths.max() / np.median(widths), rel=1e-5)
        whole = keras.Model(quantized.input, quantized.get_layer(_quantizer(name)).output).predict(data, verbose=0)
        assert layer.whole_db == pytest.approx(decibels(true[name], whole), abs=1e-3)
    assert found["numbers"].saturation > 0 and found["hidden"].saturation > 0
    assert found["hidden"].kernel_db == pytest.approx(decibels(first, kernel_on_grid(first)), abs=1e-3)
    channels = [decibels(*pair) for pair in zip(first.T, kernel_on_grid(first).T, strict=True)]
    assert found["hidden"].worst_channel == int(np.argmin(channels))
    assert found["hidden"].worst_channel_db == pytest.approx(min(channels), abs=1e-3)


def _quantizer(name):
    return {"numbers": "numbers_quant", "hidden": "hidden_relu_quant", "scores": "scores_quant"}[name]


def test_an_outlier_channel_is_ranked_first_and_named(planted):
    model, data, labels = planted
    quantized = quantize_model(model)
    calibrate(quantized, data)
    report = quantization_report(model, quantized, (data, labels), verbose=False)
    assert report.metric == "accuracy" and report.scores["float"] == 1.0
    assert report.ranking[0].name == report.verdict.layer == "bad"
    assert report.layers[2].widest_channel == 2 and report.layers[2].spread > 100
    assert "'bad' hurts most" in report.verdict.headline and "channel 2 of its output" in report.verdict.details[0]
    assert report.ranking[0].cost > 0.2
    # What is said to help does: the very calls, on the same data.
    skipped = next(one for one in report.verdict.remedies if "skip=" in one.code)
    assert skipped.code == "quantize_model(model, skip=['bad', 'next'])"
    mended = quantize_model(model, skip=["bad", "next"])
    calibrate(mended, data)
    accuracy = (mended.predict(data, verbose=0).argmax(-1) == labels).mean()
    assert accuracy == pytest.approx(skipped.score, abs=2 / 48)  # roundings of biases may turn two images
    assert accuracy >= report.scores["quantized"] + 0.2


def test_a_coarse_kernel_is_told_from_a_coarse_range():
    model, data = chain(), images()
    quantized = quantize_model(model, configs={"last": QuantizeConfig(weight_bits=2)})
    calibrate(quantized, data)
    report = quantization_report(model, quantized, data, verbose=False)
    assert report.metric == "agreement" and report.scores["float"] == report.scores["float weights"] == 1.0
    assert report.verdict.layer == "last" and "its kernel is coarse" in report.verdict.details[0]
    (remedy,) = report.verdict.remedies
    assert remedy.code == "quantize_model(model, skip=['last'])" and remedy.gain > 0.1


def test_a_range_that_clips_is_said_to_clip():
    model, data = chain(), images()
    quantized = quantize_model(model)
    calibrate(quantized, data)
    layer = quantized.get_layer("next_relu_quant")
    low, high = layer.range
    layer.set_range(low, high / 20)
    report = quantization_report(model, quantized, data, verbose=False)
    assert report.verdict.layer == "next" and "clips" in report.verdict.details[0]
    wider = next(one for one in report.verdict.remedies if "min_max" in one.code)
    assert wider.gain > 0.1 and "configs={'next_relu'" in wider.code


def test_where_nothing_hurts_nothing_is_blamed():
    model, data = chain(), images()
    quantized = quantize_model(model, activation_bits=16)
    calibrate(quantized, data)
    report = quantization_report(model, quantized, data, verbose=False)
    assert report.verdict.layer is None and report.verdict.headline.startswith("No layer stands out")
    assert report.verdict.remedies == ()


def test_trained_weights_are_told_from_rounding():
    model, data = chain(), images()
    quantized = quantize_model(model)
    calibrate(quantized, data)
    quantized.get_layer("head").kernel.assign(-quantized.get_layer("head").kernel)
    report = quantization_report(model, quantized, (data, model.predict(data, verbose=0).argmax(-1)), verbose=False)
    assert report.scores["float"] == 1.0 and report.scores["float weights"] < 0.5


def test_a_file_gives_the_ranges_and_kernels_that_went_into_it(planted, tmp_path):
    model, data, labels = planted
    quantized = quantize_model(model)
    calibrate(quantized, data)
    file = tmp_path / "planted.tflite"
    km.export_tflite(quantized, file, verify=data[:4], verbose=False)
    of_model = by_name(quantization_report(model, quantized, (data, labels), verbose=False))
    report = quantization_report(model, file, (data, labels), verbose=False)
    assert report.source == "planted.tflite" and report.missing == () and report.verdict.layer == "bad"
    for name, layer in by_name(report).items():
        # float32 scales; the two ends move by the rounding of the zero point
        assert layer.high - layer.low == pytest.approx(of_model[name].high - of_model[name].low, rel=1e-5)
        assert layer.low == pytest.approx(of_model[name].low, abs=layer.step)
        if layer.kernel_db is not None:
            assert layer.kernel_db == pytest.approx(of_model[name].kernel_db, abs=0.01)
        if layer.whole_db is not None and of_model[name].whole_db is not None:
            assert layer.whole_db == pytest.approx(of_model[name].whole_db, abs=1.0), name  # ties, and bias rounding
    answers = TFLiteModel(file).predict(data).argmax(-1)
    assert report.scores["quantized"] == pytest.approx((answers == labels).mean())


def slow(build):
    return pytest.param(build, marks=pytest.mark.slow)


FAMILY = (64, 64, 3)  # at 32 the last maps are of one pixel, and the converter drops their average


@pytest.mark.parametrize(
    "build",
    [
        lambda: km.MobileNet(FAMILY, alpha=0.25, weights=None, classes=4),
        slow(lambda: km.MobileNetV2(FAMILY, alpha=0.35, weights=None, classes=4, classifier_activation=None)),
        slow(lambda: km.MobileNetV3Small(FAMILY, alpha=0.75, weights=None, classes=4)),
    ],
    ids=["v1", "v2", "v3_small"],
)
def test_every_operation_of_a_family_is_found_in_its_file(build, tmp_path):
    model, data = build(), images(8, FAMILY)
    data = (data + 1) * 127.5 if "v3" in model.name.lower() else data
    for norm in km.inline(model).layers:
        if isinstance(norm, L.BatchNormalization):
            norm.momentum = 0.0
    model(data, training=True)  # at random weights the signal would die out
    quantized = quantize_model(model)
    calibrate(quantized, data)
    content = convert(deployable(quantized), Signature.of(quantized), scheme="int8", input_dtype="uint8")
    km.export_tflite(quantized, tmp_path / "told.tflite", verify=data, verbose=False)
    of_file, of_model = FileSimulation(model, content, data), Simulation(quantized)
    told = FileSimulation(model, (tmp_path / "told.tflite").read_bytes(), data)  # by what the file says
    assert {site.name: told.factors[site] for site in told.tensors} == {
        site.name: of_file.factors[site] for site in of_file.tensors
    }
    for made, found in ((of_file, "by likeness"), (told, "by origin")):
        check_simulation(made, of_model, found)


def check_simulation(of_file, of_model, found_by):
    assert of_file.missing == () and len(of_file.sites) == len(of_model.sites)
    for found, site in zip(of_file.sites, of_model.sites, strict=True):
        assert found.name == site.name
        if site.end in of_model.grids:
            grid, expected = of_file.grids[found.end], of_model.grids[site.end]
            assert grid.step == pytest.approx(expected.step, rel=1e-5), site.name  # float32
            assert grid.low == pytest.approx(expected.low, abs=grid.step), site.name  # the zero point is an integer
        if site.kernel is not None:
            ((_, kernel),), ((_, expected),) = of_file.kernels[found.kernel], of_model.kernels[site.kernel]
            np.testing.assert_allclose(kernel, expected, rtol=1e-4, atol=1e-6, err_msg=f"{site.name} {found_by}")


def test_a_file_says_where_its_operations_are(tmp_path):
    """Of kernels that are alike, layers called as others with a number, transposed convolutions, several inputs."""
    image, row = keras.Input(SHAPE, name="image"), keras.Input((4,), name="row")
    a = L.Conv2D(4, 3, activation="relu", kernel_initializer="ones", name="conv")(image)
    b = L.Conv2D(4, 3, activation="relu", kernel_initializer=keras.initializers.Constant(2.0), name="conv_1")(image)
    up = L.LeakyReLU(name="leaky")(L.Conv2DTranspose(4, 3, strides=2, name="up")(L.Add(name="sum")([a, b])))
    row_maps = L.Dense(4, name="dense")(row)
    mean = L.GlobalAveragePooling2D(name="mean")(up)
    model = keras.Model(
        {"image": image, "row": row}, L.Dense(2, name="out")(L.Concatenate(name="both")([mean, row_maps]))
    )
    data = {"image": images(4), "row": np.random.default_rng(0).normal(size=(4, 4)).astype("float32")}
    quantized = quantize_model(model)
    calibrate(quantized, data)
    km.export_tflite(quantized, tmp_path / "m.tflite", verify=data, verbose=False)
    found = FileSimulation(model, (tmp_path / "m.tflite").read_bytes(), data)
    assert {site.name for site in found.tensors} == {site.name for site in found.sites} - {"image"}
    assert {node.name for node in found.kernels} == {"conv", "conv_1", "up", "dense", "out"}
    of_model, of_file = Simulation(quantized).measure(data)[1], found.measure(data)[1]
    values = {site.name: value for site, value in of_model.items()}
    for site, value in of_file.items():
        step = found.grids[site.quantizer].step
        # Roundings to the other side; each layer adds one step of its own at most.
        np.testing.assert_allclose(value, values[site.name].reshape(value.shape), atol=3.01 * step, err_msg=site.name)


def test_kernels_of_one_scale_are_told_to_get_one_for_each_channel():
    """The depthwise fault in a file by TensorFlow's converter with a scale for each tensor."""
    model, data = chain(), images(200)
    bad = model.get_layer("bad")
    bad.activation = keras.activations.relu6  # which holds the range where it is: only the kernel is at fault
    kernel, bias = bad.get_weights()
    kernel[:, :, 2] *= 1000
    bad.set_weights([kernel, bias])
    labels = model.predict(data, verbose=0).argmax(-1)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([one[None]] for one in data[:50])
    converter._experimental_disable_per_channel = True
    report = quantization_report(model, converter.convert(), (data, labels), verbose=False)
    assert by_name(report)["bad"].kernel_db > 30  # the large channel alone
    assert by_name(report)["bad"].worst_channel_db == pytest.approx(0.0)  # the others are 0
    assert report.verdict.layer == "bad" and "one grid for all channels" in report.verdict.details[0]
    assert any("Give each channel" in one.what and one.gain > 0 for one in report.verdict.remedies)


def test_takes_what_fit_takes():
    model, data = chain(), images(8)
    labels = model.predict(data, verbose=0).argmax(-1)
    quantized = quantize_model(model)
    calibrate(quantized, data)
    one_hot = keras.utils.to_categorical(labels, 6)

    def endless():
        while True:
            yield data[:4], labels[:4, None]

    expected = quantization_report(model, quantized, (data, labels), verbose=False)
    batches = tf.data.Dataset.from_tensor_slices((data, one_hot)).batch(3)
    assert quantization_report(model, quantized, batches, verbose=False).images == 8
    np.testing.assert_allclose(
        [one.alone_db or 0 for one in quantization_report(model, quantized, batches, verbose=False).layers],
        [one.alone_db or 0 for one in expected.layers],
        atol=0.05,  # sums in another order
    )
    endless_report = quantization_report(model, quantized, endless(), steps=3, verbose=False)
    assert endless_report.images == 12 and endless_report.metric == "accuracy"


def test_a_model_without_classes_is_ranked_by_its_outputs():
    inputs = keras.Input(SHAPE)
    model = keras.Model(inputs, L.Conv2D(2, 3, name="b")(L.Conv2D(4, 3, activation="relu", name="a")(inputs)))
    data = images(8)
    quantized = quantize_model(model, configs={"a": QuantizeConfig(weight_bits=2)})
    calibrate(quantized, data)
    report = quantization_report(model, quantized, data, verbose=False)
    assert report.metric is None and report.scores == {} and report.ranking[0].name == "a"
    assert report.verdict.layer == "a" and "dB at the outputs" in report.verdict.headline
    report.print()


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", None])
def test_the_task_says_what_is_right(activation):
    """One sigmoid, or logits: measured as well; of several outputs nothing is claimed that nobody said."""
    inputs = keras.Input(SHAPE)
    x = L.GlobalAveragePooling2D()(L.Conv2D(4, 3, activation="relu", name="a")(inputs))
    scores = L.Dense(1 if activation == "sigmoid" else 3, activation=activation, name="scores")(x)
    model, data = keras.Model(inputs, scores), images(8)
    quantized = quantize_model(model)
    calibrate(quantized, data)
    answers = model.predict(data, verbose=0)
    labels = (answers[:, 0] > 0.5).astype(int) if activation == "sigmoid" else answers.argmax(-1)
    report = quantization_report(model, quantized, (data, labels), verbose=False)
    assert report.metric == "accuracy" and report.scores["float"] == 1.0
    several = keras.Model(inputs, {"boxes": L.Dense(4, name="boxes")(x), "scores": scores})
    quantized = quantize_model(several)
    calibrate(quantized, data)
    assert quantization_report(several, quantized, data, verbose=False).metric is None


def test_page_and_data_hold_everything(planted, tmp_path):
    model, data, labels = planted
    quantized = quantize_model(model)
    calibrate(quantized, data)
    report = quantization_report(model, quantized, (data, labels), verbose=False)
    page = report.save(tmp_path / "report.html").read_text()
    assert "&#39;bad&#39; hurts most" in page and page.count('src="data:image/png;base64,') == 3
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page) and "url(" not in page
    assert all(layer.name in page for layer in report.layers)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["layers"] == report.rows()
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(report)
    text = console.export_text()
    assert all(layer.name in text for layer in report.layers)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda model, quantized, data: (model, model, data), ValueError, "`quantized` must be a quantized model"),
        (lambda model, quantized, data: (model, 3, data), TypeError, "`quantized` must be .* Received: quantized=3"),
        (lambda model, quantized, data: (model, quantize_model(model), data), ValueError, "has no range yet"),
        (lambda model, quantized, data: (model, quantized, []), ValueError, "no images"),
        (lambda model, quantized, data: (model, quantized, (data, data)), ValueError, "Labels must be class numbers"),
        (lambda model, quantized, data: (model, b"nothing", data), ValueError, "not a .tflite file"),
    ],
)
def test_bad_arguments(change, error, message):
    model, data = chain(), images(2)
    quantized = quantize_model(model)
    calibrate(quantized, data)
    with pytest.raises(error, match=message):
        quantization_report(*change(model, quantized, data), verbose=False)


def test_a_file_of_another_model_is_refused():
    model, data = chain(), images(2)
    other = keras.Sequential([keras.Input(SHAPE), L.Conv2D(3, 5), L.GlobalAveragePooling2D()])
    quantized = quantize_model(other)
    calibrate(quantized, data)
    content = convert(deployable(quantized), Signature.of(quantized), scheme="int8", input_dtype="uint8")
    with pytest.raises(ValueError, match="must be a file of this model"):
        quantization_report(model, content, data, verbose=False)
