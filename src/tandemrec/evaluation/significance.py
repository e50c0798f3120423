"""Is a difference between two systems more than chance?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def paired_test(one: NDArray[np.floating[Any]], other: NDArray[np.floating[Any]]) -> dict[str, float]:
    """Two-sided paired t-test of the mean difference `one − other` over the same examples.

    Args:
        one: values of one system, shape (B,), such as squared errors.
        other: values of the other system on the same examples in the same order.

    Returns:
        `difference` of the means, its `standard_error`, and `p_value`; equal values everywhere give p = 1.
    """
    from scipy import stats

    differences = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    n, mean = len(differences), float(differences.mean())
    error = float(differences.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0
    p_value = float(2 * stats.t.sf(abs(mean) / error, n - 1)) if error > 0 else float(mean == 0 or n < 2)
    return {"difference": mean, "standard_error": error, "p_value": p_value}
