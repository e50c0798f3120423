"""Data sources, one file each: a frozen config that knows its files and reads them into a `Dataset`."""

from __future__ import annotations

from tandemrec.data.dataset import Dataset
from tandemrec.data.sources.movielens import MovieLens

SourceConfig = MovieLens
"""Any source, told apart by its key `format`."""


def load_dataset(config: SourceConfig) -> Dataset:
    """Read a data set.

    Raises:
        InputError: naming the folder, file, line or column that is not as expected.
    """
    return config.load()
