"""Adaptive aggregation of ratings: by hand and chosen on validation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from tandemrec.aggregation.ratings import RatingAggregate, RatingAggregateConfig
from tandemrec.data.dataset import Dataset
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.ratings import Pairs, target_ratings
from tandemrec.data.split import Split, make_split
from tandemrec.evaluation.metrics import rmse
from tandemrec.recommender import FloatArray, RatingPredictor


class Table(RatingPredictor):
    """Ratings of a table (U, I)."""

    def __init__(self, table: np.ndarray) -> None:
        self.table = table

    def predict(self, pairs: Pairs) -> FloatArray:
        return self.table[pairs.user, pairs.item].astype(np.float32)

    fit = save = load = None  # type: ignore[assignment]


@pytest.fixture(scope="module")
def rated() -> Split:
    """40 users with 4 to 23 ratings of 30 items."""
    rng = np.random.default_rng(4)
    rows = [(u, int(i), int(rng.integers(1, 6))) for u in range(40) for i in rng.permutation(30)[: 4 + u // 2]]
    users, items, ratings = zip(*rows, strict=True)
    events = pl.DataFrame({"user_id": users, "item_id": items, "rating": ratings, "timestamp": range(len(rows))})
    return make_split(Dataset.from_frames(events), LeaveOneOut())


def predictors(split: Split) -> tuple[Table, Table]:
    """A base that errs most for inactive users, and another that errs alike everywhere."""
    truth = np.full((40, 30), 3.0)
    frame = split.dataset.interactions
    truth[frame["user"].to_numpy(), frame["item"].to_numpy()] = frame["rating"].to_numpy()
    rng, active = np.random.default_rng(5), np.arange(40)[:, None] / 40
    noise = rng.normal(size=(2, 40, 30))
    return Table(truth + noise[0] * (1.6 - 1.5 * active)), Table(truth + noise[1] * 0.8)


def aggregate(**weights: object) -> RatingAggregateConfig:
    return RatingAggregateConfig.model_validate({"base": "base", "llm": "llm", "weights": weights})


def test_by_hand(rated: Split) -> None:
    base, llm = Table(np.full((40, 30), 2.0)), Table(np.full((40, 30), 4.0))
    model = RatingAggregate(aggregate(max_llm_weight=[0.5], weight_floor=[0.2]), base, llm)
    model.fit(rated)
    counts = rated.user_counts
    activity = np.log(counts + 1)
    tail = (activity.max() - activity) / (activity.max() - activity.min())
    weight = np.maximum(tail, 0.2) * 0.5
    pairs = Pairs(np.arange(40, dtype=np.int32), np.zeros(40, np.int32))
    np.testing.assert_allclose(model.predict(pairs), 2 + 2 * weight, rtol=1e-6)


@pytest.mark.parametrize("method", ["adaptive", "uniform", "fitted", "none"])
def test_the_least_validation_error_is_kept_and_stored(rated: Split, tmp_path: Path, method: str) -> None:
    systems = predictors(rated)
    model = RatingAggregate(aggregate(method=method, buckets=3), *systems)
    report = model.fit(rated)
    valid, _ = target_ratings(rated, rated.valid)
    error = rmse(model.predict(valid.pairs), valid.value)
    assert -float(report.best_value or 0) == pytest.approx(error, rel=1e-5)
    assert min(row["rmse"] for row in report.curve) == -float(report.best_value or 0)
    if method != "none":
        assert error < min(rmse(system.predict(valid.pairs), valid.value) for system in systems)
    model.save(tmp_path)
    again = RatingAggregate.load(tmp_path, *systems)
    np.testing.assert_array_equal(again.predict(valid.pairs), model.predict(valid.pairs))


@pytest.mark.parametrize("method", ["adaptive", "uniform", "fitted"])
def test_a_language_model_that_only_harms_is_given_no_weight(rated: Split, method: str) -> None:
    base, _ = predictors(rated)
    model = RatingAggregate(aggregate(method=method), base, Table(base.table + 50))
    pairs = target_ratings(rated, rated.test)[0].pairs
    model.fit(rated)
    model.systems["llm"] = None  # type: ignore[assignment]  # it is not even asked
    np.testing.assert_array_equal(model.predict(pairs), base.predict(pairs))


def test_weight_zero_is_the_base(rated: Split) -> None:
    systems = predictors(rated)
    model = RatingAggregate(aggregate(max_llm_weight=[0]), *systems)
    model.fit(rated)
    pairs = target_ratings(rated, rated.test)[0].pairs
    np.testing.assert_array_equal(model.predict(pairs), systems[0].predict(pairs))
