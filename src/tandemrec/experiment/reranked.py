"""What rankers, raters and aggregates add to the systems whose answers they build on, and added data to a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from tandemrec.aggregation.rankings import RankingAggregateConfig
from tandemrec.aggregation.ratings import RatingAggregateConfig
from tandemrec.augmentation.augmented_ratings import AugmentedRatingsConfig
from tandemrec.data.examples import IntArray
from tandemrec.data.split import Split
from tandemrec.evaluation.gains import order_bounds, segment_gains
from tandemrec.experiment.recipe import Recipe
from tandemrec.experiment.rounds import AUGMENTED
from tandemrec.llm.recommenders.instructed import InstructedConfig
from tandemrec.llm.recommenders.ranker import RankerConfig
from tandemrec.recommender import Config


def rerankings(recipe: Recipe, split: Split, frames: Mapping[str, pl.DataFrame]) -> list[dict[str, Any]]:
    """What every ranker, rater and aggregate adds to its base, and every augmented system to its plain self.

    That is the recipe's model with the settings of its backbone; where there is none, there is no row. A ranker, rater
    or aggregate whose base is augmented has a second row, over that plain model.

    Args:
        recipe: its models and its evaluation.
        split: what they were judged on.
        frames: per-example rows by system.

    Returns:
        JSON-able rows: `system`, `base`, `depth` (candidates of the base that are put in order), `gain` and `segments`
        (see `segment_gains`), `value` and `bounds` (see `order_bounds`); the last two and `depth` are null for ratings
        and where no candidates of this base are put in order, the bounds also where an example has several targets.
    """
    judge, rows = recipe.evaluation, []
    for name, base in _compared(recipe.models):
        config, own = recipe.models[name], frames[name]
        counts = _counts(split, judge.part, own)
        row: dict[str, Any] = {"system": name, "base": base, "depth": None, "value": None, "bounds": None}
        if isinstance(config, RankerConfig | RankingAggregateConfig) and base == config.base:
            row |= {"depth": config.candidates, "value": float(np.mean(own[judge.headline].to_numpy()))}
            if "item popularity" in counts:
                row["bounds"] = order_bounds(frames[base], config.candidates, judge.headline)
        rows.append(row | segment_gains(own, frames[base], judge.headline, counts, judge.groups))
    return rows


def _compared(models: Mapping[str, Config]) -> Iterator[tuple[str, str]]:
    """Systems and what each is measured against, the base whose answers it builds on first."""
    for name, config in models.items():
        augmented = config
        if isinstance(config, InstructedConfig | RankingAggregateConfig | RatingAggregateConfig):
            yield name, config.base
            augmented = models[config.base]
        plain = _plain(augmented, models)
        if plain is not None:
            yield name, plain


def _plain(config: Config, models: Mapping[str, Config]) -> str | None:
    """The model that an augmented system is without what was added; None where there is none or nothing was added."""
    if not isinstance(config, AUGMENTED):
        return None
    backbone: Config = config.backbone
    if isinstance(config, AugmentedRatingsConfig):
        features, added = config.backbone.features, config.data.columns
        items = {name: field for name, field in features.items.items() if name not in added}
        backbone = backbone.model_copy(update={"features": features.model_copy(update={"items": items})})
    return next((name for name, other in models.items() if other == backbone), None)


def over_seeds(
    finished: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]], systems: Sequence[str]
) -> dict[str, Any]:
    """What systems add to those they build on, mean of repeated trainings.

    Args:
        finished: `results.json` and `run_card.json` of every training of a recipe.
        systems: whose rows.

    Returns:
        JSON-able: `metric`, and `rows` as those of `rerankings` without segments; a gain's standard error is the mean
        of the trainings'. `chosen` tells of every training whom an aggregate asks and with which weights; a system's
        second row has none.
    """
    found = []
    for system in systems:
        every = [row for results, _ in finished for row in results.get("rerankings", []) if row["system"] == system]
        notes = [card["models"][system]["notes"] for _, card in finished] if every else []
        chosen = [{key: note[key] for key in ("llm", "weighting")} for note in notes if "weighting" in note]
        for base in dict.fromkeys(row["base"] for row in every):
            rows = [row for row in every if row["base"] == base]
            if len(rows) < len(finished):
                continue
            mean = {key: _mean([row[key] for row in rows]) for key in ("value", "bounds", "gain")}
            found.append({key: rows[0][key] for key in ("system", "base", "depth")} | mean | {"chosen": chosen})
            chosen = []
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
