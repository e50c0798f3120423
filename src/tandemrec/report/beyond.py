"""What lists of recommendations are like beside being right, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tandemrec.report.leaderboard import table_of

MEANING = {
    "coverage": "share of the catalogue that somebody is recommended",
    "gini": "0: all items equally often, 1: one item alone",
    "novelty": "bits, higher: less popular items",
    "tail": "share outside the most popular fifth of the catalogue",
    "diversity": "0: a list of one kind of items, 1: nothing in common",
}


def beyond_rows(results: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: a row a system, a column a measure; no rows where nothing was listed."""
    board = [row for row in results["leaderboard"] if row.get("beyond")]
    names = [name for name in MEANING if any(name in row["beyond"] for row in board)]
    rows = [[row["system"], *(_figure(name, row["beyond"].get(name)) for name in names)] for row in board]
    return ["system", *names], rows


def beyond_markdown(results: Mapping[str, Any]) -> str:
    """The measures of the lists of a run; empty for runs of ratings."""
    header, rows = beyond_rows(results)
    if not rows:
        return ""
    cutoff = results["evaluation"]["headline"].partition("@")[2]
    meaning = "; ".join(f"{name}: {MEANING[name]}" for name in header[1:])
    return f"## Beyond accuracy, lists of {cutoff}\n\n{table_of(header, rows)}\n\n{meaning}."


def _figure(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if name == "novelty" else f"{value:.3f}"
