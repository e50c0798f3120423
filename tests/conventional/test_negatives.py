"""Negatives: never met, uniform, and the same however membership is kept."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tandemrec.conventional.negatives import NegativeSampler
from tandemrec.data.examples import Ragged


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 10), max_size=14), min_size=1, max_size=12).filter(any),
    st.integers(0, 2**31 - 1),
)
def test_a_bitmap_and_sorted_keys_draw_the_same_items_never_met(sequences: list[list[int]], seed: int) -> None:
    rows = np.random.default_rng(seed).integers(len(sequences), size=200)
    ragged = Ragged.from_lists(sequences)
    bitmap, keys = NegativeSampler(ragged, 11), NegativeSampler(ragged, 11, bitmap_cells=0)
    drawn = bitmap.draw(rows, np.random.default_rng(seed))
    np.testing.assert_array_equal(drawn, keys.draw(rows, np.random.default_rng(seed)))
    assert drawn.dtype == np.int32
    assert ((drawn >= 0) & (drawn < 11)).all()
    for row, item in zip(rows, drawn, strict=True):
        assert item not in sequences[row] or len(set(sequences[row])) == 11


@pytest.mark.parametrize("cells", [0, 1 << 30])
def test_draws_are_uniform_over_what_was_not_met(cells: int) -> None:
    sampler = NegativeSampler(Ragged.from_lists([[0, 1, 2, 19], [5]]), 20, bitmap_cells=cells)
    drawn = sampler.draw(np.repeat([0, 1], 80_000), np.random.default_rng(1))
    for half, met in ((drawn[:80_000], {0, 1, 2, 19}), (drawn[80_000:], {5})):
        counts = np.bincount(half, minlength=20)
        free = np.array([item for item in range(20) if item not in met])
        expected = 80_000 / len(free)
        assert counts.sum() == counts[free].sum()
        # χ² has as many degrees of freedom as free items less one: mean 15 or 18, beyond 45 once in ten thousand draws.
        assert ((counts[free] - expected) ** 2 / expected).sum() < 45
