"""Amazon review data of 2014, 2018 and 2023: reviews or ratings of one category with its item metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import Field

from tandemrec.data.dataset import Clock, Dataset
from tandemrec.data.sources.column import Column
from tandemrec.data.sources.delimited import Dialect, read_delimited
from tandemrec.data.sources.files import find_file, match_files
from tandemrec.data.sources.json_lines import first_object, read_json_lines
from tandemrec.data.sources.source import Source
from tandemrec.errors import InputError

Edition = Literal["2014", "2018", "2023"]
TitleColumn = Literal["title", "brand", "description", "categories"]

_TEXTS = pl.List(pl.String)
_HTML_FRAGMENT = r"^\s*<[A-Za-z/!]|getTime\(\)"
_REVIEW_FILES: dict[Edition, tuple[str, ...]] = {
    "2014": ("reviews_{}_5.json", "reviews_{}.json", "ratings_{}.csv"),
    "2018": ("{}_5.json", "{}.json", "{}_reviews.json", "{}.csv"),
    "2023": ("{}.jsonl", "{}.csv"),
}
_RATING_HEADERS: dict[Edition, tuple[str, ...] | None] = {
    "2014": ("user", "item", "rating", "timestamp"),
    "2018": ("item", "user", "rating", "timestamp"),
    "2023": None,
}


class Amazon(Source):
    """One category of the Amazon review data, as published by the UCSD McAuley Lab, each file plain or `.gz`.

    Reviews may be the JSON lines with texts (which are not kept) or the rating-only CSV. A file `interactions.csv` with
    user_id, asin or item_id, position (place in the user's order) and perhaps split, as re-exported with some papers,
    is taken as well: it has no ratings, and its clock is the order. Times are seconds, those of 2023 milliseconds.

    Items get `title` (null where it is a piece of a web page), `brand` (of 2023 the store), `categories` (list, of
    several paths every name once), `main_category`, `description`, `price` (where it is one number).
    """

    format: Literal["amazon"] = "amazon"
    """Which source this is."""

    edition: Edition = "2018"
    """Year of the collection; it decides the names and keys of the files."""

    category: str | None = Field(None, min_length=1)
    """Category as in the file names, such as Video_Games; default: the one whose metadata file is in the folder."""

    reviews: str | None = Field(None, min_length=1)
    """Name of the reviews file (with or without .gz); default: the one that bears a usual name."""

    metadata: bool = True
    """Read the item metadata; false: items have nothing but their ids."""

    title_from: tuple[TitleColumn, ...] = Field(("title",), min_length=1)
    """Columns asked for a title, in this order: an item's title is the first that is there. Of a description its first
    sentence counts, of categories the last one."""

    @property
    def default_name(self) -> str:
        """The folder `amazon-EDITION-category`."""
        if self.category is None:
            raise InputError("an Amazon source needs the key 'path' or the key 'category'")
        return f"amazon-{self.edition}-{self.category.lower().replace('_', '-')}"

    def files(self) -> list[Path]:
        """The reviews and, if wanted, the metadata."""
        folder = self.folder()
        category = self.category or self._only_category(folder)
        found = [self._reviews_file(folder, category)]
        if self.metadata:
            found.append(find_file(folder, *(f"meta_{category}.{end}" for end in ("json", "jsonl"))))
        return found

    def load(self) -> Dataset:
        """Read the files; see `Source.load`."""
        reviews, *metadata = self.files()
        interactions, clock = self._interactions(reviews)
        items = self._items(metadata[0]) if metadata else None
        name = self.path.name if self.path is not None and self.category is None else self.default_name
        return Dataset.from_frames(interactions, items, clock=clock, name=name)

    def _only_category(self, folder: Path) -> str:
        found = sorted({path.name.split(".")[0].removeprefix("meta_") for path in match_files(folder, "meta_*.json*")})
        if len(found) != 1:
            there = f"those of {', '.join(found)}" if found else "none"
            raise InputError(f"{folder}: expected one metadata file meta_*.json or the key 'category', found {there}")
        return found[0]

    def _reviews_file(self, folder: Path, category: str) -> Path:
        if self.reviews is not None:
            return find_file(folder, self.reviews)
        names = [*(name.format(category) for name in _REVIEW_FILES[self.edition]), "interactions.csv"]
        found = match_files(folder, *names)
        if len(found) > 1:
            choices = ", ".join(path.name for path in found)
            raise InputError(f"{folder}: found {choices}, expected one of them or the key 'reviews' to choose")
        return found[0] if found else find_file(folder, *names)

    def _interactions(self, path: Path) -> tuple[pl.DataFrame, Clock]:
        if path.name.startswith("interactions.csv"):
            return _read_positions(path), "order"
        clock: Clock = "milliseconds" if self.edition == "2023" else "seconds"
        user, item, rating, time = (
            ("user_id", "parent_asin", "rating", "timestamp")
            if self.edition == "2023"
            else ("reviewerID", "asin", "overall", "unixReviewTime")
        )
        if header := _is_csv(path) and _RATING_HEADERS[self.edition]:
            user, item, rating, time = "user", "item", "rating", "timestamp"
        columns = [
            Column("user_id", user),
            Column("item_id", item),
            Column("rating", rating, pl.Float64, low=0, high=5),
            Column("timestamp", time, pl.Int64, low=0),
        ]
        if _is_csv(path):
            return read_delimited(path, columns, Dialect(header=header or None)), clock
        return read_json_lines(path, columns), clock

    def _items(self, path: Path) -> pl.DataFrame:
        first = first_object(path, loose=self.edition == "2014")
        key = next((key for key in ("parent_asin", "asin", "item_id") if key in first), "asin")
        texts = ("title", "brand", "store", "main_cat", "main_category", "price")
        lists = ("category", "categories", "description")
        columns = [
            Column("item_id", key),
            *(Column(name, name, nullable=True) for name in texts),
            *(Column(name, name, _TEXTS, nullable=True) for name in lists),
        ]
        raw = read_json_lines(path, columns, loose=self.edition == "2014")
        price = pl.col("price").str.extract(r"^\s*\$?([0-9][0-9,]*(?:\.[0-9]+)?)\s*$").str.replace_all(",", "")
        items = raw.select(
            "item_id",
            title=pl.when(~pl.col("title").str.contains(_HTML_FRAGMENT)).then(_present("title")),
            brand=pl.coalesce(_present("brand"), _present("store")),
            categories=pl.coalesce("category", "categories"),
            main_category=pl.coalesce(_present("main_category"), _present("main_cat")),
            description=_present(pl.col("description").list.unique(maintain_order=True).list.join(" ")),
            price=price.cast(pl.Float64, strict=False),
        )
        items = items.with_columns(title=pl.coalesce(_title_from(name) for name in self.title_from))
        unknown = [c for c in items.columns if c != "title" and items[c].null_count() == items.height]
        return items.drop(unknown)


def _read_positions(path: Path) -> pl.DataFrame:
    columns = [
        Column("user_id", "user_id"),
        Column("asin", "asin", optional=True),
        Column("item_id", "item_id", optional=True),
        Column("timestamp", "position", pl.Int64, low=0),
        Column("split", "split", optional=True),
    ]
    frame = read_delimited(path, columns)
    item = next((name for name in ("asin", "item_id") if name in frame.columns), None)
    if item is None:
        raise InputError(f"{path}, line 1: no column 'asin' or 'item_id'")
    return frame.select(item_id=item, **{name: name for name in frame.columns if name not in ("asin", "item_id")})


def _title_from(name: TitleColumn) -> pl.Expr:
    if name == "description":
        return pl.col(name).str.extract(r"^\s*(?s:(.+?[.!?]))(?:\s|$)").fill_null(pl.col(name))
    return pl.col(name).list.last() if name == "categories" else pl.col(name)


def _present(column: str | pl.Expr) -> pl.Expr:
    """The column with null for texts of nothing but blanks."""
    values = pl.col(column) if isinstance(column, str) else column
    return pl.when(values.str.contains(r"\S")).then(values)


def _is_csv(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith(".csv")
