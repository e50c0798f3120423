"""Gains over a base against values by hand and resampling, bounds against every order there is."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import polars as pl
import pytest

from tandemrec.evaluation.gains import order_bounds, paired_gain, segment_gains
from tandemrec.evaluation.metrics import ranking_metrics


def test_gains_by_hand() -> None:
    own, base = np.array([1.0, 0.0, 0.5]), np.array([0.0, 0.0, 1.0])
    found = paired_gain(own, base, "ndcg@10", np.arange(3))
    assert found["mean"] == pytest.approx(1 / 6)
    assert found["standard_error"] == pytest.approx(np.std([1.0, 0.0, -0.5], ddof=1) / np.sqrt(3))
    assert paired_gain(own, base, "mae", np.arange(3))["mean"] == pytest.approx(-1 / 6)  # smaller errors are better
    assert paired_gain(np.array([4.0, 4.0]), np.array([9.0, 9.0]), "rmse", np.arange(2)) == {
        "n": 2, "mean": 1.0, "standard_error": 0.0,
    }  # fmt: skip
    single = paired_gain(np.zeros(1), np.ones(1), "rmse", np.arange(1))
    assert single == {"n": 1, "mean": 1.0, "standard_error": 0.0}


def test_the_error_of_a_gain_in_rmse_is_that_of_resampled_users() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(3, 400))
    own, base = (noise[0] + 0.3 * noise[1]) ** 2, (noise[0] + 0.6 * noise[2]) ** 2
    found = paired_gain(own, base, "rmse", np.arange(400))
    rows = rng.integers(400, size=(4000, 400))
    drawn = np.sqrt(base[rows].mean(1)) - np.sqrt(own[rows].mean(1))
    assert found["mean"] == pytest.approx(np.sqrt(base.mean()) - np.sqrt(own.mean()))
    assert found["standard_error"] == pytest.approx(drawn.std(), rel=0.1)


def test_groups_have_the_gain_of_their_rows() -> None:
    counts = np.array([0, 1, 1, 5, 9, 9])
    own, base = (
        pl.DataFrame({"user": range(6), "ndcg@5": values}) for values in ([1.0, 1, 0, 0, 1, 1], [0.0, 0, 0, 1, 1, 0])
    )
    found = segment_gains(own, base, "ndcg@5", {"user activity": counts}, 2)
    assert found["gain"]["mean"] == pytest.approx(2 / 6)
    assert [(row["from"], row["to"], row["n"], row["mean"]) for row in found["segments"]["user activity"]] == [
        (0, 0, 1, 1.0),
        (1, 5, 3, 0.0),
        (9, 9, 2, 0.5),
    ]


@pytest.mark.parametrize("metric", ["ndcg@2", "ndcg@10", "hr@2", "recall@2", "mrr@5"])
def test_bounds_are_those_of_all_orders(metric: str) -> None:
    rank, depth = np.array([0.0, 2.0, 3.0, 4.0, np.inf]), 3
    cutoff = int(metric.partition("@")[2])

    def values(ranks: np.ndarray) -> np.ndarray:
        return ranking_metrics(ranks, np.arange(len(ranks) + 1), (cutoff,))[metric.replace("recall", "hr")]

    found = order_bounds(pl.DataFrame({"rank": rank, metric: values(rank)}), depth, metric)
    means = []
    for order in permutations(range(depth)):
        moved = np.array([order[int(r)] if r < depth else r for r in rank])
        means.append(values(moved).mean())
    assert found["reach"] == pytest.approx(2 / 5)
    assert found["shuffled"] == pytest.approx(np.mean(means))
    best = np.where(rank < depth, 0.0, rank)
    assert found["ceiling"] == pytest.approx(values(best).mean())
    assert found["ceiling"] >= max(means) - 1e-12
    assert found["base"] == pytest.approx(values(rank).mean())
