"""Reading, rewriting and running `.tflite` files: what is damaged is refused, what is rewritten answers as before."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from export_models import CLASSES, SIZE, images, tiny

from keras_mobilenets import PixelScale
from keras_mobilenets.export import export_tflite
from keras_mobilenets.export.signature import Signature
from keras_mobilenets.tflite import TFLiteModel, audit, metadata, read_tflite
from keras_mobilenets.tflite.arena import arena_bytes
from keras_mobilenets.tflite.edit.constants import set_constant
from keras_mobilenets.tflite.edit.slim import pack, slim
from keras_mobilenets.tflite.file import Graph, Operator, Tensor, schema, unpack
from keras_mobilenets.tflite.metadata import TensorInfo

pytestmark = pytest.mark.usefixtures("eagerly")

NOTHING = np.zeros(0, np.float32)


@pytest.fixture(scope="module")
def path(tiny_export):
    return tiny_export[0]


def test_every_truncation_is_noticed(path):
    content = path.read_bytes()
    cuts = np.linspace(0, len(content) - 1, 80).astype(int)
    for cut in cuts:
        with pytest.raises(ValueError, match="not a .tflite file|truncated or damaged"):
            read_tflite(content[:cut])


def test_foreign_files_are_refused(tmp_path):
    web_page = tmp_path / "page.tflite"
    web_page.write_text("<!DOCTYPE html><title>404</title>")
    for read in (read_tflite, audit, TFLiteModel):
        with pytest.raises(ValueError, match=r"page\.tflite: not a \.tflite file"):
            read(web_page)
        with pytest.raises(FileNotFoundError, match=r"No such \.tflite file: .*none\.tflite"):
            read(tmp_path / "none.tflite")
    empty = tmp_path / "empty.tflite"
    empty.write_bytes(b"\x00\x00\x00\x00TFL3" + bytes(64))
    with pytest.raises(ValueError, match="truncated or damaged"):
        TFLiteModel(empty)


def test_reading_and_running_need_no_tensorflow(path):
    """`keras-mobilenets predict` on a small computer."""
    program = (
        "import sys, numpy as np; from keras_mobilenets.tflite import TFLiteModel, audit;"
        f"audit({str(path)!r}); TFLiteModel({str(path)!r}).predict(np.zeros((1, {SIZE}, {SIZE}, 3), np.uint8));"
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_reader_gives_what_the_interpreter_gives(path):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    graph = read_tflite(path).graph
    for detail in interpreter.get_tensor_details():
        if detail["index"] >= len(graph.tensors):
            continue  # what the delegate adds
        tensor = graph.tensors[detail["index"]]
        assert tensor.shape == tuple(detail["shape"]) and tensor.name == detail["name"]
        assert tensor.dtype == np.dtype(detail["dtype"]).name
        np.testing.assert_array_equal(tensor.scales, detail["quantization_parameters"]["scales"])
        assert set(tensor.zero_points) == set(detail["quantization_parameters"]["zero_points"])
        if tensor.is_constant:
            np.testing.assert_array_equal(tensor.data, interpreter.get_tensor(detail["index"]))


def test_dequantized_constant():
    tensor = Tensor(
        *(0, "kernel", "int8", (2, 1, 1, 2), (2, 1, 1, 2)),
        *(np.float32([0.5, 2.0]), np.int64([0, 1]), 3, np.int8([[[[2, 3]]], [[[4, -5]]]]), 1),
    )
    np.testing.assert_array_equal(tensor.dequantized().ravel(), [1.0, 4.0, 2.0, -12.0])


@pytest.mark.parametrize("delegate", [True, False])
def test_slim_file_answers_as_the_whole_one(delegate):
    """The converter's own file beside the rewritten one, in XNNPACK and in the plain kernels, to the bit."""
    from keras_mobilenets.export.conversion import convert

    model = tiny()
    whole = convert(model, Signature.of(model))
    small = slim(
        whole, layer_names=[layer.name for layer in model.layers], input_names=["image"], output_names=["predictions"]
    )
    assert len(small) < len(whole)
    answers = [TFLiteModel(content, delegate=delegate).predict(images(4)) for content in (whole, small)]
    np.testing.assert_array_equal(*answers)
    names = [tensor.name for tensor in read_tflite(small).graph.tensors]
    assert names[0] == "image" and max(map(len, names)) <= 40


