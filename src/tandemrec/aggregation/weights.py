"""How much a language model may say for each user (Llama4Rec, eq. 5 and 7), and the ways it is compared with.

The fewer interactions a user has, the more the language model's opinion counts: conventional models are weak in the
tail, while a model that reads titles is about equally good everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tandemrec.data.examples import IntArray
from tandemrec.errors import InputError
from tandemrec.recommender import Config

Weights = NDArray[np.float64]
Share = Annotated[float, Field(ge=0, le=1)]

PAPER_GRID = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Values of α₁ and α₂ that the paper tries."""

GRID = (0.0, *PAPER_GRID)
"""Values of α₁ that are tried: with 0 among them the validation part may find that the base is best left alone."""


class WeightsConfig(Config):
    """Which weights are tried; the validation part chooses among them, and one value a setting leaves no choice."""

    method: Literal["adaptive", "uniform", "fitted", "none"] = "adaptive"
    """`adaptive`: α_u of eq. 7; `uniform`: α₁ for everybody; `fitted`: a share of `max_llm_weight` for every group of
    about equally active users, each chosen on its own; `none`: the language model alone."""

    max_llm_weight: tuple[Share, ...] = Field(GRID, min_length=1)
    """α₁: weight of the language model for the user with the fewest interactions; 0, which the paper does not try,
    leaves the base unchanged."""

    weight_floor: tuple[Share, ...] = Field(PAPER_GRID, min_length=1)
    """α₂: share of α₁ that even the most active users keep; only `adaptive` has one."""

    buckets: int = Field(4, ge=1, le=100)
    """Groups of users that `fitted` weights are chosen for."""


@dataclass(frozen=True)
class Activity:
    """Training interactions of all users, N_u.

    Attributes:
        counts_U: (U,).
    """

    counts_U: IntArray

    def of(self, user: NDArray[np.integer[Any]], otherwise: IntArray) -> IntArray:
        """Interactions of B users; of a user that the training part does not have, `otherwise` (B,)."""
        inside = (user >= 0) & (user < len(self.counts_U))
        found = self.counts_U[np.where(inside, user, 0)] if len(self.counts_U) else np.zeros_like(otherwise)
        counts: IntArray = np.where(inside, found, otherwise)
        return counts

    def tailness(self, counts_B: IntArray) -> Weights:
        """(ℓ_max − ℓ_u) / (ℓ_max − ℓ_min) ∈ [0, 1] with ℓ = ln(N + 1) (eq. 5); extremes are those of users who train.

        If all of them are equally active it is 0: nobody is in the tail. A user outside the extremes counts as the
        nearest of them.

        Raises:
            ValueError: if a count is negative.
        """
        if counts_B.size and counts_B.min() < 0:
            raise ValueError(f"interaction counts must not be negative, found {counts_B.min()}")
        known = self.counts_U[self.counts_U > 0]
        if not known.size or known.min() == known.max():
            return np.zeros(len(counts_B))
        low, high = np.log1p(known.min()), np.log1p(known.max())
        share_B: Weights = ((high - np.log1p(counts_B)) / (high - low)).clip(0, 1)
        return share_B

    def bucket(self, counts_B: IntArray, buckets: int) -> IntArray:
        """Group of each user, 0 for the least active: cut at quantiles of the users who train."""
        known = self.counts_U[self.counts_U > 0]
        if not known.size:
            return np.zeros(len(counts_B), np.int64)
        bounds = np.unique(np.quantile(known, np.arange(1, buckets) / buckets, method="inverted_cdf"))
        return np.searchsorted(bounds, counts_B, side="left").astype(np.int64)


class Weighting(Config):
    """A choice of weights: what `fit` found and `save` keeps."""

    method: Literal["adaptive", "uniform", "fitted", "none"]
    """See `WeightsConfig`."""

    max_llm_weight: float = 1.0
    """α₁."""

    weight_floor: float = 1.0
    """α₂."""

    bucket_weights: tuple[float, ...] = ()
    """Weight of each group of users, for `fitted`."""

    def weights(self, activity: Activity, counts_B: IntArray) -> Weights:
        """α_u of B users with N_u training interactions, (B,).

        Adaptive: α_u = max((ℓ_max − ℓ_u) / (ℓ_max − ℓ_min), α₂) · α₁ (eq. 7), so α₁α₂ ≤ α_u ≤ α₁.
        """
        if self.method == "adaptive":
            return self.max_llm_weight * np.maximum(activity.tailness(counts_B), self.weight_floor)
        if self.method == "fitted":
            chosen = np.array(self.bucket_weights)
            return chosen[activity.bucket(counts_B, len(chosen))]
        return np.full(len(counts_B), 1.0 if self.method == "none" else self.max_llm_weight)

    def numbers(self) -> dict[str, float]:
        """The figures of one row of a curve."""
        if self.method == "fitted":
            return {f"bucket {number}": weight for number, weight in enumerate(self.bucket_weights)}
        return {"max_llm_weight": self.max_llm_weight, "weight_floor": self.weight_floor}


def weightings(config: WeightsConfig) -> Iterator[Weighting]:
    """All different weights that `adaptive`, `uniform` and `none` try, the most cautious first."""
    if config.method == "none":
        yield Weighting(method="none")
        return
    floors = sorted(set(config.weight_floor)) if config.method == "adaptive" else [1.0]
    for ceiling, floor in product(sorted(set(config.max_llm_weight)), floors):
        if ceiling == 0 and floor != floors[0]:
            continue  # any share of nothing is nothing
        yield Weighting(method=config.method, max_llm_weight=ceiling, weight_floor=floor)


def fit_buckets(config: WeightsConfig, bucket_B: IntArray, gain_BG: NDArray[np.float64]) -> Weighting:
    """The weight of every group with the largest mean gain.

    Args:
        config: the grid `max_llm_weight`, sorted and without repetitions: G values.
        bucket_B: group of every example.
        gain_BG: what each example gains under each weight.

    Returns:
        Of equally good weights the smallest; a group without examples gets the one that is best for all examples.

    Raises:
        InputError: if there is no example.
    """
    grid = sorted(set(config.max_llm_weight))
    if not len(gain_BG):
        raise InputError("key 'weights.method': 'fitted' needs validation examples with a target among the candidates")
    overall = gain_BG.mean(0)
    best = [
        grid[int((gain_BG[bucket_B == bucket].mean(0) if (bucket_B == bucket).any() else overall).argmax())]
        for bucket in range(config.buckets)
    ]
    return Weighting(method="fitted", bucket_weights=tuple(best))
