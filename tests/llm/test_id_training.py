"""What TIGER learns from, against loops over users; its loss against one pass a target."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tandemrec.data.dataset import Dataset
from tandemrec.data.examples import Examples
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.split import Split, make_split
from tandemrec.errors import InputError
from tandemrec.llm.id_model import FIRST_DIGIT, NOBODY, IdModel, IdNetworkConfig, Reading
from tandemrec.llm.id_training import IdTask, IdTrainingConfig, Rows, Samples, Tokens, training_rows
from tandemrec.llm.semantic_ids import SemanticIds

Question = tuple[int, tuple[int, ...], int]
IDS = SemanticIds.of_codes(np.stack(np.divmod(np.arange(24) // 2, 4), 1), 4)


def cut(lengths: list[int], history: int | None) -> Split:
    """Users of those many training items; items are numbered through, so that an item tells its place."""
    rows = [(user, item) for user, n in enumerate(lengths) for item in range(n + 2)]
    events = pl.DataFrame(
        {"user_id": [u for u, _ in rows], "item_id": range(len(rows)), "timestamp": [t for _, t in rows]}
    )
    return make_split(Dataset.from_frames(events), LeaveOneOut(history=history))


def asked(rows: Rows) -> list[Question]:
    """User, what a question may see, and its answer."""
    return [
        (int(rows.user[r]), tuple(rows.items[r][:known].tolist()), int(answer))
        for r in range(len(rows))
        for known, answer in zip(rows.known[r], rows.answers[r], strict=True)
    ]


def wanted(split: Split, samples: Samples, longest: int) -> set[Question]:
    found: set[Question] = set()
    if samples in ("sequences", "last"):
        for user, row in enumerate(split.sequences):
            items = row.tolist()
            places = range(1, len(items)) if samples == "sequences" else range(max(1, len(items) - 1), len(items))
            found |= {(user, tuple(items[max(0, p - longest) : p]), items[p]) for p in places}
        return found
    best: dict[tuple[int, int], tuple[int, ...]] = {}
    for user, history, target in zip(split.train.user, split.train.history, split.train.target, strict=True):
        items = [*history.tolist(), int(target[0])]
        places = [len(items) - 1] if samples == "examples" else range(1, len(items))
        for p in places:
            seen = tuple(items[max(0, p - longest) : p])
            best[int(user), items[p]] = max(best.get((int(user), items[p]), ()), seen, key=len)
    return {(user, seen, item) for (user, item), seen in best.items()}


lengths = st.lists(st.integers(1, 12), min_size=1, max_size=6).filter(lambda n: max(n) > 1)


@given(lengths, st.sampled_from([None, 3]), st.sampled_from(get_args(Samples)), st.integers(1, 6))
def test_separate_questions_are_those_of_a_loop(n: list[int], history: int | None, samples: Samples, k: int) -> None:
    split = cut(n, history)
    rows = training_rows(split, samples, k, shared=False)
    assert rows.known.lengths.tolist() == [1] * len(rows)
    found = asked(rows)
    assert len(found) == len(set(found))
    assert set(found) == wanted(split, samples, k)


@given(lengths, st.sampled_from([None, 3]), st.sampled_from(get_args(Samples)), st.integers(1, 6))
def test_shared_rows_ask_every_question_once(n: list[int], history: int | None, samples: Samples, k: int) -> None:
    split = cut(n, history)
    rows = training_rows(split, samples, k, shared=True)
    assert rows.items.lengths.max() <= k
    whole = {(user, answer): seen for user, seen, answer in wanted(split, samples, 10**6)}
    found = asked(rows)
    assert {(user, answer) for user, _, answer in found} == set(whole)
    assert len(found) == len(whole)
    for user, seen, answer in found:
        assert seen == whole[user, answer][len(whole[user, answer]) - len(seen) :]  # the latest items, nothing else
    last = dict(sorted(whole))
    if samples in ("sequences", "last"):
        latest = {(user, answer): seen for user, seen, answer in found}
        assert all(len(latest[key]) == min(k, len(whole[key])) for key in last.items())


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(InputError, match="TIGER needs a training item behind another one, found none"):
        split = cut([3, 2], None)
        training_rows(replace(split, sequences=split.sequences.tail(1)), "sequences", 5, shared=True)


def test_histories_become_tokens() -> None:
    tokens = Tokens(IDS, users=5, max_items=2)
    assert IDS.sizes == (4, 4, 2)
    assert tokens.first_user == FIRST_DIGIT + 10
    assert tokens.vocabulary == FIRST_DIGIT + 15
    examples = Examples.from_histories([[1, 2, 3], []], users=[8, -1])
    digits = (IDS.digits_IL + np.array([0, 4, 8]) + FIRST_DIGIT).tolist()
    assert tokens.histories(examples) == [[tokens.first_user + 3, *digits[2], *digits[3]], [NOBODY]]
    assert Tokens(IDS, users=0, max_items=2).histories(examples)[0][0] == NOBODY


@pytest.mark.parametrize("reading", ["bidirectional", "causal"])
def test_the_loss_is_that_of_one_pass_a_target(reading: Reading) -> None:
    split = cut([7, 3, 5, 1], None)
    ids = SemanticIds.of_codes(np.stack(np.divmod(np.arange(split.n_items) // 2, 4), 1), 4)
    tokens = Tokens(ids, users=3, max_items=4)
    torch.manual_seed(0)
    config = IdNetworkConfig(
        dim=16, encoder_layers=1, decoder_layers=1, heads=2, head_dim=8, dropout=0, reading=reading
    )
    model = IdModel(config, tokens.vocabulary, tokens.first_user, ids.length).eval()
    rows = training_rows(split, "sequences", 4, shared=reading == "causal")
    settings = IdTrainingConfig(batch_size=6, micro_batch_tokens=40)
    task = IdTask(model, tokens, rows, settings, 1, lambda: {})
    total, weight = 0.0, 0.0
    seen: list[int] = []
    for step in task.steps(3):
        assert sum(int(rows.known.lengths[batch].sum()) for batch in step) <= 6 + 4
        for batch in step:
            total, weight = total + float(task.loss(batch).detach()), weight + task.weight(batch)
            seen += batch.tolist()
    assert sorted(seen) == list(range(len(rows)))
    literal = 0.0
    for user, history, answer in asked(rows):
        row = tokens.histories(Examples.from_histories([history], users=[user]))[0]
        answer_11L = torch.from_numpy(tokens.items()[[[answer]]])
        literal -= float(model(torch.tensor([row]), torch.tensor([[len(history)]]), answer_11L).sum().detach())
    assert total == pytest.approx(literal, rel=1e-4)
    assert weight == len(asked(rows)) * ids.length
    assert task.log_likelihood(rows) == pytest.approx(-literal / len(asked(rows)), rel=1e-4)
    repeated = [[batch.tolist() for batch in step] for step in task.steps(3)]
    assert repeated == [[batch.tolist() for batch in step] for step in task.steps(3)]
    assert any(repeated != [[batch.tolist() for batch in step] for step in task.steps(n)] for n in range(4, 9))
