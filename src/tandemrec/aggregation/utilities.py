"""Two opinions about the same candidates on one scale, and one opinion made of both (Llama4Rec, eq. 6)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tandemrec.data.examples import Examples, ItemArray
from tandemrec.errors import InputError
from tandemrec.recommender import NO_ITEM, FloatArray, Recommender, Reranker, Scorer

Utilities = NDArray[np.float64]
Scale = Literal["rank", "minmax", "zscore", "raw"]


def opinions(system: Recommender, name: str, examples: Examples, items_BK: ItemArray, key: str = "llm") -> FloatArray:
    """What a system thinks of K candidates of every example: its utilities, or its scores; (B, K), NaN for no opinion.

    Args:
        system: who is asked.
        name: what it is called.
        examples: B questions.
        items_BK: the candidates, `NO_ITEM` where a row has fewer.
        key: of the config that names it, for messages.

    Raises:
        InputError: if it gives neither.
    """
    if isinstance(system, Reranker):
        return system.utilities(examples, items_BK)
    if not isinstance(system, Scorer):
        raise InputError(f"key '{key}': '{name}' cannot be asked about given candidates; a ranker or a scorer can")
    found, at = np.full(items_BK.shape, np.nan, np.float32), 0
    for block in examples.blocks(system.rows_at_once(max(1, int(items_BK.max(initial=0)) + 1))):
        scores_BI, place = system.scores(block).float().cpu().numpy(), slice(at, at + len(block))
        found[place] = np.take_along_axis(scores_BI, np.maximum(items_BK[place], 0).astype(np.int64), 1)
        at += len(block)
    found[items_BK == NO_ITEM] = np.nan
    return found


def places(utility_BK: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """Place of every candidate, 1 for the best, (B, K): equal ones and those without a utility in the order given."""
    order = np.argsort(np.where(np.isnan(utility_BK), np.inf, -utility_BK), axis=1, kind="stable")
    place_BK = np.empty(order.shape, np.int64)
    np.put_along_axis(place_BK, order, np.broadcast_to(np.arange(1, order.shape[1] + 1), order.shape), 1)
    return place_BK


def scaled(utility_BK: FloatArray, scale: Scale, step: float) -> Utilities:
    """Utilities of each row on a scale; a candidate without one gets the lowest of its row.

    `rank`: −place · C, as eq. 6 has it for the conventional side; `minmax`: [0, 1]; `zscore`: mean 0, deviation 1;
    `raw`: as they are. A row in which all are equal becomes 0 under `minmax` and `zscore`, one without any finite one
    becomes 0 under all but `rank`. Infinite utilities, which no weight could scale, become the highest or the lowest
    finite one of their row, but for `rank`.
    """
    if scale == "rank":
        return -places(utility_BK).astype(np.float64) * step
    values: Utilities = utility_BK.astype(np.float64)
    finite = np.isfinite(values)
    some = finite.any(1, keepdims=True)
    lowest = np.where(some, np.where(finite, values, np.inf).min(1, keepdims=True), 0.0)
    highest = np.where(some, np.where(finite, values, -np.inf).max(1, keepdims=True), 0.0)
    values = np.clip(np.where(np.isnan(values), lowest, values), lowest, highest)
    if scale == "raw":
        return values
    if scale == "minmax":
        spread: Utilities = highest - lowest
        return _ratio(values - lowest, spread, spread > 0)
    deviation, centred = values.std(1, keepdims=True), values - values.mean(1, keepdims=True)
    return _ratio(centred, deviation, deviation > 1e-12)


def mixed(utility_llm_BK: Utilities, utility_rec_BK: Utilities, weight_B: NDArray[np.float64]) -> Utilities:
    """U = α_u U_LLM + (1 − α_u) U_Rec (eq. 6), (B, K)."""
    weight_B1 = weight_B[:, None]
    return weight_B1 * utility_llm_BK + (1 - weight_B1) * utility_rec_BK


def reciprocal(
    utility_llm_BK: FloatArray, utility_rec_BK: FloatArray, weight_B: NDArray[np.float64], k: float
) -> Utilities:
    """Reciprocal-rank fusion α / (k + place_LLM) + (1 − α) / (k + place_Rec); α = ½ is Cormack et al. (2009)."""
    weight_B1 = weight_B[:, None]
    return weight_B1 / (k + places(utility_llm_BK)) + (1 - weight_B1) / (k + places(utility_rec_BK))


def _ratio(values: Utilities, by: Utilities, where: NDArray[np.bool_]) -> Utilities:
    """The quotient where it means something, else 0."""
    out = np.zeros_like(values)
    np.divide(values, by, out=out, where=where)
    return out
