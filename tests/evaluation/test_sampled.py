"""Judging among drawn items: against a slow draw, item by item, and what must not change it."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tandemrec import recommender as contracts
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.evaluation.evaluate import EvaluationConfig, evaluate
from tandemrec.evaluation.sampled import SampledCandidates
from tests.evaluation.test_evaluate import CASES, ITEMS, N_ITEMS, Listing, split_of
from tests.fixed import Fixed

WORD = 1 << 64


def mix(value: int) -> int:
    """SplitMix64's next number."""
    value = (value + 0x9E3779B97F4A7C15) % WORD
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % WORD
    value = (value ^ value >> 27) * 0x94D049BB133111EB % WORD
    return value ^ value >> 31


def key(seed: int, user: int, item: int) -> float:
    return (mix((mix(mix(seed) ^ user) + item * 0x9E3779B97F4A7C15) % WORD) >> 11) / (1 << 53)


def slow_draw(config: SampledCandidates, user: int, open_items: list[int], counts: list[int]) -> list[int]:
    """Item by item."""
    if config.by == "uniform":
        return sorted(open_items, key=lambda item: key(config.seed, user, item))[: config.negatives]
    weighted = [item for item in open_items if counts[item]]
    order = sorted(weighted, key=lambda item: -math.log1p(-key(config.seed, user, item)) / counts[item])
    return order[: config.negatives]


@given(
    CASES,
    st.builds(
        SampledCandidates,
        negatives=st.integers(1, N_ITEMS + 1),
        by=st.sampled_from(["uniform", "popularity"]),
        seed=st.integers(0, 9),
    ),
    st.booleans(),
    st.sampled_from(["all", "train"]),
    st.sampled_from(["mean", "optimistic", "pessimistic"]),
    st.lists(ITEMS, min_size=1, max_size=12),
)
def test_ranks_are_those_of_a_slow_draw(
    cases: list[tuple[list[int], list[int], list[int]]],
    sampled: SampledCandidates,
    exclude_seen: bool,
    candidates: str,
    ties: str,
    trained: list[int],
) -> None:
    histories, targets, table = [c[0] for c in cases], [c[1] for c in cases], np.array([c[2] for c in cases])
    split = split_of(histories, targets, trained)
    counts = [trained.count(item) for item in range(N_ITEMS)]
    settings = {"exclude_seen": exclude_seen, "candidates": candidates, "ties": ties, "sampled": sampled}
    found = evaluate(Fixed(table), split, EvaluationConfig.model_validate(settings)).per_example
    for b, rank in enumerate(found["rank"]):
        allowed = [
            item
            for item in range(N_ITEMS)
            if not (exclude_seen and item in histories[b]) and (candidates == "all" or counts[item])
        ]
        rivals = slow_draw(sampled, b, [item for item in allowed if item not in targets[b]], counts)
        best = math.inf
        for target in set(targets[b]) & set(allowed):
            own = table[b, target]
            others = [table[b, item] for item in [*rivals, *(set(targets[b]) & set(allowed) - {target})]]
            share = {"optimistic": 0, "mean": 0.5, "pessimistic": 1}[ties]
            best = min(best, sum(s > own for s in others) + share * sum(s == own for s in others))
        assert rank == best


def wide_split(users: int, items_at: int = 3) -> Split:
    return split_of([[b % items_at] for b in range(users)], [[5]] * users)


def test_a_draw_depends_on_the_user_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither on the size of blocks nor on who else is asked nor on what the system scores."""
    table = np.random.default_rng(0).normal(size=(40, N_ITEMS))
    config = EvaluationConfig(sampled=SampledCandidates(negatives=3))
    split = wide_split(40)
    whole = evaluate(Fixed(table), split, config).per_example["rank"]
    some = np.array([31, 4, 17])
    part = replace(split, test=split.test.take(some))
    assert evaluate(Fixed(table), part, config).per_example["rank"].to_list() == whole.gather(some).to_list()
    monkeypatch.setattr(contracts, "BLOCK_SCORES", 2 * N_ITEMS)
    assert evaluate(Fixed(table), split, config).per_example["rank"].to_list() == whole.to_list()
    other_seed = EvaluationConfig(sampled=SampledCandidates(negatives=3, seed=1))
    assert evaluate(Fixed(table), split, other_seed).per_example["rank"].to_list() != whole.to_list()


@pytest.mark.parametrize("by", ["uniform", "popularity"])
def test_items_are_drawn_as_often_as_they_should(by: str) -> None:
    config = SampledCandidates.model_validate({"negatives": 1, "by": by, "seed": 3})
    users, counts = np.arange(20_000, dtype=np.int32), np.array([1, 2, 0, 5])
    drawn = config.draw(users, np.ones((len(users), 4), bool), counts)
    assert (drawn.sum(1) == 1).all()
    expected = counts / 8 if by == "popularity" else np.full(4, 0.25)
    np.testing.assert_allclose(drawn.mean(0), expected, atol=0.012)  # three and a half standard errors


def test_the_protocol_says_it() -> None:
    said = EvaluationConfig(sampled=SampledCandidates(negatives=99, by="popularity", seed=7), ties="optimistic")
    assert "99 SAMPLED items a user, drawn by popularity with seed 7 from all items" in said.protocol()
    assert "of ties the target comes FIRST" in said.protocol()
    usual = EvaluationConfig().protocol()
    assert "SAMPLED" not in usual
    assert "ties take their average rank" in usual


def test_lists_cannot_be_judged_among_drawn_items() -> None:
    config = EvaluationConfig(sampled=SampledCandidates())
    with pytest.raises(InputError, match=r"evaluation\.sampled.*Listing answers with lists"):
        evaluate(Listing(Fixed(np.zeros((3, N_ITEMS)))), wide_split(3), config)
