"""Encoding, order, fingerprint and storage of `Dataset`."""

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from tandemrec.data.dataset import Dataset
from tandemrec.errors import InputError


def frame(rows: list[tuple[str, str, int]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row")


ROWS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.integers(0, 3)), min_size=1, max_size=12)


def test_ids_are_numbered_in_the_order_of_numbers_or_texts() -> None:
    numbers = Dataset.from_frames(pl.DataFrame({"user_id": [10, 9, 2], "item_id": ["b", "a10", "a9"]}))
    assert numbers.users["user_id"].to_list() == ["2", "9", "10"]
    assert numbers.items["item_id"].to_list() == ["a10", "a9", "b"]


def test_rows_are_sorted_by_user_then_time_then_file_order() -> None:
    data = Dataset.from_frames(frame([("b", "x", 5), ("a", "z", 9), ("a", "y", 1), ("b", "y", 5), ("b", "z", 4)]))
    assert data.interactions.select("user", "item", "timestamp").rows() == [
        (0, 1, 1),
        (0, 2, 9),
        (1, 2, 4),
        (1, 0, 5),
        (1, 1, 5),
    ]
    assert list(data.user_offsets) == [0, 2, 5]


@given(ROWS)
def test_decoding_gives_the_rows_back(rows: list[tuple[str, str, int]]) -> None:
    data = Dataset.from_frames(frame(rows))
    users, items = data.users["user_id"].to_list(), data.items["item_id"].to_list()
    decoded = [(users[u], items[i], t) for u, i, t in data.interactions.select("user", "item", "timestamp").iter_rows()]
    assert decoded == sorted(rows, key=lambda row: (row[0], row[2]))


@given(ROWS)
def test_fingerprint_speaks_of_content_alone(rows: list[tuple[str, str, int]]) -> None:
    data = Dataset.from_frames(frame(rows))
    assert data.fingerprint == Dataset.from_frames(frame(rows), name="another name").fingerprint
    later = [*rows[:-1], (rows[-1][0], rows[-1][1], rows[-1][2] + 10)]
    assert data.fingerprint != Dataset.from_frames(frame(later)).fingerprint


def test_titles_fall_back_to_ids_and_first_metadata_row_counts() -> None:
    items = pl.DataFrame({"item_id": ["x", "x", "w"], "title": ["First", "Second", "Unused"], "year": [1, 2, 3]})
    data = Dataset.from_frames(frame([("a", "x", 0), ("a", "y", 1)]), items)
    assert data.items.select("item_id", "title", "year").rows() == [
        ("w", "Unused", 3),
        ("x", "First", 1),
        ("y", None, None),
    ]
    assert data.titles == ["Unused", "First", "y"]


def test_without_times_the_file_order_stands() -> None:
    data = Dataset.from_frames(pl.DataFrame({"user_id": ["a"] * 3, "item_id": ["z", "x", "y"]}))
    assert data.clock == "none"
    assert data.interactions["item"].to_list() == [2, 0, 1]
    assert data.interactions["rating"].null_count() == 3


def test_saved_data_come_back(tmp_path: Path) -> None:
    items = pl.DataFrame({"item_id": ["x"], "title": ["Ünïcode"], "genres": [["A", "B"]]})
    interactions = frame([("a", "x", 3)]).with_columns(rating=pl.lit(4.5), split=pl.lit("train"))
    data = Dataset.from_frames(interactions, items, clock="order", name="tiny")
    data.save(tmp_path / "data")
    back = Dataset.load(tmp_path / "data")
    assert (back.name, back.clock, back.fingerprint) == ("tiny", "order", data.fingerprint)
    assert_frame_equal(back.items, data.items)
    assert_frame_equal(back.interactions, data.interactions)


def test_missing_columns_and_ids_are_named() -> None:
    with pytest.raises(InputError, match="column 'item_id', found"):
        Dataset.from_frames(pl.DataFrame({"user_id": ["a"]}))
    with pytest.raises(InputError, match="no 'user_id' in row 2"):
        Dataset.from_frames(pl.DataFrame({"user_id": ["a", None], "item_id": ["x", "y"]}))
