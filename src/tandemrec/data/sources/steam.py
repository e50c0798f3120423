"""Steam: reviews of games, with the games' metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import polars as pl
from pydantic import Field

from tandemrec.data.dataset import Dataset
from tandemrec.data.sources.column import Column, bad_value
from tandemrec.data.sources.delimited import line_of_row, read_delimited
from tandemrec.data.sources.files import find_file
from tandemrec.data.sources.json_lines import iter_objects, parse_row, read_json_lines
from tandemrec.data.sources.source import Source
from tandemrec.errors import InputError

_TEXTS = pl.List(pl.String)
_POSTED = r"^Posted ([A-Z][a-z]+ [0-9]{1,2})(?:, ([0-9]{4}))?\.?$"
_YEARLESS = r"^Posted [A-Z][a-z]+ [0-9]{1,2}\.?$"
_ISO_DAY = pl.col("date").str.to_date("%Y-%m-%d", strict=False)
_REVIEW_COLUMNS = (
    Column("user_id", "user_id"),
    Column("item_id", "item_id"),
    Column("date", "posted"),
    Column("recommend", "recommend"),
)


class Steam(Source):
    """Steam reviews of the UCSD McAuley Lab with `steam_games.json`, each file plain or `.gz`.

    Reviews are one of: `user_reviews.csv` (user_id, item_id, posted, recommend), the original
    `australian_user_reviews.json` of version 1 (loose JSON, a user a line), or `steam_reviews.json` of version 2 (loose
    JSON, a review a line; slow to read, and every review counts as a recommendation: the file does not tell).

    The rating is 1 for a recommendation, else 0; times are the seconds of the posting day (UTC). Items get `title`,
    `genres`, `tags`, `specs` (lists), `developer`, `publisher`, `release_date` and `price`.
    """

    format: Literal["steam"] = "steam"
    """Which source this is."""

    missing_year: int | None = Field(2016, ge=2003, le=2100)
    """Year of reviews whose date has none: in version 1 they are of the year of the crawl, 2016. Null drops them."""

    @property
    def default_name(self) -> str:
        """The folder `steam`."""
        return "steam"

    def files(self) -> list[Path]:
        """Reviews and games."""
        folder = self.folder()
        reviews = find_file(folder, "user_reviews.csv", "australian_user_reviews.json", "steam_reviews.json")
        return [reviews, find_file(folder, "steam_games.json")]

    def load(self) -> Dataset:
        """Read the files; see `Source.load`."""
        path, games = self.files()
        second = path.name.startswith("steam_reviews")
        lines: list[int] | None = None
        if second:
            columns = [Column("user_id", "username"), Column("item_id", "product_id"), Column("date", "date")]
            reviews = read_json_lines(path, columns, loose=True).with_columns(recommend=pl.lit("true"))
        elif path.name.startswith("user_reviews"):
            reviews = read_delimited(path, _REVIEW_COLUMNS)
        else:
            reviews, lines = _read_nested(path)
        reviews = reviews.with_columns(day=_ISO_DAY if second else self._posting_day())
        # A date without a year that has none to be given is no mistake: its review is dropped.
        yearless = pl.lit(self.missing_year is None) & pl.col("date").str.contains(_YEARLESS)
        wrong = reviews.select(pl.col("day").is_null() & ~yearless).to_series()
        if wrong.any():
            row = int(wrong.arg_max() or 0)
            line = lines[row] if lines else row + 1 if second else line_of_row(path, row)
            raise bad_value(path, line, "date" if second else "posted", reviews["date"][row], "a date")
        interactions = reviews.filter(pl.col("day").is_not_null()).select(
            "user_id",
            "item_id",
            rating=(pl.col("recommend").str.to_lowercase() == "true").cast(pl.Float64),
            timestamp=pl.col("day").cast(pl.Datetime("ms")).dt.epoch("s"),
        )
        return Dataset.from_frames(interactions, _read_games(games), name=self.default_name)

    def _posting_day(self) -> pl.Expr:
        """The date of "Posted July 3, 2011." and, by `missing_year`, of "Posted July 3."; null where there is none."""
        given = pl.lit(str(self.missing_year) if self.missing_year else None, dtype=pl.String)
        year = pl.col("date").str.extract(_POSTED, 2).fill_null(given)
        text = pl.concat_str(pl.col("date").str.extract(_POSTED, 1), year, separator=" ")
        return text.str.to_date("%B %d %Y", strict=False)


def _read_nested(path: Path) -> tuple[pl.DataFrame, list[int]]:
    """Reviews of a file with a user a line, and the line of every review."""
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    for line, user in iter_objects(path, loose=True):
        reviews = user.get("reviews")
        if not isinstance(reviews, list) or not all(isinstance(review, dict) for review in reviews):
            raise InputError(f"{path}, line {line}: no key 'reviews' with a list of reviews")
        for review in reviews:
            row = {"user_id": user.get("user_id")} | review
            row["recommend"] = str(row.get("recommend"))
            rows.append(parse_row(path, line, row, _REVIEW_COLUMNS))
            lines.append(line)
    if not rows:
        raise InputError(f"{path} holds no reviews")
    return pl.DataFrame(rows, schema={column.name: pl.String for column in _REVIEW_COLUMNS}), lines


def _read_games(path: Path) -> pl.DataFrame:
    """The games that have an id."""
    texts = ("title", "app_name", "developer", "publisher", "release_date", "price")
    columns = [
        Column("item_id", "id", nullable=True),
        *(Column(name, name, nullable=True) for name in texts),
        *(Column(name, name, _TEXTS, nullable=True) for name in ("genres", "tags", "specs")),
    ]
    games = read_json_lines(path, columns, loose=True).filter(pl.col("item_id").is_not_null())
    free = pl.col("price").str.contains("(?i)free")
    return games.with_columns(
        title=pl.coalesce("title", "app_name"),
        price=pl.when(free).then(0.0).otherwise(pl.col("price").cast(pl.Float64, strict=False)),
    ).drop("app_name")
