"""What is asked and added, against loops, and that nothing but the training part is touched."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from pydantic import TypeAdapter

from tandemrec.augmentation.preferences import AugmentationConfig, augment, inserted, targets_among
from tandemrec.data.examples import Examples, ItemArray, Ragged
from tandemrec.data.origins import earlier
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.recommender import FloatArray, Recommender, Reranker
from tests.fixed import Fixed


def config(**settings: Any) -> Any:
    return TypeAdapter(AugmentationConfig).validate_python(settings)


TABLE = np.random.default_rng(0).normal(size=(60, 24))
PAIRS = config(method="pairs", per_user=3)
INSERTIONS = config(method="insertions", offered=5, per_user=2)


@pytest.mark.parametrize("settings", [PAIRS, INSERTIONS])
def test_the_judges_favourite_of_unmet_items(split: Split, settings: Any) -> None:
    frame = augment(split, settings, Fixed(TABLE), "judge", 1)
    assert frame.height == 60 * settings.per_user
    assert frame.equals(augment(split, settings, Fixed(TABLE), "judge", 1))
    assert not frame.equals(augment(split, settings, Fixed(TABLE), "judge", 2))
    for row in frame.iter_rows(named=True):
        offered = row["offered"]
        assert len(set(offered)) == settings.offered
        assert not set(offered) & set(split.sequences[row["user"]].tolist())
        assert row["chosen"] == max(offered, key=lambda item: TABLE[row["user"], item])
        if settings is PAIRS:
            assert {row["chosen"], row["rejected"]} == set(offered)
        else:
            assert 0 <= row["place"] < len(split.sequences[row["user"]])


def test_every_unmet_item_is_equally_likely_and_targets_are_not_left_out(split: Split) -> None:
    many = augment(split, config(method="pairs", per_user=100), Fixed(TABLE), "judge", 1)
    counts = np.zeros((60, 24))
    np.add.at(counts, (np.repeat(many["user"].to_numpy(), 2), many["offered"].explode().to_numpy()), 1)
    unmet = np.ones((60, 24), bool)
    for user, items in enumerate(split.sequences):
        unmet[user, items] = False
    assert (counts[~unmet] == 0).all()
    expected = 200 / unmet.sum(1, keepdims=True)
    assert np.abs((counts - expected)[unmet]).max() < 5 * np.sqrt(expected.max())
    slow = sum(
        bool({*row["offered"]} & {*split.test.target[row["user"]].tolist()}) for row in many.iter_rows(named=True)
    )
    assert targets_among(many, split.test, 24) == slow > 0


def test_a_share_of_the_users(split: Split) -> None:
    frame = augment(split, config(method="pairs", share=0.25), Fixed(TABLE), "judge", 1)
    assert frame["user"].n_unique() == frame.height == 15


class Silent(Reranker):
    """Has no opinion of odd users; remembers what it was asked."""

    base = Fixed(TABLE)
    depth = 2
    asked: list[np.ndarray]

    def utilities(self, examples: Examples, items: ItemArray) -> FloatArray:
        self.asked = [items]
        found = np.zeros(items.shape, np.float32)
        found[:, 1] = 1
        found[examples.user % 2 == 1] = np.nan
        return found

    fit = save = load = None  # type: ignore[assignment]


def test_rankers_see_the_bases_order_and_unreadable_answers_add_nothing(split: Split) -> None:
    judge = Silent()
    frame = augment(split, PAIRS, judge, "judge", 1)
    assert frame.height == 90
    assert (frame["user"] % 2 == 0).all()
    (items,) = judge.asked
    values = np.take_along_axis(TABLE[np.repeat(np.arange(60), 3)], items.astype(int), 1)
    assert (np.diff(values) <= 0).all()
    assert (frame["chosen"] == frame["offered"].list.get(1)).all()


def test_a_base_that_reranks_orders_the_items_itself(split: Split) -> None:
    """A ranker over an aggregate is shown the aggregate's order, not that in which items were drawn."""

    class Turned(Silent):
        def utilities(self, examples: Examples, items: ItemArray) -> FloatArray:
            self.asked = [items]
            return -np.take_along_axis(TABLE[examples.user], items.astype(int), 1).astype(np.float32)

    judge, turned = Silent(), Turned()
    judge.base = turned  # type: ignore[assignment]
    augment(split, INSERTIONS, judge, "judge", 1)
    users = np.repeat(np.arange(60), 2)
    for (items,), sign in ((turned.asked, 1), (judge.asked, -1)):
        assert (sign * np.diff(np.take_along_axis(TABLE[users], items.astype(int), 1)) <= 0).all()


def test_a_base_that_cannot_order_items_is_refused(split: Split) -> None:
    class Lister(Recommender):
        fit = rank = save = load = None  # type: ignore[assignment]

    judge = Silent()
    judge.base = Lister()  # type: ignore[assignment,abstract]
    with pytest.raises(InputError, match=r"'judge' is asked .* in the order of its base, but a Lister cannot order"):
        augment(split, PAIRS, judge, "judge", 1)


def test_a_judge_that_knows_no_candidates_is_refused(split: Split) -> None:
    class Lister(Recommender):
        fit = rank = save = load = None  # type: ignore[assignment]

    with pytest.raises(InputError, match=r"^key 'by': 'judge' cannot be asked about given candidates"):
        augment(split, PAIRS, Lister(), "judge", 1)  # type: ignore[abstract]


def test_insertion_into_histories(split: Split) -> None:
    frame = augment(split, INSERTIONS, Fixed(TABLE), "judge", 1)
    longer = inserted(split, frame)
    for user, items in enumerate(split.sequences):
        expected = items.tolist()
        rows = frame.filter(pl.col("user") == user).sort("place", maintain_order=True)
        for shift, (item, place) in enumerate(rows.select("chosen", "place").rows()):
            expected.insert(place + shift, item)
        assert longer.sequences[user].tolist() == expected
        assert longer.sequences[user][-1] == items[-1]
    assert longer.valid is split.valid
    assert longer.test is split.test


def test_insertions_behind_the_end_of_an_earlier_part_are_left_out(split: Split) -> None:
    frame = augment(split, INSERTIONS, Fixed(TABLE), "judge", 1)
    known = earlier(split, 0, 2, 1)
    longer = inserted(known, frame)
    cut = 0
    for user, items in enumerate(known.sequences):
        rows = frame.filter(pl.col("user") == user).sort("place", maintain_order=True)
        expected = items.tolist()
        for shift, (item, place) in enumerate(rows.select("chosen", "place").rows()):
            if place < len(items):
                expected.insert(place + shift, item)
            else:
                cut += 1
        assert longer.sequences[user].tolist() == expected
    assert cut


def test_as_many_items_as_are_left_can_be_offered_and_no_more(split: Split) -> None:
    frame = augment(split, config(method="insertions", offered=18), Fixed(TABLE), "judge", 1)
    for row in frame.iter_rows(named=True):
        assert sorted([*row["offered"], *split.sequences[row["user"]].tolist()]) == list(range(24))
    with pytest.raises(InputError, match=r"^key 'data.offered': found 19, but a user leaves only 18 items unmet$"):
        augment(split, config(method="insertions", offered=19), Fixed(TABLE), "judge", 1)
    full = replace(split, sequences=Ragged.from_lists([list(range(23))] * 60))
    with pytest.raises(InputError, match=r"^a pair takes 2 items, but a user leaves only 1 item unmet$"):
        augment(full, PAIRS, Fixed(TABLE), "judge", 1)
