"""Where a ranking is right: by how active the user is and how popular the target, cold ones apart."""

from __future__ import annotations

from typing import Any

import numpy as np

from tandemrec.data.examples import IntArray, ItemArray
from tandemrec.evaluation.by_user import standard_error
from tandemrec.evaluation.metrics import FloatArray, ranking_metrics
from tandemrec.recommender import BoolArray


def ranking_segments(
    ranks: FloatArray,
    user: ItemArray,
    user_counts: IntArray,
    item_counts: IntArray,
    *,
    headline: str,
    groups: int,
) -> dict[str, list[dict[str, Any]]]:
    """The headline metric by user activity and by item popularity; every target counts as a question of its own.

    Args:
        ranks: of all T targets; see `metrics`.
        user: of every target, (T,).
        user_counts: training interactions of every target's user, (T,).
        item_counts: training interactions of every target, (T,).
        headline: the metric, such as `ndcg@10` (recall is hit rate where a question has one target).
        groups: of about equal numbers of targets, beside the group of those without training interactions.

    Returns:
        Grouping → group → the counts it spans, its targets `n`, mean of the metric and its standard error over users.
    """
    cutoff = int(headline.partition("@")[2])
    measured = ranking_metrics(ranks, np.arange(len(ranks) + 1), (cutoff,))
    values = measured[headline.replace("recall", "hr")]
    return {
        name: [_figures(values, user, counts, group == number, headline) for number in np.unique(group)]
        for name, counts in (("user activity", user_counts), ("item popularity", item_counts))
        for group in (count_groups(counts, groups),)
    }


def count_groups(counts: IntArray, groups: int) -> IntArray:
    """Group of every count: 0 is group 0, the others are cut at their quantiles, equal counts never apart."""
    positive = counts[counts > 0]
    if not len(positive):
        return np.zeros(len(counts), np.int64)
    bounds = np.unique(np.quantile(positive, np.arange(1, groups) / groups, method="inverted_cdf"))
    return np.where(counts > 0, 1 + np.searchsorted(bounds, counts, side="left"), 0)


def _figures(values: FloatArray, user: ItemArray, counts: IntArray, inside: BoolArray, headline: str) -> dict[str, Any]:
    mine, own = values[inside], counts[inside]
    spans = {"from": int(own.min()), "to": int(own.max()), "n": len(mine)}
    return spans | {headline: {"mean": float(mine.mean()), "standard_error": standard_error(mine, user[inside])}}
