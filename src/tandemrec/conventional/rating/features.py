"""Attributes of users and items as ids of one table: categories, sets, bucketed numbers and words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, field_validator

from tandemrec.data.dataset import Dataset
from tandemrec.data.examples import IntArray, Ragged
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.recommender import Config

Kind = Literal["category", "set", "number", "words"]
Side = Literal["users", "items"]
SIDES: tuple[Side, Side] = ("users", "items")
USED_BY: dict[str, tuple[Kind, ...]] = {
    "prefix": ("category", "set", "words"),
    "buckets": ("number",),
    "min_count": ("category", "set", "words"),
    "most": ("set", "words"),
}
"""Setting of a field → the kinds that it changes something for."""


class FieldConfig(Config):
    """How one attribute column becomes ids. The defaults suit most columns."""

    kind: Kind | None = None
    """`category`: one value; `set`: several (the mean of their vectors is used); `number`: buckets of equal share;
    `words`: the different words of a text, as a set. Null: by the column's type (list, number, else category)."""

    separator: str | None = Field(None, min_length=1)
    """Cuts a text into the values of a set; only for `set`, and needed there where the column is no list."""

    prefix: int | None = Field(None, ge=1)
    """Keep only this many first characters of every value, such as the region of a postal code; not of numbers."""

    buckets: int = Field(10, ge=2, le=1000)
    """Buckets of a number, their bounds quantiles over the training rows; only for `number`."""

    min_count: int = Field(1, ge=1)
    """Values with fewer training rows count as unknown; not for `number`."""

    most: int = Field(32, ge=1)
    """Values of a set that are kept for one user or item: its first ones; only for `set` and `words`."""


class FeaturesConfig(Config):
    """Columns of `Dataset.users` and `Dataset.items` that join the two ids, by name, each with its settings.

    A plain list of names takes every column with the defaults.
    """

    users: dict[str, FieldConfig] = Field(default_factory=dict)
    """Attributes of users."""

    items: dict[str, FieldConfig] = Field(default_factory=dict)
    """Attributes of items."""

    id_min_count: int = Field(1, ge=1)
    """Users and items with fewer training rows share the unknown id of their side."""

    @field_validator("users", "items", mode="before")
    @classmethod
    def _names_alone(cls, fields: Any) -> Any:
        if isinstance(fields, Mapping):
            return {name: {} if field is None else field for name, field in fields.items()}
        if isinstance(fields, list | tuple) and all(isinstance(name, str) for name in fields):
            return {name: {} for name in fields}
        raise ValueError(f"found {fields!r}, expected a list of names, or a mapping from names to settings")


@dataclass(frozen=True)
class EncodedField:
    """One encoded field of N users (or items).

    Attributes:
        name: such as `users.age`.
        size: different ids, the unknown one (0) included.
        codes: (N + 1, M) ids in 0…size - 1, -1 behind the end of a set; M is 1 for all fields but sets. The last row
            is that of a user (item) the data do not have: unknown.
        is_set: whether the vectors of several ids are averaged.
    """

    name: str
    size: int
    codes: IntArray
    is_set: bool


def check_columns(
    config: FeaturesConfig, dataset: Dataset, *, key: str = "features", added: Sequence[str] = ()
) -> None:
    """Refuse attributes that users or items do not have.

    Args:
        config: the attributes.
        dataset: whose users and items.
        key: of the attributes in the recipe, for the message.
        added: columns of items that come later.

    Raises:
        InputError: naming the first column that is missing.
    """
    for side, asked, there in (
        ("users", config.users, dataset.users.columns),
        ("items", config.items, [*dataset.items.columns, *added]),
    ):
        missing = [column for column in asked if column not in there]
        if missing:
            found = ", ".join(there)
            raise InputError(f"key '{key}.{side}': {dataset.name} has no column '{missing[0]}', found {found}")


def encode_fields(split: Split, config: FeaturesConfig) -> dict[Side, list[EncodedField]]:
    """The id field and the attribute fields of users and of items.

    Vocabularies, bucket bounds and counts come from the training rows alone: a value that only occurs with users or
    items without any is unknown, id 0, as is a missing one.

    Raises:
        InputError: if there is no such column, its type does not fit its kind, or a setting is for other kinds.
    """
    check_columns(config, split.dataset)
    sides: dict[Side, list[EncodedField]] = {}
    for side, counts in zip(SIDES, (split.user_counts, split.item_counts), strict=True):
        frame = split.dataset.users if side == "users" else split.dataset.items
        known = np.where(counts >= config.id_min_count, np.cumsum(counts >= config.id_min_count), 0)
        fields = [EncodedField(f"{side}.id", int(known.max(initial=0)) + 1, _with_nobody(known[:, None]), False)]
        for column, settings in (config.users if side == "users" else config.items).items():
            fields.append(_encode(frame[column], counts, settings, f"{side}.{column}"))
        sides[side] = fields
    return sides


