"""Attributes that the items lack, as a language model knows them: asked for by examples, checked, joined as fields."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import polars as pl
from pydantic import Field, field_validator

from tandemrec.data.dataset import Dataset
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.recommender import Config

Writer = Callable[[Sequence[str]], Sequence[str]]
"""Continues prompts."""

LONGEST = 60
"""Characters of a value; what is longer is talk."""

NOTHING = re.compile(r"(?i)(unknown|none|n/?a|not (available|known|sure|applicable)|i (do not|don't) know)\b.*")


class AttributeConfig(Config):
    """One attribute: how it is asked for, and which answers count."""

    examples: dict[str, str] = Field(min_length=1)
    """Titles with their values, which show what is asked for."""

    kind: Literal["text", "number"] = "text"
    """What a value is."""

    values: tuple[str, ...] | None = Field(None, min_length=2)
    """The only texts that count, upper and lower case aside; null: any short text."""

    low: float | None = None
    """Least number that counts."""

    high: float | None = None
    """Greatest number that counts."""


class AttributesConfig(Config):
    """Llama4Rec's augmentation of rating data: director and star of films, genre and length of books."""

    method: Literal["attributes"] = "attributes"
    """Which augmentation this is."""

    columns: dict[str, AttributeConfig] = Field(min_length=1)
    """Attributes by the name of the column they become."""

    noun: str = "item"
    """What an item is called in the question: film, book."""

    max_new_tokens: int = Field(16, ge=1)
    """Most tokens of an answer, where a language model of our own gives it."""

    @field_validator("columns")
    @classmethod
    def _new_names(cls, columns: dict[str, AttributeConfig]) -> dict[str, AttributeConfig]:
        for name in columns:
            if name in ("item_id", "title"):
                raise ValueError(f"'{name}' is what items have anyway; name a column that is missing")
        return columns


def write_attributes(split: Split, config: AttributesConfig, write: Writer) -> pl.DataFrame:
    """Ask for every attribute of every item that has a title.

    Returns:
        One row an item: `item_id`, `title`, for every attribute its checked value (null where none was given), and what
        was written (`NAME_written`), to be looked at.

    Raises:
        InputError: if the items have a column of that name already.
    """
    items = split.dataset.items
    titles = split.dataset.titles
    frame = items.select("item_id", "title")
    for name, attribute in config.columns.items():
        if name in items.columns:
            raise InputError(f"key 'data.columns': the items have a column '{name}' already")
        written = list(write([attribute_prompt(name, title, attribute, config.noun) for title in titles]))
        values = pl.Series(name, [checked(text, attribute) for text in written], pl.String)
        if attribute.kind == "number":
            values = values.cast(pl.Float64)
        frame = frame.with_columns(values, pl.Series(f"{name}_written", written, pl.String))
    return frame


def attribute_prompt(name: str, title: str, attribute: AttributeConfig, noun: str) -> str:
    """Examples, then the title whose value is missing."""
    asked = name.replace("_", " ")
    lines = [f"{noun}: {example}\n{asked}: {value}\n" for example, value in attribute.examples.items()]
    return f"Give the {asked} of each {noun}.\n\n" + "\n".join([*lines, f"{noun}: {title}\n{asked}:"])


def checked(written: str, attribute: AttributeConfig) -> str | None:
    """The value in what was written: its first line, if it is what is asked for."""
    lines = [line for line in written.strip().splitlines() if line.strip()]
    text = lines[0].rpartition(":")[2].strip(" \t\"'*.,;") if lines else ""
    if not text or len(text) > LONGEST or NOTHING.fullmatch(text):
        return None
    if attribute.kind == "number":
        found = re.search(r"-?\d+(?:\.\d+)?", text.replace(",", ""))
        value = None if found is None else float(found.group())
        low, high = attribute.low, attribute.high
        inside = value is not None and (low is None or value >= low) and (high is None or value <= high)
        return f"{value:g}" if inside else None
    if attribute.values is not None:
        return next((value for value in attribute.values if value.casefold() == text.casefold()), None)
    return text if any(c.isalpha() for c in text) else None


def with_attributes(split: Split, frame: pl.DataFrame, config: AttributesConfig) -> Split:
    """The split over items that have the new columns.

    Raises:
        InputError: if the attributes are of other items.
    """
    data = split.dataset
    if not np.array_equal(frame["item_id"].to_numpy(), data.items["item_id"].to_numpy()):
        raise InputError(f"the attributes are of other items than those of '{data.name}'")
    items = data.items.with_columns(frame.select(*config.columns))
    return replace(split, dataset=Dataset(data.interactions, items, data.users, data.clock, data.name))
