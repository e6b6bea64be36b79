"""The integer model against the runtime: every output byte, softmax and logits, of every family."""

import itertools

import flatbuffers
import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from runs import slow_but

import keras_mobilenets as km
from keras_mobilenets.integer import integer_model
from keras_mobilenets.integer.convolution import largest_sums, split_channels
from keras_mobilenets.tflite.edit.endings import without_softmax

SIZE = 60  # maps of other than 2**n pixels, of odd sizes on the way
FAMILIES = {
    "MobileNet": {"alpha": 0.25},
    "MobileNet-friendly": {"alpha": 0.25, "quantization_friendly": True},
    "MobileNetV2": {"alpha": 0.35},
    "MobileNetV3Small": {"alpha": 0.75},
    "MobileNetV3Small-npu": {"alpha": 0.75},
    "MobileNetV3Large-minimalistic": {"alpha": 0.35, "minimalistic": True},
}


def pixels(count, size=SIZE):
    return np.random.default_rng(1).integers(0, 256, (count, size, size, 3), "uint8")


@pytest.fixture(scope="module", params=slow_but(FAMILIES, "MobileNet"))
def exported(request, tmp_path_factory):
    """A full-integer file of each family, with measured batch statistics: else all images get one answer."""
    target = "npu" if request.param.endswith("npu") else "xnnpack"
    keras.utils.set_random_seed(0)
    name = request.param.split("-")[0]
    model = getattr(km, name)(input_shape=(SIZE, SIZE, 3), weights=None, classes=50, **FAMILIES[request.param])
    for layer in km.inline(model).layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    images = pixels(16).astype("float32")
    images = images if "V3" in name else images / 127.5 - 1
    model(images, training=True)
    quantized = km.quantize_model(model, target=target)
    km.calibrate(quantized, images)
    path = tmp_path_factory.mktemp("exported") / "model.tflite"
    km.export_tflite(quantized, path, target=target, verbose=False)
    return path


def runtime(content, images, kernels="xnnpack"):
    resolver = {"reference": OpResolverType.BUILTIN_REF}.get(kernels, OpResolverType.AUTO)
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    answers = []
    for image in images:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
        interpreter.invoke()
        answers.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0].copy())
    return np.stack(answers)


def test_every_byte_equals_the_runtimes(exported):
    images, content = pixels(24), exported.read_bytes()
    np.testing.assert_array_equal(integer_model(exported).predict(images, verbose=0), runtime(content, images))
    logits = runtime(without_softmax(content), images)
    assert len(np.unique(logits)) > 30  # not one flat answer
    np.testing.assert_array_equal(integer_model(exported, logits=True).predict(images, verbose=0), logits)


@pytest.mark.slow
@pytest.mark.parametrize("exported", ["MobileNetV3Small"], indirect=True)
def test_means_where_rounding_is_close(exported):
    """Feature maps whose sums lie beside a tie of the rounding, where the order of float32 operations decides."""
    rng = np.random.default_rng(0)
    for _ in range(4):
        model = schema.ModelT.InitFromPackedBuf(exported.read_bytes(), 0)
        graph = model.subgraphs[0]
        kinds = [model.operatorCodes[operator.opcodeIndex].builtinCode for operator in graph.operators]
        mean = graph.operators[kinds.index(schema.BuiltinOperator.MEAN)]
        graph.operators, graph.inputs, graph.outputs = [mean], [mean.inputs[0]], list(mean.outputs)
        model.signatureDefs = []
        source, result = (graph.tensors[tensor] for tensor in (mean.inputs[0], mean.outputs[0]))
        _, height, width, channels = source.shape
        scale, zero_points = rng.uniform(0.01, 0.2), rng.integers(-128, 100, 2)
        source.quantization.scale, source.quantization.zeroPoint = [scale], [int(zero_points[0])]
        result.quantization.scale, result.quantization.zeroPoint = [scale * 0.3], [int(zero_points[1])]
        ties = (rng.integers(-100, 100, (32, channels)) + 0.5) * 0.3 * height * width
        whole, rest = np.divmod(np.rint(ties).astype(int) + zero_points[0] * height * width, height * width)
        images = whole[:, None] + (np.arange(height * width)[:, None] < rest[:, None])
        images = images.clip(-128, 127).astype("int8").reshape(32, height, width, channels)
        builder = flatbuffers.Builder(0)
        builder.Finish(model.Pack(builder), b"TFL3")
        content = bytes(builder.Output())
        np.testing.assert_array_equal(integer_model(content).predict(images, verbose=0), runtime(content, images))


# Not MobileNetV3Small: the runtime's reference kernels crash on its squeeze-excite (ai-edge-litert 2.3).
@pytest.mark.parametrize(
    "exported",
    slow_but(["MobileNet", "MobileNetV2", "MobileNetV3Large-minimalistic"], "MobileNet"),
    indirect=True,
)
def test_reference_kernels(exported):
    images, content = pixels(8), without_softmax(exported.read_bytes())
    ours = integer_model(exported, kernels="reference", logits=True).predict(images, verbose=0)
    np.testing.assert_array_equal(ours, runtime(content, images, "reference"))


@pytest.mark.slow
def test_quantized_model_is_exported_on_the_way(tmp_path):
    model = km.MobileNet(input_shape=(32, 32, 3), alpha=0.25, weights=None, classes=5)
    quantized = km.quantize_model(model)
    km.calibrate(quantized, pixels(8, 32) / 127.5 - 1.0)
    km.export_tflite(quantized, tmp_path / "model.tflite", verbose=False)
    images = pixels(8, 32)
    from_model, from_file = integer_model(quantized), integer_model(tmp_path / "model.tflite")
    np.testing.assert_array_equal(from_model.predict(images, verbose=0), from_file.predict(images, verbose=0))


@pytest.mark.parametrize("exported", ["MobileNet"], indirect=True)
def test_saved_and_loaded(exported, tmp_path):
    model = integer_model(exported)
    model.save(tmp_path / "integer.keras")
    loaded = keras.models.load_model(tmp_path / "integer.keras")
    np.testing.assert_array_equal(loaded.predict(pixels(4), verbose=0), model.predict(pixels(4), verbose=0))


@pytest.mark.parametrize("file", ["tf2_mobilenet_v2_1.0_224_ptq", "mobilenet_v2_1.0_224_quant"])
def test_published_file(testdata, file):
    path = testdata / "published" / f"{file}.tflite"
    images = pixels(4, 224)
    model = integer_model(path)
    images = images if model.input.dtype == "uint8" else (images.astype("int16") - 128).astype("int8")
    np.testing.assert_array_equal(model.predict(images, verbose=0), runtime(path.read_bytes(), images))


def test_sums_are_split_where_float32_would_round():
    kernel = np.full((1, 1, 2048, 3), 127.0)
    bounds = split_channels(largest_sums(kernel, (0, 255)))
    assert bounds == [0, 518, 1036, 1554, 2048]
    for first, last in itertools.pairwise(bounds):
        assert 127 * 255 * (last - first) <= 2**24


def test_what_is_not_integer_is_refused(tmp_path):
    model = km.MobileNet(input_shape=(32, 32, 3), alpha=0.25, weights=None, classes=5)
    with pytest.raises(ValueError, match="`source` must be a quantized model"):
        integer_model(model)
    km.export_tflite(model, tmp_path / "float.tflite", verbose=False)
    with pytest.raises(ValueError, match="not full-integer: tensor .* is float32"):
        integer_model(tmp_path / "float.tflite")
    with pytest.raises(ValueError, match="`kernels` must be one of"):
        integer_model(tmp_path / "float.tflite", kernels="cmsis")
