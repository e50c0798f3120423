"""`Column`: what a source expects of one column of a file, and the sentence for a value that breaks it."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from tandemrec.errors import InputError

Parsed = str | int | float | list[str] | None
_INTEGER = re.compile(r"[ \t]*[+-]?[0-9]+[ \t]*")
_INT64 = 2**63


class BadValueError(ValueError):
    """A value that breaks its column; the message says what was expected."""


@dataclass(frozen=True)
class Column:
    """One column to read.

    Attributes:
        name: its name in the frame.
        found_as: its name in the file.
        dtype: String, Int64, Float64 or, in JSON, List(String).
        nullable: empty values are allowed.
        optional: the whole column may be absent; it is then left out of the frame (of a JSON file: null).
        low: least allowed number.
        high: largest allowed number.
        null_text: a text that means null in delimited files.
    """

    name: str
    found_as: str
    dtype: pl.DataType | type[pl.DataType] = pl.String
    nullable: bool = False
    optional: bool = False
    low: float | None = None
    high: float | None = None
    null_text: str | None = None

    @property
    def expected(self) -> str:
        """What a value must be, for a message."""
        if self.dtype in (pl.Int64, pl.Float64):
            kind = "a whole number" if self.dtype == pl.Int64 else "a number"
            if self.low is not None and self.high is not None:
                return f"{kind} from {self.low:g} to {self.high:g}"
            return kind if self.low is None else f"{kind} of at least {self.low:g}"
        return "a list of texts" if self.dtype == pl.List(pl.String) else "a text"

    def breaches(self, values: pl.Series) -> bool:
        """Whether any value is null where it must not be, no finite number, or out of bounds."""
        if not self.nullable and values.null_count():
            return True
        if not values.dtype.is_numeric():
            return not self.nullable and bool((values == "").any()) if values.dtype == pl.String else False
        if values.dtype.is_float() and not values.is_finite().all():
            return True
        low, high = self.low, self.high
        return (low is not None and bool((values < low).any())) or (high is not None and bool((values > high).any()))

    def parse_text(self, text: str) -> Parsed:
        """Value of a field of a delimited file.

        Raises:
            BadValueError: if it is not what the column expects.
        """
        if text in ("", self.null_text):
            self._refuse_null()
            return None
        if self.dtype == pl.Int64:
            if not _INTEGER.fullmatch(text):
                raise BadValueError(self.expected)
            return self._bounded(int(text))
        if self.dtype == pl.Float64:
            try:
                return self._bounded(float(text))
            except ValueError:
                raise BadValueError(self.expected) from None
        return text

    def parse_json(self, value: Any) -> Parsed:
        """Value of a key of a JSON object; numbers may be written as text, lists may be nested or a single text.

        Raises:
            BadValueError: if it is not what the column expects.
        """
        if self.dtype == pl.List(pl.String):
            return _flatten(value)
        if value is None:
            self._refuse_null()
            return None
        if isinstance(value, str):
            if not _encodable(value):
                raise BadValueError("a text without lone surrogates")
            return self.parse_text(value)
        if self.dtype == pl.String:
            text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else json.dumps(value)
            return self.parse_text(text)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadValueError(self.expected)
        if self.dtype == pl.Int64:
            if isinstance(value, float) and not value.is_integer():
                raise BadValueError(self.expected)
            return self._bounded(int(value))
        return self._bounded(float(value) if abs(value) < 1e300 else math.inf)

    def _refuse_null(self) -> None:
        if not self.nullable:
            raise BadValueError(self.expected)

    def _bounded(self, value: int | float) -> int | float:
        finite = -_INT64 <= value < _INT64 if isinstance(value, int) else math.isfinite(value)
        if not finite or (self.low is not None and value < self.low) or (self.high is not None and value > self.high):
            raise BadValueError(self.expected)
        return value


def bad_value(path: Path, line: int, column: str, found: Any, expected: str) -> InputError:
    """The error for one bad value."""
    return InputError(f"{path}, line {line}, column '{column}': found {shorten(found)}, expected {expected}")


def shorten(found: Any) -> str:
    """A value for a message: never more than some 60 characters."""
    text = repr(found)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _flatten(value: Any) -> list[str] | None:
    """Texts of a list or a single text, without empty ones; of a list of lists every text once. Null stays null."""
    if value is None:
        return None
    texts: list[str] = []
    pending = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, list | tuple):
            pending.extend(reversed(part))
        elif part is not None:
            text = part if isinstance(part, str) else json.dumps(part, default=str)
            if not _encodable(text):
                raise BadValueError("a text without lone surrogates")
            if text:
                texts.append(text)
    nested = isinstance(value, list | tuple) and any(isinstance(part, list | tuple) for part in value)
    return list(dict.fromkeys(texts)) if nested else texts


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
