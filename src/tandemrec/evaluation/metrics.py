"""Metrics from the ranks of the targets.

A rank is 0-based and counted, never sorted: r = #{items scored above the target} + ½ #{other items with its score}, the
average place under random tie-breaking. So it may be a half, and ten items of equal score all share rank 4.5.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tandemrec.data.examples import IntArray

FloatArray = NDArray[np.float64]


def ranking_metrics(ranks: FloatArray, offsets: IntArray, cutoffs: tuple[int, ...]) -> dict[str, FloatArray]:
    """HR, Recall, NDCG and MRR at every cutoff for every example.

    With targets T of an example and their ranks r: HR@K = [min r < K]; Recall@K = |{r < K}| / |T|;
    NDCG@K = Σ_{r<K} 1/log₂(r+2) / Σ_{i<min(|T|,K)} 1/log₂(i+2); MRR@K = 1/(min r + 1) if min r < K, else 0.
    With one target Recall equals HR and is left out.

    Args:
        ranks: of all targets, example after example; +∞ for a target that was not ranked.
        offsets: targets of example b are `ranks[offsets[b]:offsets[b + 1]]`, at least one; shape (B + 1,).
        cutoffs: the Ks.

    Returns:
        Metric name such as `ndcg@10` to (B,) values, ordered by metric, then cutoff.
    """
    starts, counts = offsets[:-1], np.diff(offsets)
    several = bool((counts > 1).any())
    best = np.minimum.reduceat(ranks, starts) if len(starts) else np.empty(0)
    gain = 1 / np.log2(ranks + 2)
    out: dict[str, FloatArray] = {}
    for k in cutoffs:
        out[f"hr@{k}"] = (best < k).astype(np.float64)
    for k in cutoffs if several else ():
        out[f"recall@{k}"] = _sum((ranks < k).astype(np.float64), starts) / counts
    for k in cutoffs:
        ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(k) + 2))])
        out[f"ndcg@{k}"] = _sum(np.where(ranks < k, gain, 0.0), starts) / ideal[np.minimum(counts, k)]
    for k in cutoffs:
        out[f"mrr@{k}"] = np.where(best < k, 1 / (best + 1), 0.0)
    return out


def chance(metric: str, items: int) -> float:
    """Expected value of a metric of one target in a random order of N items: K/N of HR@K and Recall@K (of which that
    is true of any number of targets), Σ_{r<K} 1/log₂(r+2) / N of NDCG@K, Σ_{r<K} 1/(r+1) / N of MRR@K.

    Args:
        metric: such as `ndcg@10`.
        items: how many can be ranked.
    """
    kind, _, cutoff = metric.partition("@")
    places = np.arange(min(int(cutoff), items))
    gains = {"hr": np.ones(len(places)), "ndcg": 1 / np.log2(places + 2), "mrr": 1 / (places + 1)}
    return float(gains["hr" if kind == "recall" else kind].sum() / items)


def rmse(predicted: NDArray[np.floating[Any]], actual: NDArray[np.floating[Any]]) -> float:
    """Root of the mean squared error."""
    return float(np.sqrt(np.mean((np.asarray(predicted, np.float64) - actual) ** 2)))


def mae(predicted: NDArray[np.floating[Any]], actual: NDArray[np.floating[Any]]) -> float:
    """Mean absolute error."""
    return float(np.mean(np.abs(np.asarray(predicted, np.float64) - actual)))


def _sum(values: FloatArray, starts: IntArray) -> FloatArray:
    total: FloatArray = np.add.reduceat(values, starts) if len(starts) else np.empty(0)
    return total
