"""Selection in the HTML report: figures by hand, plots with every point."""

from __future__ import annotations

import pytest

from tandemrec.report.charts import points_plot, share_plot
from tandemrec.report.choices import selection_view
from tests.report.test_html import Reader

SELECTION = {
    "examples": 100,
    "points": {"DEALRec": {"chosen": [[0.1, 2.0], [0.3, 1.0]], "others": [[0.0, 0.5]]}},
    "groups": {
        "DEALRec": [
            {"low": 0.0, "high": 0.5, "size": 90, "budget": 1},
            {"low": 0.5, "high": 1.0, "size": 1, "budget": 1},
        ]
    },
    "overlap": [
        {"selector": "DEALRec", "DEALRec": 1.0, "Random": 0.25},
        {"selector": "Random", "DEALRec": 0.5, "Random": 1.0},
    ],
    "coverage": [
        {"selector": "all", "examples": 100, "users": 1.0},
        {"selector": "DEALRec", "examples": 2, "users": 0.02},
    ],
}


def test_selection_has_every_point_and_group() -> None:
    view = selection_view({"selection": SELECTION})
    ((name, plots),) = view["selected"]
    assert name == "DEALRec"
    assert [caption for _, caption in plots] == ["2 chosen samples and 1 others.", "2 score groups that are not empty."]
    assert view["overlap"] == (["selector", "DEALRec", "Random"], [["DEALRec", "1", "0.25"], ["Random", "0.5", "1"]])
    assert view["coverage"][1][1] == ["DEALRec", "2", "0.02"]
    assert selection_view({}) == {}
    alone = SELECTION | {"overlap": SELECTION["overlap"][:1], "points": {}, "groups": {}}  # type: ignore[index]
    assert selection_view({"selection": alone})["selected"] == []
    assert selection_view({"selection": alone})["overlap"] is None


def test_points_and_bars_are_drawn() -> None:
    points = Reader(str(points_plot({"back": [[0, 0], [1, 1], [2, 2]], "front": [[1, 2]]}, "x", "y")))
    assert len([tag for tag, _ in points.tags if tag == "circle"]) == 4 + 2  # and two of the legend
    bars = Reader(str(share_plot([(0.0, 0.5, 1000, 10), (0.5, 1.0, 10, 0)], "score")))
    drawn = [attributes for tag, attributes in bars.tags if tag == "rect"]
    assert len(drawn) == 3
    tall = [float(str(attributes["height"])) for attributes in drawn]
    assert tall[1] == pytest.approx(tall[2], abs=0.11)  # ten of one and ten of the other
    assert tall[0] > tall[1] > 0
    assert {"10 of 1,000", "0 of 10"} <= set(bars.texts)
    assert Reader(str(points_plot({"back": [], "front": [[1, 2]]}, "x", "y"))).open == []