def test_a_file_of_several_graphs_has_its_names(path):
    """As loops have, which an LSTM becomes: the first graph is the model."""
    model = unpack(path.read_bytes())
    model.subgraphs += unpack(path.read_bytes()).subgraphs
    model.metadata = None
    graph = read_tflite(slim(pack(model), input_names=["photo"], output_names=["flower"])).graph
    assert [graph.tensors[index].name for index in (*graph.inputs, *graph.outputs)] == ["photo", "flower"]


def test_a_constant_that_others_read_is_not_changed(path):
    """As an axis of one operation and the shape of another, or the kernel of two: each writer gets one of its own."""
    model = unpack(path.read_bytes())
    graph = model.subgraphs[0]
    first, second = [one for one in graph.operators if len(one.inputs) == 3][:2]
    second.inputs = np.array([second.inputs[0], first.inputs[1], second.inputs[2]], np.int32)
    shared = graph.tensors[first.inputs[1]]
    before = bytes(model.buffers[shared.buffer].data)
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    changed = set_constant(model, graph, first, 1, values, schema.TensorType.FLOAT32)
    assert changed is graph.tensors[first.inputs[1]] is not shared and graph.tensors[second.inputs[1]] is shared
    assert bytes(model.buffers[shared.buffer].data) == before and shared.type == schema.TensorType.INT8
    assert list(changed.shape) == [2, 3] and bytes(model.buffers[changed.buffer].data) == values.tobytes()
    assert set_constant(model, graph, first, 1, values, schema.TensorType.FLOAT32) is changed  # nobody else reads it


def test_constants_are_aligned_and_shared(path):
    from keras_mobilenets.tflite.file import schema

    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    contents = []
    for number in range(1, model.BuffersLength()):
        buffer = model.Buffers(number)
        assert buffer._tab.Vector(buffer._tab.Offset(4)) % 16 == 0
        contents.append(buffer.DataAsNumpy().tobytes())
    assert len(set(contents)) == len(contents)


def test_size_account_is_complete(path):
    found = audit(path)
    assert sum(found.bytes_by_use.values()) == found.size_bytes == path.stat().st_size
    graph = read_tflite(path).graph
    kernels = {1: 0, 2: 0}
    for operator in graph.operators:
        if operator.name in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            for place in kernels:
                kernels[place] += graph.operands(operator)[place].size_bytes
    assert found.bytes_by_use["weights"] == kernels[1] and found.bytes_by_use["biases"] == kernels[2]
    # A kernel and its bias each have a scale per channel, 4 bytes; the zero points of either are shared by length.
    assert found.bytes_by_use["zero points"] < found.bytes_by_use["scales"] / 2
    assert found.bytes_by_use["structure"] < 6000


def test_audit_counts(path):
    found = audit(path)
    model = tiny()
    madds = 0
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            madds += layer.kernel.shape.num_elements()  # the head, on one pixel
    for area, channels in ((16 * 16, (27 + 24, 8 * 48 + 9 * 48 + 48 * 8, 8 * 48)), (8 * 8, (9 * 48 + 48 * 16,))):
        madds += area * sum(channels)
    assert found.madds == madds
    assert found.operations["DEPTHWISE_CONV_2D"] == 3
    assert (found.input, found.output) == (f"uint8 1 x {SIZE} x {SIZE} x 3", f"uint8 1 x {CLASSES}")
    assert found.is_integer and found.depthwise_per_channel and found.conversions_inside == ()


def test_audit_says_what_a_target_lacks(tmp_path):
    model, path = tiny(activation="hard_swish"), tmp_path / "m.tflite"
    export_tflite(model, path, quantize="int8", calibration=images(16), target="tflite-micro", verbose=False)
    found = audit(path)
    assert found.operations["HARD_SWISH"] == 4
    assert found.lacking == {"tflite-micro": (), "edgetpu": ("HARD_SWISH",)}
    rows = dict(found.rows())
    assert rows["edgetpu"] == "lacks HARD_SWISH"
    assert rows["tflite-micro"] == f"flash {found.size_bytes:,} bytes, arena {found.arena_bytes:,}; has all operations"
    export_tflite(model, path, quantize="int8", calibration=images(16), target="edgetpu", verbose=False)
    assert audit(path).lacking == {"tflite-micro": (), "edgetpu": ()}
    export_tflite(tiny(), path, quantize="int8", calibration=images(16), target="xnnpack", verbose=False)
    assert audit(path).lacking == {"tflite-micro": ("CAST of uint8",), "edgetpu": ("CAST of uint8",)}


