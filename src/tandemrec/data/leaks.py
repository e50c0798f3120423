"""The leak check: does anything a model may look at lie after what it is asked?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tandemrec.data.examples import Examples, IntArray, Ragged


@dataclass(frozen=True)
class Leak:
    """One question: how many of how many cases look into the future, and how many are undecided by equal times."""

    question: str
    cases: int
    leaks: int
    ties: int

    def line(self) -> str:
        """One line for a report."""
        verdict = "none" if self.leaks == 0 else f"LEAK: {self.leaks:,} of {self.cases:,}"
        ties = f", {self.ties:,} at equal times" if self.ties else ""
        return f"{self.question}: {verdict} ({self.cases:,} checked{ties})"


@dataclass(frozen=True)
class LeakReport:
    """All questions that were asked of a split. Equal times are counted apart: they are no leak, but no proof either.

    A leak does not stop a run, because a split column of the user's own may mean it; it stands in every report.
    """

    checks: tuple[Leak, ...] = ()
    timed: bool = True

    @property
    def clean(self) -> bool:
        """Whether nothing leaks."""
        return all(check.leaks == 0 for check in self.checks)

    def lines(self) -> list[str]:
        """One line a question."""
        untimed = [] if self.timed else ["times: the data have none, so the order itself cannot be checked"]
        return [*(check.line() for check in self.checks), *untimed]

    def rows(self) -> dict[str, Any]:
        """JSON-able content."""
        return {"timed": self.timed, "checks": [asdict(check) for check in self.checks]}

    @classmethod
    def from_rows(cls, rows: Mapping[str, Any]) -> LeakReport:
        """What `rows` gave."""
        return cls(tuple(Leak(**check) for check in rows["checks"]), rows["timed"])


def find_leaks(
    parts: Mapping[str, Examples], sequences: Ragged, times: IntArray | None, *, by_time: bool
) -> LeakReport:
    """Ask a split everything that must not be so.

    Args:
        parts: `train`, `valid` and `test`, their histories and targets views over the items of `sequences`.
        sequences: training items of every user.
        times: of every item of `sequences.values`; None where the data have none.
        by_time: whether the protocol promises that all training lies before all testing.
    """
    checks = [_strays(parts, sequences)]
    if times is not None:
        checks += [_future_histories(part, examples, times) for part, examples in parts.items()]
    if times is not None and by_time:
        test, valid = parts["test"].timestamp, parts["valid"].timestamp
        trained = times[sequences.positions()]
        chosen = times[parts["valid"].target.positions()]
        checks.append(_later("training later than the first test event", trained, test))
        checks.append(_later("training later than the first validation event", trained, valid))
        checks.append(_later("validation later than the first test event", chosen, test))
    return LeakReport(tuple(checks), timed=times is not None)


def _strays(parts: Mapping[str, Examples], sequences: Ragged) -> Leak:
    """Training examples that reach outside the user's training sequence, and other targets that lie inside it."""
    train = parts["train"]
    outside = train.target.stops > sequences.stops[train.user]
    outside |= train.history.starts < sequences.starts[train.user]
    wrong, cases = int(outside.sum()), len(train)
    for part in ("valid", "test"):
        examples = parts[part]
        wrong += int((examples.target.starts < sequences.stops[examples.user]).sum())
        cases += len(examples)
    return Leak("training examples outside, or other targets inside, the training sequences", cases, wrong, 0)


def _future_histories(part: str, examples: Examples, times: IntArray) -> Leak:
    """Examples of which some history item is later than the earliest target."""
    question = f"{part}: history later than its target"
    asked = np.flatnonzero((examples.history.lengths > 0) & (examples.target.lengths > 0))
    if not len(asked):
        return Leak(question, 0, 0, 0)
    history, target = examples.history.take(asked), examples.target.take(asked)
    latest = times[history.stops - 1] if _sorted_within(times, history) else _reduce(np.maximum, times, history)
    earliest = _reduce(np.minimum, times, target)
    return Leak(question, len(asked), int((latest > earliest).sum()), int((latest == earliest).sum()))


def _later(question: str, before: IntArray, after: IntArray) -> Leak:
    if not len(before) or not len(after):
        return Leak(question, len(before), 0, 0)
    first = after.min()
    return Leak(question, len(before), int((before > first).sum()), int((before == first).sum()))


def _sorted_within(times: IntArray, rows: Ragged) -> bool:
    """Whether times never fall within any row: then a row's latest time is its last, however much rows overlap."""
    falls: NDArray[np.int64] = np.concatenate([[0], np.cumsum(np.diff(times) < 0)])
    return bool((falls[rows.stops - 1] == falls[rows.starts]).all())


def _reduce(function: np.ufunc, times: IntArray, rows: Ragged) -> IntArray:
    """`function` over the times of every row (none empty); the odd places of `reduceat` are the gaps between rows."""
    bounds = np.stack([rows.starts, rows.stops], 1).ravel()
    reduced: IntArray = function.reduceat(np.append(times, times[-1:]), bounds)[::2]
    return reduced
