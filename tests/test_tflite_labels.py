"""Class names, however people have them: by index where indices are given, in order else, the same when read again."""

from __future__ import annotations

import numpy as np
import pytest

from keras_mobilenets.tflite.labels import labels_by_output, parse_labels, read_label_list, write_labels

NAMES = ["Gänseblümchen", "tulip"]
TEXT = "\n".join(NAMES)


@pytest.mark.parametrize(
    "labels",
    [
        NAMES,
        tuple(NAMES),
        [f"{name}\n" for name in NAMES],  # readlines()
        {"tulip": 1, "Gänseblümchen": 0},  # Keras' class_indices
        {1: "tulip", 0: "Gänseblümchen"},
        {"1": "tulip", "0": "Gänseblümchen"},  # from JSON
        pytest.param((name for name in NAMES), id="generator"),  # whose own text differs from process to process
        ["1 tulip", "0 Gänseblümchen"],
        [name.encode() for name in NAMES],
        np.array(NAMES),
    ],
    ids=str,
)
def test_names_in_order(labels):
    assert read_label_list(labels) == NAMES


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"])
@pytest.mark.parametrize(
    "text",
    [
        *(TEXT, TEXT + "\n\n", TEXT.replace("\n", "\r\n"), "0 Gänseblümchen\n1 tulip\n"),
        *(f"1{between}tulip\n0{between}Gänseblümchen" for between in (": ", ",", ". ", ") ", " - ", "=", "\t", ";")),
        *(f"tulip{between}1\nGänseblümchen{between}0\n" for between in (": ", ",", "\t", "=")),
        *('{"tulip": 1,\n "Gänseblümchen": 0}', '{"1": "tulip", "0": "Gänseblümchen"}', '["Gänseblümchen", "tulip"]'),
    ],
)
def test_files(tmp_path, text, encoding):
    (tmp_path / "labels.txt").write_bytes(text.encode(encoding))
    assert read_label_list(tmp_path / "labels.txt") == NAMES


@pytest.mark.parametrize(
    "names", [["a b", "c"], ["7", "3"], ["2 of clubs", "7 of hearts"], ["", "b"], ["class 1", "class 0"]]
)
def test_what_is_written_is_read(names):
    assert parse_labels(write_labels(names)) == read_label_list(names) == names
    assert read_label_list(["a\u2028b", "c\x85d\n"]) == ["a b", "c d"]  # one line to anyone's reader


def test_what_no_line_can_hold_shifts_nothing():
    assert parse_labels(write_labels(["two\nlines", "b\udce9t\udce9", "c"])) == ["two lines", "bété", "c"]


@pytest.mark.parametrize(
    "labels",
    [
        {"a", "b"},
        frozenset("ab"),
        {"a": 0, "b": 2},
        {"a": 1, "b": 1},
        {1: "a", 2: "b"},
        [("a", 1), ("b", 0)],
        ["a", None],
        3,
    ],
)
def test_what_has_no_order_is_refused(labels):
    with pytest.raises(ValueError, match="in the order of the scores|each of the indices 0 to 1 one name"):
        read_label_list(labels)


@pytest.mark.parametrize(
    ("labels", "outputs", "owner"),
    [
        (NAMES, {"scores": (2,)}, "scores"),
        (NAMES, {"boxes": (4,), "scores": (2,)}, "scores"),
        (NAMES, {"probability": (1,)}, "probability"),  # negative, positive
        (NAMES, {"mask": (8, 8, 2), "boxes": (4,)}, "mask"),
        ({"boxes": NAMES}, {"boxes": (2,), "scores": (2,)}, "boxes"),
        ({"scores": {"tulip": 1, "Gänseblümchen": 0}}, {"scores": (2,)}, "scores"),
        ({"tulip": 1, "Gänseblümchen": 0}, {"tulip": (2,)}, "tulip"),  # indices, not outputs
    ],
)
def test_the_output_that_they_fit(labels, outputs, owner):
    assert labels_by_output(labels, outputs) == {owner: NAMES}


@pytest.mark.parametrize(
    ("labels", "outputs", "shown"),
    [
        (NAMES, {"a": (2,), "b": (2,)}, "fit the outputs a, b. Pass labels={output name: class names}"),
        (NAMES, {"a": (3,), "b": (4,)}, "fit none of the outputs"),
        (NAMES, {"a": (3,)}, "must name the model's 3 classes. Received: 2 names"),
        ({"a": NAMES}, {"a": (3,)}, "of 'a' are 2, for an output of shape"),
    ],
)
def test_none_or_several_fit(labels, outputs, shown):
    with pytest.raises(ValueError, match=shown):
        labels_by_output(labels, outputs)