def _encode(column: pl.Series, counts: IntArray, config: FieldConfig, name: str) -> EncodedField:
    kind = config.kind or _kind_of(column.dtype)
    _check_settings(column.dtype, kind, config, name)
    if kind == "number":
        return _encode_number(column, counts, config, name)
    values = _values(column, kind, config, name)
    rows = pl.DataFrame({"row": np.arange(len(column)), "value": values, "count": counts}).explode("value")
    rows = rows.filter(pl.col("value").is_not_null() & (pl.col("value") != "")).unique(
        ["row", "value"], keep="first", maintain_order=True
    )
    vocabulary = rows.group_by("value").agg(pl.col("count").sum()).filter(pl.col("count") >= config.min_count)
    vocabulary = vocabulary.select("value").sort("value").with_row_index("code", offset=1)
    rows = rows.join(vocabulary, on="value", how="inner", maintain_order="left")
    rows = rows.filter(pl.int_range(pl.len()).over("row") < (config.most if kind in ("set", "words") else 1))
    lengths = np.bincount(rows["row"].to_numpy(), minlength=len(column))
    sets = Ragged.from_lengths(rows["code"].to_numpy().astype(np.int32), lengths)
    codes = sets.padded(max(1, int(lengths.max(initial=0))), pad=-1, side="right").astype(np.int64)
    codes[lengths == 0, 0] = 0
    return EncodedField(name, vocabulary.height + 1, _with_nobody(codes), kind in ("set", "words"))


def _check_settings(dtype: pl.DataType, kind: Kind, config: FieldConfig, name: str) -> None:
    """Refuse what would be ignored: a setting for other kinds that is not at its default."""
    for setting, kinds in USED_BY.items():
        if kind not in kinds and getattr(config, setting) != FieldConfig.model_fields[setting].default:
            raise InputError(
                f"key 'features.{name}.{setting}': it changes nothing of a {kind}, found a column of {dtype}; "
                f"leave it out or set another kind ({', '.join(kinds)})"
            )


def _encode_number(column: pl.Series, counts: IntArray, config: FieldConfig, name: str) -> EncodedField:
    """Bucket 1 + #{bounds ≤ value}; bounds are the inner quantiles of the training rows, equal ones merged."""
    if not column.dtype.is_numeric():
        raise InputError(f"key 'features.{name}.kind': the column holds {column.dtype}, expected numbers")
    values = column.cast(pl.Float64).to_numpy()
    known = np.isfinite(values)
    trained = np.repeat(values[known], counts[known])
    if not len(trained):
        return EncodedField(name, 1, np.zeros((len(column) + 1, 1), np.int64), False)
    shares = np.arange(1, config.buckets) / config.buckets
    bounds = np.unique(np.quantile(trained, shares, method="inverted_cdf"))
    bounds = bounds[bounds > trained.min()]
    codes = np.where(known, np.searchsorted(bounds, values, side="right") + 1, 0)
    return EncodedField(name, len(bounds) + 2, _with_nobody(codes[:, None]), False)


def _values(column: pl.Series, kind: Kind, config: FieldConfig, name: str) -> pl.Series:
    """A list of texts for every row."""
    listed = isinstance(column.dtype, pl.List)
    if config.separator is not None and (kind != "set" or listed):
        raise InputError(
            f"key 'features.{name}.separator': it cuts the text of a set, found a {kind} of {column.dtype}"
        )
    if listed and kind != "set":
        raise InputError(f"key 'features.{name}.kind': the column holds lists, expected 'set', found '{kind}'")
    if kind == "set" and not listed and config.separator is None:
        raise InputError(f"key 'features.{name}.separator': the column holds {column.dtype}, expected what cuts it")
    text = column.cast(pl.List(pl.String)) if listed else column.cast(pl.String)
    frame = text.alias("text").to_frame()
    if kind == "words":
        lists = pl.col("text").str.to_lowercase().str.extract_all(r"[\p{L}\p{N}]+")
    elif kind == "set":
        lists = pl.col("text") if listed else pl.col("text").str.split(config.separator or "")
    else:
        lists = pl.concat_list("text")
    tidy = pl.element().str.strip_chars()
    if config.prefix is not None:
        tidy = tidy.str.slice(0, config.prefix)
    return frame.select(lists.list.eval(tidy))["text"]


def _kind_of(dtype: pl.DataType) -> Kind:
    if isinstance(dtype, pl.List):
        return "set"
    return "number" if dtype.is_numeric() else "category"


def _with_nobody(codes: NDArray[Any]) -> IntArray:
    """A last row for whom the data do not have: unknown."""
    last = np.full((1, codes.shape[1]), -1, np.int64)
    last[0, 0] = 0
    return np.concatenate([codes.astype(np.int64), last])
