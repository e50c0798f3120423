"""Metrics against hand values, plain definitions and torchmetrics."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional import mean_absolute_error, mean_squared_error
from torchmetrics.functional.retrieval import (
    retrieval_hit_rate,
    retrieval_normalized_dcg,
    retrieval_recall,
    retrieval_reciprocal_rank,
)

from tandemrec.evaluation.metrics import chance, mae, ranking_metrics, rmse

RANKS = st.lists(st.one_of(st.integers(0, 30).map(lambda r: r / 2), st.just(math.inf)), min_size=1, max_size=5)


def metrics(examples: list[list[float]], cutoffs: tuple[int, ...]) -> dict[str, np.ndarray]:
    offsets = np.cumsum([0, *map(len, examples)])
    return ranking_metrics(np.array([rank for ranks in examples for rank in ranks], float), offsets, cutoffs)


def test_one_target_by_hand() -> None:
    found = metrics([[0], [1], [4.5], [5], [math.inf]], (1, 5))
    assert list(found) == ["hr@1", "hr@5", "ndcg@1", "ndcg@5", "mrr@1", "mrr@5"]
    np.testing.assert_array_equal(found["hr@1"], [1, 0, 0, 0, 0])
    np.testing.assert_array_equal(found["hr@5"], [1, 1, 1, 0, 0])
    np.testing.assert_allclose(found["ndcg@5"], [1, 0.63092975, 1 / math.log2(6.5), 0, 0])
    np.testing.assert_allclose(found["mrr@5"], [1, 1 / 2, 1 / 5.5, 0, 0])


def test_several_targets_by_hand() -> None:
    # Targets at places 1, 3 and 7 (1-based 2, 4, 8), K = 5: gains .6309 + .4307 of an ideal 1 + .6309 + .5.
    found = metrics([[1, 3, 7]], (2, 5))
    np.testing.assert_allclose(found["recall@5"], [2 / 3])
    np.testing.assert_allclose(found["ndcg@5"], [(0.63092975 + 0.43067656) / 2.13092975])
    # K = 2: one hit, and the ideal list has two.
    np.testing.assert_allclose(found["ndcg@2"], [0.63092975 / 1.63092975])
    np.testing.assert_allclose(found["mrr@2"], [1 / 2])
    np.testing.assert_array_equal(found["hr@2"], [1])


@given(st.lists(RANKS, min_size=1, max_size=6), st.integers(1, 12))
def test_definitions(examples: list[list[float]], k: int) -> None:
    found = metrics(examples, (k,))
    for b, ranks in enumerate(examples):
        hits = [rank for rank in ranks if rank < k]
        ideal = sum(1 / math.log2(place + 2) for place in range(min(len(ranks), k)))
        assert found[f"hr@{k}"][b] == bool(hits)
        assert found[f"ndcg@{k}"][b] == pytest.approx(sum(1 / math.log2(rank + 2) for rank in hits) / ideal)
        assert found[f"mrr@{k}"][b] == pytest.approx(1 / (min(hits) + 1) if hits else 0)
        recall = found.get(f"recall@{k}", found[f"hr@{k}"])
        assert recall[b] == pytest.approx(len(hits) / len(ranks))


@given(st.integers(0, 2**31), st.integers(1, 25), st.integers(1, 6))
def test_torchmetrics_agrees(seed: int, k: int, n_targets: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.permutation(20).astype(np.float32) + 1  # Its reciprocal rank ignores scores that are not positive.
    targets = rng.choice(20, n_targets, replace=False)
    ranks = [float((scores > scores[target]).sum()) for target in targets]
    found = metrics([ranks, ranks[:1]], (k,))
    relevant = torch.zeros(20, dtype=torch.bool)
    relevant[torch.from_numpy(targets)] = True
    predicted = torch.from_numpy(scores)
    top = min(k, 20)
    theirs = {
        "hr": retrieval_hit_rate(predicted, relevant, top_k=top),
        "ndcg": retrieval_normalized_dcg(predicted, relevant, top_k=top),
        "mrr": retrieval_reciprocal_rank(predicted, relevant, top_k=top),
        "recall": retrieval_recall(predicted, relevant, top_k=top),
    }
    for name, value in theirs.items():
        ours = found.get(f"{name}@{k}", found[f"hr@{k}"])[0]
        assert ours == pytest.approx(float(value), abs=1e-6), name


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=20))
def test_errors_of_ratings(pairs: list[tuple[float, float]]) -> None:
    predicted, actual = np.array(pairs).T
    ours = torch.from_numpy(predicted), torch.from_numpy(actual)
    assert rmse(predicted, actual) == pytest.approx(float(mean_squared_error(*ours, squared=False)), abs=1e-9)
    assert mae(predicted, actual) == pytest.approx(float(mean_absolute_error(*ours)), abs=1e-9)


@pytest.mark.parametrize("items", [1, 3, 7])
def test_chance_is_the_mean_over_all_places(items: int) -> None:
    places = np.arange(items, dtype=np.float64)
    for name, values in ranking_metrics(places, np.arange(items + 1), (1, 3, 5)).items():
        assert chance(name, items) == pytest.approx(values.mean())
    assert chance("recall@2", 8) == 0.25
