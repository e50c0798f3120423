"""Data sources, one file each: a frozen config that knows its files and reads them into a `Dataset`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tandemrec.data.dataset import Dataset
from tandemrec.data.sources.amazon import Amazon
from tandemrec.data.sources.book_crossing import BookCrossing
from tandemrec.data.sources.frames import ColumnMapping, TableOptions, dataset_from_frames
from tandemrec.data.sources.microlens import MicroLens
from tandemrec.data.sources.movielens import MovieLens
from tandemrec.data.sources.recbole import RecBole, write_atomic
from tandemrec.data.sources.sample import Sample
from tandemrec.data.sources.steam import Steam
from tandemrec.data.sources.table import Table

__all__ = [
    "Amazon",
    "BookCrossing",
    "ColumnMapping",
    "MicroLens",
    "MovieLens",
    "RecBole",
    "Sample",
    "SourceConfig",
    "Steam",
    "Table",
    "TableOptions",
    "dataset_from_frames",
    "load_dataset",
    "write_atomic",
]

SourceConfig = Annotated[
    Amazon | BookCrossing | MicroLens | MovieLens | RecBole | Sample | Steam | Table, Field(discriminator="format")
]
"""Any source, told apart by its key `format`."""


def load_dataset(config: SourceConfig) -> Dataset:
    """Read a data set.

    Raises:
        InputError: naming the folder, file, line or column that is not as expected.
    """
    return config.load()
