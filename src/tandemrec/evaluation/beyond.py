"""What lists of recommendations are like, beside being right: coverage, concentration, novelty, diversity."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from tandemrec.data.examples import IntArray, ItemArray
from tandemrec.errors import InputError
from tandemrec.evaluation.metrics import FloatArray
from tandemrec.recommender import NO_ITEM

KIND_COLUMNS = ("categories", "genres", "category", "genre")
"""Item columns that say of what kind an item is, the first of which is taken where none is named."""

HEAD = 0.2
"""Share of the catalogue that counts as its head."""


def beyond_accuracy(lists: ItemArray, item_counts: IntArray, kinds: Any | None = None) -> dict[str, float]:
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
        kinds: (I, C) sparse truth values, see `item_kinds`.
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
    diversity = None if kinds is None else _diversity(lists, kinds)
    return found if diversity is None else found | {"diversity": diversity}


def item_kinds(items: pl.DataFrame, column: str | None = None) -> Any | None:
    """Which kinds every item is of, from a text or list column: (I, C) sparse; None where there is no such column.

    Raises:
        InputError: if the named column is not there.
    """
    from scipy.sparse import csr_array

    if column is not None and column not in items.columns:
        raise InputError(f"key 'evaluation.kinds': items have no column '{column}', found {', '.join(items.columns)}")
    name = column or next((known for known in KIND_COLUMNS if known in items.columns), None)
    if name is None:
        return None
    kinds = items.select(item=pl.int_range(pl.len()), kind=name)
    if isinstance(kinds["kind"].dtype, pl.List):
        kinds = kinds.explode("kind")
    kinds = kinds.drop_nulls().unique().with_columns(kind=pl.col("kind").cast(pl.String).rank("dense") - 1)
    places = kinds["item"].to_numpy(), kinds["kind"].to_numpy()
    width = int(kinds["kind"].max() or 0) + 1 if kinds.height else 1  # type: ignore[arg-type]
    return csr_array((np.ones(kinds.height, np.int32), places), shape=(items.height, width))


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
