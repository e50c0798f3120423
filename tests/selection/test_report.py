"""Report tables against values by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tandemrec.data.examples import Examples
from tandemrec.data.kinds import item_kinds
from tandemrec.data.split import Split
from tandemrec.selection.report import coverage_table, group_table, overlap_table, score_table
from tests.llm.conftest import split, toy  # noqa: F401


def test_score_table_holds_everything_a_trainer_needs(split: Split) -> None:  # noqa: F811
    examples = split.train.take(slice(0, 6))
    frame = score_table(split, examples, {"influence": np.arange(6.0), "effort": -np.arange(6.0)}, np.array([1, 4]))
    assert frame.columns == ["example", "user_id", "history", "target", "influence", "effort", "chosen"]
    assert frame.filter("chosen")["example"].to_list() == [1, 4]
    ids = split.dataset.items["item_id"]
    assert frame["history"][4].to_list() == [ids[int(item)] for item in examples.history[4]]
    empty = score_table(split, Examples.from_histories([[], [0]], [0, 1]), {}, np.array([0]))
    assert empty["history"].to_list() == [[], [ids[0]]]
    assert frame["target"][4].to_list() == [ids[int(examples.target[4][0])]]


def test_groups_and_overlaps_by_hand() -> None:
    scores = np.array([0.0, 0.1, 0.2, 4.0])
    rows = group_table(scores, 4, 3)
    assert [(row["size"], row["budget"]) for row in rows] == [(3, 2), (1, 1)]
    assert rows[0]["low"] == 0
    assert rows[1]["high"] == 4
    table = overlap_table({"a": np.array([1, 2, 3, 4]), "b": np.array([4, 5])})
    assert table == [{"selector": "a", "a": 1.0, "b": 0.25}, {"selector": "b", "a": 0.5, "b": 1.0}]


def test_coverage_by_hand(split: Split) -> None:  # noqa: F811
    examples = split.train
    rows = coverage_table(split, examples, {"two": np.array([0, 1])}, item_kinds(split.dataset.items, "series", ""))
    everything, two = rows
    assert everything["users"] == everything["items"] == everything["categories"] == 1
    assert two["users"] == pytest.approx(len(set(examples.user[:2].tolist())) / len(set(examples.user.tolist())))
    met = {int(i) for b in (0, 1) for i in [*examples.history[b], *examples.target[b]]}
    assert two["items"] == pytest.approx(len(met) / 24)
    assert two["categories"] == pytest.approx(len({i // 4 for i in map(_place(split), met)}) / 6)
    assert sum(two[f"popular_{p}"] for p in range(1, 6)) == pytest.approx(1)
    assert two["mean_history"] == np.mean(examples.history.lengths[:2])


def _place(split: Split):  # type: ignore[no-untyped-def]  # noqa: F811
    return lambda item: int(split.dataset.items["item_id"][item])


def test_the_most_popular_fifth_comes_first(split: Split) -> None:  # noqa: F811
    order = np.argsort(-split.item_counts, kind="stable")
    targets = split.train.target.flat()
    top = np.flatnonzero(np.isin(targets, order[:4]))
    (_, row) = coverage_table(replace(split), split.train, {"top": top})
    assert row["popular_1"] == 1
