"""Tables in memory: polars, pandas or Arrow, with a column mapping, checked and encoded as a `Dataset`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import polars as pl
from pydantic import Field, model_validator

from tandemrec.data.dataset import Clock, Dataset
from tandemrec.data.sources.column import shorten
from tandemrec.data.sources.delimited import POLARS_ERRORS, reason
from tandemrec.data.sources.times import epoch
from tandemrec.errors import InputError
from tandemrec.recommender import Config

Place = Callable[[int], str]
"""Says where row r (from 0) of a table stands, for messages."""


class ColumnMapping(Config):
    """Which column of the user's tables is what. Rating, timestamp, split and title default to the column that bears
    that name, if there is one; a column that is named here must be there.
    """

    user: str = Field("user_id", min_length=1)
    """Id of the user, in the interactions and in the users table."""

    item: str = Field("item_id", min_length=1)
    """Id of the item, in the interactions and in the items table."""

    rating: str | None = Field(None, min_length=1)
    """Rating, a number in every row."""

    timestamp: str | None = Field(None, min_length=1)
    """Time, see `clock` and `time_format`."""

    split: str | None = Field(None, min_length=1)
    """Which split the interaction belongs to."""

    title: str | None = Field(None, min_length=1)
    """Title of the item, in the items table; all other columns there become attributes."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        named = [name for name in (self.user, self.item, self.rating, self.timestamp, self.split) if name is not None]
        if len(set(named)) < len(named):
            raise ValueError(f"every column can be one thing only, found {', '.join(named)}")
        return self


