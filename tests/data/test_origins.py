"""Earlier parts of the training data against a loop over users."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from tandemrec.data.dataset import Dataset
from tandemrec.data.origins import earlier
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.split import Split, make_split


@pytest.fixture(scope="module")
def whole() -> Split:
    """Users with 3 to 22 interactions, so 1 to 20 for training."""
    rows = [(user, item, user * 100 + item) for user in range(20) for item in range(3 + user)]
    users, items, times = zip(*rows, strict=True)
    return make_split(
        Dataset.from_frames(pl.DataFrame({"user_id": users, "item_id": items, "timestamp": times})), LeaveOneOut()
    )


@pytest.mark.parametrize(("origins", "horizon"), [(1, 5), (2, 3), (3, 1), (2, 50)])
def test_pieces_of_every_history(whole: Split, origins: int, horizon: int) -> None:
    for number in range(origins):
        split = earlier(whole, number, origins, horizon)
        tests = dict(zip(split.test.user.tolist(), range(len(split.test)), strict=True))
        for user, items in enumerate(whole.sequences):
            n = len(items)
            size = min(horizon, max(n - 2, 0) // origins)
            if size == 0:
                assert user not in tests
                np.testing.assert_array_equal(split.sequences[user], items)
                continue
            cut = n - (number + 1) * size
            row = tests[user]
            assert cut >= 2
            np.testing.assert_array_equal(split.sequences[user], items[: cut - 1])
            np.testing.assert_array_equal(split.valid.target[row], items[cut - 1 : cut])
            np.testing.assert_array_equal(split.valid.history[row], items[: cut - 1])
            np.testing.assert_array_equal(split.test.target[row], items[cut : cut + size])
            np.testing.assert_array_equal(split.test.history[row], items[:cut])


def test_training_examples_end_before_the_cut(whole: Split) -> None:
    split = earlier(whole, 1, 2, 3)
    assert 0 < len(split.train) < len(whole.train)
    for user, history, target in zip(split.train.user, split.train.history, split.train.target, strict=True):
        trained, at = split.sequences[int(user)], int(target[0])  # items are numbered by their places
        assert at < len(trained)
        np.testing.assert_array_equal(trained[at - len(history) : at + 1], [*history, *target])


def test_real_validation_and_test_items_are_nowhere(whole: Split) -> None:
    split = earlier(whole, 0, 1, 4)
    for part in (split.train, split.valid, split.test):
        for user, target in zip(part.user, part.target, strict=True):
            assert set(target.tolist()) <= set(whole.sequences[int(user)].tolist())
