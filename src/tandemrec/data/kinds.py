"""What kind an item is: genres, categories, a series."""

from __future__ import annotations

from collections.abc import Sequence

from tandemrec.data.dataset import Dataset
from tandemrec.errors import InputError

KINDS = ("genres", "categories", "category", "main_category", "series")
"""Columns of the items that say what kind an item is, in the order of preference."""


def item_kinds(dataset: Dataset, column: str | None, key: str) -> Sequence[frozenset[str]] | None:
    """Kinds of every item; None where nothing says them.

    Args:
        dataset: whose items are asked.
        column: of the items; null: the first there is of `KINDS`.
        key: of the recipe, that names the column.

    Raises:
        InputError: if the named column is not there.
    """
    if column is not None and column not in dataset.items.columns:
        raise InputError(f"key '{key}': found '{column}', the items have: {', '.join(dataset.items.columns)}")
    column = column or next((name for name in KINDS if name in dataset.items.columns), None)
    if column is None:
        return None
    listed = (value if isinstance(value, list) else [value] for value in dataset.items[column].to_list())
    return [frozenset(str(kind) for kind in kinds if kind is not None) for kinds in listed]
