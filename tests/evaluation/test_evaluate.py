"""The evaluator against brute force, and what must not change its numbers."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tandemrec import recommender as contracts
from tandemrec.data.dataset import Dataset
from tandemrec.data.examples import Examples, Ragged
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.evaluation.evaluate import Evaluation, EvaluationConfig, evaluate, validation_figures
from tandemrec.recommender import BoolArray, Ranking, Recommender, Scorer
from tests.fixed import Fixed

N_ITEMS = 7


class Listing(Recommender):
    """The same answers, but as lists only."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    def rank(
        self, examples: Examples, k: int, *, exclude_seen: bool = True, candidates: BoolArray | None = None
    ) -> Ranking:
        return self.scorer.rank(examples, k, exclude_seen=exclude_seen, candidates=candidates)

    fit, save, load = Fixed.fit, Fixed.save, Fixed.load  # type: ignore[assignment]


def split_of(histories: list[list[int]], targets: list[list[int]], trained: list[int] | None = None) -> Split:
    """One example a user; `trained` are the items with a training interaction (default: all)."""
    n = len(histories)
    items, users = pl.DataFrame({"item_id": range(N_ITEMS)}), pl.DataFrame({"user_id": range(100, 100 + n)})
    data = Dataset.from_frames(
        pl.DataFrame({"user_id": [100], "item_id": [0], "timestamp": [0]}), items, users, name="tiny"
    )
    sequences = Ragged.from_lists([list(range(N_ITEMS)) if trained is None else trained, *[[] for _ in range(n - 1)]])
    history = Ragged.from_lists(histories)
    examples = Examples(
        np.arange(n, dtype=np.int32), history, Ragged.from_lists(targets), history, np.zeros(n, np.int64)
    )
    return Split(data, sequences, examples, examples, examples, "by hand")


def brute_force(
    table: np.ndarray,
    histories: list[list[int]],
    targets: list[list[int]],
    config: EvaluationConfig,
    trained: list[int],
) -> dict[int, dict[str, float]]:
    """Example → metrics, item by item."""
    out = {}
    for b, wanted in enumerate(targets):
        allowed = [
            item
            for item in range(N_ITEMS)
            if not (config.exclude_seen and item in histories[b]) and (config.candidates == "all" or item in trained)
        ]
        ranks = []
        for target in dict.fromkeys(wanted):
            if target in allowed:
                own = table[b, target]
                ties = sum(table[b, item] == own for item in allowed) - 1
                share = {"optimistic": 0, "mean": 0.5, "pessimistic": 1}[config.ties]
                ranks.append(sum(table[b, item] > own for item in allowed) + ties * share)
            elif config.unreachable == "miss":
                ranks.append(np.inf)
        if not ranks:
            continue
        row = {"rank": min(ranks)}
        for k in config.cutoffs:
            ideal = sum(1 / np.log2(place + 2) for place in range(min(len(ranks), k)))
            row[f"hr@{k}"] = float(min(ranks) < k)
            row[f"recall@{k}"] = float(np.mean([rank < k for rank in ranks]))
            row[f"ndcg@{k}"] = sum(1 / np.log2(rank + 2) for rank in ranks if rank < k) / ideal
            row[f"mrr@{k}"] = 1 / (min(ranks) + 1) if min(ranks) < k else 0.0
        out[b] = row
    return out


ITEMS = st.integers(0, N_ITEMS - 1)
CASES = st.lists(
    st.tuples(
        st.lists(ITEMS, max_size=4),
        st.lists(ITEMS, min_size=1, max_size=4),
        st.lists(st.integers(0, 5), min_size=N_ITEMS, max_size=N_ITEMS),
    ),
    min_size=1,
    max_size=6,
)
CONFIGS = st.builds(
    EvaluationConfig,
    cutoffs=st.just((1, 3, 5)),
    headline=st.just("recall@3"),
    exclude_seen=st.booleans(),
    candidates=st.sampled_from(["all", "train"]),
    unreachable=st.sampled_from(["miss", "skip"]),
    ties=st.sampled_from(["mean", "optimistic", "pessimistic"]),
)


@given(CASES, CONFIGS, st.lists(ITEMS, min_size=1, max_size=N_ITEMS, unique=True))
def test_brute_force_agrees(
    cases: list[tuple[list[int], list[int], list[int]]], config: EvaluationConfig, trained: list[int]
) -> None:
    histories, targets, table = [c[0] for c in cases], [c[1] for c in cases], np.array([c[2] for c in cases])
    expected = brute_force(table, histories, targets, config, trained)
    split = split_of(histories, targets, trained)
    if not expected:
        with pytest.raises(InputError, match="no example that can be judged"):
            evaluate(Fixed(table), split, config)
        return
    frame = evaluate(Fixed(table), split, config).per_example
    assert frame["example"].to_list() == list(expected)
    assert frame["user"].to_list() == [str(100 + b) for b in expected]
    for row in frame.iter_rows(named=True):
        for name in frame.columns[2:]:
            assert row[name] == pytest.approx(expected[row["example"]][name]), name


@given(CASES, st.randoms(use_true_random=False))
def test_item_numbers_do_not_matter(cases: list[tuple[list[int], list[int], list[int]]], random: object) -> None:
    histories, targets, table = [c[0] for c in cases], [c[1] for c in cases], np.array([c[2] for c in cases])
    new = list(range(N_ITEMS))
    random.shuffle(new)  # type: ignore[attr-defined]
    moved = np.empty_like(table)
    moved[:, new] = table
    renamed = split_of([[new[i] for i in row] for row in histories], [[new[i] for i in row] for row in targets])
    one = evaluate(Fixed(table), split_of(histories, targets)).per_example
    other = evaluate(Fixed(moved), renamed).per_example
    for column in one.columns[2:]:  # The gains of several targets are added in another order.
        np.testing.assert_allclose(one[column].to_numpy(), other[column].to_numpy(), rtol=1e-12)


