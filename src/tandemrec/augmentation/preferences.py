"""Data that a language model adds to the training part: preferred items of pairs, and items it would insert."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
import polars as pl
from pydantic import Field

from tandemrec.aggregation.utilities import opinions, places
from tandemrec.data.examples import Examples, ItemArray, Ragged
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.llm.recommenders.lessons import draw_unmet
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

    That validation and test items are among them is right: to leave them out would tell that they come later. A ranker
    gets them in the order of its base, which is its hint; a base that is an aggregate or a ranker itself is asked about
    them, too.

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
        InputError: if the judge cannot be asked, its base cannot order given items, or a user leaves too few.
    """
    rng = np.random.default_rng(seed)
    users = np.flatnonzero(split.user_counts > 0)
    users = np.sort(rng.permutation(users)[: max(1, round(config.share * len(users)))])
    asked = np.repeat(users, config.per_user)
    history = split.sequences.take(asked)
    nothing = Ragged.from_lengths(np.empty(0, np.int32), np.zeros(len(asked), np.int64))
    examples = Examples(asked.astype(np.int32), history, nothing, history, np.zeros(len(asked), np.int64))
    wanted = "a pair takes 2 items" if config.method == "pairs" else f"key 'data.offered': found {config.offered}"
    items_BK = draw_unmet([history], split.n_items, config.offered, rng, wanted)
    if isinstance(judge, Reranker):
        items_BK = _in_order_of(judge.base, name, examples, items_BK)
    utility_BK = opinions(judge, name, examples, items_BK, key="by")
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


def _in_order_of(base: Recommender, name: str, examples: Examples, items_BK: ItemArray) -> ItemArray:
    """The items of each row, best first by the base of the judge of that name; equal ones keep their order.

    Raises:
        InputError: if the base cannot tell.
    """
    if isinstance(base, Reranker):
        items_BK = _in_order_of(base.base, name, examples, items_BK)
    elif not isinstance(base, Scorer):
        raise InputError(
            f"key 'by': '{name}' is asked about items in the order of its base, but a {type(base).__name__} cannot "
            "order given items; name a ranker over a system that scores"
        )
    order_BK = np.argsort(places(opinions(base, name, examples, items_BK, key="by")), axis=1)
    return np.take_along_axis(items_BK, order_BK, 1)
