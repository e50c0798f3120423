"""Adaptive aggregation of rankings: by hand, as properties, chosen on validation, stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tandemrec.aggregation.choice import Choice
from tandemrec.aggregation.rankings import RankingAggregate, RankingAggregateConfig
from tandemrec.aggregation.utilities import places, reciprocal, scaled
from tandemrec.aggregation.weights import Activity, Weighting
from tandemrec.data.examples import Examples
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.evaluation.evaluate import validation_figures
from tandemrec.recommender import NO_ITEM, Ranking, reordered
from tests.fixed import Fixed

NAN = np.nan
OPINIONS = arrays(np.float32, (3, 6), elements=st.one_of(st.just(NAN), st.floats(-3, 3, width=16)))
INFINITE = arrays(np.float32, (3, 6), elements=st.sampled_from([NAN, np.inf, -np.inf, -1.0, 0.0, 2.0]))


def config(**settings: object) -> RankingAggregateConfig:
    return RankingAggregateConfig.model_validate({"model": "aggregate", "base": "base", "llm": "llm"} | settings)


def uniform(weight: float) -> Choice:
    weighting = Weighting(method="uniform", max_llm_weight=weight)
    return Choice("llm", weighting, Activity(np.array([3, 9])))


def order_of(weight: float, places_by_llm: list[int], **settings: object) -> list[int]:
    """Items 0, 1, 2, … of the base in the aggregated order."""
    k = len(places_by_llm)
    base = Fixed(-np.arange(k, dtype=float)[None])
    llm = Fixed(-np.array(places_by_llm, float)[None])
    model = RankingAggregate(config(candidates=k, **settings), base, llm, choice=uniform(weight))
    return model.rank(Examples.from_histories([[]], [0]), k).items[0].tolist()


def test_places_ties_and_silence() -> None:
    utility = np.array([[2.0, 5.0, 2.0, NAN], [NAN, NAN, NAN, 1.0]], np.float32)
    np.testing.assert_array_equal(places(utility), [[2, 1, 3, 4], [2, 3, 4, 1]])


@pytest.mark.parametrize(
    ("weight", "expected"),
    [
        # Item 3 is first for the language model: U = −(α s′ + (1 − α) s). α = .1: −3.7 against −1.1, −2.1, −3.1.
        (0.1, [0, 1, 2, 3]),
        # α = .5: −2.5 against −1.5, −2.5, −3.5: a tie with item 1, which is earlier in the base's list.
        (0.5, [0, 1, 3, 2]),
        # α = .6: −2.2 against −1.6, −2.6, −3.6.
        (0.6, [0, 3, 1, 2]),
        # α = .9: −1.3 against −1.9, −2.9, −3.9.
        (0.9, [3, 0, 1, 2]),
    ],
)
def test_a_weighted_borda_count_by_hand(weight: float, expected: list[int]) -> None:
    assert order_of(weight, [2, 3, 4, 1]) == expected
    assert order_of(weight, [2, 3, 4, 1], step=2.5) == expected


def test_reciprocal_ranks_by_hand() -> None:
    found = reciprocal(np.array([[1.0, 2.0]]), np.array([[2.0, 1.0]]), np.array([0.25]), 60)
    np.testing.assert_allclose(found, [[0.25 / 62 + 0.75 / 61, 0.25 / 61 + 0.75 / 62]])
    assert order_of(0.9, [2, 1], fusion="reciprocal") == [1, 0]
    assert order_of(0.5, [2, 1], fusion="reciprocal") == [0, 1]


def test_scales_by_hand() -> None:
    utility = np.array([[3.0, NAN, 5.0, 4.0], [2.0, 2.0, 2.0, 2.0], [NAN, NAN, NAN, NAN]], np.float32)
    np.testing.assert_allclose(scaled(utility, "rank", 2.0), -2.0 * places(utility))
    np.testing.assert_allclose(scaled(utility, "minmax", 1.0), [[0, 0, 1, 0.5], [0] * 4, [0] * 4])
    np.testing.assert_allclose(scaled(utility, "raw", 1.0), [[3, 3, 5, 4], [2] * 4, [0] * 4])
    deviation = np.std([3, 3, 5, 4])
    np.testing.assert_allclose(
        scaled(utility, "zscore", 1.0), [(np.array([3, 3, 5, 4]) - 3.75) / deviation, [0] * 4, [0] * 4]
    )


def test_infinite_utilities_are_the_best_and_the_worst_of_the_finite_ones() -> None:
    utility = np.array(
        [[3.0, -np.inf, 5.0, np.inf, NAN], [np.inf, -np.inf, NAN, NAN, np.inf], [-np.inf, 2.0, 2.0, 2.0, 2.0]],
        np.float32,
    )
    np.testing.assert_array_equal(scaled(utility, "raw", 1.0), [[3, 3, 5, 5, 3], [0] * 5, [2] * 5])
    np.testing.assert_array_equal(scaled(utility, "minmax", 1.0), [[0, 0, 1, 1, 0], [0] * 5, [0] * 5])
    mean, deviation = 3.8, np.std([3, 3, 5, 5, 3])
    expected = [(np.array([3, 3, 5, 5, 3]) - mean) / deviation, [0] * 5, [0] * 5]
    np.testing.assert_allclose(scaled(utility, "zscore", 1.0), expected)
    np.testing.assert_array_equal(scaled(utility, "rank", 1.0), -places(utility))
    assert scaled(utility, "rank", 1.0)[0].tolist() == [-3, -4, -2, -1, -5]


@given(
    st.one_of(OPINIONS, INFINITE),
    st.sampled_from(["rank", "minmax", "zscore", "raw"]),
    st.sampled_from(["utilities", "reciprocal"]),
)
def test_weight_zero_leaves_the_base_as_it_is(opinion: np.ndarray, scale: str, fusion: str) -> None:
    model = RankingAggregate(config(scale=scale, fusion=fusion), Fixed(np.eye(1)), Fixed(np.eye(1)))
    items = np.tile(np.arange(6, dtype=np.int32), (3, 1))
    found = model.aggregate(opinion, items, np.zeros(3))
    np.testing.assert_array_equal(np.argsort(-found, axis=1, kind="stable"), items)


@given(OPINIONS)
def test_weight_one_is_the_language_models_own_order(opinion: np.ndarray) -> None:
    model = RankingAggregate(config(), Fixed(np.eye(1)), Fixed(np.eye(1)))
    items = np.tile(np.arange(6, dtype=np.int32), (3, 1))
    found = places(model.aggregate(opinion, items, np.ones(3)))
    np.testing.assert_array_equal(found, places(opinion))


@given(OPINIONS, st.floats(0, 1))
def test_an_agreeing_language_model_changes_nothing(opinion: np.ndarray, weight: float) -> None:
    model = RankingAggregate(config(), Fixed(np.eye(1)), Fixed(np.eye(1)))
    items = np.tile(np.arange(6, dtype=np.int32), (3, 1))
    agreeing = np.sort(np.nan_to_num(opinion), axis=1)[:, ::-1].astype(np.float32)
    found = model.aggregate(agreeing, items, np.full(3, weight))
    np.testing.assert_array_equal(np.argsort(-found, axis=1, kind="stable"), items)


def test_reordering_keeps_what_is_behind_and_puts_the_silent_last() -> None:
    ranking = Ranking(
        np.array([[7, 3, 5, 1, 2], [4, 6, NO_ITEM, NO_ITEM, NO_ITEM]], np.int32), np.zeros((2, 5), np.float32)
    )
    utility = np.array([[NAN, -np.inf, 1.0], [0.5, 0.9, 7.0]], np.float32)
    found = reordered(ranking, utility, 4)
    np.testing.assert_array_equal(found.items, [[5, 3, 7, 1], [6, 4, NO_ITEM, NO_ITEM]])
    np.testing.assert_array_equal(found.scores, [[-1, -2, -3, -4], [-1, -2, -np.inf, -np.inf]])


@pytest.fixture
def systems(split: Split) -> tuple[Fixed, Fixed]:
    """A base that knows nothing of the order, and a language model that knows the next item of inactive users."""
    rng = np.random.default_rng(2)
    base, llm = rng.normal(size=(60, 24)), rng.normal(size=(60, 24))
    for examples in (split.valid, split.test):
        base[examples.user, examples.target.flat()] += 1.5
        llm[examples.user, examples.target.flat()] += 3.0
    return Fixed(base), Fixed(llm)


@pytest.mark.parametrize("method", ["adaptive", "uniform", "fitted", "none"])
def test_weights_are_chosen_on_validation_and_survive_saving(
    systems: tuple[Fixed, Fixed], split: Split, tmp_path: Path, method: str
) -> None:
    model = RankingAggregate(config(weights={"method": method, "buckets": 2}), *systems)
    report = model.fit(split)
    assert report.best_value == pytest.approx(validation_figures(model, split.valid)["ndcg@10"])
    assert report.best_value == max(row["ndcg"] for row in report.curve)
    base = validation_figures(systems[0], split.valid)
    assert report.best_value > base["ndcg@10"]
    assert report.notes["ceiling_hr"] == pytest.approx(base["hr@10"])
    assert validation_figures(model, split.valid)["hr@10"] == pytest.approx(base["hr@10"])
    model.save(tmp_path)
    again = RankingAggregate.load(tmp_path, *systems)
    np.testing.assert_array_equal(again.rank(split.test, 12).items, model.rank(split.test, 12).items)


@pytest.mark.parametrize("method", ["adaptive", "uniform", "fitted"])
def test_a_language_model_that_only_harms_is_given_no_weight(
    systems: tuple[Fixed, Fixed], split: Split, method: str
) -> None:
    harmful = Fixed(-systems[1].table.numpy())
    model = RankingAggregate(config(weights={"method": method}), systems[0], harmful)
    report = model.fit(split)
    assert report.best_value == pytest.approx(validation_figures(systems[0], split.valid)["ndcg@10"])
    mine, base = model.rank(split.test, 12).items, systems[0].rank(split.test, 12).items
    np.testing.assert_array_equal(mine, base)


def test_nobody_asks_about_users_for_whom_the_answer_has_no_weight(systems: tuple[Fixed, Fixed], split: Split) -> None:
    weighting = Weighting(method="fitted", bucket_weights=(0.8, 0.0))
    choice = Choice("llm", weighting, Activity(np.arange(1, 61)))
    everybody = Choice("llm", weighting.model_copy(update={"bucket_weights": (0.8, 1e-9)}), choice.activity)
    found, asked = [], []
    for one in (choice, everybody):
        systems[1].calls.clear()
        found.append(RankingAggregate(config(), *systems, choice=one).rank(split.test, 12).items)
        asked.append(sum(systems[1].calls))
    np.testing.assert_array_equal(*found)
    assert asked == [(split.test.user < 30).sum(), len(split.test)]


def test_what_lies_behind_the_candidates_stays(systems: tuple[Fixed, Fixed], split: Split) -> None:
    model = RankingAggregate(config(candidates=4), *systems, choice=uniform(0.9))
    mine, base = model.rank(split.test, 10).items, systems[0].rank(split.test, 10).items
    np.testing.assert_array_equal(mine[:, 4:], base[:, 4:])
    np.testing.assert_array_equal(np.sort(mine[:, :4]), np.sort(base[:, :4]))
    assert (mine != base).any()


def test_the_better_of_two_language_models_is_asked(systems: tuple[Fixed, Fixed], split: Split) -> None:
    wrong = Fixed(-systems[1].table.numpy())
    model = RankingAggregate(config(llm=["wrong", "llm"]), systems[0], wrong, systems[1])
    assert model.fit(split).notes["llm"] == "llm"


def test_only_examples_in_reach_are_asked(systems: tuple[Fixed, Fixed], split: Split) -> None:
    model = RankingAggregate(config(candidates=3), *systems)
    model.fit(split)
    hits = (systems[0].rank(split.valid, 3).items == split.valid.target.flat()[:, None]).sum()
    assert sum(systems[1].calls) == hits < len(split.valid)


def test_a_system_that_cannot_be_asked_is_refused(systems: tuple[Fixed, Fixed], split: Split) -> None:
    model = RankingAggregate(config(), systems[0], object())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'llm' cannot be asked about given candidates"):
        model.fit(split)
