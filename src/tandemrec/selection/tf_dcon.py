"""Clusters of samples by recommender and language-model vectors, as DEALRec takes TF-DCon (Wu et al., 2023)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from tandemrec.data.examples import Examples, IntArray
from tandemrec.selection.clustering import k_means
from tandemrec.selection.selector import AnySelectorConfig, Selector

Vectors = Callable[[Examples], Tensor]
"""Vectors (B, D) of examples: a recommender's `encode(examples.history)`, a language model's `encode(texts)`, …"""


class TFDConConfig(AnySelectorConfig):
    """How samples are clustered and drawn. Condensing texts with a language model is no part of it."""

    selector: Literal["tf-dcon"] = "tf-dcon"
    """Which selector this is."""

    clusters: int = Field(50, ge=1)
    """Most clusters."""

    inside: Literal["nearest", "random"] = "nearest"
    """Which samples of a cluster: those next to its centre, or any."""


class TFDCon(Selector):
    """Every cluster gives its share of the budget, in proportion to its size."""

    def __init__(self, config: TFDConConfig, vectors: Sequence[Vectors]) -> None:
        """With the kinds of vectors that are put side by side, each centred and of mean length 1, so that all count."""
        self.config, self.vectors = config, vectors

    def choose(self, examples: Examples, budget: int, rng: np.random.Generator) -> IntArray:
        """Cluster, share out, take."""
        joined_BD = torch.cat([_scaled(vectors(examples)) for vectors in self.vectors], 1)
        cluster, centres_KD = k_means(joined_BD, self.config.clusters, seed=int(rng.integers(2**31)))
        preference = rng.random(len(examples))
        if self.config.inside == "nearest":
            centre_BD = centres_KD[torch.from_numpy(cluster).to(centres_KD.device)]
            preference = (joined_BD - centre_BD).square().sum(1).cpu().numpy()
        order = np.lexsort((preference, cluster))
        ordered = cluster[order]
        place = np.arange(len(order)) - np.searchsorted(ordered, ordered)
        share = proportional_shares(np.bincount(cluster, minlength=len(centres_KD)), budget)
        chosen: IntArray = order[place < share[ordered]]
        return chosen


def proportional_shares(sizes: IntArray, budget: int) -> IntArray:
    """Whole numbers in proportion to sizes that add up to a budget of at most their sum: largest remainders."""
    exact = sizes * (budget / sizes.sum())
    shares: IntArray = np.floor(exact).astype(np.int64)
    remainder = np.where(shares < sizes, exact - shares, -1.0)
    shares[np.argsort(-remainder, kind="stable")[: budget - shares.sum()]] += 1
    return shares


def _scaled(vectors_BD: Tensor) -> Tensor:
    centred = vectors_BD.detach().float() - vectors_BD.detach().float().mean(0)
    scaled: Tensor = centred / centred.norm(dim=1).mean().clamp(min=1e-12)
    return scaled
