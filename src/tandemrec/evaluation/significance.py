"""Is a difference between two systems more than chance?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tandemrec.evaluation.by_user import standard_error


def paired_test(
    one: NDArray[np.floating[Any]], other: NDArray[np.floating[Any]], user: NDArray[Any]
) -> dict[str, float]:
    """Two-sided paired t-test of the mean difference `one − other` over the same examples, of which users are
    independent; U − 1 degrees of freedom.

    Args:
        one: values of one system, shape (B,), such as squared errors.
        other: values of the other system on the same examples in the same order.
        user: of every example, (B,), by any ids.

    Returns:
        `difference` of the means, its `standard_error`, and `p_value`; equal values everywhere give p = 1.
    """
    from scipy import stats

    differences = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    users, mean = len(np.unique(user)), float(differences.mean())
    error = standard_error(differences, user)
    p_value = float(2 * stats.t.sf(abs(mean) / error, users - 1)) if error > 0 else float(mean == 0 or users < 2)
    return {"difference": mean, "standard_error": error, "p_value": p_value}


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """p-values corrected for being one of many (Holm 1979): the chance of a false alarm among all stays at the level.

    Args:
        p_values: of all tests, shape (P,).

    Returns:
        Corrected p-values (P,): of the m-th smallest, m = 0, 1, …, the largest of (P − j) p₍ⱼ₎ over j ≤ m, at most 1.
    """
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate((len(p_values) - np.arange(len(p_values))) * p_values[order])
    corrected = np.empty_like(stepped)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def resampled_means(values_NU: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Means over users drawn with replacement, the same draws for every row: the bootstrap of N paired rows at once.

    Returns:
        Shape (resamples, N).
    """
    rng, users = np.random.default_rng(seed), values_NU.shape[1]
    means = np.empty((resamples, len(values_NU)))
    for rows in _blocks(resamples, users):
        drawn = rng.integers(users, size=(rows.stop - rows.start, users))
        places = drawn + np.arange(len(drawn))[:, None] * users
        weights = np.bincount(places.ravel(), minlength=drawn.size).reshape(drawn.shape)
        means[rows] = weights @ values_NU.T / users
    return means


def permutation_p(differences_PU: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Two-sided p-values of P paired differences under random exchange of the two systems within every user.

    p = (1 + #{|permuted mean| ≥ |mean|}) / (1 + resamples), so it is never 0; the same exchanges serve all rows.

    Returns:
        Shape (P,).
    """
    rng, users = np.random.default_rng(seed), differences_PU.shape[1]
    observed = np.abs(differences_PU.sum(1))
    reached = np.zeros(len(differences_PU), np.int64)
    for rows in _blocks(resamples, users):
        signs = rng.integers(0, 2, (rows.stop - rows.start, users), np.int8) * 2.0 - 1.0
        # Sums of the same numbers in another order differ in their last digits and are equal all the same.
        reached += (np.abs(signs @ differences_PU.T) >= observed * (1 - 1e-12)).sum(0)
    p_values: NDArray[np.float64] = (1 + reached) / (1 + resamples)
    return p_values


def _blocks(resamples: int, users: int) -> list[slice]:
    """Slices of the resamples of a few million drawn numbers each."""
    step = max(1, 4_000_000 // users)
    return [slice(at, min(at + step, resamples)) for at in range(0, resamples, step)]
