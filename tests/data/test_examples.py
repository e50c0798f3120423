"""`Ragged` and `Examples` against plain lists of lists."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandemrec.data.examples import Examples, Ragged

ROWS = st.lists(st.lists(st.integers(0, 99), max_size=6), max_size=8)


@given(ROWS)
def test_rows_come_back(rows: list[list[int]]) -> None:
    ragged = Ragged.from_lists(rows)
    assert [list(row) for row in ragged] == rows
    assert list(ragged.flat()) == [value for row in rows for value in row]
    assert list(ragged.rows()) == [b for b, row in enumerate(rows) for _ in row]
    assert list(ragged.lengths) == [len(row) for row in rows]


@given(ROWS, st.integers(1, 5))
def test_tail_keeps_the_latest(rows: list[list[int]], length: int) -> None:
    assert [list(row) for row in Ragged.from_lists(rows).tail(length)] == [row[-length:] for row in rows]


@given(ROWS, st.integers(1, 5), st.sampled_from(["left", "right"]))
def test_padded_fills_the_named_side(rows: list[list[int]], width: int, side: str) -> None:
    padded = Ragged.from_lists(rows).padded(width, pad=-1, side=side)  # type: ignore[arg-type]
    for got, row in zip(padded, rows, strict=True):
        kept = row[-width:]
        pads = [-1] * (width - len(kept))
        assert list(got) == (pads + kept if side == "left" else kept + pads)


@given(ROWS)
def test_taken_and_compacted_rows_are_the_same_rows(rows: list[list[int]]) -> None:
    chosen = np.array([b for b in range(len(rows)) if b % 2 == 0][::-1], np.int64)
    taken = Ragged.from_lists(rows).take(chosen)
    assert [list(row) for row in taken] == [rows[b] for b in chosen]
    assert [list(row) for row in taken.compact()] == [rows[b] for b in chosen]
    assert len(taken.compact().values) == sum(len(rows[b]) for b in chosen)


def test_windows_are_views() -> None:
    values = np.arange(5, dtype=np.int32)
    windows = Ragged(values, np.array([0, 0, 1]), np.array([2, 3, 4]))
    assert windows[1].base is values
    assert [list(row) for row in windows] == [[0, 1], [0, 1, 2], [1, 2, 3]]


def test_questions_without_answers() -> None:
    asked = Examples.from_histories([[3, 1], []], users=[7, 8])
    assert list(asked.user) == [7, 8]
    assert [list(row) for row in asked.seen] == [[3, 1], []]
    assert list(asked.target.lengths) == [0, 0]


@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_blocks_cover_everything_once(size: int) -> None:
    asked = Examples.from_histories([[0], [1], [2], [3], [4]])
    blocks = list(asked.blocks(size))
    assert max(len(block) for block in blocks) <= size
    assert [int(row[0]) for block in blocks for row in block.history] == [0, 1, 2, 3, 4]
