"""Whole-sequence training batches: one row a user, a loss at every position, little padding, shared negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tandemrec.data.examples import IntArray, ItemArray, Ragged


@dataclass(frozen=True)
class SequenceBatch:
    """Rows that are run through a model together: items 0…n-2 of a row are inputs, items 1…n-1 their targets.

    Attributes:
        rows: b rows of at least two items.
        negatives: drawn items: one a target, row after row (N,), or K shared by all of them; None where none are used.
    """

    rows: Ragged
    negatives: ItemArray | None

    @property
    def n_targets(self) -> int:
        """Number of targets N."""
        return int((self.rows.lengths - 1).sum())

    @property
    def inputs(self) -> Ragged:
        """Every row without its last item."""
        return Ragged(self.rows.values, self.rows.starts, self.rows.stops - 1)

    @property
    def targets(self) -> ItemArray:
        """The next item at every input position, row after row; shape (N,)."""
        return Ragged(self.rows.values, self.rows.starts + 1, self.rows.stops).flat()


def training_rows(sequences: Ragged, max_length: int, *, chunks: bool) -> Ragged:
    """Rows of at most `max_length` inputs and as many targets; sequences of fewer than two items give none.

    Args:
        sequences: one a user, oldest first.
        max_length: most inputs of a row.
        chunks: also cut what lies before the last `max_length` + 1 items into rows, so that every item but a user's
            first is a target exactly once; otherwise it is left out.
    """
    long_enough = sequences.take(np.flatnonzero(sequences.lengths >= 2))
    if not chunks:
        return long_enough.tail(max_length + 1)
    pieces = -(-(long_enough.lengths - 1) // max_length)
    owner = np.repeat(np.arange(len(long_enough)), pieces)
    from_end = np.arange(len(owner)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    stops = long_enough.stops[owner] - from_end * max_length
    starts = np.maximum(long_enough.starts[owner], stops - max_length - 1)
    return Ragged(sequences.values, starts, stops)


def epoch_batches(
    rows: Ragged, rng: np.random.Generator, *, batch_size: int, micro_batch_tokens: int
) -> list[list[IntArray]]:
    """Row numbers of every micro-batch of every optimiser step of an epoch.

    A step is `batch_size` rows in random order. Inside a step rows are sorted by length and cut into micro-batches of
    about `micro_batch_tokens` inputs: little padding is computed and memory stays bounded, while the step's gradient is
    that of the whole batch.
    """
    order = rng.permutation(len(rows))
    lengths = rows.lengths - 1
    steps = []
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        chosen = chosen[np.argsort(lengths[chosen], kind="stable")]
        steps.append(cut_by_tokens(chosen, lengths[chosen], micro_batch_tokens))
    return steps


def cut_by_tokens(rows: IntArray, lengths: IntArray, tokens: int) -> list[IntArray]:
    """Cut `rows` into consecutive groups of about `tokens` entries each, of at least one row."""
    group = (np.cumsum(lengths) - lengths) // tokens
    return np.split(rows, np.flatnonzero(np.diff(group)) + 1)


def shared_negatives(n_items: int, count: int, steps: int, rng: np.random.Generator) -> Sequence[ItemArray]:
    """For each step `count` different uniform items (all of them in a smaller catalogue)."""
    count = min(count, n_items)
    return [rng.choice(n_items, count, replace=False, shuffle=False).astype(np.int32) for _ in range(steps)]
