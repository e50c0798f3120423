"""MicroLens: comments on micro-videos, with the titles of the videos."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import polars as pl

from tandemrec.data.dataset import Clock, Dataset
from tandemrec.data.sources.column import Column
from tandemrec.data.sources.delimited import header_names, read_delimited
from tandemrec.data.sources.files import match_files
from tandemrec.data.sources.source import Source
from tandemrec.errors import InputError


class MicroLens(Source):
    """MicroLens in two files, plain or `.gz`: `*_pairs.csv` (user, item and timestamp, or position and perhaps split)
    and `*_titles.csv` or `*_title_en.csv` (item, title).

    Where there are times, they are milliseconds; `position`, the place in the user's order, makes the clock the order.
    """

    format: Literal["microlens"] = "microlens"
    """Which source this is."""

    size: Literal["50k", "100k", "1m"] = "50k"
    """Which MicroLens: the folder where `path` is not given."""

    @property
    def default_name(self) -> str:
        """The folder `microlens-SIZE`."""
        return f"microlens-{self.size}"

    def files(self) -> list[Path]:
        """Pairs and titles."""
        folder = self.folder()
        return [_only(folder, "*_pairs.csv"), _only(folder, "*_titles.csv", "*_title_en.csv")]

    def load(self) -> Dataset:
        """Read the files; see `Source.load`."""
        pairs, titles = self.files()
        time = "timestamp" if "timestamp" in header_names(pairs) else "position"
        columns = [
            Column("user_id", "user"),
            Column("item_id", "item"),
            Column("timestamp", time, pl.Int64, low=0),
            Column("split", "split", optional=True),
        ]
        clock: Clock = "milliseconds" if time == "timestamp" else "order"
        items = read_delimited(titles, [Column("item_id", "item"), Column("title", "title", nullable=True)])
        return Dataset.from_frames(read_delimited(pairs, columns), items, clock=clock, name=self.default_name)


def _only(folder: Path, *patterns: str) -> Path:
    found = match_files(folder, *patterns)
    if len(found) != 1:
        there = ", ".join(path.name for path in found) or "none"
        raise InputError(f"{folder}: expected one file {' or '.join(patterns)} (or with .gz), found {there}")
    return found[0]
