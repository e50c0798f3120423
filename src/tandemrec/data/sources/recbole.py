"""RecBole atomic files, in and out: `NAME.inter`, `NAME.item`, `NAME.user` with typed headers."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import Field

from tandemrec.data.dataset import Clock, Dataset
from tandemrec.data.sources.column import Column, shorten
from tandemrec.data.sources.delimited import Dialect, header_names, read_delimited
from tandemrec.data.sources.files import find_file, find_optional, match_files
from tandemrec.data.sources.source import Source
from tandemrec.errors import InputError

_TYPES = ("token", "token_seq", "float", "float_seq")
_TABS = Dialect("\t", quote=None)
_TITLES = ("title", "movie_title", "item_name", "name")
_HARD_SPACE = "\u00a0"
"""Stands for a space inside one token of a sequence, whose tokens are separated by spaces."""


class RecBole(Source):
    """A folder of RecBole atomic files: tab separated, the header names and types the fields, sequences by spaces."""

    format: Literal["recbole"] = "recbole"
    """Which source this is."""

    name: str | None = Field(None, min_length=1)
    """Name of the files; default: that of the one `.inter` file in the folder. Where `path` is not given, also the
    folder."""

    user_field: str = Field("user_id", min_length=1)
    """Field of the user's id."""

    item_field: str = Field("item_id", min_length=1)
    """Field of the item's id."""

    rating_field: str = Field("rating", min_length=1)
    """Field of the rating, if the interactions have it."""

    time_field: str = Field("timestamp", min_length=1)
    """Field of the time, if the interactions have it; fractions are cut off."""

    title_field: str | None = Field(None, min_length=1)
    """Field of the title; default: the first of title, movie_title, item_name and name that the items have."""

    clock: Clock = "seconds"
    """What the times are."""

    @property
    def default_name(self) -> str:
        """The name of the files."""
        if self.name is None:
            raise InputError("a RecBole source needs the key 'path' or the key 'name'")
        return self.name

    def files(self) -> list[Path]:
        """Interactions and, where they are there, items and users."""
        folder, name = self.folder(), self._stem()
        rest = [find_optional(folder, f"{name}.{end}") for end in ("item", "user")]
        return [find_file(folder, f"{name}.inter"), *(path for path in rest if path is not None)]

    def load(self) -> Dataset:
        """Read the files; see `Source.load`."""
        folder, name = self.folder(), self._stem()
        items, users = (find_optional(folder, f"{name}.{end}") for end in ("item", "user"))
        return Dataset.from_frames(
            self._read_interactions(find_file(folder, f"{name}.inter")),
            None if items is None else self._read_items(items),
            None if users is None else _read(users, {self.user_field: "user_id"}, required=(self.user_field,)),
            clock=self.clock,
            name=name,
        )

    def _stem(self) -> str:
        if self.name is not None:
            return self.name
        found = [path.name.removesuffix(".gz").removesuffix(".inter") for path in match_files(self.folder(), "*.inter")]
        if len(found) != 1:
            there = ", ".join(found) or "none"
            raise InputError(f"{self.folder()}: expected one file *.inter or the key 'name', found {there}")
        return found[0]

    def _read_interactions(self, path: Path) -> pl.DataFrame:
        types = _header(path)
        columns = [
            Column("user_id", _field(path, types, self.user_field)),
            Column("item_id", _field(path, types, self.item_field)),
        ]
        if self.rating_field in types:
            columns.append(Column("rating", f"{self.rating_field}:{types[self.rating_field]}", pl.Float64))
        if self.time_field in types and self.clock != "none":
            time = f"{self.time_field}:{types[self.time_field]}"
            columns.append(Column("timestamp", time, pl.Float64, low=0, high=2**53))
        if "split" in types:
            columns.append(Column("split", f"split:{types['split']}"))
        frame = read_delimited(path, columns, _TABS)
        return frame.with_columns(pl.col("^timestamp$").cast(pl.Int64))

    def _read_items(self, path: Path) -> pl.DataFrame:
        types = _header(path)
        if self.title_field is not None:
            _field(path, types, self.title_field)
        title = self.title_field or next((name for name in _TITLES if name in types), None)
        renamed = {self.item_field: "item_id"} | ({title: "title"} if title else {})
        return _read(path, renamed, required=(self.item_field,))


