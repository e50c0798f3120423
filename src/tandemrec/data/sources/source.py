"""`Source`: what every description of a data set on disk can do."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

from tandemrec.data.dataset import Dataset
from tandemrec.data.locations import data_folder
from tandemrec.recommender import Config


class Source(Config):
    """A data set on disk: which files it consists of and how they become a `Dataset`."""

    path: Path | None = None
    """Folder of the files. Relative: below the data folder (TANDEMREC_DATA), else the working directory. Default: the
    folder that bears the data set's usual name in the data folder."""

    @property
    @abstractmethod
    def default_name(self) -> str:
        """The data set's usual folder name, also its name in tables."""

    @abstractmethod
    def files(self) -> list[Path]:
        """The files that `load` reads; their content decides whether the data have changed.

        Raises:
            InputError: if the folder or a file that must be there is missing.
        """

    @abstractmethod
    def load(self) -> Dataset:
        """Read the files.

        Raises:
            InputError: naming file, line and column of the first thing that is not as expected.
        """

    def folder(self) -> Path:
        """Where the files are.

        Raises:
            InputError: if there is no such folder.
        """
        return data_folder(self.path if self.path is not None else self.default_name)

    def check(self) -> None:
        """Refuse a missing folder or file before any work starts."""
        self.files()
