"""`Examples`: history → target(s), as column arrays. Windows are views, so a million of them copy nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
ItemArray = NDArray[np.int32]


@dataclass(frozen=True)
class Ragged:
    """Rows of unequal length over one flat array: row b is `values[starts[b]:stops[b]]`. Rows may overlap."""

    values: ItemArray
    starts: IntArray
    stops: IntArray

    @classmethod
    def from_lists(cls, rows: Iterable[Sequence[int]]) -> Ragged:
        """Build from Python lists (small data, tests, requests of a service)."""
        arrays = [np.asarray(row, np.int32) for row in rows]
        lengths = np.array([len(array) for array in arrays], np.int64)
        return cls.from_lengths(np.concatenate(arrays) if arrays else np.empty(0, np.int32), lengths)

    @classmethod
    def from_lengths(cls, values: ItemArray, lengths: IntArray) -> Ragged:
        """Rows laid one after another in `values` (N,), row b having `lengths[b]` items."""
        stops = np.cumsum(lengths, dtype=np.int64)
        return cls(np.asarray(values, np.int32), stops - lengths, stops)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, row: int) -> ItemArray:
        return self.values[self.starts[row] : self.stops[row]]

    def __iter__(self) -> Iterator[ItemArray]:
        return (self[row] for row in range(len(self)))

    @property
    def lengths(self) -> IntArray:
        """Row lengths, shape (B,)."""
        return self.stops - self.starts

    def take(self, rows: IntArray | slice) -> Ragged:
        """The chosen rows, in the given order, still over the same values."""
        return Ragged(self.values, self.starts[rows], self.stops[rows])

    def tail(self, length: int) -> Ragged:
        """The last `length` entries of every row (all of a shorter row)."""
        return Ragged(self.values, np.maximum(self.starts, self.stops - length), self.stops)

    def rows(self) -> IntArray:
        """The row number of every entry of `flat()`, shape (sum of lengths,)."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def flat(self) -> ItemArray:
        """All entries, row after row; shape (sum of lengths,)."""
        return self.values[self.positions()]

    def padded(self, width: int, pad: int, side: Literal["left", "right"] = "left") -> ItemArray:
        """The last `width` entries of every row as a (B, width) array, `pad` added at `side`."""
        kept = self.tail(width)
        out = np.full((len(self), width), pad, np.int32)
        within = np.arange(width)
        lengths = kept.lengths[:, None]
        mask = within >= width - lengths if side == "left" else within < lengths
        out[mask] = kept.flat()
        return out

    def compact(self) -> Ragged:
        """The same rows over an array of their own: cheap to pickle, save or send."""
        return Ragged.from_lengths(self.flat(), self.lengths)

    def positions(self) -> IntArray:
        """Places in `values` of every entry of `flat()`."""
        lengths = self.lengths
        first = np.cumsum(lengths) - lengths
        positions: IntArray = np.arange(int(lengths.sum())) + np.repeat(self.starts - first, lengths)
        return positions


@dataclass(frozen=True)
class Examples:
    """B questions "what comes next?" with their answers.

    Attributes:
        user: (B,) int32.
        history: what a model may look at, oldest first.
        target: the answer: one item for next-item protocols, several for multi-target ones.
        seen: everything the user had met when the question was asked; at least `history`, longer where a protocol
            caps the history. `exclude_seen` means these.
        timestamp: (B,) int64, time of the (first) target.
    """

    user: NDArray[np.int32]
    history: Ragged
    target: Ragged
    seen: Ragged
    timestamp: IntArray

    @classmethod
    def from_histories(cls, histories: Iterable[Sequence[int]], users: Sequence[int] | None = None) -> Examples:
        """Questions without answers, for serving: the targets are empty and everything in the history is seen."""
        history = Ragged.from_lists(histories)
        n = len(history)
        nobody = np.full(n, -1, np.int32) if users is None else np.asarray(users, np.int32)
        return cls(nobody, history, Ragged.from_lists([[]] * n), history, np.zeros(n, np.int64))

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: IntArray | slice) -> Examples:
        """The chosen examples, in the given order."""
        return Examples(
            self.user[rows], self.history.take(rows), self.target.take(rows), self.seen.take(rows), self.timestamp[rows]
        )

    def blocks(self, size: int) -> Iterator[Examples]:
        """Consecutive blocks of at most `size` examples."""
        return (self.take(slice(start, start + size)) for start in range(0, len(self), size))
