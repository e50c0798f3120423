"""Splits: which interactions train, which choose, which judge."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tandemrec.data.dataset import Dataset
from tandemrec.data.examples import Examples, IntArray, Ragged


@dataclass(frozen=True)
class Split:
    """A dataset cut into training, validation and test.

    Attributes:
        dataset: what was cut.
        sequences: (U rows) the training items of every user, oldest first; empty for a user without any. Models that
            learn from whole histories use these.
        train: training examples, history → next item(s). Models that learn from prompts use these; a sub-sample thins
            them and leaves `sequences` whole.
        valid: examples that choose epochs and hyper-parameters.
        test: examples that judge; looked at once.
        protocol: one line that names every choice behind a number.
    """

    dataset: Dataset
    sequences: Ragged
    train: Examples
    valid: Examples
    test: Examples
    protocol: str

    @property
    def n_items(self) -> int:
        """Number of items I."""
        return self.dataset.n_items

    @property
    def item_counts(self) -> IntArray:
        """Training interactions of every item, shape (I,)."""
        return np.bincount(self.sequences.flat(), minlength=self.n_items).astype(np.int64)

    @property
    def user_counts(self) -> IntArray:
        """Training interactions of every user, shape (U,)."""
        return self.sequences.lengths
