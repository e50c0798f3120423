"""K-means with k-means++ starts, blockwise on any device."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tandemrec.data.examples import IntArray

BLOCK_DISTANCES = 1 << 23
"""Distances held at once."""


def k_means(vectors_ND: Tensor, k: int, seed: int, iterations: int = 50) -> tuple[IntArray, Tensor]:
    """Cluster (N,) of every vector, and the centres (K, D).

    Args:
        vectors_ND: at least one vector.
        k: most clusters; fewer come out where there are fewer different vectors.
        seed: of the starts.
        iterations: most rounds; it ends when no vector changes its cluster.
    """
    vectors_ND = vectors_ND.float()
    centres_KD = _starts(vectors_ND, k, seed)
    cluster_N = _nearest(vectors_ND, centres_KD)
    for _ in range(iterations):
        counts_K = torch.bincount(cluster_N, minlength=len(centres_KD))
        sums_KD = torch.zeros_like(centres_KD).index_add(0, cluster_N, vectors_ND)
        # A cluster that lost all its vectors keeps its centre.
        centres_KD = torch.where(counts_K[:, None] > 0, sums_KD / counts_K.clamp(min=1)[:, None], centres_KD)
        again_N = _nearest(vectors_ND, centres_KD)
        if torch.equal(again_N, cluster_N):
            break
        cluster_N = again_N
    return cluster_N.cpu().numpy(), centres_KD


def _starts(vectors_ND: Tensor, k: int, seed: int) -> Tensor:
    """k-means++: every further centre is a vector drawn by its squared distance to the nearest one so far."""
    generator = torch.Generator().manual_seed(seed)
    chosen = [int(torch.randint(len(vectors_ND), (1,), generator=generator))]
    distance_N = (vectors_ND - vectors_ND[chosen[0]]).square().sum(1)
    while len(chosen) < k and bool(distance_N.max() > 0):
        total_N = distance_N.double().cumsum(0).cpu()
        drawn = torch.rand(1, generator=generator, dtype=torch.float64) * total_N[-1]
        chosen.append(min(int(torch.searchsorted(total_N, drawn, right=True)), len(vectors_ND) - 1))
        distance_N = torch.minimum(distance_N, (vectors_ND - vectors_ND[chosen[-1]]).square().sum(1))
    return vectors_ND[chosen].clone()


def _nearest(vectors_ND: Tensor, centres_KD: Tensor) -> Tensor:
    return torch.cat([_distances(block, centres_KD).argmin(1) for block in _blocks(vectors_ND, len(centres_KD))])


def _distances(block_ND: Tensor, centres_KD: Tensor) -> Tensor:
    """Squared distances, up to what is the same for all centres."""
    return centres_KD.square().sum(1) - 2 * block_ND @ centres_KD.T


def _blocks(vectors_ND: Tensor, k: int) -> Iterator[Tensor]:
    return iter(torch.split(vectors_ND, max(1, BLOCK_DISTANCES // k)))
