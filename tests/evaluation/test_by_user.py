"""Errors of users with several questions, against a loop over users, drawn users, and the error of single questions."""

from __future__ import annotations

from math import log2, sqrt

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tandemrec.data.dataset import Dataset
from tandemrec.data.examples import Examples, Ragged
from tandemrec.data.split import Split
from tandemrec.evaluation.by_user import influences, standard_error, user_numbers
from tandemrec.evaluation.evaluate import EvaluationConfig, evaluate
from tandemrec.evaluation.gains import paired_gain, segment_gains
from tandemrec.evaluation.ratings import RatingEvaluation, RatingEvaluationConfig
from tandemrec.evaluation.segments import ranking_segments
from tandemrec.evaluation.significance import paired_test
from tests.fixed import Fixed

QUESTIONS = st.lists(st.tuples(st.integers(0, 6), st.floats(-5, 5)), min_size=1, max_size=40)


def sandwich(values: np.ndarray, users: np.ndarray) -> float:
    """√(U / (U − 1) Σᵤ (Σᵢ vᵢ − m)²) / B, user by user."""
    mean, total, different = values.mean(), 0.0, sorted(set(users.tolist()))
    for user in different:
        owed = 0.0
        for value, other in zip(values, users, strict=True):
            owed += value - mean if other == user else 0.0
        total += owed**2
    n = len(different)
    return sqrt(n / (n - 1) * total) / len(values) if n > 1 else 0.0


