"""MovieLens: 100K (`u.data`), 1M and 10M (`::`), and the CSV editions (latest, latest-small, 20M, 25M, 32M)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import polars as pl

from tandemrec.data.dataset import Dataset
from tandemrec.data.sources.column import Column
from tandemrec.data.sources.delimited import Dialect, read_delimited
from tandemrec.data.sources.files import find_file
from tandemrec.data.sources.source import Source

Edition = Literal["ml-100k", "ml-1m", "ml-10m", "ml-20m", "ml-25m", "ml-32m", "ml-latest", "ml-latest-small"]

_Frames = tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame | None]

_NO_GENRES = "(no genres listed)"
_GENRES_100K = (
    "unknown|Action|Adventure|Animation|Children's|Comedy|Crime|Documentary|Drama|Fantasy|Film-Noir|Horror|Musical|"
    "Mystery|Romance|Sci-Fi|Thriller|War|Western"
)
_AGES_1M = {1: "Under 18", 18: "18-24", 25: "25-34", 35: "35-44", 45: "45-49", 50: "50-55", 56: "56+"}
_OCCUPATIONS_1M = (
    "other|academic/educator|artist|clerical/admin|college/grad student|customer service|doctor/health care|"
    "executive/managerial|farmer|homemaker|K-12 student|lawyer|programmer|retired|sales/marketing|scientist|"
    "self-employed|technician/engineer|tradesman/craftsman|unemployed|writer"
)


class MovieLens(Source):
    """A MovieLens data set in the files GroupLens publishes, each plain or `.gz`.

    Items get `title` (as written, with its year), `year`, `genres` (list); users of 100K and 1M get `gender`, `age`
    (1M: the lower end of the age group, and `age_group`), `occupation`, `zip_code`.
    """

    format: Literal["movielens"] = "movielens"
    """Which source this is."""

    edition: Edition
    """Which MovieLens; it decides the layout of the files, and the folder where `path` is not given."""

    @property
    def default_name(self) -> str:
        """The edition."""
        return self.edition

    def files(self) -> list[Path]:
        """Ratings, movies and, where the edition has them, users."""
        folder = self.folder()
        if self.edition == "ml-100k":
            return [find_file(folder, name) for name in ("u.data", "u.item", "u.user")]
        if self.edition == "ml-1m":
            return [find_file(folder, name) for name in ("ratings.dat", "movies.dat", "users.dat")]
        end = "dat" if self.edition == "ml-10m" else "csv"
        return [find_file(folder, f"ratings.{end}"), find_file(folder, f"movies.{end}")]

    def load(self) -> Dataset:
        """Read the files; see `Source.load`."""
        ratings, movies, *users = self.files()
        if self.edition == "ml-100k":
            frames = _load_100k(ratings, movies, users[0])
        elif self.edition in ("ml-1m", "ml-10m"):
            frames = _load_dat(ratings, movies, users[0] if users else None)
        else:
            frames = _load_csv(ratings, movies)
        return Dataset.from_frames(*frames, name=self.edition)


def _rating_columns(user: str, item: str, low: float) -> list[Column]:
    return [
        Column("user_id", user),
        Column("item_id", item),
        Column("rating", "rating", pl.Float64, low=low, high=5),
        Column("timestamp", "timestamp", pl.Int64, low=0),
    ]


def _load_100k(ratings: Path, movies: Path, users: Path) -> _Frames:
    tabs = Dialect("\t", quote=None, header=("user id", "item id", "rating", "timestamp"))
    interactions = read_delimited(ratings, _rating_columns("user id", "item id", low=1), tabs)
    genres = _GENRES_100K.split("|")
    item_header = ("movie id", "title", "release date", "video release date", "IMDb URL", *genres)
    flags = [Column(f"genre {genre}", genre, pl.Int64, low=0, high=1) for genre in genres]
    columns = [Column("item_id", "movie id"), Column("title", "title", nullable=True), *flags]
    items = read_delimited(movies, columns, Dialect("|", None, encoding="iso-8859-1", header=item_header))
    named = [pl.when(pl.col(flag.name) == 1).then(pl.lit(flag.found_as)) for flag in flags]
    items = items.select("item_id", "title", genres=pl.concat_list(named).list.drop_nulls())
    user_header = ("user id", "age", "gender", "occupation", "zip code")
    user_columns = [
        Column("user_id", "user id"),
        Column("gender", "gender", nullable=True),
        Column("age", "age", pl.Int64, nullable=True, low=0),
        Column("occupation", "occupation", nullable=True),
        Column("zip_code", "zip code", nullable=True),
    ]
    people = read_delimited(users, user_columns, Dialect("|", None, encoding="iso-8859-1", header=user_header))
    return interactions, _with_year(items), people


def _load_dat(ratings: Path, movies: Path, users: Path | None) -> _Frames:
    def dialect(*names: str, latin: bool = False) -> Dialect:
        return Dialect("::", None, encoding="iso-8859-1" if latin else "utf-8", header=names)

    interactions = read_delimited(
        ratings, _rating_columns("UserID", "MovieID", low=0.5), dialect("UserID", "MovieID", "rating", "timestamp")
    )
    # Of the two editions in this layout, 1M (the one with users) is ISO-8859-1 and 10M is UTF-8.
    movie_dialect = dialect("MovieID", "Title", "Genres", latin=users is not None)
    items = read_delimited(movies, _movie_columns("MovieID", "Title", "Genres"), movie_dialect)
    items = _with_year(_split_genres(items))
    if users is None:
        return interactions, items, None
    occupations = _OCCUPATIONS_1M.split("|")
    columns = [
        Column("user_id", "UserID"),
        Column("gender", "Gender", nullable=True),
        Column("age", "Age", pl.Int64, nullable=True, low=0),
        Column("occupation", "Occupation", pl.Int64, low=0, high=len(occupations) - 1),
        Column("zip_code", "Zip-code", nullable=True),
    ]
    people = read_delimited(users, columns, dialect("UserID", "Gender", "Age", "Occupation", "Zip-code"))
    people = people.with_columns(
        age_group=pl.col("age").replace_strict(_AGES_1M, default=None, return_dtype=pl.String),
        occupation=pl.col("occupation").replace_strict(dict(enumerate(occupations)), return_dtype=pl.String),
    )
    return interactions, items, people


def _load_csv(ratings: Path, movies: Path) -> _Frames:
    interactions = read_delimited(ratings, _rating_columns("userId", "movieId", low=0.5))
    items = read_delimited(movies, _movie_columns("movieId", "title", "genres"))
    return interactions, _with_year(_split_genres(items)), None


def _movie_columns(item: str, title: str, genres: str) -> list[Column]:
    return [Column("item_id", item), Column("title", title, nullable=True), Column("genres", genres, nullable=True)]


def _split_genres(items: pl.DataFrame) -> pl.DataFrame:
    """Genres as a list, empty where there are none."""
    none = pl.col("genres").is_null() | (pl.col("genres") == _NO_GENRES)
    empty = pl.lit([], dtype=pl.List(pl.String))
    return items.with_columns(genres=pl.when(none).then(empty).otherwise(pl.col("genres").str.split("|")))


def _with_year(items: pl.DataFrame) -> pl.DataFrame:
    """The year in brackets at the end of the title (of a span of years the first) as a column of its own."""
    year = pl.col("title").str.extract(r"\(([0-9]{4})(?:[-–][0-9]{0,4})?\)\s*$").cast(pl.Int64)
    return items.with_columns(year=year)
