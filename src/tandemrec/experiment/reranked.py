"""What aggregates and rankers add to the systems whose answers they build on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def over_seeds(
    finished: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], systems: Sequence[str]
) -> dict[str, Any]:
    """What aggregates and rankers add, mean of repeated trainings.

    Args:
        finished: `results.json` and `run_card.json` of every training of a recipe.
        systems: which rows.

    Returns:
        JSON-able: `metric`, and `rows` as those of `rerankings` without segments; a gain's standard error is the mean
        of the trainings'. `chosen` tells of every training whom an aggregate asks and with which weights.
    """
    found = []
    for system in systems:
        rows = [row for results, _ in finished for row in results.get("rerankings", []) if row["system"] == system]
        if len(rows) < len(finished):
            continue
        notes = [card["models"][system]["notes"] for _, card in finished]
        chosen = [{key: note[key] for key in ("llm", "weighting")} for note in notes if "weighting" in note]
        mean = {key: _mean([row[key] for row in rows]) for key in ("value", "bounds", "gain")}
        found.append({key: rows[0][key] for key in ("system", "base", "depth")} | mean | {"chosen": chosen})
    return {"metric": finished[0][0]["evaluation"]["headline"], "rows": found}


def _mean(several: Sequence[Any]) -> Any:
    """Mean of figures, or of mappings of figures key by key; None where one is missing."""
    if None in several:
        return None
    if isinstance(several[0], Mapping):
        return {key: _mean([one[key] for one in several]) for key in several[0]}
    return float(np.mean(several))


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
