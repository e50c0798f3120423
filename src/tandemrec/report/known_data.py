"""The known public data sets, for the terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from tandemrec.data.known import known_sources
from tandemrec.data.locations import data_root


def known_table() -> Table:
    """Name, title, size, licence of every known source, and whether it is in the data folder."""
    root = data_root()
    table = Table(title=f"known sources; data folder {root}", caption="tandem data get NAME downloads one of them")
    for column in ("name", "what", "MB", "here", "licence"):
        table.add_column(column, overflow="fold", justify="right" if column == "MB" else "left")
    for source in known_sources():
        size = "" if source.megabytes is None else f"{source.megabytes:,}"
        here = "yes" if (root / source.name).is_dir() else ""
        table.add_row(source.name, Text(source.title), size, here, Text(source.licence))
    return table
