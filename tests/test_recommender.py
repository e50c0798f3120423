"""Masking and top-k of `Scorer.rank` against plain sorting."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tandemrec import recommender as contracts
from tandemrec.data.examples import Examples
from tandemrec.recommender import NO_ITEM, Config, mask_scores, score_blocks
from tests.fixed import Fixed

N_ITEMS = 6
CASES = st.lists(
    st.tuples(
        st.lists(st.integers(-2, 2), min_size=N_ITEMS, max_size=N_ITEMS),
        st.lists(st.integers(0, N_ITEMS - 1), max_size=N_ITEMS),
    ),
    min_size=1,
    max_size=8,
)


@given(
    CASES,
    st.integers(1, 9),
    st.booleans(),
    st.one_of(st.none(), st.lists(st.booleans(), min_size=N_ITEMS, max_size=N_ITEMS)),
)
def test_rank_is_the_stable_sort_of_what_is_allowed(
    cases: list[tuple[list[int], list[int]]], k: int, exclude_seen: bool, candidates: list[bool] | None
) -> None:
    examples = Examples.from_histories([seen for _, seen in cases], users=range(len(cases)))
    ranking = Fixed(np.array([scores for scores, _ in cases])).rank(
        examples, k, exclude_seen=exclude_seen, candidates=None if candidates is None else np.array(candidates)
    )
    assert ranking.items.dtype == np.int32 and ranking.scores.dtype == np.float32
    for (scores, seen), items, values in zip(cases, ranking.items, ranking.scores, strict=True):
        allowed = [
            item
            for item in range(N_ITEMS)
            if not (exclude_seen and item in seen) and (candidates is None or candidates[item])
        ]
        best = sorted(allowed, key=lambda item: (-scores[item], item))[:k]
        assert items.tolist() == best + [NO_ITEM] * (k - len(best))
        assert values.tolist() == [scores[item] for item in best] + [-np.inf] * (k - len(best))


def test_ties_at_the_end_of_the_list_go_to_the_lower_item() -> None:
    table = np.zeros((3, 1000))
    table[:, 999] = 1
    ranking = Fixed(table).rank(Examples.from_histories([[], [], [0]], users=[0, 1, 2]), 4)
    assert ranking.items.tolist() == [[999, 0, 1, 2], [999, 0, 1, 2], [999, 1, 2, 3]]


def test_masked_are_seen_items_and_those_that_are_no_candidates() -> None:
    scores = torch.tensor([[-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0], [5.0, 6.0, 7.0]])
    examples = Examples.from_histories([[0, 2, 2], [], [1]])
    mask_scores(scores, examples, exclude_seen=True, candidates=None)
    assert scores.tolist() == [[-np.inf, 0.0, -np.inf], [-1.0, 0.0, 1.0], [5.0, -np.inf, 7.0]]
    mask_scores(scores, examples, exclude_seen=False, candidates=np.array([True, True, False]))
    assert scores.tolist() == [[-np.inf, 0.0, -np.inf], [-1.0, 0.0, -np.inf], [5.0, -np.inf, -np.inf]]


@pytest.mark.parametrize("n", [0, 1, 7])
def test_blocks_stay_below_the_limit_and_cover_all(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contracts, "BLOCK_SCORES", 3 * N_ITEMS)
    model = Fixed(np.arange(8 * N_ITEMS).reshape(8, N_ITEMS))
    examples = Examples.from_histories([[]] * n, users=range(n))
    users = [user for block, _ in score_blocks(model, examples) for user in block.user.tolist()]
    assert users == list(range(n))
    assert max(model.calls, default=0) <= 3
    ranking = model.rank(examples, 2)
    assert ranking.items.shape == ranking.scores.shape == (n, 2)


def test_unknown_keys_are_answered_with_the_nearest_known_one() -> None:
    class Tiny(Config):
        """Two fields."""

        epochs: int = 1
        rate: float = 0.1

    with pytest.raises(ValidationError, match="unknown key 'epoch'; did you mean 'epochs'"):
        Tiny.model_validate({"epoch": 3})
    with pytest.raises(ValidationError, match="unknown key 'zzz'; known are: epochs, rate"):
        Tiny.model_validate({"zzz": 3})
    with pytest.raises(ValidationError, match="frozen"):
        Tiny().epochs = 2
