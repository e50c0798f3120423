"""Coverage, concentration, novelty, diversity and segments against loops over items, pairs and targets."""

from itertools import combinations
from math import ceil, log2

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandemrec.data.kinds import item_kinds
from tandemrec.evaluation.beyond import beyond_accuracy
from tandemrec.evaluation.evaluate import EvaluationConfig, evaluate
from tandemrec.evaluation.segments import count_groups, ranking_segments
from tests.evaluation.test_evaluate import Listing, split_of
from tests.fixed import Fixed

ITEMS = 7
KINDS = pl.DataFrame(
    {"item_id": range(ITEMS), "genres": [["a"], ["a", "b"], ["b", "c"], [], None, ["c", "c"], ["a", "b", "c"]]}
)
LISTS = st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=4, unique=True), min_size=1, max_size=8)
COUNTS = st.lists(st.integers(0, 9), min_size=ITEMS, max_size=ITEMS)


def padded(lists: list[list[int]]) -> np.ndarray:
    return np.array([row + [-1] * (4 - len(row)) for row in lists], np.int32)


@given(LISTS, COUNTS)
def test_measures_of_lists_are_those_of_loops(lists: list[list[int]], counts: list[int]) -> None:
    found = beyond_accuracy(padded(lists), np.array(counts), item_kinds(KINDS, None, ""))
    shown = [item for row in lists for item in row]
    if not shown:
        assert found == {}
        return
    assert found["coverage"] == pytest.approx(len(set(shown)) / ITEMS)
    often = [shown.count(item) for item in range(ITEMS)]
    gaps = sum(abs(a - b) for a in often for b in often)
    assert found["gini"] == pytest.approx(gaps / (2 * ITEMS * sum(often)))
    total = sum(counts) + ITEMS
    assert found["novelty"] == pytest.approx(np.mean([-log2((counts[item] + 1) / total) for item in shown]))
    head = sorted(range(ITEMS), key=lambda item: (-counts[item], item))[: ceil(0.2 * ITEMS)]
    assert found["tail"] == pytest.approx(np.mean([item not in head for item in shown]))
    kinds = [set(kind or ()) for kind in KINDS["genres"].to_list()]
    by_list = []
    for row in lists:
        pairs = [(kinds[a], kinds[b]) for a, b in combinations(row, 2) if kinds[a] and kinds[b]]
        if pairs:
            by_list.append(np.mean([1 - len(a & b) / len(a | b) for a, b in pairs]))
    assert found.get("diversity") == (pytest.approx(np.mean(by_list)) if by_list else None)


def test_extremes() -> None:
    same = beyond_accuracy(np.zeros((50, 1), np.int32), np.arange(10))
    assert (same["coverage"], same["gini"]) == (0.1, pytest.approx(0.9))
    each = beyond_accuracy(np.arange(10, dtype=np.int32)[:, None], np.arange(10))
    assert (each["coverage"], each["gini"], each["tail"]) == (1.0, pytest.approx(0), pytest.approx(0.8))
    assert "diversity" not in each


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40), st.integers(1, 5))
def test_groups_keep_cold_apart_and_equal_counts_together(counts: list[int], groups: int) -> None:
    given_counts = np.array(counts)
    found = count_groups(given_counts, groups)
    assert ((found == 0) == (given_counts == 0)).all()
    assert len(np.unique(found[found > 0])) <= groups
    order = np.argsort(given_counts, kind="stable")
    assert (np.diff(found[order]) >= 0).all()
    for count in set(counts):
        assert len(set(found[given_counts == count])) == 1


def test_groups_are_of_about_equal_size() -> None:
    found = count_groups(np.arange(1, 101), 4)
    np.testing.assert_array_equal(np.bincount(found), [0, 25, 25, 25, 25])


def test_segments_are_means_over_their_targets() -> None:
    rng = np.random.default_rng(0)
    ranks = np.where(rng.random(60) < 0.2, np.inf, rng.integers(0, 12, 60))
    users, items = rng.integers(0, 5, 60), rng.integers(0, 30, 60)
    found = ranking_segments(ranks, np.arange(60, dtype=np.int32), users, items, headline="ndcg@5", groups=3)
    for name, counts in (("user activity", users), ("item popularity", items)):
        assert sum(group["n"] for group in found[name]) == 60
        assert found[name][0]["to"] == 0
        for group in found[name]:
            inside = [i for i in range(60) if group["from"] <= counts[i] <= group["to"]]
            gains = [1 / log2(ranks[i] + 2) if ranks[i] < 5 else 0 for i in inside]
            assert group["n"] == len(inside)
            assert group["ndcg@5"]["mean"] == pytest.approx(np.mean(gains))
            error = np.std(gains, ddof=1) / np.sqrt(len(inside)) if len(inside) > 1 else 0
            assert group["ndcg@5"]["standard_error"] == pytest.approx(error)


def test_the_evaluator_keeps_the_lists_it_ranks_by() -> None:
    table = np.array([[5, 4, 3, 3, 3, 1, 0], [0, 1, 2, 3, 4, 5, 6], [1, 1, 1, 1, 1, 1, 1]])
    split = split_of([[0], [6, 5, 4], [0, 1, 2, 3, 4]], [[1, 3], [0], [5]])
    config = EvaluationConfig(cutoffs=(3,), headline="recall@3")
    expected = [[1, 2, 3], [3, 2, 1], [5, 6, -1]]
    for system in (Fixed(table), Listing(Fixed(table))):
        found = evaluate(system, split, config, lists=True)
        np.testing.assert_array_equal(found.lists, expected)
        assert found.beyond["coverage"] == pytest.approx(5 / 7)
        assert [group["n"] for group in found.segments["user activity"]] == [2, 2]  # cold users, and the first
        assert "segments" in found.summary()
    assert evaluate(Fixed(table), split, config).beyond == {}