class TableOptions(Config):
    """What is common to tables in files and in memory."""

    columns: ColumnMapping = ColumnMapping()
    """Which column is what."""

    clock: Clock = "seconds"
    """What the timestamps are: unix seconds or milliseconds, or the place in the user's order (`none`: ignore them).
    Date-times are turned into seconds or milliseconds."""

    time_format: str | None = Field(None, min_length=1)
    """Of timestamps that are texts: `iso`, or a format such as `%d.%m.%Y %H:%M`. Without time zone they are UTC."""

    rating_range: tuple[float, float] | None = None
    """Lowest and highest allowed rating; a rating outside is an error. Default: any finite number."""

    name: str | None = Field(None, min_length=1)
    """Short name for tables; default: that of the interactions file."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.rating_range is not None and not self.rating_range[0] < self.rating_range[1]:
            raise ValueError(f"rating_range must go from low to high, found {list(self.rating_range)}")
        return self


def dataset_from_frames(
    interactions: Any, items: Any = None, users: Any = None, options: TableOptions | None = None
) -> Dataset:
    """A `Dataset` from polars, pandas or Arrow tables.

    Args:
        interactions: one row an interaction.
        items: one row an item.
        users: one row a user.
        options: which column is what, and how times are written; default: user_id, item_id and, where they are there,
            rating, timestamp (unix seconds or date-times), split, title.

    Raises:
        InputError: naming row and column of the first missing column or bad value.
    """
    options = options or TableOptions()
    frame = _to_polars(interactions, "interactions")
    rows = interaction_frame(frame, options, "interactions", lambda row: f"interactions, row {row + 1}")
    return Dataset.from_frames(
        rows,
        None if items is None else item_frame(_to_polars(items, "items"), options.columns, "items"),
        None if users is None else user_frame(_to_polars(users, "users"), options.columns, "users"),
        clock=options.clock,
        name=options.name or "data",
    )


def interaction_frame(frame: pl.DataFrame, options: TableOptions, label: str, place: Place) -> pl.DataFrame:
    """The columns that `Dataset.from_frames` wants, under its names, checked.

    Raises:
        InputError: naming row and column of the first missing column or bad value.
    """
    mapping = options.columns
    if not frame.height:
        raise InputError(f"{label}: found no rows, expected interactions")
    columns = {
        "user_id": _ids(_required(frame, mapping.user, label), label, place),
        "item_id": _ids(_required(frame, mapping.item, label), label, place),
    }
    if (rating := _find(frame, mapping.rating, "rating", label)) is not None:
        columns["rating"] = _ratings(rating, label, options.rating_range, place)
    time = None if options.clock == "none" else _find(frame, mapping.timestamp, "timestamp", label)
    if time is not None:
        columns["timestamp"] = epoch(time, options.clock, options.time_format, place)
    if (split := _find(frame, mapping.split, "split", label)) is not None:
        columns["split"] = _text(split, label)
    return pl.DataFrame(columns)


def item_frame(frame: pl.DataFrame, mapping: ColumnMapping, label: str) -> pl.DataFrame:
    """`item_id`, `title` and attributes.

    Raises:
        InputError: if a named column is missing or an id is.
    """
    ids = _ids(_required(frame, mapping.item, label), label, lambda row: f"{label}, row {row + 1}")
    title = _find(frame, mapping.title, "title", label)
    titles = [] if title is None else [_text(title, label).alias("title")]
    used = {mapping.item, *([] if title is None else [title.name])}
    attributes = [frame[name] for name in frame.columns if name not in used | {"item_id", "title"}]
    return pl.DataFrame([ids.alias("item_id"), *titles, *attributes])


def user_frame(frame: pl.DataFrame, mapping: ColumnMapping, label: str) -> pl.DataFrame:
    """`user_id` and attributes.

    Raises:
        InputError: if the id column or an id is missing.
    """
    ids = _ids(_required(frame, mapping.user, label), label, lambda row: f"{label}, row {row + 1}")
    attributes = [frame[name] for name in frame.columns if name not in {mapping.user, "user_id"}]
    return pl.DataFrame([ids.alias("user_id"), *attributes])


def _to_polars(table: Any, label: str) -> pl.DataFrame:
    if isinstance(table, pl.DataFrame):
        return table
    if isinstance(table, pl.LazyFrame):
        return table.collect()
    try:
        if type(table).__module__.partition(".")[0] == "pandas":
            return pl.from_pandas(table)
        return pl.DataFrame(pl.from_arrow(table))
    except ImportError as error:
        raise InputError(f"{label}: {error}; pip install 'tandemrec[frames]'") from None
    except (*POLARS_ERRORS, TypeError) as error:
        kind = type(table).__name__
        raise InputError(f"{label}: found {kind}, expected a polars, pandas or Arrow table: {reason(error)}") from None


def _find(frame: pl.DataFrame, named: str | None, usual: str, label: str) -> pl.Series | None:
    if named is not None:
        return _required(frame, named, label)
    return frame[usual] if usual in frame.columns else None


def _required(frame: pl.DataFrame, name: str, label: str) -> pl.Series:
    if name not in frame.columns:
        raise InputError(f"{label}: no column '{name}', found {shorten(', '.join(frame.columns))}")
    return frame[name]


def _text(values: pl.Series, label: str) -> pl.Series:
    if values.dtype.is_nested() or values.dtype == pl.Binary:
        raise InputError(f"{label}: column '{values.name}' holds {values.dtype}, expected texts or numbers")
    return values.cast(pl.String)


def _ids(values: pl.Series, label: str, place: Place) -> pl.Series:
    if values.dtype.is_float() and bool((values.is_nan() | (values == values.round())).all()):
        values = values.cast(pl.Int64, strict=False)  # whole numbers that a missing value has turned into floats
    ids = _text(values, label)
    missing = ids.is_null() | (ids == "")
    if missing.any():
        raise InputError(f"{place(int(missing.arg_max() or 0))}: column '{values.name}' is empty, expected an id")
    return ids


def _ratings(values: pl.Series, label: str, bounds: tuple[float, float] | None, place: Place) -> pl.Series:
    low, high = bounds or (-float("inf"), float("inf"))
    numbers = (
        values.cast(pl.Float64, strict=False)
        if values.dtype.is_numeric()
        else _text(values, label).cast(pl.Float64, strict=False)
    )
    wrong = ~(numbers.is_finite() & (numbers >= low) & (numbers <= high)).fill_null(False)
    if wrong.any():
        row = int(wrong.arg_max() or 0)
        expected = f"a number from {low:g} to {high:g}" if bounds else "a finite number"
        raise InputError(f"{place(row)}: column '{values.name}' holds {shorten(values[row])}, expected {expected}")
    return numbers
