"""What aggregates and rankers add to the systems whose answers they build on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from tandemrec.aggregation.rankings import RankingAggregateConfig
from tandemrec.aggregation.ratings import RatingAggregateConfig
from tandemrec.data.examples import IntArray
from tandemrec.data.split import Split
from tandemrec.evaluation.gains import order_bounds, segment_gains
from tandemrec.experiment.recipe import Recipe
from tandemrec.llm.recommenders.ranker import RankerConfig


def rerankings(recipe: Recipe, split: Split, frames: Mapping[str, pl.DataFrame]) -> list[dict[str, Any]]:
    """A row for every ranker and every aggregate of the recipe.

    Args:
        recipe: its models and its evaluation.
        split: what they were judged on.
        frames: per-example rows by system.

    Returns:
        JSON-able rows: `system`, `base`, `depth` (candidates that are put in order), `gain` and `segments` (see
        `segment_gains`), `value` and `bounds` (see `order_bounds`); the last two and `depth` are null for ratings, the
        bounds also where an example has several targets.
    """
    judge, rows = recipe.evaluation, []
    for name, config in recipe.models.items():
        if not isinstance(config, RankerConfig | RankingAggregateConfig | RatingAggregateConfig):
            continue
        own, base = frames[name], frames[config.base]
        counts = _counts(split, judge.part, own)
        row: dict[str, Any] = {"system": name, "base": config.base, "depth": None, "value": None, "bounds": None}
        if not isinstance(config, RatingAggregateConfig):
            row |= {"depth": config.candidates, "value": float(np.mean(own[judge.headline].to_numpy()))}
            if "item popularity" in counts:
                row["bounds"] = order_bounds(base, config.candidates, judge.headline)
        rows.append(row | segment_gains(own, base, judge.headline, counts, judge.groups))
    return rows


def _counts(split: Split, part: str, frame: pl.DataFrame) -> dict[str, IntArray]:
    """Training interactions of the user of every row, and of the target where there is one."""
    if "user_count" in frame.columns:
        return {
            "user activity": frame["user_count"].to_numpy(),
            "item popularity": frame["item_count"].to_numpy(),
        }
    examples = getattr(split, part).take(frame["example"].to_numpy())
    counts = {"user activity": split.user_counts[examples.user]}
    if (examples.target.lengths == 1).all():
        counts["item popularity"] = split.item_counts[examples.target.flat()]
    return counts