@pytest.mark.parametrize("block_scores", [1, 15, 10_000])
def test_blocks_do_not_matter(block_scores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    table = rng.integers(0, 5, (30, N_ITEMS))
    histories = [rng.integers(0, N_ITEMS, 3).tolist() for _ in range(30)]
    targets = [rng.integers(0, N_ITEMS, rng.integers(1, 4)).tolist() for _ in range(30)]
    split = split_of(histories, targets)
    whole = evaluate(Fixed(table), split).per_example
    monkeypatch.setattr(contracts, "BLOCK_SCORES", block_scores)
    assert evaluate(Fixed(table), split).per_example.equals(whole)


@given(CASES, CONFIGS)
def test_whole_lists_give_what_scores_give(
    cases: list[tuple[list[int], list[int], list[int]]], config: EvaluationConfig
) -> None:
    histories, targets, table = [c[0] for c in cases], [c[1] for c in cases], np.array([c[2] for c in cases])
    config = config.model_copy(update={"cutoffs": (1, 3, N_ITEMS)})
    split = split_of(histories, targets)
    outcomes = []
    for model in (Fixed(table), Listing(Fixed(table))):
        try:
            outcomes.append(evaluate(model, split, config).per_example.rows())
        except InputError as error:
            outcomes.append(str(error))
    assert outcomes[0] == outcomes[1]


def test_ten_equal_scores_share_their_average_rank() -> None:
    found = evaluate(Fixed(np.zeros((1, N_ITEMS))), split_of([[]], [[4]]))
    assert found.per_example["rank"].to_list() == [3.0]
    assert found.metrics["hr@5"]["mean"] == 1


def test_what_a_list_leaves_out_is_missed() -> None:
    table = np.arange(N_ITEMS, 0, -1)[None]
    config = EvaluationConfig(cutoffs=(2,), headline="hr@2")
    found = evaluate(Listing(Fixed(table)), split_of([[]], [[1, 6]]), config).per_example
    assert found.select("rank", "hr@2", "recall@2").row(0) == (1.0, 1.0, 0.5)


def test_seen_targets_are_unreachable_only_where_seen_items_are_excluded() -> None:
    table = np.array([[9, 8, 7, 6, 5, 4, 3]])
    split = split_of([[0]], [[0]])
    missed = evaluate(Fixed(table), split)
    assert (missed.targets, missed.unreachable) == (1, 1)
    assert missed.metrics["hr@20"]["mean"] == 0
    found = evaluate(Fixed(table), split, EvaluationConfig(exclude_seen=False))
    assert found.unreachable == 0 and found.metrics["hr@5"]["mean"] == 1
    with pytest.raises(InputError, match="the test part has no example that can be judged"):
        evaluate(Fixed(table), split, EvaluationConfig(unreachable="skip"))


def test_summary_names_the_protocol_and_errors_are_of_the_mean() -> None:
    table = np.array([[9, 0, 0, 0, 0, 0, 0]] * 4)
    found: Evaluation = evaluate(
        Fixed(table), split_of([[]] * 4, [[0], [0], [0], [6]]), EvaluationConfig(cutoffs=(1,), headline="recall@1")
    )
    assert found.metrics["hr@1"] == found.metrics["recall@1"]
    assert found.metrics["hr@1"]["mean"] == 0.75
    assert found.metrics["hr@1"]["standard_error"] == pytest.approx(0.5 / 2)
    summary = found.summary()
    assert (summary["part"], summary["n"], summary["targets"], summary["unreachable"]) == ("test", 4, 4, 0)
    assert "all items, seen items excluded" in summary["protocol"]
    open_ = EvaluationConfig(exclude_seen=False, candidates="train", unreachable="skip").protocol()
    assert "items of the training part, seen items NOT excluded" in open_ and "left out of the mean" in open_


@pytest.mark.parametrize("wrap", [lambda model: model, Listing])
def test_scores_that_are_no_numbers_are_refused(wrap: Callable[[Scorer], Recommender]) -> None:
    table = np.array([[1, np.nan, 3, 4, 5, 6, 7]])
    with pytest.raises(InputError, match="predicts scores that are not numbers: its training diverged"):
        evaluate(wrap(Fixed(table)), split_of([[]], [[1]]))


def test_the_valid_part_can_judge() -> None:
    table = np.array([[9, 8, 7, 6, 5, 4, 3]])
    split = split_of([[]], [[6]])
    split = replace(split, valid=split_of([[]], [[0]]).valid)
    config = EvaluationConfig(cutoffs=(1,), headline="hr@1", part="valid")
    assert evaluate(Fixed(table), split, config).metrics["hr@1"]["mean"] == 1
    assert validation_figures(Fixed(table), split.valid) == {"ndcg@10": 1.0, "hr@10": 1.0}


@pytest.mark.parametrize(
    "wrong", [{"cutoffs": [0, 5]}, {"cutoffs": []}, {"headline": "ndcg@7"}, {"part": "train"}, {"cutoff": 5}]
)
def test_bad_configs_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        EvaluationConfig.model_validate(wrong)
