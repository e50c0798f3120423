"""Any table in files: CSV, TSV, Parquet or JSON lines, with a column mapping."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Literal

import polars as pl
from pydantic import Field

from tandemrec.data.dataset import Dataset
from tandemrec.data.locations import data_root
from tandemrec.data.sources.column import Column
from tandemrec.data.sources.delimited import (
    POLARS_ERRORS,
    Dialect,
    Encoding,
    header_names,
    line_of_row,
    read_delimited,
    reason,
)
from tandemrec.data.sources.files import read_bytes
from tandemrec.data.sources.frames import Place, TableOptions, interaction_frame, item_frame, user_frame
from tandemrec.data.sources.json_lines import first_object, iter_objects, read_json_lines
from tandemrec.data.sources.source import Source
from tandemrec.errors import InputError

Kind = Literal["delimited", "parquet", "json"]

_KINDS: dict[str, Kind] = {
    ".csv": "delimited",
    ".tsv": "delimited",
    ".txt": "delimited",
    ".parquet": "parquet",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
}


class Table(Source, TableOptions):
    """Interactions in one file, items and users in further ones: CSV, TSV, Parquet or JSON lines, all but Parquet also
    `.gz`. Attributes from delimited files are texts; those of the other formats keep their types.
    """

    format: Literal["table"] = "table"
    """Which source this is."""

    interactions: Path
    """File of the interactions, relative to `path` (or, without `path`, to the data folder or working directory)."""

    items: Path | None = None
    """File of the items: their ids, titles and attributes; default: the items have nothing but their ids."""

    users: Path | None = None
    """File of the users: their ids and attributes."""

    separator: str | None = Field(None, min_length=1, max_length=1)
    """Between the fields of delimited files; default: a comma, of `.tsv` a tab."""

    encoding: Encoding = "utf-8"
    """Of delimited files."""

    @property
    def default_name(self) -> str:
        """The name of the interactions file without its endings."""
        return self.name or self.interactions.name.split(".")[0]

    def files(self) -> list[Path]:
        """The files named."""
        return [self._place(file) for file in (self.interactions, self.items, self.users) if file is not None]

    def load(self) -> Dataset:
        """Read the files; see `Source.load`."""
        path = self._place(self.interactions)
        interactions, place = self._read_interactions(path)
        tables = {
            kind: frame_of(self._read_entities(self._place(file)), self.columns, str(self._place(file)))
            for kind, file, frame_of in (("items", self.items, item_frame), ("users", self.users, user_frame))
            if file is not None
        }
        rows = interaction_frame(interactions, self, str(path), place)
        return Dataset.from_frames(rows, **tables, clock=self.clock, name=self.default_name)

    def _place(self, file: Path) -> Path:
        if self.path is not None:
            places = [self.folder() / file]
        else:
            file = file.expanduser()
            places = [file] if file.is_absolute() else [data_root() / file, Path.cwd() / file]
        for place in places:
            if place.is_file():
                return place
        raise InputError(f"there is no file {' or '.join(map(str, places))}")

    def _dialect(self, path: Path) -> Dialect:
        separator = self.separator or ("\t" if _ending(path) == ".tsv" else ",")
        return Dialect(separator, encoding=self.encoding)

    def _read_interactions(self, path: Path) -> tuple[pl.DataFrame, Place]:
        """The mapped columns, numbers checked where the format allows to name the line."""
        kind, mapping = _kind(path), self.columns
        if kind == "parquet":
            return _read_parquet(path), lambda row: f"{path}, row {row + 1}"
        low, high = self.rating_range or (None, None)
        time = pl.String if self.time_format else pl.Int64
        columns = [
            Column(mapping.user, mapping.user),
            Column(mapping.item, mapping.item),
            _column(mapping.rating, "rating", Column("", "", pl.Float64, low=low, high=high)),
            _column(mapping.timestamp, "timestamp", Column("", "", time, low=None if self.time_format else 0)),
            _column(mapping.split, "split", Column("", "")),
        ]
        if self.clock == "none":
            columns.pop(3)
        if kind == "json":
            there = first_object(path)
            columns = [replace(c, optional=False) for c in columns if c.found_as in there or not c.optional]
            return read_json_lines(path, columns), lambda row: f"{path}, row {row + 1}"
        dialect = self._dialect(path)
        return read_delimited(path, columns, dialect), lambda row: f"{path}, line {line_of_row(path, row, dialect)}"

    def _read_entities(self, path: Path) -> pl.DataFrame:
        kind = _kind(path)
        if kind == "parquet":
            return _read_parquet(path)
        if kind == "delimited":
            dialect = self._dialect(path)
            columns = [Column(name, name, nullable=True) for name in header_names(path, dialect)]
            return read_delimited(path, columns, dialect)
        try:
            return pl.read_ndjson(io.BytesIO(read_bytes(path)), infer_schema_length=None)
        except POLARS_ERRORS as error:
            for _ in iter_objects(path):
                pass
            raise InputError(f"{path}: a key changes its type between lines: {reason(error)}") from None


def _column(named: str | None, usual: str, like: Column) -> Column:
    name = named or usual
    return Column(name, name, like.dtype, optional=named is None, low=like.low, high=like.high)


def _ending(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def _kind(path: Path) -> Kind:
    kind = _KINDS.get(_ending(path))
    if kind is None or (kind == "parquet" and path.suffix == ".gz"):
        raise InputError(f"{path}: unknown kind of file, expected one that ends in {', '.join(_KINDS)} (or with .gz)")
    return kind


def _read_parquet(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path)
    except POLARS_ERRORS as error:
        raise InputError(f"{path} is no intact Parquet file: {reason(error)}") from None
