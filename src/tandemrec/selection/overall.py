"""The overall score of DEALRec: influence + λ · effort, after both are brought to one scale (eq. 8)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.stats import rankdata

from tandemrec.selection.selector import FloatArray

Normalisation = Literal["min-max", "rank", "robust"]


def normalised(scores: FloatArray, how: Normalisation) -> FloatArray:
    """Scores (B,) on a common scale; equal scores all become 0.

    `min-max`: to [0, 1], as in the published code; heavy tails then leave most of the samples nearly equal. `rank`: the
    average rank, to [0, 1]. `robust`: distance from the median in interquartile ranges; where half of the samples are
    equal and that range is 0, in standard deviations.
    """
    out: FloatArray
    scores = np.asarray(scores, np.float64)
    if not len(scores) or np.ptp(scores) == 0:
        return np.zeros(len(scores))
    if how == "min-max":
        out = (scores - scores.min()) / np.ptp(scores)
    elif how == "rank":
        out = (rankdata(scores) - 1) / (len(scores) - 1)
    else:
        low, middle, high = np.quantile(scores, [0.25, 0.5, 0.75])
        out = (scores - middle) / (high - low if high > low else scores.std())
    return out


def overall_score(
    influence: FloatArray | None, effort: FloatArray | None, effort_weight: float, how: Normalisation
) -> FloatArray:
    """Influence + λ · effort, (B,), each normalised; one of them alone where the other is None.

    Raises:
        ValueError: if both are None.
    """
    if influence is None or effort is None:
        alone = influence if effort is None else effort
        if alone is None:
            raise ValueError("an overall score needs influence, effort or both")
        return normalised(alone, how)
    return normalised(influence, how) + effort_weight * normalised(effort, how)
