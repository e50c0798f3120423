"""RecRanker's user sampling: importance, clusters and a penalty on repetition (Luo et al., 2023)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from tandemrec.data.examples import Examples, IntArray
from tandemrec.errors import InputError
from tandemrec.selection.clustering import k_means
from tandemrec.selection.selector import AnySelectorConfig, FloatArray, Selector
from tandemrec.selection.tf_dcon import Vectors, proportional_shares


class RecRankerConfig(AnySelectorConfig):
    """Defaults are those of its code (whose released switch draws uniformly instead)."""

    selector: Literal["recranker"] = "recranker"
    """Which selector this is."""

    importance_share: float = Field(0.6, gt=0)
    """Draws by importance, as a share of the budget."""

    cluster_share: float = Field(0.6, gt=0)
    """Draws from clusters, as a share of the budget."""

    clusters: int = Field(10, ge=1)
    """Clusters of users."""

    penalty: float = Field(0.95, gt=0, le=1)
    """C: a sample that was drawn `count` times weighs C^(count − 1) in the final draw."""


class RecRanker(Selector):
    """Draws a pool by activity and by cluster, and the chosen samples from the pool."""

    def __init__(self, config: RecRankerConfig, vectors: Vectors) -> None:
        """With the backbone's vectors of examples."""
        self.config, self.vectors = config, vectors

    def choose(self, examples: Examples, budget: int, rng: np.random.Generator) -> IntArray:
        """Draw both parts of the pool, then without replacement from it.

        A pool with too few different samples is drawn again and added to; samples that can never be drawn (a single
        interaction weighs ln 1 = 0) come in through their clusters.
        """
        config = self.config
        cluster, _ = k_means(self.vectors(examples), config.clusters, seed=int(rng.integers(2**31)))
        weight = importance(examples)
        if not weight.any():
            raise InputError("RecRanker draws by ln(interactions), but no example has more than one interaction")
        count = np.zeros(len(examples), np.int64)
        while np.count_nonzero(count) < budget:
            by_weight = rng.choice(len(examples), round(config.importance_share * budget) or 1, p=weight / weight.sum())
            by_cluster = cluster_draws(cluster, round(config.cluster_share * budget) or 1, rng)
            count += np.bincount(np.concatenate([by_weight, by_cluster]), minlength=len(examples))
        pool = np.flatnonzero(count)
        chance = config.penalty ** (count[pool] - 1.0)
        return rng.choice(pool, budget, replace=False, p=chance / chance.sum())


def importance(examples: Examples) -> FloatArray:
    """Ln of the number of interactions of each sample, its target counted; (B,)."""
    weight: FloatArray = np.log(np.maximum(examples.seen.lengths + examples.target.lengths, 1).astype(np.float64))
    return weight


def cluster_draws(cluster: IntArray, draws: int, rng: np.random.Generator) -> IntArray:
    """Samples drawn with replacement inside clusters that share the draws in proportion to their size."""
    sizes = np.bincount(cluster)
    # Shares may exceed no cluster: draws are with replacement, so whole rounds are dealt out beforehand.
    rounds, rest = divmod(draws, len(cluster))
    shares = rounds * sizes + proportional_shares(sizes, rest)
    order = np.argsort(cluster, kind="stable")
    owner = np.repeat(np.arange(len(sizes)), shares)
    first = np.cumsum(sizes) - sizes
    drawn: IntArray = order[first[owner] + (rng.random(draws) * sizes[owner]).astype(np.int64)]
    return drawn
