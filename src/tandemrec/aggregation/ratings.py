"""Adaptive aggregation of ratings: r̂ = α_u r̂_LLM + (1 − α_u) r̂_Rec (Llama4Rec, eq. 6)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

import numpy as np

from tandemrec.aggregation.choice import Choice, Names
from tandemrec.aggregation.weights import Activity, Weighting, WeightsConfig, fit_buckets, weightings
from tandemrec.data.examples import IntArray
from tandemrec.data.ratings import Pairs, target_ratings
from tandemrec.data.split import Split
from tandemrec.evaluation.metrics import rmse
from tandemrec.recommender import Config, FitReport, FloatArray, RatingPredictor


class RatingAggregateConfig(Config):
    """Llama4Rec's adaptive aggregation of a conventional and a language model's ratings, and its alternatives."""

    model: Literal["aggregate-ratings"] = "aggregate-ratings"
    """Which model this is."""

    base: str
    """The conventional rating predictor."""

    llm: Names
    """The other one; of several names the validation part chooses one."""

    weights: WeightsConfig = WeightsConfig()
    """How much it may say."""

    def partners(self) -> tuple[str, ...]:
        """Base first."""
        return tuple(dict.fromkeys((self.base, *self.llm)))


class RatingAggregate(RatingPredictor):
    """α_u follows from the user's training ratings; see `aggregation.weights`."""

    def __init__(self, config: RatingAggregateConfig, *systems: RatingPredictor, choice: Choice | None = None) -> None:
        """As `RankingAggregate`, of rating predictors."""
        self.config, self.choice = config, choice
        self.systems = dict(zip(config.partners(), systems, strict=True))

    def fit(self, split: Split, *, seed: int = 0, workspace: Path | None = None) -> FitReport:
        """Count ratings, and choose weights (and the other predictor) by RMSE on the validation part."""
        activity = Activity(split.user_counts)
        rated, _ = target_ratings(split, split.valid)
        counts_B = activity.of(rated.pairs.user, np.zeros(len(rated), np.int64))
        base_B, truth_B = self.systems[self.config.base].predict(rated.pairs).astype(np.float64), rated.value
        curve: list[dict[str, float]] = []
        found: list[tuple[str, Weighting]] = []
        for number, name in enumerate(self.config.llm):
            llm_B = self.systems[name].predict(rated.pairs).astype(np.float64)
            for weighting in self._tried(activity, counts_B, base_B, llm_B, truth_B):
                weight_B = weighting.weights(activity, counts_B)
                error = rmse(weight_B * llm_B + (1 - weight_B) * base_B, truth_B)
                curve.append({"llm": float(number), **weighting.numbers(), "rmse": error})
                found.append((name, weighting))
        best = min(range(len(curve)), key=lambda row: curve[row]["rmse"])
        self.choice = Choice(*found[best], activity)
        return FitReport(best_value=-curve[best]["rmse"], curve=curve, notes=self.choice.notes())

    def _tried(
        self, activity: Activity, counts_B: IntArray, base_B: np.ndarray, llm_B: np.ndarray, truth_B: np.ndarray
    ) -> list[Weighting]:
        settings = self.config.weights
        if settings.method != "fitted":
            return list(weightings(settings))
        grid = np.array(sorted(set(settings.max_llm_weight)))
        predicted_BG = llm_B[:, None] * grid + base_B[:, None] * (1 - grid)
        gain_BG = -((predicted_BG - truth_B[:, None]) ** 2)
        return [fit_buckets(settings, activity.bucket(counts_B, settings.buckets), gain_BG)]

    def predict(self, pairs: Pairs) -> FloatArray:
        """Aggregated ratings (B,); a user without training ratings counts as the least active one.

        The language model is not asked about users for whom it has no weight.
        """
        choice = self._chosen()
        counts_B = choice.activity.of(pairs.user, np.zeros(len(pairs), np.int64))
        weight_B = choice.weighting.weights(choice.activity, counts_B)
        found = self.systems[self.config.base].predict(pairs).astype(np.float64)
        heard = np.flatnonzero(weight_B)
        if len(heard):
            llm = self.systems[choice.llm].predict(pairs.take(heard)).astype(np.float64)
            found[heard] = weight_B[heard] * llm + (1 - weight_B[heard]) * found[heard]
        return found.astype(np.float32)

    def save(self, directory: Path) -> None:
        """`config.json` and the choice; the predictors are saved by themselves."""
        choice = self._chosen()
        self.config.write(directory)
        choice.save(directory)

    @classmethod
    def load(cls, directory: Path, *partners: RatingPredictor) -> Self:
        """Read what `save` wrote, over the same predictors in the order of `config.partners()`."""
        return cls(RatingAggregateConfig.read(directory), *partners, choice=Choice.load(directory))

    def _chosen(self) -> Choice:
        if self.choice is None:
            raise RuntimeError("RatingAggregate must be fitted or loaded first")
        return self.choice
