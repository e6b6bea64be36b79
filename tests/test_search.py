"""Latency tables, narrower networks, NetAdapt on a table that is made up, and the search over blocks."""

import csv
import json
import subprocess
import sys

import export_models
import keras
import numpy as np
import pytest
from runs import slow_but

import keras_mobilenets as km
from keras_mobilenets.applications import mobilenet, mobilenet_v2, mobilenet_v3
from keras_mobilenets.search import LatencyTable, measure, narrow, netadapt, table_rows
from keras_mobilenets.search.latency import CALL, Chain
from keras_mobilenets.search.netadapt import proposals
from keras_mobilenets.search.page import front
from keras_mobilenets.search.student import Student
from keras_mobilenets.search.widths import Channels, give, weights_of
from keras_mobilenets.training import build_classifier

SIZE, STAIR = 32, 16
BUILDERS = slow_but(
    [
        ("MobileNet", "conv_pw_4"),
        ("MobileNetV2", "block_6_project"),
        ("MobileNetV3Small", "expanded_conv_8_expand"),
        ("MobileNetV3Large", "expanded_conv_12_project"),
        ("MobileNetV4ConvSmall", "block_5_expand"),
        ("MobileNetV4HybridMedium", "block_3_project"),
    ],
    "MobileNetV2",
)


