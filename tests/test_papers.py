"""The committed comparison with the papers, docs/papers.md and benchmarks/papers.csv, is whole and up to date."""

import csv
import re
from collections import Counter
from pathlib import Path

import pytest

from keras_mobilenets import MobileNet, MobileNetV2, make_divisible
from keras_mobilenets.analysis import profile

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def cells():
    with (ROOT / "benchmarks" / "papers.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_table_is_there(cells):
    rows = Counter(table for table, _ in {(cell["table"], cell["row"]) for cell in cells})
    assert rows == {
        **{"V1 Table 2": 4, "V1 Table 3": 4, "One layer": 4, "V1 Table 4": 2, "V1 Table 5": 2, "V1 Table 6": 4},
        **{"V1 Table 7": 4, "V1 TF-slim": 16, "V2 Table 2": 11, "V2 Table 4": 3, "V2 TF-slim": 22},
        **{"V3 Table 1": 20, "V3 Table 2": 16, "V3 Table 3": 5, "V3 Table 9": 19, "V3 minimalistic": 2},
        **{"V1 Table 13": 1, "V2 Table 6": 2, "V3 Table 6": 6, "torchvision": 2, "V4": 5},
        **{"V2 Table 7": 3, "V3 Table 8": 4},
    }
    page = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")
    assert all(f"## {table}\n" in page for table in rows)
    assert (ROOT / "docs" / "pareto.png").is_file()


def test_what_is_off_by_more_than_a_percent_is_explained(cells):
    off = [cell for cell in cells if cell["difference"] and abs(float(cell["difference"])) > 0.01]
    assert off and all(cell["explanation"] for cell in off)
    for cell in cells:
        if cell["difference"]:
            # Written with four decimals, from numbers of six digits.
            expected = float(cell["ours"]) / float(cell["printed"]) - 1
            assert float(cell["difference"]) == pytest.approx(expected, abs=1e-4)
        elif cell["quantity"] != "top-1 as published" and cell["printed"]:
            assert cell["ours"] == cell["printed"] or cell["explanation"]


@pytest.mark.parametrize(
    ("table", "builder", "alpha", "size"),
    [("V1 TF-slim", MobileNet, 0.25, 128), ("V1 TF-slim", MobileNet, 0.75, 160), ("V2 TF-slim", MobileNetV2, 0.35, 96)],
)
def test_the_counts_are_those_of_today(cells, table, builder, alpha, size):
    (cell,) = (
        cell
        for cell in cells
        if (cell["table"], cell["row"], cell["quantity"]) == (table, f"{alpha:g}, {size}", "M MAdds")
    )
    found = profile(builder((size, size, 3), alpha=alpha, weights=None))
    assert float(cell["ours"]) == pytest.approx(found.madds / 1e6, rel=1e-5)  # six digits


def test_explanations_of_v3_add_up(cells):
    """The paper's first convolution follows alpha; its Small once had 1280 features before the classifier, not 1024."""
    found = {(cell["row"], cell["quantity"]): cell for cell in cells if cell["table"] == "V3 Table 9"}

    def start(model, alpha, filters):
        """What depends on the filters of the first convolution."""
        size, excited = (112, 0) if model == "Large" else (56, 2 * filters * make_divisible(filters / 4))
        return 112**2 * 3 * 3 * 3 * filters + size**2 * filters * (3 * 3 + make_divisible(16 * alpha)) + excited

    def says(row, quantity, ours):
        explained = float(re.search(r": (\d+\.\d+)", found[row, quantity]["explanation"])[1])
        assert explained == pytest.approx(ours, abs=0.05)  # one decimal

    for row in ("Large 1.25", "Large 0.5", "Large 0.35", "Small 1.25", "Small 0.5", "Small 0.35"):
        model, alpha = row.split()
        scaled = [start(model, float(alpha), filters) for filters in (make_divisible(16 * float(alpha)), 16)]
        row = f"{row}, 224"
        says(row, "M MAdds", float(found[row, "M MAdds"]["ours"]) + (scaled[0] - scaled[1]) / 1e6)
    features = (1280 - 1024) / 1e6
    for row, channels in {"Small 0.75, 224": 432, "Small 1, 256": 576}.items():
        says(row, "M MAdds", float(found[row, "M MAdds"]["ours"]) + features * (channels + 1000))
    row = "Large 1.25, 224"
    says(row, "M parameters", float(found[row, "M parameters"]["ours"]) - (1600 - 1280) / 1e6 * (1200 + 1000))
