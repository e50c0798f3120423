"""Draws of items that a user has not met."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tandemrec.data.examples import Ragged
from tandemrec.errors import InputError
from tandemrec.llm.recommenders.lessons import draw_unmet

ITEMS = 12
ROWS = st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=20), min_size=1, max_size=6)


@given(histories=ROWS, seen=st.data(), seed=st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_different_items_that_are_in_no_part(histories: list[list[int]], seen: st.DataObject, seed: int) -> None:
    others = seen.draw(st.lists(st.lists(st.integers(0, ITEMS - 1)), min_size=len(histories), max_size=len(histories)))
    parts = [Ragged.from_lists(histories), Ragged.from_lists(others)]
    free = [set(range(ITEMS)) - {*one} - {*other} for one, other in zip(histories, others, strict=True)]
    left = min(map(len, free))
    for k in range(1, left + 1):
        drawn = draw_unmet(parts, ITEMS, k, np.random.default_rng(seed), "")
        assert drawn.shape == (len(histories), k)
        assert drawn.dtype == np.int32
        for row, allowed in zip(drawn.tolist(), free, strict=True):
            assert len(set(row)) == k
            assert set(row) <= allowed
        assert np.array_equal(drawn, draw_unmet(parts, ITEMS, k, np.random.default_rng(seed), ""))
    with pytest.raises(InputError, match=rf"^here {left + 1}, but a user leaves only {left} items? unmet$"):
        draw_unmet(parts, ITEMS, left + 1, np.random.default_rng(seed), f"here {left + 1}")


@pytest.mark.parametrize("k", [1, 2, 3])
def test_every_sequence_of_unmet_items_is_equally_likely(k: int) -> None:
    """Each of the 24 sequences of 3 out of 4 items is expected 1000 times, with a deviation of 31."""
    n = 24_000
    rows = Ragged.from_lists([[0, 2, 2]] * n)
    drawn = draw_unmet([rows], 6, k, np.random.default_rng(5), "")
    counts = Counter(map(tuple, drawn.tolist()))
    sequences = list(permutations((1, 3, 4, 5), k))
    assert set(counts) == set(sequences)
    expected = n / len(sequences)
    assert max(abs(count - expected) for count in counts.values()) < 5 * np.sqrt(expected)


def test_many_items_for_users_who_have_met_half_of_a_catalogue() -> None:
    """Whole rows of 100 would be right once in 2^100 draws."""
    rng = np.random.default_rng(0)
    met = Ragged.from_lists([rng.permutation(1682)[:841].tolist() for _ in range(200)])
    drawn = draw_unmet([met], 1682, 100, rng, "")
    assert all(len({*row, *items.tolist()}) == 941 for row, items in zip(drawn.tolist(), met, strict=True))


def test_nobody_gets_nothing() -> None:
    assert draw_unmet([Ragged.from_lists([])], 5, 2, np.random.default_rng(0), "").shape == (0, 2)
