"""The two baselines without factors: the mean rating, and damped biases of items and users."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from tandemrec.conventional.storage import load_model, save_model
from tandemrec.data.ratings import Pairs, training_ratings
from tandemrec.data.split import Split
from tandemrec.recommender import Config, FitReport, FloatArray, RatingPredictor


class BiasesConfig(Config):
    """Damped averages; `mean_only` is the simplest baseline of all."""

    model: Literal["biases"] = "biases"
    """Which model this is."""

    damping: float = Field(5.0, ge=0)
    """Added to the number of ratings a bias is averaged over: pulls biases of few ratings to 0."""

    sweeps: int = Field(20, ge=1, le=1000)
    """Rounds of averaging items, then users; 1 is the classic single pass, 20 the minimum to four digits."""

    mean_only: bool = False
    """Predict the mean training rating for everybody."""

    clip: bool = True
    """Cut predictions to the smallest and largest rating of the training rows."""


class Biases(RatingPredictor):
    """r̂ = μ + b_i + b_u, in turns b_i = Σ (r − μ − b_u) / (n_i + d) and b_u = Σ (r − μ − b_i) / (n_u + d).

    The turns end at the minimum of Σ (r − r̂)² + d (Σ b_i² + Σ b_u²).
    """

    def __init__(self, config: BiasesConfig | None = None) -> None:
        self.config = config or BiasesConfig()
        self.user_bias = self.item_bias = np.zeros(1)
        self.mean, self.scale = 0.0, (-np.inf, np.inf)

    def fit(self, split: Split, *, seed: int = 0, workspace: Path | None = None) -> FitReport:
        """Average the training ratings; nothing is random and nothing is chosen."""
        started = time.monotonic()
        ratings = training_ratings(split)
        user, item, value = ratings.pairs.user, ratings.pairs.item, ratings.value.astype(np.float64)
        self.mean, self.scale = float(value.mean()), (float(value.min()), float(value.max()))
        sizes = split.dataset.n_users, split.n_items
        self.user_bias, self.item_bias = (np.zeros(size + 1) for size in sizes)
        for _ in range(0 if self.config.mean_only else self.config.sweeps):
            self.item_bias = self._averages(value - self.mean - self.user_bias[user], item, sizes[1])
            self.user_bias = self._averages(value - self.mean - self.item_bias[item], user, sizes[0])
        return FitReport(seconds=time.monotonic() - started)

    def _averages(self, rest: NDArray[np.float64], owner: NDArray[np.int32], size: int) -> NDArray[np.float64]:
        """Damped mean of every owner, (size + 1,): the last is that of `NOBODY`, 0."""
        count = np.bincount(owner, minlength=size + 1) + self.config.damping
        total = np.bincount(owner, rest, minlength=size + 1)
        mean: NDArray[np.float64] = np.divide(total, count, out=np.zeros(size + 1), where=count > 0)
        return mean

    def predict(self, pairs: Pairs) -> FloatArray:
        """Predicted ratings (B,)."""
        predicted = self.mean + self.item_bias[pairs.item] + self.user_bias[pairs.user]
        return (predicted.clip(*self.scale) if self.config.clip else predicted).astype(np.float32)

    def save(self, directory: Path) -> None:
        """Config, biases, mean and scale."""
        numbers = np.array([self.mean, *self.scale])
        arrays = {"user_bias": self.user_bias, "item_bias": self.item_bias, "mean_and_scale": numbers}
        save_model(directory, self.config, {name: torch.from_numpy(array) for name, array in arrays.items()})

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote."""
        config, tensors = load_model(directory, BiasesConfig)
        model = cls(config)
        model.user_bias, model.item_bias = tensors["user_bias"].numpy(), tensors["item_bias"].numpy()
        model.mean, low, high = tensors["mean_and_scale"].tolist()
        model.scale = low, high
        return model
