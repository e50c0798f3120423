"""What a recipe's data are, for the terminal: cleaning, counts, split, leak check."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.table import Table

from tandemrec.data.split import PARTS, Split


def data_tables(split: Split, cleaning: Sequence[dict[str, Any]]) -> Iterator[Table]:
    """Three tables: what cleaning kept and dropped and why; the parts of the split; the leak check."""
    steps = Table(title=f"{split.dataset.name}: cleaning")
    for column in cleaning[0]:
        steps.add_column(column, justify="left" if column in {"step", "why"} else "right", overflow="fold")
    for row in cleaning:
        steps.add_row(*(f"{value:,}" if isinstance(value, int) else str(value) for value in row.values()))
    yield steps
    parts = Table(title=split.protocol)
    for column in ("part", "examples", "targets", "median history"):
        parts.add_column(column, justify="left" if column == "part" else "right")
    for part in PARTS:
        examples = getattr(split, part)
        lengths = sorted(examples.history.lengths.tolist())
        targets = int(examples.target.lengths.sum())
        parts.add_row(part, f"{len(examples):,}", f"{targets:,}", f"{lengths[len(lengths) // 2]:,}")
    yield parts
    leaks = Table(title="leak check", show_header=False)
    leaks.add_column("question", overflow="fold")
    for line in split.leaks.lines():
        leaks.add_row(line)
    yield leaks
