"""Sampling against literal transcriptions of published procedures, and what every selector promises."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.cluster.vq import kmeans2

from tandemrec.conventional.sequential.sasrec import SASRecModule
from tandemrec.data.examples import Examples, Ragged
from tandemrec.errors import InputError
from tandemrec.selection.ccs import CCS, CCSConfig
from tandemrec.selection.clustering import k_means
from tandemrec.selection.coverage import coverage_sample, group_budgets, score_groups
from tandemrec.selection.dealrec import DEALRec, DEALRecConfig
from tandemrec.selection.el2n import EL2N
from tandemrec.selection.grand import GraNd
from tandemrec.selection.influence import InfluenceConfig
from tandemrec.selection.overall import normalised, overall_score
from tandemrec.selection.random import Random
from tandemrec.selection.recranker import RecRanker, RecRankerConfig, cluster_draws, importance
from tandemrec.selection.selector import Selector
from tandemrec.selection.surrogate import Surrogate, SurrogateConfig
from tandemrec.selection.tf_dcon import TFDCon, TFDConConfig, proportional_shares
from tests.selection.conftest import LONGEST, random_examples

SCORES = st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=80).map(np.array)


def literal_dealrec(scores: np.ndarray, budget: int, k: int, prune: float, draw: np.random.Generator) -> list[int]:
    """The published loop: drop the hardest, cut into K intervals, drop empty ones, smallest first."""
    order = sorted(range(len(scores)), key=lambda i: scores[i])
    kept = order[: len(order) - int(prune * len(order))]
    low, high = min(scores[i] for i in kept), max(scores[i] for i in kept)
    edges = np.linspace(low, high, k + 1)
    bins = [
        [i for i in kept if edges[b] < scores[i] <= edges[b + 1] or (b == 0 and scores[i] == low)] for b in range(k)
    ]
    bins = [b for b in bins if b]
    chosen: list[int] = []
    while bins:
        smallest = min(bins, key=len)
        take = min(len(smallest), (budget - len(chosen)) // len(bins))
        chosen += draw.choice(smallest, take, replace=False).tolist()
        bins.remove(smallest)
    return chosen


def literal_ccs_budgets(scores: np.ndarray, budget: int, k: int) -> list[int]:
    """Bins [low, high) up to 1.0001 times the highest score; sorted by size, empty ones among them."""
    low, high = scores.min(), scores.max() * 1.0001
    step = (high - low) / k
    counts = [int(((scores >= low + b * step) & (scores < low + (b + 1) * step)).sum()) for b in range(k)]
    out, left = [0] * k, budget
    for place, b in enumerate(np.argsort(counts, kind="stable")):
        out[b] = min(counts[b], left // (k - place))
        left -= out[b]
    return out


@given(SCORES, st.integers(1, 12), st.integers(1, 80), st.floats(0, 0.5))
def test_dealrec_sampling_gives_the_published_share_of_every_group(
    scores: np.ndarray, k: int, budget: int, prune: float
) -> None:
    budget = min(budget, len(scores) - int(prune * len(scores)))
    found = coverage_sample(scores, budget, np.random.default_rng(0), n_groups=k, hard_prune=prune)
    literal = literal_dealrec(scores, budget, k, prune, np.random.default_rng(0))
    assert len(set(found.tolist())) == len(literal) == budget
    hardest = np.argsort(scores, kind="stable")[len(scores) - int(prune * len(scores)) :]
    assert not set(hardest.tolist()) & set(found.tolist())
    if np.ptp(scores) == 0 or len(set(scores.tolist())) < 2:
        return
    kept = np.setdiff1d(np.arange(len(scores)), hardest)
    groups = dict(zip(kept.tolist(), score_groups(scores[kept], k).tolist(), strict=True))
    shares = sorted(Counter(groups[i] for i in found.tolist()).values())
    assert shares == sorted(Counter(groups[i] for i in literal).values())


@given(st.lists(st.floats(0.01, 5), min_size=2, max_size=80).map(np.array), st.integers(1, 12), st.integers(1, 80))
def test_ccs_budgets_equal_the_literal_loop(scores: np.ndarray, k: int, budget: int) -> None:
    if np.ptp(scores) < 1e-6:
        return
    sizes = np.bincount(score_groups(scores, k, "lower"), minlength=k)
    budget = min(budget, len(scores))
    literal = literal_ccs_budgets(scores, budget, k)
    assert sorted(group_budgets(sizes, budget).tolist()) == sorted(literal)
    assert sum(literal) == budget


def test_group_budgets_by_hand() -> None:
    # 10 over sizes 1, 0, 20, 3: 0, then 1 of 10 // 3, 3 of 9 // 2, then the remaining 6
    assert group_budgets(np.array([1, 0, 20, 3]), 10).tolist() == [1, 0, 6, 3]
    assert score_groups(np.array([0.0, 1.0, 2.0, 2.1, 4.0]), 4).tolist() == [0, 0, 1, 2, 3]
    assert score_groups(np.array([0.0, 1.0, 2.0, 2.1, 4.0]), 4, "lower").tolist() == [0, 0, 1, 2, 3]
    assert score_groups(np.array([-4.0, -2.0]), 2, "lower").tolist() == [0, 1]
    assert score_groups(np.full(3, 2.0), 4).tolist() == [0, 0, 0]


def test_one_group_is_a_uniform_draw() -> None:
    scores, rng = np.arange(5.0), np.random.default_rng(0)
    counts = Counter(i for _ in range(2000) for i in coverage_sample(scores, 2, rng, n_groups=1).tolist())
    assert all(abs(counts[i] - 800) < 90 for i in range(5))


@given(
    st.lists(st.integers(-20, 20), min_size=2, max_size=80).map(np.array),
    st.sampled_from([0.5, 2, 32]),
    st.integers(-9, 9),
)
def test_scale_and_shift_change_no_normalised_score(scores: np.ndarray, scale: float, shift: int) -> None:
    if np.ptp(scores) == 0:
        return
    for how in ("min-max", "robust", "rank"):
        one, other = normalised(scores, how), normalised(scores * scale + shift, how)  # type: ignore[arg-type]
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
    assert normalised(scores, "min-max").min() == 0
    assert normalised(scores, "min-max").max() == 1


def test_normalisations_by_hand() -> None:
    scores = np.array([0.0, 1, 2, 3, 10])
    np.testing.assert_allclose(normalised(scores, "min-max"), [0, 0.1, 0.2, 0.3, 1])
    np.testing.assert_allclose(normalised(scores, "rank"), [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(normalised(scores, "robust"), [-1, -0.5, 0, 0.5, 4])  # median 2, quartiles 1 and 3
    np.testing.assert_array_equal(normalised(np.full(3, 7.0), "rank"), np.zeros(3))
    assert np.isfinite(normalised(np.array([0.0, 0, 0, 0, 9]), "robust")).all()


def test_weight_of_effort() -> None:
    rng = np.random.default_rng(0)
    influence, effort = rng.normal(size=50), rng.normal(size=50)
    assert (overall_score(influence, effort, 0, "rank").argsort() == influence.argsort()).all()
    assert (overall_score(influence, effort, 1e9, "min-max").argsort() == effort.argsort()).all()
    np.testing.assert_array_equal(overall_score(None, effort, 3, "min-max"), normalised(effort, "min-max"))
    by_hand = [0 + 0.5 * 1, 1 + 0.5 * 0, 0.5 + 0.5 * 0.5]
    np.testing.assert_allclose(overall_score(np.array([1.0, 3, 2]), np.array([4.0, 2, 3]), 0.5, "min-max"), by_hand)


def vectors(examples: Examples) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(7).normal(size=(len(examples), 5)))


def lengths(examples: Examples) -> np.ndarray:
    return examples.history.lengths.astype(np.float64)


def every_selector(network: SASRecModule) -> list[Selector]:
    surrogate = Surrogate(network, LONGEST, SurrogateConfig())
    return [
        Random(),
        EL2N([surrogate]),
        GraNd([surrogate]),
        CCS(CCSConfig(groups=5), [surrogate]),
        CCS(CCSConfig(groups=5, importance="aum"), [surrogate]),
        TFDCon(TFDConConfig(clusters=4), [vectors, vectors]),
        TFDCon(TFDConConfig(clusters=4, inside="random"), [vectors]),
        RecRanker(RecRankerConfig(clusters=3), vectors),
        DEALRec(DEALRecConfig(groups=5), surrogate, lengths),
        DEALRec(DEALRecConfig(use_effort=False, normalisation="rank"), surrogate),
        DEALRec(DEALRecConfig(influence=None, sampling="greedy"), effort=lengths),
    ]


@pytest.mark.parametrize("number", range(11))
def test_promises_of_every_selector(network: SASRecModule, number: int) -> None:
    selector, examples = every_selector(network)[number], random_examples(40)
    chosen = selector.select(examples, 12, seed=5)
    assert len(set(chosen.tolist())) == 12
    assert chosen.tolist() == sorted(chosen.tolist())
    assert chosen.min() >= 0
    assert chosen.max() < 40
    np.testing.assert_array_equal(chosen, selector.select(examples, 12, seed=5))
    np.testing.assert_array_equal(selector.select(examples, 40, seed=5), np.arange(40))
    for budget in (0, 41):
        with pytest.raises(InputError, match=f"between 1 and 40 examples, found {budget}"):
            selector.select(examples, budget)


def test_greedy_takes_the_highest(network: SASRecModule) -> None:
    examples = random_examples(40)
    chosen = DEALRec(DEALRecConfig(influence=None, sampling="greedy"), effort=lengths).select(examples, 8)
    assert lengths(examples)[chosen].tolist() == [9, 8, 9, 8, 9, 8, 9, 8] or set(lengths(examples)[chosen]) == {8, 9}


def test_parts_of_dealrec(network: SASRecModule) -> None:
    examples, surrogate = random_examples(20), Surrogate(network, LONGEST, SurrogateConfig())
    selector = DEALRec(DEALRecConfig(effort_weight=2.0), surrogate, lengths)
    parts = selector.parts(examples)
    assert sorted(parts) == ["effort", "influence"]
    expected = normalised(parts["influence"], "min-max") + 2 * normalised(lengths(examples), "min-max")
    np.testing.assert_allclose(selector.scores(examples), expected)
    with pytest.raises(ValueError, match="needs a surrogate"):
        DEALRec(DEALRecConfig())
    with pytest.raises(ValueError, match="needs a language model"):
        DEALRec(DEALRecConfig(), surrogate)
    with pytest.raises(ValidationError, match="cannot both be off"):
        DEALRecConfig(influence=None, use_effort=False)
    assert DEALRecConfig(influence=InfluenceConfig(damping=0.1)).influence is not None


def test_importance_and_cluster_draws_of_recranker() -> None:
    history = Ragged.from_lists([[], [1], [1, 2, 3]])
    examples = Examples(
        np.arange(3, dtype=np.int32), history, Ragged.from_lists([[5]] * 3), history, np.zeros(3, np.int64)
    )
    np.testing.assert_allclose(importance(examples), np.log([1, 2, 4]))
    cluster, rng = np.array([0, 1, 1, 0, 1, 1]), np.random.default_rng(0)
    drawn = cluster_draws(cluster, 9, rng)
    assert Counter(cluster[drawn].tolist()) == {0: 3, 1: 6}
    alone = examples.take(slice(0, 1))
    with pytest.raises(InputError, match="more than one interaction"):
        RecRanker(RecRankerConfig(), vectors).select(alone, 1)


def test_recranker_reaches_those_without_weight() -> None:
    examples = random_examples(10).take(np.arange(10))
    selector = RecRanker(RecRankerConfig(clusters=2), lambda e: torch.ones(len(e), 2))
    np.testing.assert_array_equal(selector.select(examples, 10), np.arange(10))


@given(st.lists(st.integers(0, 30), min_size=1, max_size=20).map(np.array), st.integers(0, 200))
def test_shares_are_proportional_and_whole(sizes: np.ndarray, budget: int) -> None:
    if not sizes.sum():
        return
    budget = min(budget, int(sizes.sum()))
    shares = proportional_shares(sizes, budget)
    assert shares.sum() == budget
    assert (shares <= sizes).all()
    assert (np.abs(shares - sizes * budget / sizes.sum()) < 1).all()


def test_nearest_to_the_centre_are_taken() -> None:
    points = torch.tensor([[0.0, 0], [0, 1], [0, 5], [100, 0], [100, 1], [100, 7]])
    selector = TFDCon(TFDConConfig(clusters=2), [lambda e: points])
    assert selector.select(random_examples(6), 4).tolist() == [0, 1, 3, 4]


def test_k_means_finds_what_scipy_finds() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(centre, 0.3, size=(40, 3)) for centre in (-4, 0, 5)])
    cluster, centres = k_means(torch.from_numpy(points), 3, seed=1)
    _, expected = kmeans2(points, 3, seed=3, minit="++")
    assert len(set(zip(cluster.tolist(), expected.tolist(), strict=True))) == 3
    np.testing.assert_allclose(centres[cluster[0]], points[:40].mean(0), rtol=1e-5)
    few, centres = k_means(torch.tensor([[1.0], [1.0], [2.0]]), 5, seed=0)
    assert len(centres) == 2
    assert few[0] == few[1] != few[2]
