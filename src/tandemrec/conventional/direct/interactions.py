"""Histories as rows of a sparse binary user-item matrix, and as the pairs it holds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from tandemrec.data.examples import IntArray, Ragged


@dataclass(frozen=True)
class Pairs:
    """The E different (user, item) pairs of a training part, sorted by user, then item: edges of a bipartite graph.

    Attributes:
        users: (E,) int64.
        items: (E,) int64.
        n_users: U, users without a pair included.
        n_items: I, items without a pair included.
    """

    users: IntArray
    items: IntArray
    n_users: int
    n_items: int

    @classmethod
    def of(cls, sequences: Ragged, n_items: int) -> Pairs:
        """Pairs of all sequences, each once, however often the user met the item."""
        keys = np.unique(sequences.rows() * n_items + sequences.flat())
        return cls(keys // n_items, keys % n_items, len(sequences), n_items)

    def __len__(self) -> int:
        return len(self.users)


def binary_matrix(histories: Ragged, n_items: int) -> sparse.csr_array:
    """X (B, I) with 1 where the item occurs in the history, however often."""
    return _matrix(histories, np.ones(int(histories.lengths.sum()), np.float32), n_items, binary=True)


def decayed_matrix(histories: Ragged, n_items: int, decay: float) -> sparse.csr_array:
    """Weights (B, I): Σ decay^age over the item's places in the history, the latest item having age 0."""
    if decay == 1:
        return binary_matrix(histories, n_items)
    age = np.repeat(histories.stops - 1, histories.lengths) - histories.positions()
    return _matrix(histories, (decay**age).astype(np.float32), n_items, binary=False)


def _matrix(histories: Ragged, weights: np.ndarray, n_items: int, *, binary: bool) -> sparse.csr_array:
    shape = (len(histories), n_items)
    matrix = sparse.csr_array((weights, (histories.rows(), histories.flat())), shape=shape, dtype=np.float32)
    matrix.sum_duplicates()
    if binary:
        matrix.data[:] = 1
    return matrix
