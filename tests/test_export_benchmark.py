"""The committed measurements say what the documentation claims of them (benchmarks/ondevice.csv, pretrained.csv)."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[1] / "benchmarks" / "ondevice.csv"
PRETRAINED = RESULTS.with_name("pretrained.csv")
OURS = "keras_mobilenets int8"


def results() -> dict[str, dict[str, dict[str, dict[str, float]]]]:
    """Of one thread, by processor, architecture and peer."""
    table: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    with RESULTS.open() as file:
        for row in csv.DictReader(file):
            if row["threads"] == "1":
                numbers = {name: float(row[name]) for name in ("median_ms", "size_bytes")}
                architectures = table.setdefault(row["processor"], {})
                architectures.setdefault(row["architecture"], {})[row["peer"]] = numbers
    return table


ALL = results()
FIRST = next(iter(ALL))


@pytest.mark.parametrize(
    ("architecture", "peer", "ratio"),
    [
        ("V3 Small 224", "keras.applications int8", 0.30),
        ("V3 Large 224", "keras.applications int8", 0.37),
        ("V1 0.25 128", "keras.applications int8", 1.0),
        ("V1 0.5 160", "keras.applications int8", 1.0),
        ("V1 1.0 224", "keras.applications int8", 1.0),
        ("V2 1.0 224", "keras.applications int8", 1.0),
        ("V1 0.25 128", "Google uint8", 0.72),
        ("V1 0.5 160", "Google uint8", 0.55),
        ("V2 1.0 224", "Google uint8", 0.55),
        ("V2 1.0 224", "Google int8", 1.0),
    ],
)
def test_latency(architecture, peer, ratio):
    peers = ALL[FIRST][architecture]
    assert peers[OURS]["median_ms"] <= ratio * peers[peer]["median_ms"]


def test_integer_beats_float_everywhere():
    for architectures in ALL.values():
        assert len(architectures) == 6
        for peers in architectures.values():
            assert peers[OURS]["median_ms"] < peers["keras_mobilenets float"]["median_ms"]


def test_what_the_documentation_says_of_all_processors():
    for architectures in ALL.values():
        for name, peers in architectures.items():
            ratio = peers[OURS]["median_ms"] / peers["keras.applications int8"]["median_ms"]
            assert ratio <= (0.4 if "V3" in name else 1.05)


def test_integer_files_are_smaller_than_keras_applications():
    for architectures in ALL.values():
        for peers in architectures.values():
            assert peers[OURS]["size_bytes"] < peers["keras.applications int8"]["size_bytes"]


def test_share_of_the_integer_peak_is_the_rate_over_a_peak_that_all_share():
    with RESULTS.open() as file:
        rows = list(csv.DictReader(file))
    peaks: dict[tuple[str, str, str], float] = {}
    for row in rows:
        share = float(row["share_of_peak"])
        peak = float(row["madds"]) / float(row["median_ms"]) / share
        first = peaks.setdefault((row["processor"], row["architecture"], row["threads"]), peak)
        # Three digits of the share and four of the milliseconds, of this row and of the first.
        assert 0 < share < 1 and abs(peak / first - 1) < 0.0005 / share + 0.004


def test_real_weights_without_training_and_back():
    with PRETRAINED.open() as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    v2 = rows["V2 1.0/224 post-training"]
    assert float(v2["file_top1"]) >= float(v2["float_top1"]) - 0.006
    read_back = [row for name, row in rows.items() if name.endswith(".tflite, with images")]
    assert len(read_back) == 4 and all(float(row["agreement"]) >= 0.97 for row in read_back)
