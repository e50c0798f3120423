"""What the language models of a run wrote, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text


def output_tables(results: Mapping[str, Any]) -> Iterator[Table]:
    """One table a system that generates: last title of the history, generated title, whether it exists, target."""
    for row in results["leaderboard"]:
        outputs = row.get("outputs")
        if not outputs:
            continue
        title = f"{row['system']}: {outputs['exact_share']:.1%} of the generated titles are exact catalogue titles"
        table = Table(title=title)
        for column in ("last in history", "generated", "exact", "target"):
            table.add_column(column, overflow="fold")
        for shown in outputs["examples"]:
            last = shown["history"][-1] if shown["history"] else ""
            exact = "yes" if shown["exact"] else "no"
            table.add_row(Text(last), Text(shown["generated"]), exact, Text(shown["target"]))
        yield table
