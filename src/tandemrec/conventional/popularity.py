"""Popularity: the same list for everybody, and a bar that everything else must clear."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor

from tandemrec.conventional.storage import load_model, save_model
from tandemrec.data.examples import Examples
from tandemrec.data.split import Split
from tandemrec.recommender import Config, FitReport, Scorer


class PopularityConfig(Config):
    """Nothing to choose."""

    model: Literal["popularity"] = "popularity"
    """Which model this is."""


class Popularity(Scorer):
    """Scores an item by its number of training interactions."""

    def __init__(self, config: PopularityConfig | None = None) -> None:
        self.config = config or PopularityConfig()
        self.counts_I = torch.empty(0)

    def fit(self, split: Split, *, seed: int = 0, workspace: Path | None = None) -> FitReport:
        """Count."""
        started = time.monotonic()
        self.counts_I = torch.from_numpy(split.item_counts).float()
        return FitReport(seconds=time.monotonic() - started)

    def scores(self, examples: Examples) -> Tensor:
        """The counts, (B, I)."""
        return self.counts_I.repeat(len(examples), 1)

    def save(self, directory: Path) -> None:
        """Config and counts."""
        save_model(directory, self.config, {"counts": self.counts_I})

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote."""
        config, tensors = load_model(directory, PopularityConfig)
        model = cls(config)
        model.counts_I = tensors["counts"]
        return model
