"""What lists of recommendations are like, beside being right: coverage, concentration, novelty, diversity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tandemrec.data.examples import IntArray, ItemArray
from tandemrec.evaluation.metrics import FloatArray
from tandemrec.recommender import NO_ITEM

HEAD = 0.2
"""Share of the catalogue that counts as its head."""


def beyond_accuracy(
    lists: ItemArray, item_counts: IntArray, kinds: Sequence[frozenset[str]] | None = None
) -> dict[str, float]:
    """Measures of what was recommended to B users.

    - `coverage`: share of the catalogue that somebody is recommended;
    - `gini`: inequality of how often items are recommended, 0 (all equally) to almost 1 (one item alone), with the
      items i in ascending order of their shares s: Σ (2i − I − 1) sᵢ / I, i = 1 … I;
    - `novelty`: mean of −log₂ p over recommendations, p = (training interactions + 1) / (all of them + I);
    - `tail`: share of recommendations outside the most popular fifth of the catalogue;
    - `diversity`: mean of 1 − |A ∩ B| / |A ∪ B| over the pairs of a list whose items have kinds A and B, then over
      lists; only where kinds are given.

    Args:
        lists: items (B, K), −1 where a list is shorter.
        item_counts: training interactions of every item, (I,).
        kinds: of every item, see `data.kinds`.
    """
    shown = lists[lists != NO_ITEM]
    if not len(shown):
        return {}
    items = len(item_counts)
    often = np.sort(np.bincount(shown, minlength=items)) / len(shown)
    chance = (item_counts + 1) / (item_counts.sum() + items)
    head = np.argsort(-item_counts, kind="stable")[: int(np.ceil(HEAD * items))]
    tail = np.ones(items, bool)
    tail[head] = False
    found = {
        "coverage": float((often > 0).mean()),
        "gini": float((2 * np.arange(1, items + 1) - items - 1) @ often / items),
        "novelty": float(-np.log2(chance[shown]).mean()),
        "tail": float(tail[shown].mean()),
    }
    diversity = None if kinds is None else _diversity(lists, _matrix(kinds))
    return found if diversity is None else found | {"diversity": diversity}


def _matrix(kinds: Sequence[frozenset[str]]) -> Any:
    """Which kinds every item is of: (I, C) sparse."""
    from scipy.sparse import csr_array

    numbers = {kind: number for number, kind in enumerate(sorted(set().union(*kinds)))}
    items = np.repeat(np.arange(len(kinds)), [len(own) for own in kinds])
    columns = np.array([numbers[kind] for own in kinds for kind in own], np.int64)
    return csr_array((np.ones(len(items), np.int32), (items, columns)), shape=(len(kinds), max(1, len(numbers))))


def _diversity(lists: ItemArray, kinds: Any) -> float | None:
    sizes = np.diff(kinds.indptr)
    distance: FloatArray = np.zeros(len(lists))
    pairs = np.zeros(len(lists))
    for one in range(lists.shape[1]):
        for other in range(one + 1, lists.shape[1]):
            a, b = lists[:, one], lists[:, other]
            known = np.flatnonzero((a != NO_ITEM) & (b != NO_ITEM) & (sizes[a] > 0) & (sizes[b] > 0))
            shared = kinds[a[known]].multiply(kinds[b[known]]).sum(1)
            distance[known] += 1 - shared / (sizes[a[known]] + sizes[b[known]] - shared)
            pairs[known] += 1
    lists_with_pairs = pairs > 0
    return float((distance[lists_with_pairs] / pairs[lists_with_pairs]).mean()) if lists_with_pairs.any() else None
