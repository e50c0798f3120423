"""What a run's selectors chose, and how much its aggregates listen to a language model, for the HTML report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import log2
from typing import Any

from markupsafe import Markup

from tandemrec.report.charts import line_plot, points_plot, share_plot
from tandemrec.report.leaderboard import is_rating
from tandemrec.report.segments import span

Table = tuple[list[str], list[list[str]]]


def selection_view(card: Mapping[str, Any]) -> dict[str, Any]:
    """Plots and tables of the run card's `selection`; empty where nobody learned from a choice."""
    facts = card.get("selection")
    if facts is None:
        return {}
    return {
        "selected": list(_selected(facts)),
        "overlap": _shares(facts["overlap"]) if len(facts["overlap"]) > 1 else None,
        "coverage": _shares(facts["coverage"]),
        "selected_note": f"Of {facts['examples']:,} training examples. Overlap: share of the row's samples that the "
        "column chose too. Coverage: shares of what all examples reach; popular_1 … popular_5: targets by fifths of "
        "the catalogue, the most popular one first.",
    }


def _selected(facts: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[Markup, str]]]]:
    """Every selector with its plots and their captions."""
    for name in dict.fromkeys([*facts["points"], *facts["groups"]]):
        plots = []
        points, groups = facts["points"].get(name), facts["groups"].get(name)
        if points is not None:
            shown = {"not chosen": points["others"], "chosen": points["chosen"]}
            plot = points_plot(shown, "influence on the surrogate's risk", "effort of the language model")
            plots.append((plot, f"{len(points['chosen'])} chosen samples and {len(points['others'])} others."))
        if groups:
            bars = [(group["low"], group["high"], group["size"], group["budget"]) for group in groups]
            plots.append((share_plot(bars, "overall score"), f"{len(groups)} score groups that are not empty."))
        yield name, plots


def _shares(rows: list[Mapping[str, Any]]) -> Table:
    cells = [[f"{value:.3g}" if isinstance(value, float) else str(value) for value in row.values()] for row in rows]
    return list(rows[0]), cells


def aggregation_view(results: Mapping[str, Any], card: Mapping[str, Any]) -> dict[str, Any]:
    """α_u over activity, what a re-ranking can reach, and its gain over the base by groups; empty without any."""
    reranked = card.get("reranked")
    if not reranked:
        return {}
    profiles = {
        name: notes["weight_by_activity"]
        for name in reranked
        if (notes := card["models"][name]["notes"]).get("weight_by_activity")
    }
    return {
        "weights": _weights(profiles) if profiles else None,
        "reach": None if is_rating(results) else _reach(results, reranked),
        "gains": list(_gains(results, reranked)),
    }


def _weights(profiles: Mapping[str, list[Mapping[str, float]]]) -> Markup:
    """α_u from the least to the most active user, a line an aggregate."""
    counts = [f"{point['interactions']:,}" for point in next(iter(profiles.values()))]
    series = {name: [point["weight"] for point in profile] for name, profile in profiles.items()}
    return line_plot(series, counts, "training interactions of a user", "weight of the language model")


def _reach(results: Mapping[str, Any], reranked: Mapping[str, Any]) -> Table | None:
    """HR@k′ of the base, which no order of its k′ candidates exceeds, and NDCG@k′ of a random order of them; only for
    bases whose metrics at k′ were measured.
    """
    board = {row["system"]: row["metrics"] for row in results["leaderboard"]}
    rows = []
    for name, facts in reranked.items():
        base, k = board[facts["base"]], facts["candidates"]
        if k is None or f"hr@{k}" not in base:
            continue
        ceiling = base[f"hr@{k}"]["mean"]
        shuffled = ceiling * sum(1 / log2(place + 1) for place in range(1, k + 1)) / k
        found = (ceiling, shuffled, base[f"ndcg@{k}"]["mean"], board[name][f"ndcg@{k}"]["mean"])
        rows.append([name, facts["base"], str(k), *(f"{value:.4f}" for value in found)])
    header = ["system", "base", "k′", "HR@k′ of the base", "NDCG@k′ of a random order", "of the base", "its own"]
    return (header, rows) if rows else None


def _gains(results: Mapping[str, Any], reranked: Mapping[str, Any]) -> Iterator[tuple[str, Table]]:
    """The headline metric of every system less its base's, by user activity and item popularity."""
    headline = results["evaluation"]["headline"]
    board = {row["system"]: row.get("segments") or {} for row in results["leaderboard"]}
    for grouping, groups in next(iter(board.values()), {}).items():
        rows = []
        for name, facts in reranked.items():
            pairs = zip(board[name][grouping], board[facts["base"]][grouping], strict=True)
            gains = (own[headline]["mean"] - based[headline]["mean"] for own, based in pairs)
            rows.append([f"{name} − {facts['base']}", *(f"{gain:+.4f}" for gain in gains)])
        yield f"{headline} by {grouping}", (["gain", *(f"{span(group)} (n={group['n']:,})" for group in groups)], rows)
