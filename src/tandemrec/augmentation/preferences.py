"""Data that a language model adds to the training part: preferred items of pairs, and items it would insert."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import polars as pl
import torch
from pydantic import Field

from tandemrec.aggregation.utilities import opinions
from tandemrec.data.examples import Examples, IntArray, ItemArray, Ragged
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.recommender import Config, Recommender, Reranker, Scorer


class PairsConfig(Config):
    """Llama4Rec's direct augmentation (eq. 2 and 3): which of two unmet items a user would rather have."""

    method: Literal["pairs"]
    """Which augmentation this is."""

    per_user: int = Field(1, ge=1, le=100)
    """Pairs of each user."""

    share: float = Field(1.0, gt=0, le=1)
    """Share of the users who get any, drawn at random."""

    @property
    def offered(self) -> int:
        """Items that are compared."""
        return 2


class InsertionsConfig(Config):
    """Llama4Rec's sequential augmentation: an unmet item that the user would like, somewhere in the history."""

    method: Literal["insertions"]
    """Which augmentation this is."""

    offered: int = Field(10, ge=2, le=100)
    """Unmet items that the language model chooses from."""

    per_user: int = Field(1, ge=1, le=100)
    """Insertions into each history."""

    share: float = Field(1.0, gt=0, le=1)
    """Share of the users who get any, drawn at random."""


AugmentationConfig = Annotated[PairsConfig | InsertionsConfig, Field(discriminator="method")]


def augment(split: Split, config: AugmentationConfig, judge: Recommender, name: str, seed: int) -> pl.DataFrame:
    """Ask about items drawn uniformly from those outside a user's training items.

    That validation and test items are among them is right: to leave them out would tell that they come later.

    Args:
        split: the data; the validation and test parts are not looked at.
        config: what is asked, and how often.
        judge: a ranker, or any system that scores.
        name: of the judge, for messages.
        seed: of what is drawn.

    Returns:
        One row an answer, by user: `user`, `chosen`, `offered` (list) and, for pairs, `rejected`; for insertions,
        `place`, before which training item it goes (never behind the last). Unreadable answers give no row.

    Raises:
        InputError: if the judge cannot be asked, or a user leaves too few items.
    """
    rng = np.random.default_rng(seed)
    users = np.flatnonzero(split.user_counts > 0)
    users = np.sort(rng.permutation(users)[: max(1, round(config.share * len(users)))])
    asked = np.repeat(users, config.per_user)
    history = split.sequences.take(asked)
    nothing = Ragged.from_lengths(np.empty(0, np.int32), np.zeros(len(asked), np.int64))
    examples = Examples(asked.astype(np.int32), history, nothing, history, np.zeros(len(asked), np.int64))
    items_BK = _unmet(examples, split.n_items, config.offered, rng)
    if isinstance(judge, Reranker) and isinstance(judge.base, Scorer):
        items_BK = _in_order_of(judge.base, examples, items_BK)
    utility_BK = opinions(judge, name, examples, items_BK)
    readable = np.flatnonzero(~np.isnan(utility_BK).all(1))
    best = np.nanargmax(utility_BK[readable], axis=1)
    items_BK = items_BK[readable]
    rows = np.arange(len(readable))
    columns = {"user": asked[readable].astype(np.int32), "chosen": items_BK[rows, best]}
    if config.method == "pairs":
        columns["rejected"] = items_BK[rows, 1 - best]
    else:
        columns["place"] = rng.integers(split.user_counts[asked[readable]]).astype(np.int32)
    return pl.DataFrame(columns).with_columns(offered=pl.Series(items_BK.tolist(), dtype=pl.List(pl.Int32)))


def targets_among(frame: pl.DataFrame, examples: Examples, n_items: int) -> int:
    """How many rows offered an item that the user's example asks for: legal, but worth knowing."""
    targets = examples.user[examples.target.rows()].astype(np.int64) * n_items + examples.target.flat()
    rows = frame.with_row_index("row").explode("offered")
    hit = np.isin(rows["user"].to_numpy().astype(np.int64) * n_items + rows["offered"].to_numpy(), targets)
    return int(rows.filter(pl.Series(hit))["row"].n_unique())


def inserted(split: Split, frame: pl.DataFrame) -> Split:
    """The split whose training histories hold the chosen items; validation and test parts are the same.

    Several items of one place keep the order of their rows. Places behind the end of a history, which earlier parts
    of it have (`data.origins`), get nothing.
    """
    lengths = split.sequences.lengths
    frame = frame.filter(pl.Series(frame["place"].to_numpy() < lengths[frame["user"].to_numpy()]))
    old_user, old = split.sequences.rows(), split.sequences.flat()
    place = np.arange(len(old)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    user, new, before = (frame[name].to_numpy().astype(np.int64) for name in ("user", "chosen", "place"))
    # An insertion sorts just before the item of its place.
    order = np.lexsort(
        (
            np.concatenate([np.full(len(old), len(new)), np.arange(len(new))]),
            np.concatenate([place, before]),
            np.concatenate([old_user, user]),
        )
    )
    values = np.concatenate([old, new.astype(np.int32)])[order]
    longer = lengths + np.bincount(user, minlength=len(lengths))
    return replace(split, sequences=Ragged.from_lengths(values, longer))


def _unmet(examples: Examples, n_items: int, k: int, rng: np.random.Generator) -> ItemArray:
    """K different items (B, K) for each example, uniform over those outside its history: a row is drawn again until it
    is one.
    """
    n = len(examples)
    met = np.unique(examples.history.rows() * n_items + examples.history.flat())
    most = int(np.bincount(met // n_items, minlength=1).max(initial=0))
    if n_items - most < k:
        raise InputError(f"key 'data.offered': found {k}, but a user leaves only {n_items - most} items unmet")
    drawn: IntArray = rng.integers(n_items, size=(n, k))
    left = np.arange(n)
    while len(left):
        rows = drawn[left]
        ordered = np.sort(rows, axis=1)
        wrong = (ordered[:, 1:] == ordered[:, :-1]).any(1) | np.isin(rows + left[:, None] * n_items, met).any(1)
        left = left[wrong]
        drawn[left] = rng.integers(n_items, size=(len(left), k))
    return drawn.astype(np.int32)


def _in_order_of(base: Scorer, examples: Examples, items_BK: ItemArray) -> ItemArray:
    """The items of each row, best first by a base: what its hint is made of."""
    found, at = np.empty_like(items_BK), 0
    for block in examples.blocks(base.rows_at_once(int(items_BK.max(initial=0)) + 1)):
        items = torch.from_numpy(items_BK[at : at + len(block)].astype(np.int64))
        value = base.scores(block).float().cpu().gather(1, items)
        order = value.argsort(dim=1, descending=True, stable=True)
        found[at : at + len(block)] = items.gather(1, order).numpy()
        at += len(block)
    return found
