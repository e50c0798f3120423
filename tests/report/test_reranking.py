"""Tables of what aggregates add: every figure by hand, and what is missing leaves no column."""

from __future__ import annotations

from typing import Any

from tandemrec.report.reranking import gain_grid, reranking_grids, reranking_markdown, weights_plot


def gain(n: int, mean: float, **spans: int) -> dict[str, Any]:
    return {"n": n, "mean": mean, "standard_error": 0.001} | {name.strip("_"): value for name, value in spans.items()}


def row(system: str, bounds: dict[str, float] | None, **segments: list[dict[str, Any]]) -> dict[str, Any]:
    named = {name.replace("_", " "): groups for name, groups in segments.items()}
    return {
        "system": system, "base": "MF", "depth": 10, "value": 0.06, "bounds": bounds, "gain": gain(30, 0.01),
        "segments": named,
    }  # fmt: skip


ACTIVITY = [gain(10, 0.03, from_=0, to_=0), gain(20, -0.01, from_=3, to_=17)]
BOUNDS = {"reach": 0.13, "shuffled": 0.0591, "base": 0.05, "ceiling": 0.131}
ALPHA = {
    "llm": "ranker",
    "weighting": {"method": "adaptive"},
    "weight_by_activity": [{"interactions": 3, "weight": 0.5}, {"interactions": 40, "weight": 0.25}],
}
CARD = {
    "models": {
        "MF": {"notes": {}},
        "ranker": {"notes": {"answers": {"users": 9.0, "seconds_per_user": 0.25, "tokens_per_user": 1234.0}}},
        "sum": {"notes": ALPHA},
        "other": {"notes": ALPHA | {"weight_by_activity": [{"interactions": 3, "weight": 0.0}]}},
    }
}
EVALUATION = {"task": "ranking", "headline": "ndcg@10"}


def test_all_tables() -> None:
    rows = [row("sum", BOUNDS, user_activity=ACTIVITY, item_popularity=ACTIVITY), row("ranker", None)]
    results = {"evaluation": EVALUATION, "rerankings": rows}
    overall, activity, popularity, weights, cost = reranking_grids(results, CARD)
    assert overall.rows == [
        ["sum", "MF", "+0.0100 ± 0.0010", "10", "0.1300", "0.0591", "0.0500", "0.0600", "0.1310"],
        ["ranker", "MF", "+0.0100 ± 0.0010", "10", "", "", "", "", ""],
    ]
    assert all(len(overall.header) == len(line) for line in overall.rows)
    assert activity.header == ["system", "base", "cold (n=10)", "3–17 (n=20)"]
    assert activity.rows == popularity.rows == [["sum", "MF", "+0.0300 ± 0.0010", "-0.0100 ± 0.0010"]]
    assert weights.header[3:] == ["3", "40"]
    assert weights.rows == [
        ["sum", "ranker", "adaptive", "0.500", "0.250"],
        ["other", "ranker", "adaptive", "0.000", ""],
    ]
    assert (cost.header, cost.rows) == (
        ["system", "users asked", "tokens a user", "seconds a user"],
        [["ranker", "9", "1,234", "0.25"]],
    )
    assert reranking_markdown(results, CARD).count("### ") == 5


def test_runs_without_them_have_no_chapter() -> None:
    assert reranking_markdown({"evaluation": EVALUATION}, {"models": {"MF": {"notes": {}}}}) == ""


def test_one_system_over_two_bases() -> None:
    over_base = row("sum", BOUNDS, user_activity=ACTIVITY)
    over_plain = row("sum", None, user_activity=ACTIVITY[::-1]) | {"base": "plain MF", "depth": None, "value": None}
    results = {"evaluation": EVALUATION, "rerankings": [over_base, over_plain]}
    overall, activity = reranking_grids(results, {"models": {}})
    assert [line[:4] for line in overall.rows] == [
        ["sum", "MF", "+0.0100 ± 0.0010", "10"],
        ["sum", "plain MF", "+0.0100 ± 0.0010", ""],
    ]
    assert overall.rows[1][3:] == [""] * 6
    assert "not put in order there are no such bounds" in overall.note
    assert [line[:3] for line in activity.rows] == [
        ["sum", "MF", "+0.0300 ± 0.0010"],
        ["sum", "plain MF", "-0.0100 ± 0.0010"],
    ]
    text = reranking_markdown(results, {"models": {}})
    assert "| sum | plain MF | +0.0100 ± 0.0010 |" in text
    alone = next(reranking_grids(results | {"rerankings": [over_base]}, {"models": {}}))
    assert "no such bounds" not in alone.note


def test_ratings_have_no_bounds() -> None:
    rows = [row("sum", None, user_activity=ACTIVITY) | {"depth": None, "value": None}]
    results = {"evaluation": {"task": "rating", "headline": "rmse"}, "rerankings": rows}
    overall, activity = reranking_grids(results, {"models": {}})
    assert overall.header == ["system", "base", "gain"]
    assert len(activity.rows) == 1


def test_what_validation_chose_in_every_training() -> None:
    settings = {"max_llm_weight": 0.5, "weight_floor": 0.1, "bucket_weights": [0.3, 0]}
    methods = ("adaptive", "uniform", "fitted", "none")
    chosen = [{"llm": "A", "weighting": settings | {"method": method}} for method in methods]
    grid = gain_grid("ndcg@10", [row("sum", None) | {"chosen": chosen}, row("ranker", None) | {"chosen": []}])
    assert grid.header == ["system", "base", "gain", "chosen, training by training"]
    assert [line[-1] for line in grid.rows] == ["A α₁ 0.5 α₂ 0.1; A α 0.5; A α 0.3, 0; A alone", ""]
    assert "Chosen on validation" in grid.note


def test_the_weights_are_drawn_over_activity() -> None:
    plot = str(weights_plot(CARD))
    assert "sum: 0.5000" in plot and "sum: 0.2500" in plot
    assert "other" not in plot  # of users of other activities
    assert weights_plot({"models": {"MF": {"notes": {}}}}) is None
