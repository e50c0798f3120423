"""Histories as rows of a sparse binary user-item matrix."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from tandemrec.data.examples import Ragged


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
