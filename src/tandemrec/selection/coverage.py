"""Stratified sampling over score groups of equal width (DEALRec's coverage-enhanced sampling, CCS)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from tandemrec.data.examples import IntArray
from tandemrec.selection.selector import FloatArray

ClosedEdge = Literal["upper", "lower"]


def score_groups(scores: FloatArray, n_groups: int, closed: ClosedEdge = "upper") -> IntArray:
    """Group of every sample, (B,), 0…K-1: K equal intervals between the lowest and the highest score.

    `upper`: an edge belongs to the group below it (DEALRec); `lower`: to the group above it, and the last edge lies a
    ten-thousandth above the highest score (CCS). Equal scores are all in group 0.
    """
    low, high = float(scores.min()), float(scores.max())
    if closed == "lower":
        high += 1e-4 * abs(high)
    edges = np.linspace(low, high, n_groups + 1)[1:-1]
    return np.searchsorted(edges, scores, side="left" if closed == "upper" else "right").astype(np.int64)


def group_budgets(sizes: IntArray, budget: int) -> IntArray:
    """How many samples each group gives, (K,): smallest group first, min(size, remaining budget // groups left).

    The budgets add up to `budget`, which must not exceed the number of samples. Empty groups come first and give
    nothing, so it makes no difference whether they are dropped beforehand.
    """
    budgets = np.zeros(len(sizes), np.int64)
    remaining = budget
    for left, group in zip(range(len(sizes), 0, -1), np.argsort(sizes, kind="stable"), strict=True):
        budgets[group] = min(sizes[group], remaining // left)
        remaining -= budgets[group]
    return budgets


def coverage_sample(
    scores: FloatArray,
    budget: int,
    rng: np.random.Generator,
    *,
    n_groups: int,
    hard_prune: float = 0.0,
    closed: ClosedEdge = "upper",
) -> IntArray:
    """Numbers of `budget` samples: a share of every group, uniform inside it.

    Args:
        scores: (B,) higher is harder.
        budget: how many.
        rng: draws.
        n_groups: K.
        hard_prune: share of samples with the highest scores that is left out first, ⌊share · B⌋ of them, but never so
            many that the budget cannot be met.
        closed: which group an edge belongs to.
    """
    dropped = min(int(hard_prune * len(scores)), len(scores) - budget)
    kept = np.argsort(scores, kind="stable")[: len(scores) - dropped]
    groups = score_groups(scores[kept], n_groups, closed)
    budgets = group_budgets(np.bincount(groups, minlength=n_groups), budget)
    order = rng.permutation(len(kept))
    order = order[np.argsort(groups[order], kind="stable")]
    ordered = groups[order]
    place = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    chosen: IntArray = kept[order[place < budgets[ordered]]]
    return chosen
