"""What kind an item is: genres, categories, a series."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from tandemrec.errors import InputError

KINDS = ("genres", "genre", "categories", "category", "main_category", "series")
"""Columns of the items that say what kind an item is, in the order of preference."""


def item_kinds(items: pl.DataFrame, column: str | None, key: str) -> Sequence[frozenset[str]] | None:
    """Kinds of every item; None where nothing says them.

    Args:
        items: a row each.
        column: of the items; null: the first there is of `KINDS`.
        key: of the recipe, that names the column.

    Raises:
        InputError: if the named column is not there.
    """
    if column is not None and column not in items.columns:
        raise InputError(f"key '{key}': found '{column}', the items have: {', '.join(items.columns)}")
    column = column or next((name for name in KINDS if name in items.columns), None)
    if column is None:
        return None
    listed = (value if isinstance(value, list) else [value] for value in items[column].to_list())
    return [frozenset(str(kind) for kind in kinds if kind is not None) for kinds in listed]
