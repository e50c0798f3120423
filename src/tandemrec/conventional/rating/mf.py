"""Biased matrix factorization by alternating least squares (Koren, Bell and Volinsky, IEEE Computer 2009)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from tandemrec.conventional.storage import load_model, save_model
from tandemrec.data.ratings import Pairs, Ratings, target_ratings, training_ratings
from tandemrec.data.split import Split
from tandemrec.evaluation.metrics import mae, rmse
from tandemrec.recommender import Config, FitReport, FloatArray, RatingPredictor

BLOCK = 1 << 17
"""Ratings whose outer products exist at once."""


class BiasedMFConfig(Config):
    """No gradient steps: every sweep solves all users, then all items, exactly."""

    model: Literal["biased-mf"] = "biased-mf"
    """Which model this is."""

    dim: int = Field(10, ge=1)
    """Factors D."""

    l2: float = Field(0.2, gt=0)
    """Penalty on squared factors and biases of every rating: an entity with n ratings has n times as much of it."""

    sweeps: int = Field(20, ge=1)
    """Most sweeps; validation RMSE chooses how many are kept."""

    init_std: float = Field(0.1, gt=0)
    """Standard deviation of the normal the factors start from."""

    clip: bool = True
    """Cut predictions to the smallest and largest rating of the training rows."""


class BiasedMF(RatingPredictor):
    """r̂ = μ + b_u + b_i + ⟨p_u, q_i⟩, minimising Σ (r − r̂)² + λ (|p_u|² + b_u² + |q_i|² + b_i²) over the ratings.

    A side is solved with the other fixed: one system of D + 1 unknowns (factors and bias) an entity.
    """

    def __init__(self, config: BiasedMFConfig | None = None) -> None:
        self.config = config or BiasedMFConfig()
        self.user = self.item = torch.zeros(1, self.config.dim + 1, dtype=torch.float64)
        self.mean, self.scale = 0.0, (-np.inf, np.inf)

    def fit(self, split: Split, *, seed: int = 0, workspace: Path | None = None) -> FitReport:
        """Sweep until the validation ratings are predicted no better for three sweeps."""
        started = time.monotonic()
        ratings, (chosen_by, _) = training_ratings(split), target_ratings(split, split.valid)
        self.mean = float(ratings.value.mean(dtype=np.float64))
        self.scale = float(ratings.value.min()), float(ratings.value.max())
        generator = torch.Generator().manual_seed(seed)
        width = self.config.dim + 1
        self.user = torch.zeros(split.dataset.n_users + 1, width, dtype=torch.float64)
        self.item = torch.randn(split.n_items + 1, width, dtype=torch.float64, generator=generator)
        self.item *= self.config.init_std
        self.item[:, -1] = 0
        self.item[-1] = 0
        best = (np.inf, self.user, self.item)
        curve: list[dict[str, float]] = []
        best_sweep = 0
        for sweep in range(1, self.config.sweeps + 1):
            self._sweep(ratings)
            predicted = self.predict(chosen_by.pairs)
            error = rmse(predicted, chosen_by.value)
            curve.append({"epoch": float(sweep), "rmse": error, "mae": mae(predicted, chosen_by.value)})
            if error < best[0]:
                best, best_sweep = (error, self.user, self.item), sweep
            elif sweep >= best_sweep + 3:
                break
        _, self.user, self.item = best
        seconds = time.monotonic() - started
        return FitReport(seconds=seconds, epochs=len(curve), best_epoch=best_sweep, best_value=-best[0], curve=curve)

    def _sweep(self, ratings: Ratings) -> None:
        user, item = (torch.from_numpy(ids.astype(np.int64)) for ids in (ratings.pairs.user, ratings.pairs.item))
        rest = torch.from_numpy(ratings.value.astype(np.float64)) - self.mean
        self.user = self._solve(user, len(self.user), self.item[item], rest)
        self.item = self._solve(item, len(self.item), self.user[user], rest)

    def _solve(self, owner: Tensor, size: int, other: Tensor, rest: Tensor) -> Tensor:
        """Ridge regression of every owner's ratings on the other side's factors and a constant, (size, D + 1)."""
        width = self.config.dim + 1
        left = torch.zeros(size, width * width, dtype=torch.float64)
        right = torch.zeros(size, width, dtype=torch.float64)
        for at in range(0, len(owner), BLOCK):
            mine, factors = owner[at : at + BLOCK], other[at : at + BLOCK].clone()
            target = rest[at : at + BLOCK] - factors[:, -1]
            factors[:, -1] = 1
            left.index_add_(0, mine, (factors[:, :, None] * factors[:, None, :]).flatten(1))
            right.index_add_(0, mine, factors * target[:, None])
        count = torch.bincount(owner, minlength=size)
        ridge = self.config.l2 * torch.where(count > 0, count, 1)
        systems = left.view(size, width, width) + ridge[:, None, None] * torch.eye(width, dtype=torch.float64)
        solved: Tensor = torch.linalg.solve(systems, right)
        return solved

    @property
    def user_vectors(self) -> Tensor:
        """Factors (U, D) of the users; zero for one without training ratings."""
        return self.user[:-1, :-1]

    def predict(self, pairs: Pairs) -> FloatArray:
        """Predicted ratings (B,)."""
        p, q = self.user[pairs.user.astype(np.int64)], self.item[pairs.item.astype(np.int64)]
        predicted = self.mean + p[:, -1] + q[:, -1] + (p[:, :-1] * q[:, :-1]).sum(1)
        return (predicted.clamp(*self.scale) if self.config.clip else predicted).float().numpy()

    def save(self, directory: Path) -> None:
        """Config, factors with biases, mean and scale."""
        numbers = torch.tensor([self.mean, *self.scale], dtype=torch.float64)
        save_model(directory, self.config, {"user": self.user, "item": self.item, "mean_and_scale": numbers})

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what `save` wrote."""
        config, tensors = load_model(directory, BiasedMFConfig)
        model = cls(config)
        model.user, model.item = tensors["user"], tensors["item"]
        model.mean, low, high = tensors["mean_and_scale"].tolist()
        model.scale = low, high
        return model
