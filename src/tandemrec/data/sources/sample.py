"""The sample data set that ships with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tandemrec.data.dataset import Dataset
from tandemrec.recommender import Config


class Sample(Config):
    """The bundled synthetic data set: it needs no files."""

    format: Literal["sample"] = "sample"
    """Which source this is."""

    def files(self) -> list[Path]:
        """None: the sample comes with the package."""
        return []

    def load(self) -> Dataset:
        """The sample."""
        from tandemrec.data.sample import load_sample

        return load_sample()
