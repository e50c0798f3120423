"""RMSE, MAE, their standard errors, groups and paired tests against slow or published computations."""

from pathlib import Path
from typing import Self

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tandemrec.data.dataset import Dataset
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.ratings import Pairs
from tandemrec.data.split import Split, make_split
from tandemrec.errors import InputError
from tandemrec.evaluation.ratings import RatingEvaluationConfig, evaluate_ratings
from tandemrec.evaluation.significance import paired_test
from tandemrec.recommender import FitReport, FloatArray, RatingPredictor

FLOATS = st.lists(st.floats(-5, 5), min_size=3, max_size=30)


class Table(RatingPredictor):
    """Predicts user code + item code / 10."""

    def __init__(self, broken: bool = False) -> None:
        self.broken = broken

    def predict(self, pairs: Pairs) -> FloatArray:
        values = (pairs.user + pairs.item / 10).astype(np.float32)
        return values * np.nan if self.broken else values

    def fit(self, split: Split, *, seed: int = 0, workspace: Path | None = None) -> FitReport:
        raise NotImplementedError

    def save(self, directory: Path) -> None:
        raise NotImplementedError

    @classmethod
    def load(cls, directory: Path) -> Self:
        raise NotImplementedError


def split() -> Split:
    """User u has u + 3 interactions with items 0, 1, …; ratings 1 to 5 in turn."""
    rows = [(u, i, float((u + 2 * i) % 5 + 1), i) for u in range(5) for i in range(u + 3)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "rating", "timestamp"], orient="row")
    return make_split(Dataset.from_frames(frame, name="stairs"), LeaveOneOut())


def test_errors_by_hand() -> None:
    judged = evaluate_ratings(Table(), split())
    frame = judged.per_example
    # The test item of user u is item u + 2.
    truth = [(u + 2 * (u + 2)) % 5 + 1 for u in range(5)]
    errors = np.array([u + (u + 2) / 10 - r for u, r in enumerate(truth)])
    assert frame["rating"].to_list() == truth
    assert frame["item"].to_list() == ["2", "3", "4", "5", "6"]
    assert frame["user_count"].to_list() == [1, 2, 3, 4, 5]
    assert frame["item_count"].to_list() == [3, 2, 1, 0, 0]
    metrics = judged.metrics
    assert metrics["mae"]["mean"] == pytest.approx(np.abs(errors).mean(), rel=1e-6)
    assert metrics["mae"]["standard_error"] == pytest.approx(stats.sem(np.abs(errors)), rel=1e-5)
    rmse = np.sqrt((errors**2).mean())
    assert metrics["rmse"]["mean"] == pytest.approx(rmse, rel=1e-6)
    assert metrics["rmse"]["standard_error"] == pytest.approx(stats.sem(errors**2) / (2 * rmse), rel=1e-5)


def test_the_standard_error_of_rmse_is_its_spread_over_samples() -> None:
    rng = np.random.default_rng(0)
    errors = rng.normal(0, 1.3, (4000, 200))
    spread = np.sqrt((errors**2).mean(1)).std()
    delta = np.mean([stats.sem(row**2) / (2 * np.sqrt((row**2).mean())) for row in errors[:200]])
    assert delta == pytest.approx(spread, rel=0.05)


def test_segments_partition_the_ratings() -> None:
    judged = evaluate_ratings(Table(), split(), RatingEvaluationConfig(groups=2))
    segments = judged.segments()
    assert [(group["from"], group["to"], group["n"]) for group in segments["user activity"]] == [(1, 3, 3), (4, 5, 2)]
    assert [(group["from"], group["to"], group["n"]) for group in segments["item popularity"]] == [
        (0, 0, 2),  # cold items are apart
        (1, 2, 2),
        (3, 3, 1),
    ]
    total = sum(group["n"] * group["rmse"]["mean"] ** 2 for group in segments["user activity"])
    assert total / 5 == pytest.approx(judged.metrics["rmse"]["mean"] ** 2)


def test_equal_counts_are_never_apart() -> None:
    judged = evaluate_ratings(Table(), split(), RatingEvaluationConfig(groups=5))
    assert [group["n"] for group in judged.segments()["item popularity"]] == [2, 1, 1, 1]


def test_a_prediction_that_is_no_number_is_an_error() -> None:
    with pytest.raises(InputError, match="Table predicts ratings that are not numbers: its training diverged"):
        evaluate_ratings(Table(broken=True), split())


@given(FLOATS, FLOATS)
def test_paired_test_is_the_textbook_one(one: list[float], other: list[float]) -> None:
    a, b = (np.array(values[: min(len(one), len(other))]) for values in (one, other))
    found = paired_test(a, b, np.arange(len(a)))
    if np.ptp(a - b) < 1e-6:
        assert found["difference"] == pytest.approx(float((a - b).mean()))
        return
    assert found["p_value"] == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-9)
    assert found["standard_error"] == pytest.approx(stats.sem(a - b), rel=1e-9)


def test_a_system_does_not_differ_from_itself() -> None:
    values = np.array([0.5, 1.0, 4.0])
    assert paired_test(values, values, np.arange(3)) == {"difference": 0.0, "standard_error": 0.0, "p_value": 1.0}
