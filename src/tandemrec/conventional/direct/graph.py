"""The user-item graph: symmetrically normalised adjacency, its random views, and propagation.

N = U + I vertices, user u being vertex u and item i vertex U + i; E edges, each standing for both of its directions.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tandemrec.conventional.direct.interactions import Pairs

Augmentation = Literal["edge", "node", "walk"]


class Graph:
    """Compressed rows of the adjacency, laid out once: another weighting of the edges is another array of values."""

    def __init__(self, pairs: Pairs, device: torch.device) -> None:
        self.n_users, self.n_items = pairs.n_users, pairs.n_items
        by_item = np.argsort(pairs.items, kind="stable")
        degrees = np.concatenate(
            [np.bincount(pairs.users, minlength=self.n_users), np.bincount(pairs.items, minlength=self.n_items)]
        )
        arrays = (
            pairs.users,
            pairs.items + self.n_users,
            np.concatenate([[0], np.cumsum(degrees)]),
            np.concatenate([pairs.items + self.n_users, pairs.users[by_item]]),
            np.concatenate([np.arange(len(pairs)), by_item]),
        )
        self.user_E, self.item_E, self.row_starts, self.columns, self.edge_of_entry = (
            torch.from_numpy(array).to(device) for array in arrays
        )

    @property
    def n_vertices(self) -> int:
        """N."""
        return self.n_users + self.n_items

    def adjacency(self, kept_E: Tensor | None = None) -> Tensor:
        """D^(-1/2) A D^(-1/2) as a sparse CSR matrix (N, N), D being the degrees of the edges that are kept.

        Args:
            kept_E: (E,) float32, 1 for an edge that is kept and 0 for one that is not; None keeps all.
        """
        weight_E = torch.ones(len(self.user_E), device=self.columns.device) if kept_E is None else kept_E
        degree_N = torch.zeros(self.n_vertices, device=weight_E.device)
        degree_N.index_add_(0, self.user_E, weight_E).index_add_(0, self.item_E, weight_E)
        scale_N = degree_N.clamp(min=1).rsqrt()
        values = (weight_E * scale_N[self.user_E] * scale_N[self.item_E])[self.edge_of_entry]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            return torch.sparse_csr_tensor(
                self.row_starts, self.columns, values, (self.n_vertices, self.n_vertices), check_invariants=False
            )

    def view(self, kind: Augmentation, drop: float, layers: int, rng: np.random.Generator) -> list[Tensor]:
        """One random view of the graph: an adjacency for every layer, normalised by its own degrees.

        Args:
            kind: `edge` drops edges and `node` vertices with all their edges, both the same in every layer; `walk`
                drops edges anew in every layer.
            drop: probability that an edge or vertex is dropped.
            layers: number of layers.
            rng: source of the masks.
        """
        if kind == "walk":
            return [self.adjacency(self._kept_edges(drop, rng)) for _ in range(layers)]
        kept_E = self._kept_edges(drop, rng) if kind == "edge" else self._edges_of_kept_nodes(drop, rng)
        return [self.adjacency(kept_E)] * layers

    def _kept_edges(self, drop: float, rng: np.random.Generator) -> Tensor:
        return self._keep(len(self.user_E), drop, rng)

    def _edges_of_kept_nodes(self, drop: float, rng: np.random.Generator) -> Tensor:
        kept_N = self._keep(self.n_vertices, drop, rng)
        return kept_N[self.user_E] * kept_N[self.item_E]

    def _keep(self, size: int, drop: float, rng: np.random.Generator) -> Tensor:
        kept = rng.random(size, dtype=np.float32) >= drop
        return torch.from_numpy(kept.astype(np.float32)).to(self.columns.device)


def propagate(table_ND: Tensor, adjacencies: Sequence[Tensor]) -> list[Tensor]:
    """E⁰ … E^L with E^(l+1) = Â_l E^l, one matrix a layer (eq. 3 of the LightGCN paper as eq. 7 writes it)."""
    layers = [table_ND]
    for adjacency in adjacencies:
        layers.append(_Propagate.apply(adjacency, layers[-1]))  # type: ignore[no-untyped-call]
    return layers


class _Propagate(torch.autograd.Function):
    """Â is symmetric, so its transpose, which torch would build at every step, is itself: ∂(Â E) = Â ∂."""

    @staticmethod
    def forward(ctx: Any, adjacency: Tensor, table_ND: Tensor) -> Tensor:
        ctx.adjacency = adjacency
        return adjacency @ table_ND

    @staticmethod
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[None, Tensor]:
        return None, ctx.adjacency @ grad_ND
