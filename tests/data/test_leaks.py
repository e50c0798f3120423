"""The leak check finds leaks that were put there, and nothing else."""

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from tandemrec.data.dataset import Dataset
from tandemrec.data.examples import Examples, Ragged
from tandemrec.data.leaks import LeakReport, find_leaks
from tandemrec.data.protocols import GivenColumn
from tandemrec.data.split import make_split


def examples(histories: list[tuple[int, int]], targets: list[tuple[int, int]], n: int) -> Examples:
    """One user; histories and targets as (start, stop) over the places 0…n-1."""
    values = np.arange(n, dtype=np.int32)
    history, target = (Ragged(values, *np.array(places, np.int64).reshape(-1, 2).T) for places in (histories, targets))
    return Examples(np.zeros(len(histories), np.int32), history, target, history, target.starts)


def one_user(n: int, stop: int) -> Ragged:
    return Ragged(np.arange(n, dtype=np.int32), np.array([0]), np.array([stop]))


def questions(report: LeakReport) -> dict[str, tuple[int, int, int]]:
    return {check.question: (check.cases, check.leaks, check.ties) for check in report.checks}


def test_histories_after_their_target_are_counted() -> None:
    times = np.array([0, 5, 5, 3, 9])
    parts = {
        "train": examples([(0, 1), (0, 2)], [(1, 2), (2, 3)], 5),
        "valid": examples([(0, 3)], [(3, 4)], 5),
        "test": examples([(0, 4), (0, 0)], [(4, 5), (4, 5)], 5),
    }
    report = find_leaks(parts, one_user(5, 3), times, by_time=False)
    found = questions(report)
    assert found["train: history later than its target"] == (2, 0, 1)
    assert found["valid: history later than its target"] == (1, 1, 0)
    assert found["test: history later than its target"] == (1, 0, 0)
    assert not report.clean
    assert "valid: history later than its target: LEAK: 1 of 1 (1 checked)" in report.lines()
    assert LeakReport.from_rows(report.rows()) == report


@given(
    st.lists(st.integers(0, 5), min_size=2, max_size=12).flatmap(
        lambda times: st.tuples(
            st.just(times), st.lists(st.integers(1, len(times) - 1), min_size=1, max_size=5), st.booleans()
        )
    )
)
def test_counts_equal_the_plain_reading(case: tuple[list[int], list[int], bool]) -> None:
    times, targets, ordered = case
    times = sorted(times) if ordered else times
    n = len(times)
    asked = examples([(0, place) for place in targets], [(place, n) for place in targets], n)
    none = examples([], [], n)
    report = find_leaks({"train": none, "valid": none, "test": asked}, one_user(n, 0), np.array(times), by_time=False)
    latest, earliest = [max(times[:place]) for place in targets], [min(times[place:]) for place in targets]
    pairs = list(zip(latest, earliest, strict=True))
    expected = (len(targets), sum(a > b for a, b in pairs), sum(a == b for a, b in pairs))
    assert questions(report)["test: history later than its target"] == expected


def test_training_after_the_first_test_event() -> None:
    times = np.array([0, 4, 8, 4, 6])
    parts = {
        "train": examples([(0, 1)], [(1, 2)], 5),
        "valid": examples([(0, 3)], [(4, 5)], 5),
        "test": examples([(0, 3)], [(3, 4)], 5),
    }
    parts = {name: Examples(e.user, e.history, e.target, e.seen, times[e.target.starts]) for name, e in parts.items()}
    found = questions(find_leaks(parts, one_user(5, 3), times, by_time=True))
    assert found["training later than the first test event"] == (3, 1, 1)
    assert found["training later than the first validation event"] == (3, 1, 0)
    assert found["validation later than the first test event"] == (1, 1, 0)


def test_examples_on_the_wrong_side_of_the_training_sequence() -> None:
    parts = {
        "train": examples([(0, 1), (0, 3)], [(1, 2), (3, 4)], 5),
        "valid": examples([(0, 2)], [(2, 3)], 5),
        "test": examples([(0, 4)], [(4, 5)], 5),
    }
    report = find_leaks(parts, one_user(5, 3), None, by_time=False)
    assert [(check.cases, check.leaks) for check in report.checks] == [(4, 2)]
    assert report.lines()[-1].startswith("times: the data have none")


def test_a_split_column_that_contradicts_the_times_is_flagged() -> None:
    frame = pl.DataFrame(
        {
            "user_id": ["a"] * 4,
            "item_id": ["w", "x", "y", "z"],
            "timestamp": [1, 2, 3, 4],
            "split": ["test", "valid", "train", "train"],
        }
    )
    split = make_split(Dataset.from_frames(frame), GivenColumn())
    assert not split.leaks.clean
    assert [check.leaks for check in split.leaks.checks] == [0, 0, 1, 1]