class Stairs(LatencyTable):
    """A device that computes 16 channels as fast as 9."""

    asked = 0

    def of(self, blocks):
        self.asked += len(blocks)
        return [0.0 if one == CALL else sum(map(self._layer, one.layers)) for one in blocks]

    @staticmethod
    def _layer(layer):
        _, config = layer
        return sum(-(-size // STAIR) for size in (config.get("filters", 0), 8 * (config.get("expansion") or 0))) / 10


def build(builder):
    return getattr(km, builder)((SIZE, SIZE, 3), alpha=0.25, weights=None, classes=5)


@pytest.mark.parametrize(("builder", "group"), BUILDERS)
def test_channels_whose_weights_are_zero_can_be_removed(builder, group, rng):
    model = build(builder)
    channels = Channels(model)
    widths = {group: 8}
    weights = weights_of(model)
    for arrays in weights.values():
        arrays[:] = [np.abs(rng.normal(1, 0.2, one.shape)) if one.ndim == 1 else one for one in arrays]
    narrower = channels.rebuilt(widths)
    kept = channels.kept(channels.counts(narrower), weights)
    masks = channels.masks(kept, weights)
    give(model, {name: [a * m for a, m in zip(arrays, masks[name], strict=True)] for name, arrays in weights.items()})
    images = rng.uniform(-1, 1, (2, SIZE, SIZE, 3)).astype("float32")
    # Of the same products some sums have fewer zeros, in another order: a few units in the last place of float32.
    np.testing.assert_allclose(narrow(model, widths)(images), model(images), rtol=1e-5, atol=1e-6)
    assert narrower.count_params() < model.count_params()


def pasted(builder, monkeypatch, text):
    """What the builder makes of the printed rows."""
    module = {"MobileNet": mobilenet, "MobileNetV2": mobilenet_v2}.get(builder, mobilenet_v3)
    names = {"Row": module.Row}
    exec(text, names)
    monkeypatch.setattr(module, "STEM_FILTERS", names["STEM_FILTERS"])
    monkeypatch.setattr(module, "TABLE", names["TABLE"], raising=False)
    monkeypatch.setattr(module, "BLOCKS", [(row, row.stride) for row in names["TABLE"]], raising=False)
    monkeypatch.setattr(module, "LAST_FILTERS", names.get("LAST_FILTERS"), raising=False)
    monkeypatch.setattr(module, "SMALL", mobilenet_v3.Network("MobileNetV3Small", names["TABLE"], 1024), raising=False)
    return getattr(km, builder)((SIZE, SIZE, 3), alpha=1.0, weights=None, classes=5)


@pytest.mark.parametrize(("builder", "group"), BUILDERS[1:3])
def test_rows_make_the_network(builder, group, monkeypatch, rng):
    narrower = narrow(build(builder), {group: 8})
    again = pasted(builder, monkeypatch, table_rows(narrower))
    again.set_weights(narrower.get_weights())
    images = rng.uniform(-1, 1, (2, SIZE, SIZE, 3)).astype("float32")
    np.testing.assert_array_equal(again(images), narrower(images))


def test_rows_of_v4():
    text = table_rows(km.MobileNetV4ConvSmall((SIZE, SIZE, 3), classes=5))
    assert "    UIB(5, 5, 2, 96, 3),\n" in text and text.endswith("NECK_FILTERS = 960")


@pytest.mark.parametrize("widths", [{"block_1": 8}, {"block_1_expand": 0}, {"block_1_expand": 1000}])
def test_widths_that_are_none_are_refused(widths):
    with pytest.raises(ValueError, match="`widths`"):
        narrow(build("MobileNetV2"), widths)


def test_blocks_of_other_widths_are_those_of_the_network_that_is_built():
    model, widths = build("MobileNetV3Small"), {"expanded_conv_4_expand": 48, "expanded_conv_8_project": 16}
    keys = [block.key for block in Chain(model).blocks(widths)]
    assert keys == [block.key for block in Chain(narrow(model, widths)).blocks()]
    assert keys != [block.key for block in Chain(model).blocks()]
    assert "48" in str(keys) or "expansion=3" in str(keys)


def test_a_network_that_branches_is_refused():
    inputs = keras.Input((8, 8, 3))
    branched = keras.Model(inputs, keras.layers.Add()([keras.layers.ReLU()(inputs), inputs]))
    with pytest.raises(ValueError, match="must be a chain"):
        Chain(branched)
    with pytest.raises(ValueError, match="must be functional"):
        Chain(keras.Sequential([inputs, keras.layers.Conv2D(8, 1)]))


def test_proposals_stand_on_the_edges_of_the_staircase():
    model, table = build("MobileNetV2"), Stairs()
    chain = Chain(model)
    now = table.sum(chain.blocks())
    found = {one.group: one for one in proposals(chain, table, {}, limit_ms=now - 0.05)}
    assert found["Conv_1"].width == 1264 and found["Conv_1"].latency_ms == pytest.approx(now - 0.1)
    assert all(one.latency_ms <= now - 0.05 for one in found.values())
    assert not any(chain.channels.ambiguous({one.group: one.width}) for one in found.values())
    small = Chain(
        build_classifier("MobileNetV2", image_size=32, classes=2, alpha=0.35)
    )  # blocks that lost their stride
    assert proposals(small, table, {}, limit_ms=table.sum(small.blocks()) - 0.05)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Of one small block, measured."""
    path = tmp_path_factory.mktemp("table") / "latency.csv"
    table = LatencyTable(path)
    block = Chain(export_models.tiny()).blocks()[-1]
    return table, block, table.of([block])[0]


def test_what_was_measured_is_read(table, monkeypatch):
    table, block, ms = table
    monkeypatch.setattr(measure, "measure", None)
    assert ms > 0 and LatencyTable(table.path).of([block]) == [ms]
    monkeypatch.setattr(measure, "runtime", lambda: "litert 9")
    with pytest.raises(TypeError):  # of another version it is measured anew
        LatencyTable(table.path).of([block])


def test_a_device_far_away(table, tmp_path):
    _, block, _ = table
    fake = tmp_path / "benchmark_model"
    fake.write_text("#!/bin/sh\ntest -s $1 && echo 'Warmup (avg): 9, Inference (avg): 1.25e+03'\n")
    fake.chmod(0o755)
    far = LatencyTable(tmp_path / "phone.csv", device="phone")
    with pytest.raises(LookupError, match="2 blocks are not measured on phone: run"):
        far.of([CALL, block])
    script = [sys.executable, far.folder / "measure.py", far.folder, "--run", f"{fake} {{file}}"]
    subprocess.run([*script, "--processor", "phone"], check=True, capture_output=True)
    assert far.of([CALL, block]) == [1.25, 1.25] and far.runtime == "benchmark_model"
    with far.path.open() as file:
        assert [line["processor"] for line in csv.DictReader(file)] == ["phone", "phone"]


@pytest.fixture(scope="module")
def data():
    from keras_mobilenets.data import load

    return load(pictures(), batch_size=8, augment="none", image_size=export_models.tiny().input_shape[1])


def pictures():
    import tensorflow as tf

    size = export_models.tiny().input_shape[1]
    pixels = np.random.default_rng(0).integers(0, 256, (40, size, size, 3), np.uint8)
    return tf.data.Dataset.from_tensor_slices((pixels, np.arange(40) % 5))


class Killed(BaseException):
    pass


def adapt(model, data, folder, kill_at=None, **options):
    """A run that may end in the middle of a step."""
    told = []

    def tell(text):
        told.append(text)
        if len(told) == kill_at:
            raise Killed

    settings = {"target_latency_ms": 0.75 * Stairs().latency_ms(model), "cut": 0.05, "steps": 2, "finalists": 2}
    settings |= {"epochs": 0, "table": Stairs(), "tell": tell, **options}
    return netadapt(model, data, folder=folder, **settings)


@pytest.mark.slow
def test_netadapt_goes_on_to_the_same_network(data, tmp_path, monkeypatch):
    calls = []

    def score(self, model):  # what the integer file would say, made up and repeatable
        calls.append(model.count_params())
        if len(calls) == 4 and not killed:
            raise Killed  # between two candidates of a step
        return 0.9 - 1e-5 * (calls[0] - model.count_params())

    model, killed = export_models.tiny(), [True]
    monkeypatch.setattr(Student, "score", score)
    whole = adapt(model, data, tmp_path / "whole")
    killed.clear()
    calls.clear()
    with pytest.raises(Killed):
        adapt(model, data, tmp_path / "killed")
    killed.append(True)
    resumed = adapt(model, data, tmp_path / "killed")
    paths = [json.loads((tmp_path / name / "netadapt.json").read_text())["steps"] for name in ("whole", "killed")]
    assert paths[0] == paths[1] and len(paths[0]) > 2
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert whole.count_params() < model.count_params()
    assert not list(tmp_path.glob("*/candidate-*")) and "NetAdapt" in (tmp_path / "killed/netadapt.html").read_text()
    with pytest.raises(ValueError, match="holds a run with another cut"):
        adapt(model, data, tmp_path / "killed", cut=0.1)
    with pytest.raises(ValueError, match="`target_latency_ms` must be at least"):
        adapt(model, data, tmp_path / "other", target_latency_ms=1e-6)


@pytest.mark.parametrize("wrong", [{"cut": 1.5}, {"steps": 0}, {"finalists": 0}, {"epochs": -1}])
def test_bad_arguments(wrong, tmp_path):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be"):
        netadapt(None, None, target_latency_ms=1, folder=tmp_path, **wrong)


def test_the_front_has_no_point_that_another_beats():
    assert front([(3, 0.9), (1, 0.5), (2, 0.8), (2, 0.7), (4, 0.9)]) == [(1, 0.5), (2, 0.8), (3, 0.9)]
