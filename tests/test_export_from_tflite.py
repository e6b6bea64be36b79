"""from_tflite: an integer file becomes a Keras model that answers as it did; others are refused with reasons."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from export_models import images, tiny
from PIL import Image

from keras_mobilenets import SSD300, MobileNet, MobileNetV2, MobileNetV3Large, MobileNetV3Small
from keras_mobilenets.data import read_image
from keras_mobilenets.export import export_tflite
from keras_mobilenets.integer import integer_model
from keras_mobilenets.interop import from_tflite
from keras_mobilenets.interop.from_tflite_steps import Step
from keras_mobilenets.interop.from_tflite_weights import means_in_file
from keras_mobilenets.layers import inline
from keras_mobilenets.quantization import FakeQuant, calibrate, is_quantized, quantize_model
from keras_mobilenets.quantization.bias_correction import LEAST_VALUES, channel_means
from keras_mobilenets.tasks import task_of
from keras_mobilenets.tflite import TFLiteModel, read_tflite
from keras_mobilenets.tflite.edit.endings import without_choice
from keras_mobilenets.tflite.edit.slim import pack
from keras_mobilenets.tflite.file import schema, unpack

pytestmark = pytest.mark.usefixtures("eagerly")

SIZE = 32
CLASSES = 7


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((MobileNet, 0.25), id="V1"),
        pytest.param((MobileNetV2, 0.35), id="V2", marks=pytest.mark.slow),
    ],
)
def exported(request, tmp_path_factory):
    keras.utils.set_random_seed(0)
    builder, alpha = request.param
    model = builder((SIZE, SIZE, 3), alpha=alpha, weights=None, classes=CLASSES, momentum=0.0)
    model(images(64), training=True)  # momentum 0: the statistics are this batch's, so that signals live
    twin = quantize_model(model)
    calibrate(twin, images(64))
    path = tmp_path_factory.mktemp("from") / "model.tflite"
    export_tflite(twin, path, verbose=False)
    return model, path


def folded(model) -> list[tuple[np.ndarray, np.ndarray]]:
    """Kernels (..., channels) and biases with the batch normalization behind them folded in."""
    layers, pairs = inline(model).layers, []
    for layer, norm in zip(layers, [*layers[1:], None], strict=True):
        if not hasattr(layer, "kernel"):
            continue
        kernel, bias = np.asarray(layer.kernel), np.asarray(layer.bias) if layer.use_bias else 0.0
        if isinstance(layer, keras.layers.DepthwiseConv2D):
            kernel = kernel[..., 0]
        if isinstance(norm, keras.layers.BatchNormalization):
            factor = np.asarray(norm.gamma) / np.sqrt(np.asarray(norm.moving_variance) + norm.epsilon)
            kernel, bias = kernel * factor, (bias - np.asarray(norm.moving_mean)) * factor + np.asarray(norm.beta)
        pairs.append((kernel.reshape(-1, kernel.shape[-1]), bias))
    return pairs


@pytest.fixture
def uncorrected(monkeypatch):
    """The biases stay those of the file."""
    monkeypatch.setattr(importlib.import_module("keras_mobilenets.interop.from_tflite"), "correct_biases", print)


@pytest.mark.parametrize("measured", [False, True])
def test_weights_are_the_exported_ones_rounded(exported, measured, uncorrected):
    model, path = exported
    back = from_tflite(path, images=images(64) if measured else None)
    assert back.name == model.name and back.count_params() == model.count_params() and not is_quantized(back)
    for (kernel, bias), (found, found_bias) in zip(folded(model), folded(back), strict=True):
        step = np.abs(kernel).max(0) / 127  # one symmetric grid of 8 bits for each channel
        assert (np.abs(kernel - found) <= 0.501 * step + 1e-6).all()
        # An int32 in units of input step times kernel step; no input here is wider than [-4, 8].
        assert (np.abs(bias - found_bias) <= step * 12 / 255 + 1e-5).all()


def test_quantized_model_is_the_file(exported, tmp_path):
    """Evaluated, it answers to the bit; exported again, the same integers come out."""
    _, path = exported
    twin = from_tflite(path, quantized=True)
    assert is_quantized(twin)
    export_tflite(twin, tmp_path / "again.tflite", verify=images(8), verbose=False)
    pixels = np.rint((images(32) + 1) * 127.5).astype(np.uint8)
    expected = TFLiteModel(path).predict(pixels)
    np.testing.assert_array_equal(twin.predict(pixels / np.float32(127.5) - 1, verbose=0), expected)
    np.testing.assert_array_equal(TFLiteModel(tmp_path / "again.tflite").predict(pixels), expected)


def test_images_give_channels_the_means_of_the_file(exported):
    _, path = exported
    content, kernels = path.read_bytes(), ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    outputs = [one.outputs[0] for one in read_tflite(path).graph.operators if one.name in kernels]
    grids = read_tflite(path).graph.tensors
    steps = [Step("convolution", [], shape=(1,), tensor=grids[index]) for index in outputs]
    pairs = [
        (step, Step("convolution", [], names=[], layer=SimpleNamespace(name=str(n)))) for n, step in enumerate(steps)
    ]
    wanted = means_in_file(content, pairs, images(64)).values()
    sizes = [64 * np.prod(grids[index].shape[1:-1], dtype=int) for index in outputs]  # values of a channel
    errors = []
    for model in (from_tflite(path, images=images(64)), from_tflite(path)):
        # V2's last layer has its softmax inside: there are no means in front of it, and its bias stays.
        found = channel_means(model, images(64)).values()
        rows = zip(found, wanted, sizes, strict=False)
        errors.append(np.concatenate([np.abs(one - mean) for one, mean, size in rows if size >= LEAST_VALUES]).mean())
    # Not all of it: where ReLU6 cuts off some values, the mean is no straight line of the bias.
    assert errors[0] < 0.2 * errors[1]


def test_measured_statistics_keep_the_function_and_make_it_trainable(exported, uncorrected):
    _, path = exported
    frozen, measured = from_tflite(path), from_tflite(path, images=images(64))
    expected = frozen.predict(images(16), verbose=0)
    np.testing.assert_allclose(measured.predict(images(16), verbose=0), expected, atol=1e-4)
    # Statistics of the very batch: training mode answers as inference does, dropout apart.
    in_training = keras.ops.convert_to_numpy(measured(images(64), training=True))
    assert np.abs(in_training - measured.predict(images(64), verbose=0)).max() < 0.1
    assert not any(layer.trainable for layer in _norms(frozen)) and all(layer.trainable for layer in _norms(measured))
    measured.compile("adam", "sparse_categorical_crossentropy")
    losses = [measured.train_on_batch(images(32), np.arange(32) % CLASSES) for _ in range(4)]
    assert losses[-1] < losses[0]


def _norms(model):
    return [layer for layer in inline(model).layers if isinstance(layer, keras.layers.BatchNormalization)]


@pytest.mark.parametrize(
    ("model", "quantize", "reason"),
    [
        ({}, None, "CONV_2D, is float32, not int8 or uint8"),
        ({}, "int8", "it has 3 depthwise convolutions, of those known MobileNet 13"),
    ],
)
def test_foreign_graphs_are_refused_with_reasons(model, quantize, reason, tmp_path):
    path = tmp_path / "m.tflite"
    export_tflite(tiny(**model), path, quantize=quantize, calibration=images(16), verbose=False)
    with pytest.raises(ValueError, match=f"m.tflite cannot become a model of this package: .*{reason}"):
        from_tflite(path)


@pytest.mark.parametrize(
    ("builder", "options", "target"),
    [
        (MobileNetV3Small, {"alpha": 0.25}, "xnnpack"),
        pytest.param(MobileNetV3Small, {"alpha": 0.25}, "npu", marks=pytest.mark.slow),
        pytest.param(MobileNetV3Small, {"alpha": 0.35, "minimalistic": True}, "tflite-micro", marks=pytest.mark.slow),
        pytest.param(MobileNetV3Large, {"alpha": 0.35}, "edgetpu", marks=pytest.mark.slow),
        pytest.param(MobileNetV2, {"alpha": 0.75, "classifier_activation": None}, "npu", marks=pytest.mark.slow),
        pytest.param(SSD300, {"alpha": 0.25, "backbone": "MobileNet"}, "xnnpack", marks=pytest.mark.slow),
    ],
)
def test_files_of_every_family_and_target_come_back(builder, options, target, tmp_path):
    """The weights that were exported: rounded, and with the factors of 6 undone that the file has in its kernels."""
    keras.utils.set_random_seed(0)
    detects, takes_pixels = builder is SSD300, "V3" in builder.__name__
    options |= {"backbone_weights": None} if detects else {"weights": None, "momentum": 0.0}
    model = builder(input_shape=(SIZE, SIZE, 3), classes=CLASSES, **options)
    given = images(32) * 127.5 + 127.5 if takes_pixels else images(32)
    model(given, training=True)
    twin = quantize_model(model, target=target)
    calibrate(twin, given)
    export_tflite(twin, tmp_path / "m.tflite", verbose=False)
    back = from_tflite(tmp_path / "m.tflite")
    assert back.name == model.name and back.count_params() == model.count_params()
    for (kernel, bias), (found, found_bias) in zip(folded(model), folded(back), strict=True):
        step = np.abs(kernel).max(0) / 127
        assert (np.abs(kernel - found) <= 0.501 * step + 1e-6).all()
        assert (np.abs(bias - found_bias) <= step * 0.5 + 1e-4).all()
    again = from_tflite(tmp_path / "m.tflite", quantized=True)
    ranges = [
        [layer.range for layer in one.layers if isinstance(layer, FakeQuant) and layer.fixed_range is None]
        for one in (twin, again)
    ]
    trained, found = np.array(ranges)  # to a step: a file's grid holds 0, and moves the range for it
    assert (np.abs(trained - found).max(1) <= 1.01 * np.ptp(trained, 1) / 255).all()


def edited(path, change) -> bytes:
    """The file with its operators changed."""
    model = unpack(path.read_bytes())
    change(model, model.subgraphs[0])
    return pack(model)


def unfuse_clamps(model, graph):
    """The range of the result implies every ReLU6."""
    for operator in graph.operators:
        if hasattr(operator.builtinOptions, "fusedActivationFunction"):
            operator.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.NONE


def squeeze(model, graph):
    """A SQUEEZE where the RESHAPE was."""
    builtin = schema.BuiltinOperator
    code = next(one for one in model.operatorCodes if one.builtinCode == builtin.RESHAPE)
    code.builtinCode = code.deprecatedBuiltinCode = builtin.SQUEEZE
    for operator in graph.operators:
        if model.operatorCodes[operator.opcodeIndex] is code:
            operator.inputs = operator.inputs[:1]
            operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.SqueezeOptions, None


def pad_apart(model, graph):
    """A PAD in front of the second depthwise convolution, which is "valid" then: 2x2 pixels at strides 2."""
    tensors = graph.tensors
    operator = next(
        one
        for one in graph.operators
        if type(one.builtinOptions).__name__ == "DepthwiseConv2DOptionsT" and one.builtinOptions.strideH == 2
    )
    source = tensors[operator.inputs[0]]
    model.buffers.append(schema.BufferT(np.array([0, 0, 0, 1, 0, 1, 0, 0], np.int32).view(np.uint8)))
    tensors.append(schema.TensorT(np.array([4, 2], np.int32), schema.TensorType.INT32, len(model.buffers) - 1))
    batch, height, width, channels = source.shape
    shape = np.array([batch, height + 1, width + 1, channels], np.int32)
    tensors.append(schema.TensorT(shape, source.type, 0, quantization=source.quantization))
    number = schema.BuiltinOperator.PAD
    model.operatorCodes.append(schema.OperatorCodeT(number, None, 2, number))
    last = len(tensors) - 1
    pads = np.array([operator.inputs[0], last - 1], np.int32)
    pad = schema.OperatorT(len(model.operatorCodes) - 1, pads, np.array([last], np.int32))
    graph.operators.insert(graph.operators.index(operator), pad)
    operator.inputs = np.array([last, *operator.inputs[1:]], np.int32)
    operator.builtinOptions.padding = schema.Padding.VALID


@pytest.mark.parametrize("change", [unfuse_clamps, squeeze, pad_apart])
def test_other_converters_habits_change_nothing(exported, change):
    _, path = exported
    expected, found = from_tflite(path), from_tflite(edited(path, change))
    assert found.name == expected.name
    for one, other in zip(expected.get_weights(), found.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_other_strides_and_another_order_are_refused(exported):
    _, path = exported
    kernels = [one.index for one in read_tflite(path).graph.operators if one.name.endswith("CONV_2D")]
    changed = unpack(path.read_bytes())
    options = changed.subgraphs[0].operators[kernels[1]].builtinOptions
    options.strideH = options.strideW = 2
    with pytest.raises(ValueError, match=f"operation {kernels[1]} is .*strides .2, 2.*, where mobilenet.* has"):
        from_tflite(pack(changed))
    changed = unpack(path.read_bytes())
    operators = changed.subgraphs[0].operators
    operators[kernels[3]].inputs = np.array([operators[kernels[0]].outputs[0], *operators[kernels[3]].inputs[1:]])
    with pytest.raises(ValueError, match=f"operation {kernels[3]}, .* does not read what the one before it wrote"):
        from_tflite(pack(changed))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "agreement"),
    [
        # Of 100 photographs; benchmarks/pretrained.csv has all 500. The rest is the rounding of feature maps, which a
        # float model does not do: XNNPACK and the plain kernels give .978, .980, .988, .986 of them the same answer.
        ("mobilenet_v1_0.25_128_quant", 0.95),
        ("mobilenet_v1_0.5_160_quant", 0.96),
        ("mobilenet_v2_1.0_224_quant", 0.97),
        ("tf2_mobilenet_v2_1.0_224_ptq", 0.96),
        ("mobilenet_v1_0.75_224_quant", 0.93),
    ],
)
def test_published_files(testdata, name, agreement):
    file = testdata / "published" / f"{name}.tflite"
    original = TFLiteModel(file)
    photographs = sorted((testdata / "data" / "imagenet_sample").glob("*.jpg"))
    pixels = np.stack([read_image(path, original.input_shape[0]) for path in [*photographs[::5], *photographs[1::10]]])
    normalized = pixels / np.float32(127.5) - 1
    model, pixels = from_tflite(file, images=normalized[100:]), pixels[:100]
    answers = model.predict(normalized[:100], batch_size=25, verbose=0).argmax(-1)
    scores = original.predict(pixels)
    # Probabilities in steps of 1/256 tie for the first place on one image in twenty: any of them is the file's answer.
    assert np.mean(scores[np.arange(len(scores)), answers] == scores.max(-1)) >= agreement


@pytest.mark.slow
def test_the_published_detector(testdata):
    """COCO's boxes: the integers of the file give them to the bit, the trainable model nearly all of them."""
    path = testdata / "published" / "ssd_mobilenet_v1_coco_300_quant.tflite"
    file = read_tflite(path)
    task, pictures = task_of(file), sorted((testdata / "data" / "coco256" / "images" / "val2017").glob("*.jpg"))[:16]
    pixels = np.stack([np.asarray(Image.open(one).convert("RGB").resize((300, 300))) for one in pictures])
    expected = task.decode(TFLiteModel(file).predict(pixels))
    tensors = [file.graph.tensors[index] for index in without_choice(file.graph).outputs]
    integers = integer_model(path).predict(pixels, batch_size=8, verbose=0)
    real = [
        (np.float32(one) - np.float32(tensor.zero_points[0])) * tensor.scales[0]
        for one, tensor in zip(integers, tensors, strict=True)
    ]
    for one, other in zip(task.decode(real), expected, strict=True):
        for name, values in one.items():
            np.testing.assert_array_equal(values, other[name], err_msg=name)
    model = from_tflite(path)
    assert model.output["scores"].shape == (None, 1917, 90)
    found = task.decode(model.predict(pixels / np.float32(127.5) - 1, batch_size=8, verbose=0))
    assert task.agreement(found, expected).mean() >= 0.9  # .947 of 128; the rest is the rounding of feature maps


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "mobilenet_v1_0.25_128_quant",  # a pooling, whose halves fall to another side than a mean's
        "mobilenet_v2_1.0_224_quant",
        "tf2_mobilenet_v2_1.0_224_ptq",  # a grid for each channel, some of them without a kernel
        "v3-small_224_1.0_uint8",  # gates in three operations
    ],
)
def test_twins_of_published_files_give_the_files_own_logits(testdata, name):
    file = testdata / "published" / f"{name}.tflite"
    photographs = sorted((testdata / "data" / "imagenet_sample").glob("*.jpg"))[::100]
    pixels = np.stack([read_image(path, TFLiteModel(file).input_shape[0]) for path in photographs])
    twin, logits = from_tflite(file, quantized=True), []
    for source in (file, twin):
        stored = np.asarray(integer_model(source, logits=True)(pixels))
        logits.append(stored.reshape(len(pixels), -1).astype(int) - np.iinfo(stored.dtype).min)
    np.testing.assert_array_equal(*logits)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("builder", "options", "dtype"),
    [
        ("MobileNetV2", {"alpha": 0.35, "include_preprocessing": False}, "float32"),
        ("MobileNetV3Small", {"alpha": 0.75, "include_preprocessing": False}, "int8"),
        ("MobileNetV3Large", {"alpha": 0.75, "minimalistic": True, "include_preprocessing": True}, "uint8"),
    ],
)
def test_twins_of_files_of_tensorflows_converter_answer_as_they_do(builder, options, dtype):
    """Gates with a sixth on a grid of its own, a scaling as operations, a shape that is computed, a float image."""
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    scaled = options.pop("include_preprocessing")
    options |= {"include_preprocessing": scaled} if "V3" in builder else {}
    network = getattr(keras.applications, builder)((64, 64, 3), weights=None, classes=CLASSES, **options)
    pixels = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), "uint8")
    given = pixels.astype("float32") if scaled else pixels / np.float32(127.5) - 1
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    network(given, training=True)
    converter = tf.lite.TFLiteConverter.from_keras_model(network)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([image[None]] for image in given)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = getattr(tf, dtype)
    content = converter.convert()
    expected = TFLiteModel(content).predict(given if dtype == "float32" else pixels)
    found = from_tflite(content, quantized=True).predict(pixels / np.float32(127.5) - 1, verbose=0)
    np.testing.assert_array_equal(found, expected)
