"""What a run's selectors chose, for the HTML report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from markupsafe import Markup

from tandemrec.report.charts import points_plot, share_plot

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
