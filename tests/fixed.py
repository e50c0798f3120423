"""A system whose scores are given, for tests of what is done with scores."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
import torch

from tandemrec.data.examples import Examples
from tandemrec.data.split import Split
from tandemrec.recommender import FitReport, Scorer


class Fixed(Scorer):
    """Scores of a table, one row a user; remembers how many rows each call had."""

    def __init__(self, table: np.ndarray) -> None:
        self.table = torch.from_numpy(table.astype(np.float32))
        self.calls: list[int] = []

    def scores(self, examples: Examples) -> torch.Tensor:
        self.calls.append(len(examples))
        return self.table[torch.from_numpy(examples.user.astype(np.int64))]

    def fit(self, split: Split, *, seed: int = 0, workspace: Path | None = None) -> FitReport:
        raise NotImplementedError

    def save(self, directory: Path) -> None:
        raise NotImplementedError

    @classmethod
    def load(cls, directory: Path) -> Self:
        raise NotImplementedError
