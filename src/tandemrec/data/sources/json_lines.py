"""JSON lines, strict or loose (Python literals): read by polars in blocks, carefully line by line where it gives up."""

from __future__ import annotations

import ast
import io
import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from tandemrec.data.sources.column import BadValueError, Column, Parsed, bad_value, shorten
from tandemrec.data.sources.delimited import POLARS_ERRORS, reason
from tandemrec.data.sources.files import line_blocks
from tandemrec.errors import InputError

_TEXTS = pl.List(pl.String)
_NESTED = r"^(?:\x00|[\[{](?:[\[\]{}\"0-9-]|null|true|false))"
"""Beginning of a text that polars may have made of a nested value or of a lone surrogate."""

_LONGEST_LITERAL = 1 << 22
"""A longer line is not tried as a Python literal: its parser needs a hundred times the text's memory."""


def read_json_lines(path: Path, columns: Sequence[Column], *, loose: bool = False) -> pl.DataFrame:
    """The columns of a file of one object a line, in file order; empty lines are skipped.

    Numbers may be written as text. A list column takes lists, lists of lists (flattened, every text once) and single
    texts; empty texts are left out.

    Args:
        path: plain or `.gz`; read in blocks, so that only the wanted columns are ever held whole.
        columns: what to read.
        loose: also take lines that are Python literals, as in the Amazon metadata of 2014.

    Raises:
        InputError: naming file, line and key of the first thing that is not as expected.
    """
    columns = [replace(column, nullable=column.nullable or column.optional) for column in columns]
    schema = {column.name: column.dtype for column in columns}
    parts = [_read_block(path, line, block, columns, loose) for line, block in line_blocks(path)]
    frame = pl.concat(parts) if parts else pl.DataFrame(schema=schema)
    if not frame.height:
        raise InputError(f"{path} holds no rows, expected one JSON object a line")
    return frame


def first_object(path: Path, *, loose: bool = False) -> dict[str, Any]:
    """The object on the first line that is not empty.

    Raises:
        InputError: if there is none.
    """
    for number, block in line_blocks(path, size=1 << 16):
        for line, value in _objects(path, number, block, loose):
            del line
            return value
    raise InputError(f"{path} holds no rows, expected one JSON object a line")


def iter_objects(path: Path, *, loose: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of every line, for the layouts that are not one row a line.

    Raises:
        InputError: naming file and line of the first line that is no object.
    """
    for number, block in line_blocks(path):
        yield from _objects(path, number, block, loose)


def parse_row(path: Path, line: int, row: dict[str, Any], columns: Sequence[Column]) -> dict[str, Parsed]:
    """The columns of one object.

    Raises:
        InputError: naming file, line and key of the first value that is not as expected.
    """
    parsed: dict[str, Parsed] = {}
    for column in columns:
        if column.found_as not in row and not column.nullable:
            found = shorten(", ".join(map(str, row)))
            raise InputError(f"{path}, line {line}: no key '{column.found_as}', found {found}")
        value = row.get(column.found_as)
        try:
            parsed[column.name] = column.parse_json(value)
        except BadValueError as error:
            raise bad_value(path, line, column.found_as, value, str(error)) from None
    return parsed


def _read_block(path: Path, line: int, block: bytes, columns: Sequence[Column], loose: bool) -> pl.DataFrame:
    schema = {column.found_as: column.dtype for column in columns}
    if len(schema) == len(columns):
        try:
            frame = pl.read_ndjson(io.BytesIO(block), schema=schema)
        except POLARS_ERRORS:
            frame = None
        if frame is not None and not any(_suspicious(column, frame[column.found_as]) for column in columns):
            return frame.select(_tidied(column) for column in columns)
    rows = [parse_row(path, number, row, columns) for number, row in _objects(path, line, block, loose)]
    try:
        return pl.DataFrame(rows, schema={column.name: column.dtype for column in columns})
    except POLARS_ERRORS as error:
        raise InputError(f"{path}: cannot be read as JSON lines: {reason(error)}") from None


def _tidied(column: Column) -> pl.Expr:
    """What the careful reader makes of a value that polars has read: without empty texts."""
    values = pl.col(column.found_as)
    if column.dtype == _TEXTS:
        values = values.list.eval(pl.element().filter(pl.element() != ""))
    elif column.dtype == pl.String and column.nullable:
        values = pl.when(values != "").then(values)
    return values.alias(column.name)


def _suspicious(column: Column, values: pl.Series) -> bool:
    """Whether polars may have read something else than the careful reader would: nested values come as JSON text."""
    if column.dtype == _TEXTS:
        texts = values.explode()
        return bool(texts.str.contains(_NESTED).any())
    if column.breaches(values):
        return True
    return column.dtype == pl.String and bool(values.str.contains(_NESTED).any())


def _objects(path: Path, first: int, block: bytes, loose: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, raw in enumerate(block.split(b"\n"), first):
        if not raw.strip():
            continue
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            found = f"byte {error.start + 1} (0x{raw[error.start]:02x})"
            raise InputError(f"{path}, line {number}: {found} is not UTF-8") from None
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            value = _literal(text) if loose else None
            if value is None:
                place = f", column {error.colno}" if isinstance(error, json.JSONDecodeError) else ""
                why = error.msg if isinstance(error, json.JSONDecodeError) else "too deep or too long"
                raise InputError(f"{path}, line {number}{place}: {why}, expected one JSON object a line") from None
        if not isinstance(value, dict):
            raise InputError(f"{path}, line {number}: found {shorten(value)}, expected a JSON object")
        yield number, value


def _literal(text: str) -> Any:
    """Value of a Python literal; None if it is none."""
    if len(text) > _LONGEST_LITERAL:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd escapes such as '\\/' in old dumps
            return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
