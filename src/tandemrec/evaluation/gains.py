"""What a system adds to the one it builds on, user by user, and what putting its candidates in order can add at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tandemrec.data.examples import IntArray
from tandemrec.evaluation.by_user import standard_error, user_numbers
from tandemrec.evaluation.comparison import ERRORS
from tandemrec.evaluation.metrics import FloatArray, ranking_metrics
from tandemrec.evaluation.segments import count_groups


def paired_gain(own: FloatArray, base: FloatArray, metric: str, user: NDArray[Any]) -> dict[str, Any]:
    """By how much a system is better than its base: positive is better, for errors too.

    Args:
        own: values (B,) of the metric, one an example; of `rmse` squared and of `mae` absolute errors.
        base: of the base, of the same examples.
        metric: such as `ndcg@10` or `rmse`.
        user: of every example, (B,), by any ids.

    Returns:
        `n`, `mean`, and its `standard_error` over users of the paired differences (of RMSE by the delta method).
    """
    difference = base - own if metric in ERRORS else own - base
    mean = float(difference.mean())
    if metric == "rmse":
        roots = [float(np.sqrt(values.mean())) for values in (own, base)]
        mean = roots[1] - roots[0]
        slopes = [1 / (2 * root) if root else 0.0 for root in roots]
        difference = base * slopes[1] - own * slopes[0]
    return {"n": len(difference), "mean": mean, "standard_error": standard_error(difference, user)}


def segment_gains(
    own: pl.DataFrame, base: pl.DataFrame, metric: str, counts: Mapping[str, IntArray], groups: int
) -> dict[str, Any]:
    """The gain over all examples, and by group.

    Args:
        own: per-example rows of the system.
        base: of its base, the same examples in the same order.
        metric: the headline.
        counts: training interactions of every row's user, of its target, …, by the name of the grouping.
        groups: of about equal size, beside that of those without training interactions.

    Returns:
        JSON-able: `gain` (see `paired_gain`) and `segments`: grouping → group → the counts it spans and its gain.
    """
    column = ERRORS.get(metric, metric)
    mine, theirs = (frame[column].to_numpy().astype(np.float64) for frame in (own, base))
    user = user_numbers(own["user"].to_numpy())
    segments = {
        name: [
            {"from": int(values[inside].min()), "to": int(values[inside].max())}
            | paired_gain(mine[inside], theirs[inside], metric, user[inside])
            for number in np.unique(group)
            for inside in (group == number,)
        ]
        for name, values in counts.items()
        for group in (count_groups(values, groups),)
    }
    return {"gain": paired_gain(mine, theirs, metric, user), "segments": segments}


def order_bounds(base: pl.DataFrame, depth: int, metric: str) -> dict[str, float]:
    """What orders of a base's first K candidates can reach, for examples of one target each.

    Args:
        base: per-example rows of the base.
        depth: K.
        metric: the headline, such as `ndcg@10`.

    Returns:
        `reach`: HR@K of the base, the share of examples that any order matters for; the metric under the best order
        (`ceiling`), a random one (`shuffled`, its expectation) and the base's own (`base`).
    """
    value, rank = base[metric].to_numpy(), base["rank"].to_numpy()
    inside = rank < depth
    place = np.arange(depth)
    known = ranking_metrics(place.astype(np.float64), np.arange(depth + 1), (int(metric.partition("@")[2]),))
    by_place = known[metric.replace("recall", "hr")]
    found = {"ceiling": float(by_place[0]), "shuffled": float(by_place.mean())}
    bounds = {name: float(np.where(inside, gain, value).mean()) for name, gain in found.items()}
    return {"reach": float(inside.mean()), **bounds, "base": float(value.mean())}
