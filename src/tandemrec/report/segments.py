"""Where systems are right or wrong: by user activity and item popularity, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from tandemrec.report.leaderboard import cell, is_rating, table_of


def segment_tables(results: Mapping[str, Any]) -> Iterator[Table]:
    """One table a grouping of ratings: a row a system, a column a group of training counts; the headline error."""
    if not is_rating(results):  # a terminal has room for the leaderboard; the report shows these
        return
    for name, header, rows in segment_grids(results):
        table = Table(title=f"{results['evaluation']['headline'].upper()} by {name} (training interactions)")
        for place, text in enumerate(header):
            table.add_column(text, justify="right" if place else "left", no_wrap=True)
        for system, *figures in rows:
            table.add_row(system, *(f"{figure['mean']:.4f}" for figure in figures))
        yield table


def segments_markdown(results: Mapping[str, Any]) -> str:
    """The same of every run as Markdown, with standard errors."""
    headline = results["evaluation"]["headline"].upper()
    parts = [
        f"## {headline} by {name} (training interactions)\n\n"
        + table_of(header, [[system, *(cell(figure) for figure in figures)] for system, *figures in rows])
        for name, header, rows in segment_grids(results)
    ]
    return "\n\n".join(parts)


def segment_grids(results: Mapping[str, Any]) -> Iterator[tuple[str, list[str], list[list[Any]]]]:
    """Name of a grouping, header, and rows of a system's name and its figures."""
    board = [row for row in results["leaderboard"] if row.get("segments")]
    for name in board[0]["segments"] if board else ():
        groups = board[0]["segments"][name]
        header = ["system", *(f"{span(group)} (n={group['n']:,})" for group in groups)]
        headline = results["evaluation"]["headline"]
        yield name, header, [[row["system"], *(g[headline] for g in row["segments"][name])] for row in board]


def span(group: Mapping[str, Any]) -> str:
    """The counts of a group, such as `3–17`; `cold` without training interactions."""
    low, high = group["from"], group["to"]
    return "cold" if high == 0 else f"{low:,}" if low == high else f"{low:,}–{high:,}"
