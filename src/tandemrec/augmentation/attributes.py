"""Attributes that the items lack, as a language model knows them: asked for by examples, checked, joined as fields."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal, Self

import numpy as np
import polars as pl
from pydantic import Field, field_validator, model_validator

from tandemrec.data.dataset import Dataset
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.recommender import Config

Writer = Callable[[str, Sequence[str]], Sequence[str]]
"""Continues the prompts about a column, which it is told."""

LONGEST = 60
"""Characters of a value; what is longer is talk."""

NOTHING = re.compile(r"(?i)(unknown|none|n/a|not (available|known|sure|applicable)|i (do not|don't) know)\b.*|na\W*")
"""Answers of who does not know; `na` alone is one, but names such as Na Hong-jin begin with it."""

LIST_NUMBER = re.compile(r"\A\d{1,2}[.)]\s+")
"""What the answers of a list begin with: "1. " or "1) "."""


class AttributeConfig(Config):
    """One attribute: how it is asked for, and which answers count."""

    examples: dict[str, str] = Field(min_length=1)
    """Titles with their values, which show what is asked for; `unknown` shows what to say where nothing is known."""

    kind: Literal["text", "number"] = "text"
    """What a value is."""

    values: tuple[str, ...] | None = Field(None, min_length=2)
    """The only texts that count, upper and lower case aside, where the kind is text; null: any short text."""

    low: float | None = Field(None, allow_inf_nan=False)
    """Least number that counts, where the kind is number; null: no bound."""

    high: float | None = Field(None, allow_inf_nan=False)
    """Greatest number that counts, at least `low`; null: no bound."""

    @model_validator(mode="after")
    def _settings_of_the_kind(self) -> Self:
        if self.kind == "number" and self.values is not None:
            raise ValueError("values are texts and go with kind: text, found kind: number; bound numbers by low, high")
        for name, bound in (("low", self.low), ("high", self.high)):
            if self.kind == "text" and bound is not None:
                raise ValueError(
                    f"{name} bounds numbers and goes with kind: number, found {name} {bound:g}, kind: text"
                )
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low must be at most high, found low {self.low:g}, high {self.high:g}")
        return self

    @model_validator(mode="after")
    def _examples_are_answers_that_count(self) -> Self:
        for title, value in self.examples.items():
            if checked(value, self) is None and not NOTHING.fullmatch(value.strip()):
                raise ValueError(f"the example '{title}' has a value that would not count: '{value}' is {self._flaw()}")
        return self

    def _flaw(self) -> str:
        """What an answer is not, that does not count."""
        if self.values is not None:
            return f"none of the values {', '.join(self.values)}"
        if self.kind == "text":
            return f"no text of at most {LONGEST} characters with a letter"
        bounds = [
            f"{word} {bound:g}" for word, bound in (("at least", self.low), ("at most", self.high)) if bound is not None
        ]
        return " ".join(["no number", *(["of", " and ".join(bounds)] if bounds else [])])


class AttributesConfig(Config):
    """Llama4Rec's augmentation of rating data: director and star of films, genre and length of books."""

    method: Literal["attributes"] = "attributes"
    """Which augmentation this is."""

    columns: dict[str, AttributeConfig] = Field(min_length=1)
    """Attributes by the name of the column they become."""

    noun: str = "item"
    """What an item is called in the question: film, book."""

    max_new_tokens: int = Field(16, ge=1)
    """Most tokens of an answer, where a language model of our own gives it; fewer than its context, which holds the
    question too."""

    @field_validator("columns")
    @classmethod
    def _new_names(cls, columns: dict[str, AttributeConfig]) -> dict[str, AttributeConfig]:
        for name in columns:
            if name in ("item_id", "title"):
                raise ValueError(f"'{name}' is what items have anyway; name a column that is missing")
        return columns


def write_attributes(split: Split, config: AttributesConfig, write: Writer) -> pl.DataFrame:
    """Ask for every attribute of every item.

    Returns:
        One row an item: `item_id`, `title`, for every attribute its checked value (null where none was given), and what
        was written (`NAME_written`), to be looked at.

    Raises:
        InputError: if the items have a column of that name already.
    """
    _check_missing(split.dataset, config)
    titles = split.dataset.titles
    frame = split.dataset.items.select("item_id", "title")
    for name, attribute in config.columns.items():
        written = list(write(name, [attribute_prompt(name, title, attribute, config.noun) for title in titles]))
        values = pl.Series(name, [checked(text, attribute) for text in written], pl.String)
        if attribute.kind == "number":
            values = values.cast(pl.Float64)
        frame = frame.with_columns(values, pl.Series(f"{name}_written", written, pl.String))
    return frame


def side_by_side(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """What `write_attributes` returns for several attributes, from what it returned for each of them (one at least)."""
    return pl.concat([frames[0], *(frame.drop("item_id", "title") for frame in frames[1:])], how="horizontal")


def known_share(frame: pl.DataFrame, config: AttributesConfig) -> dict[str, float]:
    """Share of the items whose value is known, for each attribute."""
    return {name: 1 - frame[name].null_count() / frame.height for name in config.columns}


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
        found = re.search(r"-?\d+(?:\.\d+)?", LIST_NUMBER.sub("", text).replace(",", ""))
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
        InputError: if the attributes are of other items, or the items have a column of that name already.
    """
    data = split.dataset
    _check_missing(data, config)
    if not np.array_equal(frame["item_id"].to_numpy(), data.items["item_id"].to_numpy()):
        raise InputError(f"the attributes are of other items than those of '{data.name}'")
    items = data.items.with_columns(frame.select(*config.columns))
    return replace(split, dataset=Dataset(data.interactions, items, data.users, data.clock, data.name))


def _check_missing(data: Dataset, config: AttributesConfig) -> None:
    for name in config.columns:
        if name in data.items.columns:
            raise InputError(f"key 'data.columns': the items have a column '{name}' already")
