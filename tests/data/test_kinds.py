"""What kind an item is, by the columns of its data."""

from __future__ import annotations

import polars as pl
import pytest

from tandemrec.data.kinds import item_kinds
from tandemrec.errors import InputError

ITEMS = pl.DataFrame(
    {
        "item_id": [1, 2, 3],
        "category": ["x", "y", "x"],
        "maker": ["m", "m", None],
        "genres": [["a", "b"], [], ["b", None]],
    }
)


def test_kinds_come_from_the_first_known_or_the_named_column() -> None:
    assert item_kinds(ITEMS, None, "") == [{"a", "b"}, set(), {"b"}]
    assert item_kinds(ITEMS.drop("genres"), None, "") == [{"x"}, {"y"}, {"x"}]
    assert item_kinds(ITEMS, "maker", "") == [{"m"}, {"m"}, set()]
    assert item_kinds(ITEMS.select("item_id"), None, "") is None


def test_an_unknown_column_is_refused() -> None:
    with pytest.raises(InputError, match=r"'evaluation.kinds': found 'colour', the items have: item_id, category"):
        item_kinds(ITEMS, "colour", "evaluation.kinds")
