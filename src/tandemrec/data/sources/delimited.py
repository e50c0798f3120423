"""Delimited text (CSV, TSV, `::`, `|`, `;`): read by polars; a slow careful reader only finds the line of an error."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import polars as pl

from tandemrec.data.sources.column import BadValueError, Column, bad_value, shorten
from tandemrec.data.sources.files import line_blocks, read_bytes
from tandemrec.errors import InputError

Encoding = Literal["utf-8", "iso-8859-1"]

_UNIT_SEPARATOR = "\x1f"
POLARS_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, ValueError, OverflowError, OSError)


@dataclass(frozen=True)
class Dialect:
    """How a delimited file is written.

    Attributes:
        separator: between fields; of more than one character only without quotes.
        quote: around fields that hold a separator or a line end; None: there are no quotes.
        escape: before a quote inside a field; None: such a quote is doubled.
        encoding: of the file.
        header: names of all fields where the file has no header line.
    """

    separator: str = ","
    quote: str | None = '"'
    escape: str | None = None
    encoding: Encoding = "utf-8"
    header: tuple[str, ...] | None = None


def read_delimited(path: Path, columns: Sequence[Column], dialect: Dialect = Dialect()) -> pl.DataFrame:
    """The columns of a file, in file order.

    Args:
        path: plain or `.gz`.
        columns: what to read; other columns are left out.
        dialect: how the file is written.

    Raises:
        InputError: naming file, line and column of the first missing column, ragged row, undecodable byte or bad value.
    """
    data = read_bytes(path, dialect.encoding)
    names = dialect.header or _header(path, data, dialect)
    wanted = _positions(path, names, columns)
    try:
        frame = _read(data, len(names), wanted, dialect)
    except POLARS_ERRORS as error:
        _find_error(path, data, names, wanted, dialect)
        raise InputError(f"{path}: cannot be read as delimited text: {reason(error)}") from None
    if not frame.height:
        raise InputError(f"{path}, line 1: found no rows, expected rows of {', '.join(names)}")
    # Rows with too few fields come out of polars with nulls at their end, so only then must fields be counted.
    ragged = frame.columns[-1] == _END and frame[_END].null_count() > 0
    breached = [c for c in wanted.values() if c.breaches(frame[c.name])]
    if ragged or breached:
        _find_error(path, data, names, wanted, dialect)
    if breached:
        raise InputError(f"{path}: column '{breached[0].found_as}' holds a value that is not {breached[0].expected}")
    return frame.select(column.name for column in wanted.values())


def header_names(path: Path, dialect: Dialect = Dialect()) -> list[str]:
    """Names in the first line of a file.

    Raises:
        InputError: if the file cannot be read or its first line is no header.
    """
    for _, block in line_blocks(path, size=1 << 16):
        return _header(path, block if dialect.encoding == "utf-8" else block.decode(dialect.encoding).encode(), dialect)
    raise InputError(f"{path} is empty")


def reason(error: BaseException) -> str:
    """First line of what polars says."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def line_of_row(path: Path, row: int, dialect: Dialect = Dialect()) -> int:
    """Number of the line on which row `row` (from 0) of a file that has been read begins; for messages."""
    rows = _fields(io.StringIO(read_bytes(path, dialect.encoding).decode(), newline=""), dialect)
    for _ in range(row if dialect.header else row + 1):
        next(rows)
    return rows.line_num + 1


_END = "end of row"


def _header(path: Path, data: bytes, dialect: Dialect) -> list[str]:
    line = data[: data.find(b"\n") + 1 or len(data)]
    names: list[str]
    try:
        text = line.decode()
        names = next(_fields(io.StringIO(text, newline=""), dialect), [])
    except UnicodeDecodeError as error:
        raise InputError(f"{path}, line 1: byte {error.start + 1} is not {dialect.encoding.upper()}") from None
    except csv.Error as error:
        raise InputError(f"{path}, line 1: {error}, expected a header") from None
    return [name.strip() for name in names]


