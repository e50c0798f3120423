"""The weights of eq. 5 and 7 against values computed by hand, and their invariants."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandemrec.aggregation.weights import Activity, Weighting, WeightsConfig, fit_buckets, weightings
from tandemrec.errors import InputError

COUNTS = st.lists(st.integers(1, 10_000), min_size=1, max_size=50).map(np.array)
SHARE = st.floats(0, 1)


def adaptive(ceiling: float, floor: float) -> Weighting:
    return Weighting(method="adaptive", max_llm_weight=ceiling, weight_floor=floor)


def test_tail_user_gets_all_and_head_user_the_floor() -> None:
    # ln 2 = .6931, ln 4 = 1.3863, ln 8 = 2.0794: tailness 1, .5, 0
    counts = np.array([1, 3, 7])
    np.testing.assert_allclose(Activity(counts).tailness(counts), [1, 0.5, 0], atol=1e-12)
    np.testing.assert_allclose(adaptive(0.4, 0.25).weights(Activity(counts), counts), [0.4, 0.2, 0.1])


def test_the_floor_takes_over_where_the_tail_ends() -> None:
    # ln 2, ln 3, ln 5, ln 9: (2.1972 − 1.0986) / (2.1972 − .6931) = .7304, (2.1972 − 1.6094) / 1.5041 = .3908
    counts = np.array([1, 2, 4, 8])
    expected = 0.5 * np.array([1, 0.7304, 0.6, 0.6])
    np.testing.assert_allclose(adaptive(0.5, 0.6).weights(Activity(counts), counts), expected, atol=1e-4)


def test_users_without_training_do_not_set_the_extremes_and_count_as_the_nearest() -> None:
    activity = Activity(np.array([0, 1, 3, 7]))
    np.testing.assert_allclose(activity.tailness(np.array([0, 1, 7, 100])), [1, 1, 0, 0])


@pytest.mark.parametrize("counts", [[5, 5, 5], [3], [0, 0], []])
def test_equally_active_users_are_nobody_in_the_tail(counts: list[int]) -> None:
    known = np.array(counts, np.int64)
    weights = adaptive(0.5, 0.2).weights(Activity(known), np.array([1, 5, 900]))
    np.testing.assert_allclose(weights, 0.1)


@given(COUNTS, SHARE, SHARE)
def test_weights_lie_between_floor_and_ceiling_and_fall_with_activity(
    counts: np.ndarray, ceiling: float, floor: float
) -> None:
    weights = adaptive(ceiling, floor).weights(Activity(counts), counts)
    assert np.all(weights >= ceiling * floor - 1e-12)
    assert np.all(weights <= ceiling + 1e-12)
    assert np.all(np.diff(weights[np.argsort(counts)]) <= 1e-12)
    if counts.min() < counts.max():
        assert weights[counts.argmin()] == pytest.approx(ceiling)
        assert weights[counts.argmax()] == pytest.approx(ceiling * floor)


def test_negative_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="negative, found -2"):
        Activity(np.array([3])).tailness(np.array([3, -2]))


def test_unknown_users_are_counted_otherwise() -> None:
    np.testing.assert_array_equal(Activity(np.array([4, 9])).of(np.array([1, -1, 7, 0]), np.arange(4)), [9, 1, 2, 4])
    np.testing.assert_array_equal(Activity(np.array([], np.int64)).of(np.array([-1]), np.array([6])), [6])


def test_what_is_tried() -> None:
    grid = WeightsConfig(max_llm_weight=(0.9, 0.1), weight_floor=(0.5, 0.3))
    tried = [(w.max_llm_weight, w.weight_floor) for w in weightings(grid)]
    assert tried == [(0.1, 0.3), (0.1, 0.5), (0.9, 0.3), (0.9, 0.5)]
    with_nothing = list(weightings(WeightsConfig(max_llm_weight=(0.1, 0.0), weight_floor=(0.5, 0.3))))
    assert [(w.max_llm_weight, w.weight_floor) for w in with_nothing] == [(0.0, 0.3), (0.1, 0.3), (0.1, 0.5)]
    uniform = list(weightings(grid.model_copy(update={"method": "uniform"})))
    activity = Activity(np.array([1, 9]))
    assert [w.weights(activity, np.array([1, 9])).tolist() for w in uniform] == [[0.1, 0.1], [0.9, 0.9]]
    (alone,) = weightings(WeightsConfig(method="none"))
    assert alone.weights(activity, np.array([1, 9])).tolist() == [1, 1]


def test_buckets_are_equal_groups_of_users_who_train() -> None:
    activity = Activity(np.array([0, 1, 2, 3, 4, 5, 6, 7, 8]))
    np.testing.assert_array_equal(activity.bucket(np.array([0, 1, 2, 3, 4, 5, 8, 99]), 4), [0, 0, 0, 1, 1, 2, 3, 3])
    np.testing.assert_array_equal(Activity(np.array([5, 5, 5])).bucket(np.array([5, 6]), 4), [0, 1])


def test_each_bucket_gets_its_own_best_weight_and_an_empty_one_the_common_best() -> None:
    config = WeightsConfig(method="fitted", max_llm_weight=(0.0, 0.5, 1.0), buckets=3)
    gain = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.5, 3.0]])
    found = fit_buckets(config, np.array([0, 0, 2]), gain)
    assert found.bucket_weights == (0.0, 1.0, 1.0)
    activity = Activity(np.array([1, 2, 3, 4, 5, 6]))
    np.testing.assert_array_equal(found.weights(activity, np.array([1, 6])), [0.0, 1.0])
    with pytest.raises(InputError, match="needs validation examples"):
        fit_buckets(config, np.empty(0, np.int64), np.empty((0, 3)))