def some_users(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """User and taste of each question, of 200 users with one to five."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(200), rng.integers(1, 6, 200))
    return user, rng.normal(0, 1, 200)[user]


def drawn(user: np.ndarray, *columns: np.ndarray, seed: int = 1) -> list[np.ndarray]:
    """Means of columns over 4,000 draws of whole users, each (4000,)."""
    rows = np.random.default_rng(seed).integers(user.max() + 1, size=(4000, user.max() + 1))
    count = np.bincount(user)[rows].sum(1)
    return [np.bincount(user, column)[rows].sum(1) / count for column in columns]


@given(QUESTIONS)
def test_errors_are_those_of_a_loop_over_users(questions: list[tuple[int, float]]) -> None:
    user, values = np.array([u for u, _ in questions]), np.array([v for _, v in questions])
    assert standard_error(values, user) == pytest.approx(sandwich(values, user), abs=1e-9)
    names = np.array([f"u{9 - u}" for u in user], dtype=object)
    assert standard_error(values, names) == pytest.approx(standard_error(values, user), abs=1e-9)
    assert influences(values, user_numbers(user)).mean() == pytest.approx(0, abs=1e-9)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=40))
def test_users_of_one_question_have_the_plain_error(values: list[float]) -> None:
    users = np.random.default_rng(0).permutation(len(values))
    assert standard_error(np.array(values), users) == pytest.approx(stats.sem(values), abs=1e-9)


def test_one_user_says_nothing_about_others() -> None:
    assert standard_error(np.array([0.0, 1.0, 1.0]), np.zeros(3)) == 0.0
    assert paired_test(np.array([1.0, 2.0]), np.zeros(2), np.zeros(2))["p_value"] == 1.0


def test_a_ranking_of_several_questions_a_user_is_as_sure_as_drawn_users_say() -> None:
    """Half of the users are always answered, the others never: more questions of the same ones say nothing more."""
    times = 4
    user = np.repeat(np.arange(40, dtype=np.int32), times)
    history, target = Ragged.from_lists([[]] * len(user)), Ragged.from_lists([[0]] * len(user))
    examples = Examples(user, history, target, history, np.zeros(len(user), np.int64))
    users, items = pl.DataFrame({"user_id": [f"u{n}" for n in range(40)]}), pl.DataFrame({"item_id": range(4)})
    data = Dataset.from_frames(pl.DataFrame({"user_id": ["u0"], "item_id": [0], "timestamp": [0]}), items, users)
    split = Split(data, Ragged.from_lists([[0, 1, 2, 3], *[[]] * 39]), examples, examples, examples, "by hand")
    table = np.where(np.arange(40)[:, None] % 2, [9, 1, 1, 1], [0, 1, 2, 3])
    found = evaluate(Fixed(table), split, EvaluationConfig(cutoffs=(1,), headline="hr@1"))
    hits = (np.arange(40) % 2).astype(float)
    assert found.metrics["hr@1"] == {"mean": 0.5, "standard_error": pytest.approx(stats.sem(hits))}
    (cold,) = (group for group in found.segments["user activity"] if group["to"] == 0)
    assert (cold["n"], cold["hr@1"]["standard_error"]) == (39 * times, pytest.approx(stats.sem(hits[1:])))


def test_targets_of_a_user_are_one_piece_of_evidence() -> None:
    user = np.repeat(np.arange(10, dtype=np.int32), 3)
    ranks = np.where(user % 2, 0.0, 2.0)
    counts = np.ones(30, np.int64)
    (group,) = ranking_segments(ranks, user, counts, counts, headline="ndcg@5", groups=1)["item popularity"]
    each = np.where(np.arange(10) % 2, 1.0, 1 / log2(4))
    assert group["ndcg@5"] == {"mean": pytest.approx(each.mean()), "standard_error": pytest.approx(stats.sem(each))}


def test_errors_of_ratings_are_as_sure_as_drawn_users_say() -> None:
    user, taste = some_users(2)
    error = taste + np.random.default_rng(3).normal(0, 0.3, len(user))
    frame = pl.DataFrame(
        {
            "user": [f"u{u}" for u in user], "rating": np.zeros(len(user)), "predicted": error,
            "squared_error": error**2, "absolute_error": np.abs(error),
            "user_count": np.ones(len(user), np.int64), "item_count": np.ones(len(user), np.int64),
        }
    )  # fmt: skip
    found = RatingEvaluation(frame, RatingEvaluationConfig())
    squares, sizes = drawn(user, error**2, np.abs(error))
    for metrics in (found.metrics, found.segments()["user activity"][0]):
        assert metrics["rmse"]["mean"] == pytest.approx(np.sqrt((error**2).mean()))
        assert metrics["rmse"]["standard_error"] == pytest.approx(np.sqrt(squares).std(), rel=0.06)
        assert metrics["mae"]["standard_error"] == pytest.approx(sizes.std(), rel=0.06)
    assert stats.sem(np.abs(error)) < 0.8 * sizes.std()


def test_gains_are_as_sure_as_drawn_users_say() -> None:
    user, taste = some_users(4)
    noise = np.random.default_rng(5).normal(0, 0.2, (2, len(user)))
    own, base = (1 + 0.5 * taste + noise[0]) ** 2, (1 + noise[1]) ** 2
    mine, theirs = drawn(user, own, base)
    found = paired_gain(own, base, "rmse", user)
    assert found["mean"] == pytest.approx(np.sqrt(base.mean()) - np.sqrt(own.mean()))
    assert found["standard_error"] == pytest.approx((np.sqrt(theirs) - np.sqrt(mine)).std(), rel=0.06)
    error = pytest.approx((mine - theirs).std(), rel=0.06)
    assert paired_gain(own, base, "ndcg@10", user)["standard_error"] == error
    frames = [pl.DataFrame({"user": [f"u{u}" for u in user], "ndcg@10": values}) for values in (own, base)]
    told = segment_gains(*frames, "ndcg@10", {"user activity": np.ones(len(user), np.int64)}, 1)
    assert told["gain"]["standard_error"] == told["segments"]["user activity"][0]["standard_error"] == error


def test_equal_systems_are_told_apart_as_often_as_the_level_says() -> None:
    rng, alarms = np.random.default_rng(6), 0
    user = np.repeat(np.arange(60), 4)
    for _ in range(400):
        difference = rng.normal(0, 1, 60)[user] + rng.normal(0, 0.5, len(user))
        alarms += paired_test(difference, np.zeros(len(user)), user)["p_value"] < 0.05
    assert 0.02 < alarms / 400 < 0.085  # as independent questions they would be told apart in every third case
