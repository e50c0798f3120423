"""Instructions: what they ask, what they answer, and that no answer was seen by who gives the hint."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from tandemrec.data.dataset import Dataset
from tandemrec.data.origins import earlier
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.ratings import Pairs
from tandemrec.data.split import Split, make_split
from tandemrec.errors import InputError
from tandemrec.llm.instructions import (
    InstructionsConfig,
    Origin,
    RatingInstructionsConfig,
    read_instructions,
    write_instructions,
)
from tandemrec.llm.questions import QuestionConfig
from tandemrec.recommender import RatingPredictor
from tests.fixed import Fixed

PROMPT = QuestionConfig(template="compact", history=4, similar=2)


def origin(split: Split, number: int = 0, seed: int = 0) -> Origin:
    """A base that likes the items asked about a little."""
    known = earlier(split, number, 1, 2)
    table = np.random.default_rng(seed).normal(size=(60, 24))
    for user, target in zip(known.test.user, known.test.target, strict=True):
        table[user, target] += 1.0
    vectors = torch.from_numpy(np.random.default_rng(1).normal(size=(60, 4)))
    return Origin(known, known.test, Fixed(table), vectors)


def written(split: Split, seed: int = 3, **settings: Any) -> pl.DataFrame:
    config = InstructionsConfig.model_validate({"origins": 1, "horizon": 2, "named": 3, "like": 40} | settings)
    counts: Any = {"listwise": config.listwise, "like": config.like}
    return write_instructions([origin(split)], counts, config, PROMPT, 6, seed)


def test_listwise_candidates_are_the_bases_list_and_answers_name_what_follows(split: Split) -> None:
    first, titles = origin(split), split.dataset.titles
    base = first.base.rank(first.questions, 6).items  # type: ignore[union-attr]
    frame = written(split).filter(pl.col("task") == "listwise")
    row_of = dict(zip(first.questions.user.tolist(), range(len(first.questions)), strict=True))
    assert frame.height == sum(bool(set(base[r]) & set(first.questions.target[r])) for r in row_of.values())
    for row in frame.iter_rows(named=True):
        place = row_of[row["user"]]
        targets = first.questions.target[place].tolist()
        assert row["prediction"] == base[place].tolist()
        assert sorted(row["candidates"]) == sorted(base[place].tolist())
        assert row["history"] == first.questions.history[place][-4:].tolist()
        assert not set(targets) & set(row["history"])
        reached = [item for item in targets if item in base[place]]
        others = [item for item in base[place].tolist() if item not in targets]
        assert row["answer"] == "; ".join(f'"{titles[i]}"' for i in [*reached, *others][:3])
        assert row["prompt"].endswith("\nranking:")
    pairs = frame.select("candidates", "prediction").rows()
    assert len({shown.index(order[0]) for shown, order in pairs}) > 2


def test_half_of_the_yes_questions_are_yes_and_tell_the_place(split: Split) -> None:
    first = origin(split)
    frame = written(split, like=1000).filter(pl.col("task") == "like")
    assert set(frame["answer"]) == {"Yes", "No"}
    assert 0.4 < (frame["answer"] == "Yes").mean() < 0.6  # type: ignore[operator]
    users = first.questions.user.tolist()
    base = first.base.rank(first.questions, 6).items  # type: ignore[union-attr]
    for row in frame.iter_rows(named=True):
        place = users.index(row["user"])
        assert (row["item"] in first.questions.target[place]) == (row["answer"] == "Yes")
        assert row["hint"] == f"place {base[place].tolist().index(row['item']) + 1} of 6"
        assert row["prompt"].endswith(f'item: "{split.dataset.titles[row["item"]]}"\nhint: {row["hint"]}\nlikes:')


def test_random_candidates_hold_all_that_follows_in_the_bases_order(split: Split) -> None:
    first = origin(split)
    frame = written(split, source="random").filter(pl.col("task") == "listwise")
    assert frame.height == len(first.questions)
    scores = first.base.table.numpy()  # type: ignore[union-attr]
    for row in frame.iter_rows(named=True):
        place = first.questions.user.tolist().index(row["user"])
        assert set(first.questions.target[place].tolist()) <= set(row["candidates"])
        assert len(set(row["candidates"])) == 6
        assert not set(row["candidates"]) & set(first.questions.history[place].tolist())
        assert (np.diff(scores[row["user"], row["prediction"]]) <= 0).all()


def test_sampled_mixed_filtered_and_the_same_for_a_seed(split: Split) -> None:
    few = written(split, listwise=10, like=7)
    assert few.group_by("task").len().sort("task").rows() == [("like", 7), ("listwise", 10)]
    assert few["task"].to_list() != sorted(few["task"].to_list())
    assert few.equals(written(split, listwise=10, like=7))
    assert not few.equals(written(split, seed=4, listwise=10, like=7))
    assert written(split, min_interactions=4)["history"].list.len().min() == 4
    twice = write_instructions([origin(split), origin(split)], {"listwise": 5000}, InstructionsConfig(), PROMPT, 6, 3)
    assert twice.height == twice.select("user").n_unique()
    with pytest.raises(InputError, match="gives no instruction of this task"):
        written(split, min_interactions=5)


def test_a_task_that_the_data_do_not_have_may_be_left_out(split: Split) -> None:
    counts: Any = {"like": 20, "rating": 20}  # of data without ratings
    config = InstructionsConfig(source="random")
    with pytest.raises(InputError, match=r"key 'instructions.rating': the training part gives no instruction"):
        write_instructions([origin(split)], counts, config, PROMPT, 6, 3)
    frame = write_instructions([origin(split)], counts, config, PROMPT, 6, 3, complete=False)
    assert frame["task"].to_list() == ["like"] * 20
    config = InstructionsConfig(min_interactions=50)
    assert write_instructions([origin(split)], counts, config, PROMPT, 6, 3, complete=False).is_empty()


def test_only_ratings_that_are_answers_must_be_a_scale(toy: Dataset) -> None:
    rows = toy.interactions.with_columns(rating=pl.int_range(pl.len()).cast(pl.Float32))
    fine = make_split(Dataset(rows, toy.items, toy.users, toy.clock, "finely rated toy"), LeaveOneOut())
    assert written(fine).height > 0
    with pytest.raises(InputError, match=r"column 'rating': found \d+ different ratings, expected a scale"):
        write_instructions([origin(fine)], {"rating": 5}, InstructionsConfig(), PROMPT, 6, 3)


def test_what_is_read_is_what_was_written(split: Split) -> None:
    frame = written(split)
    for (question, item, hint, answer), row in zip(read_instructions(frame), frame.iter_rows(named=True), strict=True):
        assert (question.task, question.history, question.similar) == (row["task"], row["history"], row["similar"])
        assert (item is None) == (question.task == "listwise") == (hint is None)
        assert answer == row["answer"]


class Predicted(RatingPredictor):
    def predict(self, pairs: Pairs) -> Any:
        return (pairs.item % 4 + 1.26).astype(np.float32)

    fit = save = load = None  # type: ignore[assignment]


def test_rating_instructions(split: Split) -> None:
    rows = split.dataset.interactions
    rated = split.dataset.interactions.with_columns(rating=(pl.col("item") % 5 + 1).cast(pl.Float32))
    object.__setattr__(split.dataset, "interactions", rated)
    try:
        known = earlier(split, 0, 1, 2)
        one = Origin(known, known.test, Predicted(), torch.randn(60, 4, generator=torch.Generator().manual_seed(1)))
        frame = write_instructions([one], {"rating": 5000}, RatingInstructionsConfig(), PROMPT, 0, 3)
    finally:
        object.__setattr__(split.dataset, "interactions", rows)
    assert frame.height == len(known.test.target.flat())
    for row in frame.iter_rows(named=True):
        assert row["answer"] == str(row["item"] % 5 + 1)
        assert row["hint"] == f"{row['item'] % 4 + 1.26:.1f}"
        asked = known.test.history[known.test.user.tolist().index(row["user"])].tolist()
        trained = known.sequences[row["user"]].tolist()
        expected = [float(item % 5 + 1) if item in trained else None for item in asked[-4:]]
        assert row["ratings"] == expected
        assert all(value == item % 5 + 1 for item, value in zip(row["similar"], row["similar_ratings"], strict=True))
