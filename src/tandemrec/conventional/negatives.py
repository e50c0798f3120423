"""Vectorised draws of items that a user has not met."""

from __future__ import annotations

import numpy as np

from tandemrec.data.examples import IntArray, ItemArray, Ragged
from tandemrec.recommender import BoolArray

BITMAP_CELLS = 1 << 30
"""Largest sequences × items whose membership is kept as one bit a cell (128 MiB); beyond it, as sorted keys."""


class NegativeSampler:
    """Uniform items that do not occur in the sequence they are drawn for.

    Membership of the key `row * I + item` is one bit of a bitmap, or a binary search in the sorted keys where a bitmap
    would be too large; only collisions are drawn again. Both give the same draws. A sequence that holds the whole
    catalogue has no negatives; its draws are returned as they fell.
    """

    def __init__(self, sequences: Ragged, n_items: int, bitmap_cells: int = BITMAP_CELLS) -> None:
        self.n_items = n_items
        self.keys = np.unique(sequences.rows() * n_items + sequences.flat())
        met = np.bincount(self.keys // n_items, minlength=len(sequences))
        self.full = met >= n_items
        self.any_full = bool(self.full.any())
        self.bits = self._bitmap(len(sequences)) if len(sequences) * n_items <= bitmap_cells else None

    def draw(self, rows: IntArray, rng: np.random.Generator) -> ItemArray:
        """One item for each entry of `rows`, numbers of the sequences the sampler was built from; shape (N,)."""
        items = rng.integers(self.n_items, size=len(rows))
        again = np.flatnonzero(~self.full[rows]) if self.any_full else np.arange(len(rows))
        while len(again):
            again = again[self._met(rows[again] * self.n_items + items[again])]
            items[again] = rng.integers(self.n_items, size=len(again))
        return items.astype(np.int32)

    def _bitmap(self, n_rows: int) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        bits = np.zeros(n_rows * self.n_items // 8 + 1, np.uint8)
        np.bitwise_or.at(bits, self.keys >> 3, (1 << (self.keys & 7)).astype(np.uint8))
        return bits

    def _met(self, keys: IntArray) -> BoolArray:
        if self.bits is not None:
            found: BoolArray = (self.bits[keys >> 3] >> (keys & 7).astype(np.uint8) & 1).astype(bool)
        else:
            found = self.keys[np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)] == keys
        return found
