"""Times of a table as whole numbers: unix seconds or milliseconds, from numbers, date-times or texts."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from tandemrec.data.dataset import Clock
from tandemrec.data.sources.column import shorten
from tandemrec.data.sources.delimited import POLARS_ERRORS, reason
from tandemrec.errors import InputError

_ISO = (
    r"^\s*([0-9]{4}-[0-9]{2}-[0-9]{2})"  # the day
    r"(?:[T ]([0-9]{2}:[0-9]{2})(?::([0-9]{2}(?:\.[0-9]+)?))?"  # hour and minute, second
    r"\s*(Z|[+-][0-9]{2}:?[0-9]{2})?)?\s*$"  # time zone
)


def epoch(values: pl.Series, clock: Clock, time_format: str | None, place: Callable[[int], str]) -> pl.Series:
    """Timestamps of a column, int64.

    Args:
        values: whole numbers (taken as they are), dates, date-times or, with `time_format`, texts.
        clock: `milliseconds` turns date-times into these, every other clock into seconds.
        time_format: `iso` or a format of `strftime`; without time zone the times are UTC.
        place: says where row r stands.

    Raises:
        InputError: naming the row of the first value that is no such time, or one before 1970.
    """
    if values.dtype == pl.String and time_format is not None:
        times, expected = _parse(values, time_format), f"a time in the format {time_format}"
    else:
        times, expected = values, "a whole number of at least 0"
    if times.dtype.is_temporal() and times.dtype in (pl.Date, pl.Datetime):
        numbers = times.cast(pl.Datetime("ms")).dt.epoch("ms" if clock == "milliseconds" else "s")
    elif times.dtype.is_nested() or times.dtype.is_temporal():
        raise InputError(f"{place(0)}: column '{values.name}' holds {times.dtype}, expected times")
    else:
        whole = times.is_finite() & (times == times.round()) if times.dtype.is_float() else times.is_not_null()
        numbers = times.set((~whole).fill_null(True), None) if times.dtype.is_float() else times
        numbers = numbers.cast(pl.Int64, strict=False)
    wrong = numbers.is_null() | (numbers < 0).fill_null(True)
    if wrong.any():
        row = int(wrong.arg_max() or 0)
        raise InputError(f"{place(row)}: column '{values.name}' holds {shorten(values[row])}, expected {expected}")
    return numbers


def _parse(texts: pl.Series, time_format: str) -> pl.Series:
    """Date-times in UTC, null where a text does not follow the format."""
    name = texts.name
    try:
        if time_format == "iso":
            day, clock, second, zone = (pl.col(name).str.extract(_ISO, group) for group in (1, 2, 3, 4))
            zone = zone.replace("Z", "+00:00").str.replace(r"^(.{3})(\d\d)$", "$1:$2").fill_null("+00:00")
            text = day + "T" + clock.fill_null("00:00") + ":" + second.fill_null("00") + zone
            parsed = text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="ms", strict=False)
        elif any(f"%{letter}" in time_format for letter in "HIMSTRXcrsk+"):
            parsed = pl.col(name).str.to_datetime(time_format, time_unit="ms", strict=False)
        else:
            parsed = pl.col(name).str.to_date(time_format, strict=False)
        times = texts.to_frame().select(parsed).to_series()
    except POLARS_ERRORS as error:
        raise InputError(f"time_format '{time_format}' is no format of times: {reason(error)}") from None
    if isinstance(times.dtype, pl.Datetime) and times.dtype.time_zone:
        times = times.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return times