def test_audit_names_what_is_float(tmp_path):
    export_tflite(tiny(), tmp_path / "float.tflite", verbose=False)
    found = audit(tmp_path / "float.tflite")
    assert not found.is_integer and "CONV_2D -> logits" in found.float_operations
    assert ("integer", "no, float") in list(found.rows())


def test_published_files(testdata):
    """Google's: V1 and V2 quantized per tensor, and one per channel in whose border stand two QUANTIZE."""
    old = audit(testdata / "published" / "mobilenet_v2_1.0_224_quant.tflite")
    assert old.is_integer and old.depthwise_per_channel is False
    assert old.partitions == 2 and any("AVERAGE_POOL_2D" in one for one in old.undelegated)
    assert round(old.madds / 1e6) == 301  # 300 published
    new = audit(testdata / "published" / "tf2_mobilenet_v2_1.0_224_ptq.tflite")
    assert new.is_integer and new.depthwise_per_channel and new.operations["QUANTIZE"] == 2
    assert new.conversions_inside == ()
    labels = read_tflite(testdata / "published" / "mobilenet_v1_0.25_128_quant.tflite").labels
    assert len(labels) == 1001 and labels[0] == "background"


def _tensor(index, size, constant=False):
    data = np.zeros(size, np.int8) if constant else None
    return Tensor(index, "", "int8", (size,), (size,), NOTHING, NOTHING, 0, data, 0)


def test_arena_of_a_chain_and_of_a_residual():
    """By hand: a chain needs its two largest neighbours, a residual keeps its input alive beside them."""
    tensors = tuple(_tensor(index, size) for index, size in enumerate((64, 160, 96, 64)))
    chain = tuple(Operator(step, "RELU", 1, (step,), (step + 1,), {}) for step in range(3))
    assert arena_bytes(Graph(tensors, chain, (0,), (3,))) == 160 + 96
    residual = (*chain[:2], Operator(2, "ADD", 1, (2, 0), (3,), {}))
    assert arena_bytes(Graph(tensors, residual, (0,), (3,))) == 160 + 96 + 64
    assert arena_bytes(Graph((_tensor(0, 1), _tensor(1, 1)), chain[:1], (0,), (1,))) == 32  # in blocks of 16


def test_metadata_comes_back():
    scale = PixelScale.standardizing((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    inputs = [TensorInfo("table", (4,)), TensorInfo("image", (10, 20, 3), scale)]
    outputs = [
        TensorInfo("boxes", (4,)),
        *(TensorInfo(name, (2,), labels=("Füchse", "two words")) for name in "ab"),
    ]
    entry = metadata.describe("m", inputs, outputs)
    content = metadata.append_labels(b"....TFL3", outputs)
    read_inputs, read_outputs = metadata.read_tensors(entry, content)
    assert [(one.name, one.scale) for one in read_inputs] == [("table", None), ("image", scale)]
    assert [(one.name, one.labels) for one in read_outputs] == [(one.name, one.labels) for one in outputs]
    with pytest.raises(ValueError, match="label list that its metadata speaks of is missing"):
        metadata.read_tensors(entry, b"....TFL3")
    assert metadata.read_tensors(None, b"....TFL3") == ([], [])


def test_normalization_and_back():
    pixels = np.arange(256, dtype=np.uint8)
    for normalization in (
        PixelScale.standardizing((127.5,), (127.5,)),
        PixelScale.standardizing((0.0,), (1.0,)),
        PixelScale.standardizing((0,), (255,)),
    ):
        np.testing.assert_array_equal(normalization.pixels(normalization(pixels)), pixels)


def test_wrong_images_are_refused(path):
    model = TFLiteModel(path)
    with pytest.raises(ValueError, match=r"must be of shape \(batch, 32, 32, 3\). Received: shape \(32, 32, 3\)"):
        model.predict(np.zeros((SIZE, SIZE, 3), np.uint8))
    assert model.predict(np.zeros((1, SIZE, SIZE, 3), np.uint8), raw=True).dtype == np.uint8


def test_float_file_without_normalization_asks_for_floats(tmp_path):
    export_tflite(tiny(), tmp_path / "m.tflite", normalization=None, verbose=False)
    with pytest.raises(ValueError, match="does not say how pixels are normalized"):
        TFLiteModel(tmp_path / "m.tflite").predict(np.zeros((1, SIZE, SIZE, 3), np.uint8))
