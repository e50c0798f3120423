"""How a rating predictor is judged: RMSE and MAE, and where its errors lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import polars as pl
from pydantic import Field

from tandemrec.data.ratings import target_ratings
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.evaluation.by_user import standard_error, user_numbers
from tandemrec.evaluation.evaluate import diverged
from tandemrec.evaluation.metrics import mae, rmse
from tandemrec.evaluation.segments import count_groups
from tandemrec.recommender import Config, RatingPredictor

SEGMENTS = {"user activity": "user_count", "item popularity": "item_count"}
"""What ratings are grouped by → column of training counts."""


class RatingEvaluationConfig(Config):
    """How rating predictors are judged."""

    lower_is_better: ClassVar[bool] = True

    task: Literal["rating"] = "rating"
    """What is judged."""

    headline: Literal["rmse", "mae"] = "rmse"
    """The error the leaderboard is sorted by."""

    part: Literal["test", "valid"] = "test"
    """Which part judges."""

    groups: int = Field(4, ge=1, le=100)
    """Groups of about equal size, by training ratings of the user and of the item, whose errors are shown apart; cold
    users and items are a group of their own."""

    reference: str | None = None
    """The system that all others are tested against; null: the first of the recipe."""

    def protocol(self) -> str:
        """One line that names every choice."""
        return "Every target is predicted."


@dataclass(frozen=True)
class RatingEvaluation:
    """Errors of one predictor.

    Attributes:
        per_example: one row a rating: example, user (original id), item (original id), rating, predicted,
            squared_error, absolute_error, user_count, item_count (training ratings).
        config: how they were measured.
    """

    per_example: pl.DataFrame
    config: RatingEvaluationConfig

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """RMSE and MAE over ratings, each with its standard error over users (of RMSE by the delta method: that of the
        mean squared error over 2 RMSE).
        """
        return _errors(self.per_example)

    def segments(self) -> dict[str, list[dict[str, Any]]]:
        """Errors by user activity and by item popularity: group → counts it spans, how many ratings, RMSE, MAE."""
        found = {}
        for name, column in SEGMENTS.items():
            group = count_groups(self.per_example[column].to_numpy(), self.config.groups)
            parts = [self.per_example.filter(pl.Series(group == number)) for number in np.unique(group)]
            found[name] = [
                {"from": int(rows[column].min()), "to": int(rows[column].max()), "n": rows.height} | _errors(rows)  # type: ignore[arg-type]
                for rows in parts
            ]
        return found

    def summary(self) -> dict[str, Any]:
        """JSON-able: metrics, part, number of ratings, protocol, segments."""
        facts = {"part": self.config.part, "n": self.per_example.height, "protocol": self.config.protocol()}
        return {"metrics": self.metrics, **facts, "segments": self.segments()}


def evaluate_ratings(
    predictor: RatingPredictor, split: Split, config: RatingEvaluationConfig | None = None
) -> RatingEvaluation:
    """Judge a rating predictor on a part of a split.

    Raises:
        InputError: if the part holds no targets, or one without a rating, or a prediction is not a number.
    """
    config = config or RatingEvaluationConfig()
    rated, example = target_ratings(split, getattr(split, config.part))
    if not len(rated):
        raise InputError(f"the {config.part} part has no rating that can be judged")
    predicted = predictor.predict(rated.pairs).astype(np.float64)
    if not np.isfinite(predicted).all():
        raise diverged(predictor, "ratings")
    error = predicted - rated.value
    frame = pl.DataFrame(
        {
            "example": example,
            "user": split.dataset.users["user_id"].gather(rated.pairs.user),
            "item": split.dataset.items["item_id"].gather(rated.pairs.item),
            "rating": rated.value,
            "predicted": predicted,
            "squared_error": error**2,
            "absolute_error": np.abs(error),
            "user_count": split.user_counts[rated.pairs.user],
            "item_count": split.item_counts[rated.pairs.item],
        }
    )
    return RatingEvaluation(frame, config)


def _errors(rows: pl.DataFrame) -> dict[str, dict[str, float]]:
    predicted, rating = rows["predicted"].to_numpy(), rows["rating"].to_numpy()
    means = {"rmse": rmse(predicted, rating), "mae": mae(predicted, rating)}
    slopes = {"rmse": 2 * means["rmse"] or 1.0, "mae": 1.0}
    values = {"rmse": rows["squared_error"].to_numpy(), "mae": rows["absolute_error"].to_numpy()}
    user = user_numbers(rows["user"].to_numpy())
    return {
        name: {"mean": means[name], "standard_error": standard_error(values[name], user) / slopes[name]}
        for name in means
    }
