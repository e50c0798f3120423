"""Where the errors of rating predictors lie, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from tandemrec.report.leaderboard import cell, table_of


def segment_tables(results: Mapping[str, Any]) -> Iterator[Table]:
    """One table a grouping: a row a system, a column a group of training counts; the headline error."""
    for name, header, rows in _grids(results):
        table = Table(title=f"{results['evaluation']['headline'].upper()} by {name} (training ratings)")
        for place, text in enumerate(header):
            table.add_column(text, justify="right" if place else "left", no_wrap=True)
        for system, *figures in rows:
            table.add_row(system, *(f"{figure['mean']:.4f}" for figure in figures))
        yield table


def segments_markdown(results: Mapping[str, Any]) -> str:
    """The same as Markdown, with standard errors; empty for runs that rank."""
    headline = results["evaluation"]["headline"].upper()
    parts = [
        f"## {headline} by {name} (training ratings)\n\n"
        + table_of(header, [[system, *(cell(figure) for figure in figures)] for system, *figures in rows])
        for name, header, rows in _grids(results)
    ]
    return "\n\n".join(parts)


def _grids(results: Mapping[str, Any]) -> Iterator[tuple[str, list[str], list[list[Any]]]]:
    """Name of a grouping, header, and rows of a system's name and its figures; nothing for runs that rank."""
    board = [row for row in results["leaderboard"] if row.get("segments")]
    for name in board[0]["segments"] if board else ():
        groups = board[0]["segments"][name]
        header = ["system", *(f"{group['from']:,}–{group['to']:,} (n={group['n']:,})" for group in groups)]
        headline = results["evaluation"]["headline"]
        yield name, header, [[row["system"], *(g[headline] for g in row["segments"][name])] for row in board]
