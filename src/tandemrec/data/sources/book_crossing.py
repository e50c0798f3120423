"""Book-Crossing: ratings of books in the files of the original dump."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from pydantic import Field

from tandemrec.data.dataset import Clock, Dataset
from tandemrec.data.sources.column import Column
from tandemrec.data.sources.delimited import Dialect, read_delimited
from tandemrec.data.sources.files import find_file
from tandemrec.data.sources.source import Source

_DUMP = Dialect(";", '"', escape="\\", encoding="iso-8859-1")


class BookCrossing(Source):
    """Book-Crossing (`BX-Book-Ratings.csv`, `BX-Books.csv`, `BX-Users.csv`, plain or `.gz`).

    The data have no times, so the order within a user is arbitrary. Items get `title`, `author`, `year` (null where the
    dump has 0) and `publisher`; users get `location` and `age`.
    """

    format: Literal["book-crossing"] = "book-crossing"
    """Which source this is."""

    keep_implicit: bool = False
    """Keep the interactions without a rating, which the dump writes as rating 0; they get a null rating."""

    order_seed: int | None = Field(None, ge=0, lt=2**31)
    """Give every user an arbitrary order drawn from this seed, for protocols that need one; default: no order."""

    @property
    def default_name(self) -> str:
        """The folder `book-crossing`."""
        return "book-crossing"

    def files(self) -> list[Path]:
        """Ratings, books and users."""
        folder = self.folder()
        return [find_file(folder, f"BX-{name}.csv") for name in ("Book-Ratings", "Books", "Users")]

    def load(self) -> Dataset:
        """Read the files; see `Source.load`."""
        ratings, books, users = self.files()
        rating_columns = [
            Column("user_id", "User-ID"),
            Column("item_id", "ISBN"),
            Column("rating", "Book-Rating", pl.Float64, low=0, high=10),
        ]
        interactions = read_delimited(ratings, rating_columns, _DUMP)
        implicit = pl.col("rating") == 0
        if self.keep_implicit:
            interactions = interactions.with_columns(rating=pl.when(~implicit).then(pl.col("rating")))
        else:
            interactions = interactions.filter(~implicit)
        clock: Clock = "none"
        if self.order_seed is not None:
            interactions, clock = _shuffled(interactions, self.order_seed), "order"
        return Dataset.from_frames(
            interactions, _read_books(books), _read_users(users), clock=clock, name=self.default_name
        )


def _read_books(path: Path) -> pl.DataFrame:
    columns = [
        Column("item_id", "ISBN"),
        Column("title", "Book-Title", nullable=True),
        Column("author", "Book-Author", nullable=True, null_text="NULL"),
        Column("year", "Year-Of-Publication", pl.Int64, nullable=True, null_text="NULL"),
        Column("publisher", "Publisher", nullable=True, null_text="NULL"),
    ]
    books = read_delimited(path, columns, _DUMP)
    return books.with_columns(year=pl.when(pl.col("year") > 0).then(pl.col("year")))


def _read_users(path: Path) -> pl.DataFrame:
    columns = [
        Column("user_id", "User-ID"),
        Column("location", "Location", nullable=True),
        Column("age", "Age", pl.Int64, nullable=True, low=0, null_text="NULL"),
    ]
    return read_delimited(path, columns, _DUMP)


def _shuffled(interactions: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Rows in an order drawn from the seed, with the place in the user's order as `timestamp`."""
    order = np.random.default_rng(seed).permutation(interactions.height)
    return interactions[order].with_columns(timestamp=pl.int_range(pl.len()).over("user_id"))
