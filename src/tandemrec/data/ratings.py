"""Pairs of a user and an item, and the ratings of a split's parts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tandemrec.data.examples import Examples, IntArray
from tandemrec.data.split import Split
from tandemrec.errors import InputError

NOBODY = -1
"""A user (or item) that the data do not have: all its fields are unknown."""


@dataclass(frozen=True)
class Pairs:
    """B questions "how would this user rate this item?": `user` (B,) and `item` (B,), encoded ids or `NOBODY`."""

    user: NDArray[np.int32]
    item: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: IntArray | slice) -> Pairs:
        """The chosen pairs, in the given order."""
        return Pairs(self.user[rows], self.item[rows])


@dataclass(frozen=True)
class Ratings:
    """B rated pairs; `value` (B,) float32."""

    pairs: Pairs
    value: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.value)


def training_ratings(split: Split) -> Ratings:
    """Every training interaction, user after user (not only the sub-sample of `split.train`).

    Raises:
        InputError: if one of them has no rating.
    """
    users = split.sequences.rows().astype(np.int32)
    return _rated(split, users, split.sequences.flat(), split.sequences.positions())


def target_ratings(split: Split, examples: Examples) -> tuple[Ratings, IntArray]:
    """Every target of a part as a rated pair, and the example it belongs to, shape (B,).

    Raises:
        InputError: if one of them has no rating.
    """
    example = examples.target.rows()
    rated = _rated(split, examples.user[example], examples.target.flat(), examples.target.positions())
    return rated, example


def _rated(split: Split, users: NDArray[np.int32], items: NDArray[np.int32], places: IntArray) -> Ratings:
    rows = places if split.order is None else split.order[places]
    values = split.dataset.interactions["rating"].gather(rows)
    missing = values.is_null() | values.is_nan()
    if missing.any():
        raise InputError(
            f"{split.dataset.name}, column 'rating': {int(missing.sum()):,} of {len(values):,} interactions have no "
            f"rating, such as that of user '{split.dataset.users['user_id'][int(users[missing.arg_max() or 0])]}'"
        )
    return Ratings(Pairs(users, items), values.to_numpy())
