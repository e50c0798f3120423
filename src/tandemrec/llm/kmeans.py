"""k-means, and k-means of what k-means leaves: residual codes without any network."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

DISTANCES = 4_000_000
"""Distances that exist at once."""


def nearest(x_ND: Tensor, centres_KD: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest centre of every point, of equally near ones the first, and the squared distance; (N,) each.

    |x|² − 2 x·c + |c|² in float64, so that rounding decides nothing but ties.
    """
    centres = centres_KD.double()
    code, distance = [], []
    for block in torch.split(x_ND.double(), max(1, DISTANCES // len(centres))):
        square_NK = block.square().sum(1, keepdim=True) - 2 * block @ centres.T + centres.square().sum(1)
        least, best = square_NK.min(1)
        code.append(best)
        distance.append(least.clamp(min=0))
    return torch.cat(code), torch.cat(distance)


def spread_start(x_ND: Tensor, k: int, rng: np.random.Generator) -> Tensor:
    """K points to start from (k-means++): each is drawn in proportion to its squared distance to those before.

    Where there are fewer than K different points, some are drawn again.
    """
    chosen = [int(rng.integers(len(x_ND)))]
    _, distance_N = nearest(x_ND, x_ND[chosen])
    while len(chosen) < k:
        up_to = torch.cumsum(distance_N, 0).cpu().numpy()
        drawn = int(np.searchsorted(up_to, rng.random() * up_to[-1], side="right"))
        chosen.append(min(drawn, len(x_ND) - 1))
        distance_N = torch.minimum(distance_N, nearest(x_ND, x_ND[chosen[-1:]])[1])
    return x_ND[chosen].clone()


def kmeans(x_ND: Tensor, k: int, rng: np.random.Generator, rounds: int = 50) -> Tensor:
    """Centres (K, D) by Lloyd's rounds from a spread start, until nothing changes or `rounds` are over.

    A centre without points moves to the point that is farthest from its own centre (several to the farthest ones), as
    long as there is one that lies beside its centre.
    """
    centres_KD = spread_start(x_ND, k, rng)
    before: Tensor | None = None
    for _ in range(rounds):
        code_N, distance_N = nearest(x_ND, centres_KD)
        if before is not None and torch.equal(code_N, before):
            break
        before = code_N
        count_K = torch.bincount(code_N, minlength=k)
        sums_KD = torch.zeros_like(centres_KD, dtype=torch.float64).index_add_(0, code_N, x_ND.double())
        used_K = count_K > 0
        centres_KD[used_K] = (sums_KD[used_K] / count_K[used_K, None]).to(x_ND)
        empty = (~used_K).nonzero()[:, 0]
        far = torch.argsort(distance_N, descending=True, stable=True)[: len(empty)]
        far = far[distance_N[far] > 0]
        centres_KD[empty[: len(far)]] = x_ND[far]
    return centres_KD


def residual_kmeans(
    x_ND: Tensor, levels: int, k: int, rng: np.random.Generator, rounds: int = 50
) -> tuple[Tensor, Tensor]:
    """Codebooks (L, K, D) and codes (N, L): level l is k-means of what the levels before it leave."""
    residual_ND, books, codes = x_ND, [], []
    for _ in range(levels):
        centres_KD = kmeans(residual_ND, k, rng, rounds)
        code_N, _ = nearest(residual_ND, centres_KD)
        residual_ND = residual_ND - centres_KD[code_N]
        books.append(centres_KD)
        codes.append(code_N)
    return torch.stack(books), torch.stack(codes, 1)