def _positions(path: Path, names: Sequence[str], columns: Sequence[Column]) -> dict[int, Column]:
    """Which field is which column."""
    wanted: dict[int, Column] = {}
    for column in columns:
        count = names.count(column.found_as)
        if count > 1:
            raise InputError(f"{path}, line 1: found column '{column.found_as}' {count} times, expected it once")
        if count == 0 and not column.optional:
            raise InputError(f"{path}, line 1: no column '{column.found_as}', found {shorten(', '.join(names))}")
        if count:
            wanted[names.index(column.found_as)] = column
    return wanted


def _read(data: bytes, width: int, wanted: dict[int, Column], dialect: Dialect) -> pl.DataFrame:
    separator = dialect.separator
    if len(separator) > 1:
        data, separator = data.replace(separator.encode(), _UNIT_SEPARATOR.encode()), _UNIT_SEPARATOR
    if dialect.escape and dialect.quote:
        quote = dialect.quote.encode()
        escaped = re.compile(re.escape(dialect.escape.encode()) + rb"(.)", re.DOTALL)
        data = escaped.sub(lambda match: quote * 2 if match[1] == quote else match[1], data)
    # Numbers with a text for null cannot be read as numbers at once.
    typed = {p: pl.String if c.null_text else c.dtype for p, c in wanted.items()}
    frame = pl.read_csv(
        data.rstrip(b"\r\n") if data.endswith((b"\n\n", b"\n\r\n")) else data,
        has_header=False,
        skip_rows=0 if dialect.header else 1,
        separator=separator,
        quote_char=dialect.quote,
        schema={f"column_{p + 1}": typed.get(p, pl.String) for p in range(width)},
    )
    picked = []
    for position, column in wanted.items():
        values = pl.col(f"column_{position + 1}")
        if column.null_text:
            values = values.replace(column.null_text, None).cast(column.dtype)
        if column.nullable and column.dtype == pl.String:
            values = pl.when(values != "").then(values)
        picked.append(values.alias(column.name))
    return frame.select(*picked, pl.col(f"column_{width}").alias(_END))


def _find_error(path: Path, data: bytes, names: Sequence[str], wanted: dict[int, Column], dialect: Dialect) -> None:
    """Raise the `InputError` of the first row that is ragged or holds a bad value; return if there is none."""
    try:
        text = data.rstrip(b"\r\n").decode()
    except UnicodeDecodeError as error:
        start = data.rfind(b"\n", 0, error.start) + 1
        line = data.count(b"\n", 0, start) + 1
        raise InputError(
            f"{path}, line {line}: byte {error.start - start + 1} (0x{data[error.start]:02x}) is not UTF-8"
        ) from None
    rows, line = _fields(io.StringIO(text, newline=""), dialect), 1
    if not dialect.header:
        next(rows, None)
        line = rows.line_num + 1
    while True:
        try:
            fields = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            raise InputError(f"{path}, line {line}: {error}, expected {len(names)} fields") from None
        if len(fields) != len(names):
            found = f"{len(fields)} fields" if fields else "an empty line"
            raise InputError(f"{path}, line {line}: found {found}, expected {len(names)} ({', '.join(names)})")
        for position, column in wanted.items():
            try:
                column.parse_text(fields[position])
            except BadValueError as breach:
                raise bad_value(path, line, column.found_as, fields[position], str(breach)) from None
        line = rows.line_num + 1


class _Rows(Protocol):
    """What `csv.reader` gives: rows, and the number of lines read so far."""

    @property
    def line_num(self) -> int: ...

    def __next__(self) -> list[str]: ...


class _SplitRows:
    """Rows of text without quotes, whose separator may have several characters."""

    def __init__(self, text: io.StringIO, separator: str) -> None:
        self._lines, self._separator, self.line_num = iter(text.read().split("\n")), separator, 0

    def __next__(self) -> list[str]:
        line = next(self._lines).removesuffix("\r")
        self.line_num += 1
        return line.split(self._separator) if line else []


def _fields(text: io.StringIO, dialect: Dialect) -> _Rows:
    if dialect.quote is None:
        return _SplitRows(text, dialect.separator)
    return csv.reader(
        text,
        delimiter=dialect.separator,
        quotechar=dialect.quote,
        doublequote=dialect.escape is None,
        escapechar=dialect.escape,
        strict=True,
    )
