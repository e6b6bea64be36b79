"""Pixels become int8 by operations that XNNPACK takes: the same integers, whatever kernels run."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from export_models import SIZE, images, tiny

from keras_mobilenets.export import export_tflite
from keras_mobilenets.export.conversion import convert
from keras_mobilenets.export.signature import Signature
from keras_mobilenets.quantization import calibrate, deployable, quantize_model
from keras_mobilenets.tflite import TFLiteModel, audit, read_tflite
from keras_mobilenets.tflite.edit.pixels import with_plain_border
from keras_mobilenets.tflite.edit.slim import pack, slim
from keras_mobilenets.tflite.file import unpack

pytestmark = pytest.mark.usefixtures("eagerly")


@pytest.fixture(scope="module", params=[(-1.0, 1.0), (0.0, 1.0), (-0.2, 1.0)], ids=["[-1,1]", "[0,1]", "[-.2,1]"])
def plain(request):
    """A file with QUANTIZE at its border; its int8 zero points are 0, -128 and -86."""
    keras.utils.set_random_seed(0)
    low, high = request.param
    model = quantize_model(tiny(), input_range=request.param)
    calibrate(model, (images(16) + 1) / 2 * (high - low) + low)
    return slim(convert(deployable(model), Signature.of(model), scheme="int8", input_dtype="uint8"))


def ending_at(content: bytes, count: int) -> bytes:
    """The first operations of a file alone."""
    model = unpack(content)
    graph = model.subgraphs[0]
    graph.operators = graph.operators[:count]
    graph.outputs, model.signatureDefs = graph.operators[-1].outputs, []
    return pack(model)


@pytest.mark.parametrize("delegate", [True, False], ids=["XNNPACK", "plain kernels"])
def test_every_pixel_value_becomes_the_same_integer(plain, delegate):
    fast = slim(plain, fast_pixels=True)
    assert [one.name for one in read_tflite(plain).graph.operators[:1]] == ["QUANTIZE"]
    assert sorted(one.name for one in read_tflite(fast).graph.operators[:4]) == ["ADD", "CAST", "CAST", "SUB"]
    pixels = np.resize(np.arange(256, dtype=np.uint8), (1, SIZE, SIZE, 3))
    results = TFLiteModel(ending_at(fast, 4), delegate=delegate).predict(pixels, raw=True)
    np.testing.assert_array_equal(results, pixels.astype(int) - 128)


@pytest.mark.parametrize("delegate", [True, False], ids=["XNNPACK", "plain kernels"])
def test_whole_model_answers_the_same(plain, delegate):
    fast = slim(plain, fast_pixels=True)
    pixels = np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 3), np.uint8)
    answers = [TFLiteModel(one, delegate=delegate).predict(pixels, raw=True) for one in (plain, fast)]
    np.testing.assert_array_equal(*answers)
    assert audit(fast).is_integer and audit(fast).partitions == 1
    assert len(audit(fast).undelegated) == len(audit(plain).undelegated) + 1  # two CAST instead of a QUANTIZE


def test_its_meaning_can_be_read(plain):
    graph = with_plain_border(read_tflite(slim(plain, fast_pixels=True)).graph)
    expected = read_tflite(plain).graph
    assert [one.name for one in graph.operators] == [one.name for one in expected.operators]
    assert graph.operators[0].inputs == graph.inputs
    assert with_plain_border(expected) is expected


@pytest.mark.slow
def test_only_for_xnnpack_and_uint8(tmp_path):
    model, path = tiny(), tmp_path / "m.tflite"
    found = {}
    for target, input_dtype in (("xnnpack", "uint8"), ("xnnpack", "int8"), ("tflite-micro", "uint8")):
        report = export_tflite(
            *(model, path),
            quantize="int8",
            calibration=images(16),
            target=target,
            input_dtype=input_dtype,
            strict=True,
            verbose=False,
        )
        found[target, input_dtype] = {name for name in report.audit.operations if name in ("CAST", "QUANTIZE")}
    assert list(found.values()) == [{"CAST", "QUANTIZE"}, set(), {"QUANTIZE"}]