def write_atomic(dataset: Dataset, directory: Path, name: str | None = None) -> None:
    """Write `NAME.inter`, `NAME.item` and `NAME.user`, each whole or not at all.

    Titles become `token_seq` (words), lists of texts `token_seq`, lists of numbers `float_seq`, numbers `float`, the
    rest `token`. So that RecBole reads what is meant, tabs and line ends in texts become blanks, a double quote at the
    beginning of a text two single ones, and blanks inside a token of a sequence hard ones (U+00A0).

    Args:
        dataset: what to write; times only if it has a clock, ratings only if it has any.
        directory: created if need be.
        name: of the files; default: the name of the dataset.

    Raises:
        InputError: if an id holds a tab, a line end or a double quote, or the files cannot be written.
    """
    name = name or dataset.name
    interactions = dataset.interactions.select(
        user_id=dataset.users["user_id"].gather(dataset.interactions["user"]),
        item_id=dataset.items["item_id"].gather(dataset.interactions["item"]),
        **{column: column for column in ("rating", "timestamp", "split") if column in dataset.interactions.columns},
    )
    if interactions["rating"].null_count() == interactions.height:
        interactions = interactions.drop("rating")
    if dataset.clock == "none":
        interactions = interactions.drop("timestamp")
    for ids in (dataset.users["user_id"], dataset.items["item_id"]):
        odd = ids.filter(ids.str.contains('[\t\r\n"]'))
        if len(odd):
            raise InputError(
                f"{ids.name} {shorten(odd[0])} cannot stand in an atomic file: it holds a tab, line end or quote"
            )
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory, prefix=".atomic-") as draft:
            for end, frame in (("inter", interactions), ("item", dataset.items), ("user", dataset.users)):
                path = Path(draft) / f"{name}.{end}"
                _typed(frame).write_csv(path, separator="\t", quote_style="never")
            for path in Path(draft).iterdir():
                path.replace(directory / path.name)
    except OSError as error:
        raise InputError(f"{directory} cannot be written: {error.strerror or error}") from None


def _header(path: Path) -> dict[str, str]:
    """Type by field."""
    types = {}
    for column in header_names(path, _TABS):
        field, colon, kind = column.rpartition(":")
        if not colon or kind not in _TYPES:
            raise InputError(
                f"{path}, line 1: found field {shorten(column)}, expected NAME:TYPE with {', '.join(_TYPES)}"
            )
        types[field] = kind
    return types


def _field(path: Path, types: dict[str, str], field: str) -> str:
    if field not in types:
        raise InputError(f"{path}, line 1: no field '{field}', found {shorten(', '.join(types))}")
    return f"{field}:{types[field]}"


def _read(path: Path, renamed: dict[str, str], required: tuple[str, ...]) -> pl.DataFrame:
    """All fields of a file; ids are texts whatever their type, a title is the text as it stands."""
    types = _header(path)
    columns, lists = [], []
    for field in required:
        _field(path, types, field)
    for field, kind in types.items():
        name = renamed.get(field, field)
        if name in renamed.values() and field not in renamed:
            continue
        text = kind != "float" or field in renamed
        dtype = pl.String if text else pl.Float64
        columns.append(Column(name, f"{field}:{kind}", dtype, nullable=field not in required))
        if kind.endswith("_seq") and field not in renamed:
            tokens = pl.col(name).str.split(" ")
            spaced = tokens.list.eval(pl.element().str.replace_all(_HARD_SPACE, " "))
            lists.append(spaced if kind == "token_seq" else tokens.cast(pl.List(pl.Float64), strict=False))
    return read_delimited(path, columns, _TABS).with_columns(lists)


def _typed(frame: pl.DataFrame) -> pl.DataFrame:
    """Texts and numbers under typed names."""
    columns = []
    for name, dtype in frame.schema.items():
        values = pl.col(name)
        if isinstance(dtype, pl.List):
            number = dtype.inner.is_numeric()
            texts = values.list.eval(_plain(pl.element().cast(pl.String)).str.replace_all(" ", _HARD_SPACE))
            joined = pl.when(values.list.len() > 0).then(texts.list.drop_nulls().list.join(" "))
            columns.append(joined.alias(f"{name}:{'float_seq' if number else 'token_seq'}"))
        elif name not in ("user_id", "item_id") and dtype.is_numeric():
            columns.append(values.alias(f"{name}:float"))
        else:
            kind = "token_seq" if name == "title" else "token"
            columns.append(_plain(values.cast(pl.String)).alias(f"{name}:{kind}"))
    return frame.select(columns)


def _plain(texts: pl.Expr) -> pl.Expr:
    return texts.str.replace_all(r"[\t\r\n]+", " ").str.replace('^"', "''")
