"""Selection and aggregation in the HTML report: figures by hand, plots with every point."""

from __future__ import annotations

from typing import Any

import pytest

from tandemrec.report.charts import points_plot, share_plot
from tandemrec.report.choices import aggregation_view, selection_view
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


def row(system: str, hr: float, ndcg: float, *groups: float) -> dict[str, Any]:
    cut = [{"from": low, "to": 2 * low, "n": 5, "ndcg@4": {"mean": mean}} for low, mean in enumerate(groups)]
    return {
        "system": system,
        "metrics": {"hr@4": {"mean": hr}, "ndcg@4": {"mean": ndcg}},
        "segments": {"user activity": cut},
    }


RESULTS: dict[str, Any] = {
    "evaluation": {"headline": "ndcg@4", "task": "ranking"},
    "leaderboard": [row("Both", 0.4, 0.3, 0.35, 0.25), row("MF", 0.4, 0.2, 0.1, 0.3)],
}
CARD: dict[str, Any] = {
    "reranked": {"Both": {"base": "MF", "candidates": 4}},
    "models": {
        "Both": {"notes": {"weight_by_activity": [{"interactions": n, "weight": w} for n, w in ((1, 0.5), (9, 0.1))]}},
        "MF": {"notes": {}},
    },
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


def test_what_a_reranking_can_reach_by_hand() -> None:
    """Discounts of four places: 1, .6309, .5, .4307; a random order of a list with the target gains their mean."""
    view = aggregation_view(RESULTS, CARD)
    assert view["reach"][1] == [["Both", "MF", "4", "0.4000", "0.2562", "0.2000", "0.3000"]]
    ((grouping, (header, rows)),) = view["gains"]
    assert grouping == "ndcg@4 by user activity"
    assert header == ["gain", "cold (n=5)", "1–2 (n=5)"]
    assert rows == [["Both − MF", "+0.2500", "-0.0500"]]
    assert "Both: 0.5000" in str(view["weights"])


def test_runs_without_any_have_no_such_part() -> None:
    assert aggregation_view(RESULTS, {"models": {}}) == {}
    assert aggregation_view(RESULTS, {"reranked": {}, "models": {}}) == {}
    unmeasured = CARD | {"reranked": {"Both": {"base": "MF", "candidates": 10}}}
    assert aggregation_view(RESULTS, unmeasured)["reach"] is None
    rating = RESULTS | {"evaluation": RESULTS["evaluation"] | {"task": "rating"}}
    assert aggregation_view(rating, CARD)["reach"] is None
    silent = {name: {"notes": {}} for name in ("Both", "MF")}
    assert aggregation_view(RESULTS, CARD | {"models": silent})["weights"] is None
