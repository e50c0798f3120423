"""Judging among a few drawn items instead of the whole catalogue, as many papers do; figures are then much higher."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tandemrec.data.examples import IntArray, ItemArray
from tandemrec.recommender import BoolArray, Config


class SampledCandidates(Config):
    """The targets of an example compete with so many drawn items alone. Systems are ordered otherwise than among all
    items (Krichene and Rendle, KDD 2020), so this is for comparisons with papers that did it.
    """

    negatives: int = Field(100, ge=1)
    """Items drawn for every example, without replacement; all there are where there are fewer."""

    by: Literal["uniform", "popularity"] = "uniform"
    """`popularity`: in proportion to an item's training interactions, so that items without any are never drawn."""

    seed: int = Field(0, ge=0, lt=2**31)
    """Of the draw. A user's items depend on nothing else: not on other users, their order or the system judged."""

    def words(self) -> str:
        """For the protocol."""
        how = "uniformly" if self.by == "uniform" else "by popularity"
        return f"the targets and {self.negatives} SAMPLED items a user, drawn {how} with seed {self.seed}"

    def draw(self, user_B: ItemArray, open_BI: BoolArray, counts_I: IntArray) -> BoolArray:
        """Which items are drawn for each example, (B, I).

        Every item of every user has a random key of its own, exponential with the item's weight as rate, and those of
        the smallest keys are drawn: a draw without replacement (Efraimidis and Spirakis, 2006).

        Args:
            user_B: numbers of the users.
            open_BI: which items may be drawn.
            counts_I: training interactions of the items.
        """
        if self.by == "popularity":
            with np.errstate(divide="ignore", invalid="ignore"):
                key_BI = -np.log1p(-_uniform(self.seed, user_B, open_BI.shape[1])) / counts_I
            open_BI = open_BI & (counts_I > 0)
        else:
            key_BI = _uniform(self.seed, user_B, open_BI.shape[1])
        key_BI[~open_BI] = np.inf
        if self.negatives >= open_BI.shape[1]:
            return open_BI
        smallest = np.argpartition(key_BI, self.negatives - 1, axis=1)[:, : self.negatives]
        drawn: BoolArray = np.zeros_like(open_BI)
        np.put_along_axis(drawn, smallest, True, 1)
        return drawn & open_BI


def _uniform(seed: int, user_B: ItemArray, n_items: int) -> NDArray[np.float64]:
    """A number within [0, 1) for every user and item: SplitMix64 of the three numbers, written in place."""
    start_B = _mix(_mix(np.full(1, seed, np.uint64)) ^ user_B.astype(np.uint64))
    mixed_BI = _mix(start_B[:, None] + np.arange(n_items, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    mixed_BI >>= np.uint64(11)
    share_BI: NDArray[np.float64] = mixed_BI.astype(np.float64)
    share_BI *= 2.0**-53
    return share_BI


def _mix(value: NDArray[np.uint64]) -> NDArray[np.uint64]:
    value = value + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        value ^= value >> np.uint64(shift)
        value *= np.uint64(factor)
    value ^= value >> np.uint64(31)
    return value
