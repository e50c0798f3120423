"""Cleaning: what is kept of a dataset, and a table that says what was dropped and why."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from tandemrec.data.dataset import Dataset
from tandemrec.errors import InputError
from tandemrec.recommender import Config

_ENTITY = r"&(?:#[0-9]+|#[xX][0-9a-fA-F]+|[A-Za-z][A-Za-z0-9]*);"
_TAG = r"</?[A-Za-z][^<>]*>|<[A-Za-z][A-Za-z0-9]*\s+[A-Za-z-]+\s*=[^<>]*$"
"""A tag, or the beginning of one, attribute and all, that the source cut off at its end."""


class CleaningConfig(Config):
    """Steps in the order of the fields; the defaults change texts and drop only what cannot be used."""

    clean_texts: bool = True
    """Decode HTML entities, drop HTML tags and collapse white space in titles and in text attributes of items."""

    duplicates: Literal["keep", "exact", "first", "last"] = "exact"
    """Of interactions: `exact` drops repetitions equal in every column; `first`, `last` keep one a (user, item)."""

    missing_titles: Literal["drop", "id"] = "drop"
    """Items without a title are dropped, or named by their id. Data without any title keep their ids as titles."""

    placeholder_titles: str | None = None
    """Regular expression of titles that count as missing, such as `^title_[0-9]+$`."""

    title_length: int | None = Field(None, ge=8)
    """Longer titles are cut behind the last whole word within so many characters; null: none are. Where titles are what
    users wrote under their videos, a few of them fill a prompt."""

    min_rating: float | None = None
    """Interactions rated lower, or not rated, are dropped; 4 gives the likes-only protocols."""

    draw_users: int | None = Field(None, ge=1)
    """So many users are drawn at random, with all their interactions, for a smaller experiment; null: all."""

    draw_seed: int = Field(0, ge=0)
    """Seed of the draw; equal seeds draw equal users."""

    min_item_count: int = Field(1, ge=1)
    """Items with fewer interactions are dropped, once, before the k-core."""

    user_core: int = Field(1, ge=1)
    """Iterative k-core: interactions every remaining user has at least."""

    item_core: int = Field(1, ge=1)
    """Iterative k-core: interactions every remaining item has at least."""


@dataclass
class CleaningReport:
    """One row a step: what it kept, what it dropped, why."""

    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, step: str, users: int, items: int, interactions: int, why: str = "") -> None:
        """Append a step with the counts that remain after it."""
        before = self.rows[-1]["interactions"] if self.rows else interactions
        dropped = before - interactions
        counts = {"users": users, "items": items, "interactions": interactions, "dropped": dropped}
        self.rows.append({"step": step, **counts, "why": why})

    def rows_as_dicts(self) -> list[dict[str, Any]]:
        """The table as JSON-able rows."""
        return [dict(row) for row in self.rows]


def clean(dataset: Dataset, config: CleaningConfig) -> tuple[Dataset, CleaningReport]:
    """Apply the steps and encode what remains anew, in the order of the original ids.

    Raises:
        InputError: if nothing remains, or ratings are asked for that the data do not have.
    """
    report = CleaningReport()
    rows, items = dataset.interactions, dataset.items
    _report(report, "as read", rows)
    if config.clean_texts:
        items, changed = _clean_texts(items)
        _report(report, "texts", rows, f"{changed:,} titles changed: HTML entities, tags, white space")
    if config.duplicates != "keep":
        rows = _without_duplicates(rows, config.duplicates)
        _report(
            report, "duplicates", rows, "repeated rows" if config.duplicates == "exact" else "repeated (user, item)"
        )
    rows, items, why = _titled(rows, items, config)
    _report(report, "titles", rows, why)
    if config.title_length is not None:
        long = items["title"].str.len_chars() > config.title_length
        items = items.with_columns(title=_cut(pl.col("title"), config.title_length))
        why = f"{int(long.sum()):,} titles cut to {config.title_length} characters or fewer"
        _report(report, "long titles", rows, why)
    if config.min_rating is not None:
        if rows["rating"].null_count() == rows.height and rows.height:
            raise InputError(f"key 'cleaning.min_rating': {dataset.name} has no ratings")
        rows = rows.filter(pl.col("rating") >= config.min_rating)
        _report(report, "ratings", rows, f"rated below {config.min_rating:g} or not at all")
    if config.draw_users is not None:
        users = np.unique(rows["user"].to_numpy())
        if len(users) < config.draw_users:
            raise InputError(
                f"key 'cleaning.draw_users': found {config.draw_users:,}, {dataset.name} has {len(users):,} users here"
            )
        drawn = np.random.default_rng(config.draw_seed).choice(users, config.draw_users, replace=False)
        rows = rows.filter(np.isin(rows["user"].to_numpy(), drawn))
        _report(report, "drawn users", rows, f"{config.draw_users:,} users drawn with seed {config.draw_seed}")
    if config.min_item_count > 1:
        counts = np.bincount(rows["item"].to_numpy(), minlength=items.height)
        rows = rows.filter((counts >= config.min_item_count)[rows["item"].to_numpy()])
        _report(report, "rare items", rows, f"items with fewer than {config.min_item_count} interactions")
    if max(config.user_core, config.item_core) > 1:
        kept, rounds = k_core(rows["user"].to_numpy(), rows["item"].to_numpy(), config.user_core, config.item_core)
        rows = rows.filter(kept)
        why = f"users below {config.user_core} or items below {config.item_core} interactions, {rounds} rounds"
        _report(report, "k-core", rows, why)
    if not rows.height:
        raise InputError(f"{dataset.name}: cleaning left no interactions; its strictest step: {_strictest(report)}")
    return _encoded_anew(dataset, rows, items), report


def k_core(
    users: NDArray[np.int32], items: NDArray[np.int32], user_core: int, item_core: int
) -> tuple[NDArray[np.bool_], int]:
    """Largest set of rows in which every user has `user_core` rows and every item `item_core`.

    Returns:
        A mask over the rows, and the number of rounds it took.
    """
    rows = np.arange(len(users))
    rounds = 0
    while True:
        kept = (np.bincount(users[rows]) >= user_core)[users[rows]] & (np.bincount(items[rows]) >= item_core)[
            items[rows]
        ]
        rounds += 1
        if kept.all():
            break
        rows = rows[kept]
    mask = np.zeros(len(users), bool)
    mask[rows] = True
    return mask, rounds


def _report(report: CleaningReport, step: str, rows: pl.DataFrame, why: str = "") -> None:
    users, items = rows["user"].to_numpy(), rows["item"].to_numpy()
    n_users, n_items = (int(np.count_nonzero(np.bincount(codes))) if len(codes) else 0 for codes in (users, items))
    report.add(step, n_users, n_items, rows.height, why)


def _strictest(report: CleaningReport) -> str:
    row = max(report.rows, key=lambda row: row["dropped"])
    return f"{row['step']} ({row['dropped']:,} dropped: {row['why']})"


def _clean_texts(items: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    columns = [
        name
        for name, kind in items.schema.items()
        if name != "item_id" and (kind == pl.String or kind == pl.List(pl.String))
    ]
    cleaned = items.with_columns(
        (
            _clean_text(pl.col(name))
            if items.schema[name] == pl.String
            else pl.col(name).list.eval(_clean_text(pl.element())).list.drop_nulls()
        ).alias(name)
        for name in columns
    )
    changed = (items["title"].ne_missing(cleaned["title"])).sum()
    return cleaned, int(changed)


def _clean_text(text: pl.Expr) -> pl.Expr:
    """Entities first (twice: some sources escaped them twice), then tags, then white space; empty becomes null."""
    decoded = (
        pl.when(text.str.contains(_ENTITY))
        .then(text.map_elements(lambda value: html.unescape(html.unescape(value)), return_dtype=pl.String))
        .otherwise(text)
    )
    tidy = decoded.str.replace_all(_TAG, " ").str.replace_all(r"[\s\p{Cc}]+", " ").str.strip_chars()
    return pl.when(tidy == "").then(None).otherwise(tidy)


def _cut(title: pl.Expr, length: int) -> pl.Expr:
    """Up to `length` characters that end with a whole word; a longer word is cut itself."""
    whole = title.str.slice(0, length + 1).str.extract(r"(?s)^(.*\S)\s", 1)
    return (
        pl.when(title.str.len_chars() <= length).then(title).otherwise(pl.coalesce(whole, title.str.slice(0, length)))
    )


def _without_duplicates(rows: pl.DataFrame, mode: Literal["exact", "first", "last"]) -> pl.DataFrame:
    if mode == "exact":
        # Rows are sorted by user and time, so equal rows lie in one run of equal user and time; most runs are single.
        user, time = rows["user"].to_numpy(), rows["timestamp"].to_numpy()
        follows = (user[1:] == user[:-1]) & (time[1:] == time[:-1])
        shared = np.append(follows, False) | np.insert(follows, 0, False)
        places = np.flatnonzero(shared)
        first = rows[places].with_columns(place=places).unique(rows.columns, keep="first")["place"].to_numpy()
        kept = ~shared
        kept[first] = True
        return rows.filter(kept)
    return rows.unique(["user", "item"], keep=mode, maintain_order=True)


def _titled(rows: pl.DataFrame, items: pl.DataFrame, config: CleaningConfig) -> tuple[pl.DataFrame, pl.DataFrame, str]:
    if config.placeholder_titles is not None:
        try:
            placeholder = items["title"].str.contains(config.placeholder_titles).fill_null(False)
        except pl.exceptions.ComputeError:
            raise InputError(
                f"key 'cleaning.placeholder_titles': {config.placeholder_titles!r} is no regular expression"
            ) from None
        items = items.with_columns(title=pl.when(placeholder).then(None).otherwise(pl.col("title")))
    missing = items["title"].is_null()
    if config.missing_titles == "id" or missing.all():
        return rows, items.with_columns(title=pl.coalesce("title", "item_id")), "missing ones replaced by the item's id"
    kept = (~missing).to_numpy()[rows["item"].to_numpy()]
    return rows.filter(kept), items, "items without a title"


def _encoded_anew(dataset: Dataset, rows: pl.DataFrame, items: pl.DataFrame) -> Dataset:
    """Only users and items that occur, numbered without gaps in their old order, which is that of the original ids."""
    interactions = rows
    tables = {}
    for column, table in (("user", dataset.users), ("item", items)):
        present = np.flatnonzero(np.bincount(rows[column].to_numpy(), minlength=table.height))
        code = np.full(table.height, -1, np.int32)
        code[present] = np.arange(len(present), dtype=np.int32)
        interactions = interactions.with_columns(pl.Series(column, code[rows[column].to_numpy()]))
        tables[column] = table[present]
    return Dataset(interactions, tables["item"], tables["user"], dataset.clock, dataset.name)
