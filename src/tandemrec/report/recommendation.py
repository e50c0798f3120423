"""What a system recommends to one user, for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
from rich.console import Group
from rich.table import Table
from rich.text import Text

SHOWN_HISTORY = 15


def recommendation_table(user: str, history: Sequence[str], ranking: pl.DataFrame) -> Group:
    """The latest titles of the history, oldest first, and the ranked titles with their scores."""
    past = Table(title=f"history of user {user}: {len(history)} items", show_header=False)
    past.add_column("place", justify="right")
    past.add_column("title", overflow="fold")
    skipped = max(0, len(history) - SHOWN_HISTORY)
    if skipped:
        past.add_row("…", f"{skipped} earlier")
    for place, title in enumerate(history[skipped:], skipped + 1):
        past.add_row(str(place), Text(title))
    table = Table(title="recommended next")
    for column in ("rank", "item", "title", "score"):
        table.add_column(column, justify="right" if column in {"rank", "score"} else "left", overflow="fold")
    for rank, item, title, score in ranking.iter_rows():
        table.add_row(str(rank), Text(item), Text(title), f"{score:.4f}")
    return Group(past, table)
