"""What selectors chose, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table


def selection_tables(results: Mapping[str, Any]) -> Iterator[Table]:
    """Coverage, overlap, how influence was solved (and how well it foretells retraining), and seconds of every part."""
    title = f"{results['name']}: {results['budget']:,} of {results['examples']:,} training examples"
    yield _table(f"{title}; shares of what all examples reach, and targets by popularity", results["coverage"])
    yield _table("share of a selector's choice (row) that another one (column) chose too", results["overlap"])
    if results["influence"]:
        yield _table("influence", [{"selector": name, **facts} for name, facts in results["influence"].items()])
    if "validity" in results:
        yield _table("Spearman correlation of predicted and actual loss of retrained surrogates", [results["validity"]])
    seconds = results["card"]["seconds"]
    yield _table("seconds", [{"stage": stage, "seconds": value} for stage, value in seconds.items()])
    costs = results["card"]["selectors"].items()
    yield _table(
        "seconds of a selector, with all it looks at", [{"selector": n, "seconds": value} for n, value in costs]
    )


def _table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column, justify="left" if isinstance(rows[0][column], str) else "right")
    for row in rows:
        table.add_row(*(_shown(value) for value in row.values()))
    return table


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
