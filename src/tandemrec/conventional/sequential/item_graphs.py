"""Item-item graphs as sparse matrices of constant shape, whose edge values may be masked at no cost."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse
from torch import Tensor, nn

from tandemrec.conventional.direct.itemknn import ItemKNN, ItemKNNConfig
from tandemrec.data.examples import IntArray, Ragged
from tandemrec.data.split import Split


class ItemGraph(nn.Module):
    """A sparse I × I matrix in rows, which are stored, and the layout of its transpose, which gradients need.

    Attributes:
        bounds: (I + 1,) where each row begins.
        column: (E,) column of each entry, ascending within a row.
        value: (E,) float32.
        row: (E,) row of each entry.
        back: (E,) the entries in the order of the transpose's rows.
        back_bounds: (I + 1,) where each row of the transpose begins.
        back_column: (E,) column of each of its entries.
    """

    bounds: Tensor
    column: Tensor
    value: Tensor
    row: Tensor
    back: Tensor
    back_bounds: Tensor
    back_column: Tensor

    def __init__(self, matrix: sparse.csr_array) -> None:
        super().__init__()
        matrix.sort_indices()
        self.register_buffer("bounds", torch.from_numpy(matrix.indptr.astype(np.int64)))
        self.register_buffer("column", torch.from_numpy(matrix.indices.astype(np.int64)))
        self.register_buffer("value", torch.from_numpy(matrix.data.astype(np.float32)))
        into = torch.bincount(self.column, minlength=matrix.shape[0]).cumsum(0)
        row = torch.repeat_interleave(self.bounds.diff())
        back = torch.argsort(self.column, stable=True)
        layout = {"row": row, "back": back, "back_bounds": F.pad(into, (1, 0)), "back_column": row[back]}
        for name, tensor in layout.items():
            self.register_buffer(name, tensor, persistent=False)

    def times(self, value_E: Tensor, x_ID: Tensor) -> Tensor:
        """The matrix with these values (which get no gradient) times x, (I, D)."""
        product: Tensor = _Product.apply(value_E, x_ID, self)  # type: ignore[no-untyped-call]
        return product

    def neighbour_mean(self, kept_E: Tensor, x_ID: Tensor) -> Tensor:
        """Mean of x over the columns of each row's kept entries, 0 for a row without any, (I, D)."""
        total = self.times(kept_E, x_ID)
        count = torch.zeros(len(total), device=total.device).index_add(0, self.row, kept_E)
        return total / count.clamp(min=1)[:, None]

    def entries(self, row: IntArray, column: IntArray) -> IntArray:
        """The number of the entry at each (row, column), all of which exist."""
        n = len(self.bounds) - 1
        keys = self.row.cpu().numpy() * n + self.column.cpu().numpy()
        return np.searchsorted(keys, row * n + column)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value_E: Tensor, x_ID: Tensor, graph: ItemGraph) -> Tensor:
        ctx.save_for_backward(value_E)
        ctx.graph = graph
        return _csr(graph.bounds, graph.column, value_E, len(x_ID)) @ x_ID

    @staticmethod
    def backward(ctx: Any, grad_ID: Tensor) -> tuple[None, Tensor, None]:
        (value_E,) = ctx.saved_tensors
        graph: ItemGraph = ctx.graph
        transposed = _csr(graph.back_bounds, graph.back_column, value_E[graph.back], len(grad_ID))
        return None, transposed @ grad_ID, None


def _csr(bounds: Tensor, column: Tensor, value: Tensor, n: int) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(bounds, column, value, (n, n), check_invariants=False)


def adjacency(sequences: Ragged, n_items: int) -> sparse.csr_array:
    """D^{-1/2} (C + Cᵀ + 1) D^{-1/2}, C counting how often one item follows another."""
    first, second = followers(sequences)
    ones = np.ones(len(first), np.float64)
    counts = sparse.csr_array(sparse.coo_array((ones, (first, second)), shape=(n_items, n_items)))
    full = sparse.csr_array(counts + counts.T + sparse.eye_array(n_items))
    scale = sparse.diags_array(1 / np.sqrt(np.asarray(full.sum(1))))
    return sparse.csr_array(scale @ full @ scale)


def similarity(split: Split, neighbours: int) -> sparse.csr_array:
    """Every item's most similar ones by the cosine of their users, itself with weight 1, rows summing to 1."""
    model = ItemKNN(ItemKNNConfig(shrink=0, neighbours=neighbours))
    model.fit(split)
    full = sparse.csr_array(model.similarity + sparse.eye_array(split.n_items))
    return sparse.csr_array(sparse.diags_array(1 / np.asarray(full.sum(1))) @ full)


def followers(sequences: Ragged) -> tuple[IntArray, IntArray]:
    """(item, next item) of every two consecutive items, row after row."""
    flat = sequences.flat().astype(np.int64)
    inside = np.diff(sequences.rows()) == 0
    return flat[:-1][inside], flat[1:][inside]


def own_entries(graph: ItemGraph, sequences: Ragged) -> Ragged:
    """For every sequence the entries of `graph` (both directions) between its consecutive items."""
    first, second = followers(sequences)
    both = np.stack([graph.entries(first, second), graph.entries(second, first)], 1)
    return Ragged.from_lengths(both.ravel().astype(np.int32), 2 * np.maximum(sequences.lengths - 1, 0))
