"""Which systems are measured against which, and which of these rows have bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from tandemrec.data.split import make_split
from tandemrec.evaluation.gains import order_bounds
from tandemrec.evaluation.metrics import ranking_metrics
from tandemrec.experiment.recipe import Recipe, load_recipe
from tandemrec.experiment.reranked import rerankings

LM = {"build": "nano", "millions": 1}
RANKER = {"model": "ranker", "base": "MF", "lm": LM}
ADDING = {"model": "augmented", "by": "Ranker", "data": {"method": "pairs"}}
RANKING = {
    "name": "gains",
    "data": {"format": "sample"},
    "split": {"protocol": "leave-one-out"},
    "models": {
        "Other MF": {"model": "mf", "dim": 4},
        "MF": {"model": "mf", "dim": 8},
        "Ranker": RANKER,
        "MF+DA": ADDING | {"backbone": {"model": "mf", "dim": 8}},
        "Wide+DA": ADDING | {"backbone": {"model": "mf", "dim": 16}},
        "Ranker of MF+DA": RANKER | {"base": "MF+DA", "tuned": "Ranker"},
        "Sum": {"model": "aggregate", "base": "MF+DA", "llm": "Ranker of MF+DA", "candidates": 5},
        "Wide sum": {"model": "aggregate", "base": "Wide+DA", "llm": "Ranker", "candidates": 5},
    },
}


def ratings(recipe: Recipe) -> dict[str, pl.DataFrame]:
    rng = np.random.default_rng(0)
    counts = {"user_count": rng.integers(0, 9, 40), "item_count": rng.integers(0, 9, 40)}
    return {
        name: pl.DataFrame({"user": np.arange(40), "squared_error": rng.random(40), **counts}) for name in recipe.models
    }


def test_rankers_aggregates_and_augmented_models() -> None:
    recipe = load_recipe(RANKING)
    assert recipe.data is not None
    split = make_split(recipe.data.load(), recipe.split)
    rng, examples = np.random.default_rng(0), np.arange(len(split.test))
    frames = {}
    for name in recipe.models:
        ranks = rng.integers(0, 30, len(examples)).astype(float)
        metrics = ranking_metrics(ranks, np.arange(len(ranks) + 1), (10,))
        frames[name] = pl.DataFrame({"example": examples, "user": examples, "rank": ranks, **metrics})
    rows = {(row["system"], row["base"]): row for row in rerankings(recipe, split, frames)}
    assert list(rows) == [
        ("Ranker", "MF"),
        ("MF+DA", "MF"),  # not that of another size, and the wide one has none of its size
        ("Ranker of MF+DA", "MF+DA"),
        ("Ranker of MF+DA", "MF"),
        ("Sum", "MF+DA"),
        ("Sum", "MF"),
        ("Wide sum", "Wide+DA"),
    ]
    value = {name: frame["ndcg@10"].to_numpy().mean() for name, frame in frames.items()}
    for (system, base), row in rows.items():
        assert row["gain"]["mean"] == pytest.approx(value[system] - value[base])
        assert set(row["segments"]) == {"user activity", "item popularity"}
    bounded = {pair: row["depth"] for pair, row in rows.items() if row["bounds"] is not None}
    assert bounded == {
        ("Ranker", "MF"): 10,
        ("Ranker of MF+DA", "MF+DA"): 10,
        ("Sum", "MF+DA"): 5,
        ("Wide sum", "Wide+DA"): 5,
    }
    assert rows["Sum", "MF+DA"]["bounds"] == order_bounds(frames["MF+DA"], 5, "ndcg@10")
    assert rows["Sum", "MF+DA"]["value"] == pytest.approx(value["Sum"])
    assert (rows["Sum", "MF"]["value"], rows["Sum", "MF"]["depth"]) == (None, None)


@pytest.mark.parametrize("name", ["llama4rec/ml-100k-rating-backbones", "llama4rec/ml-1m-rating"])
def test_every_augmented_backbone_of_the_rating_recipes_has_its_plain_self(name: str) -> None:
    recipe = load_recipe(name)
    rows = rerankings(recipe, None, ratings(recipe))  # type: ignore[arg-type]  # the rows hold their own counts
    bases: dict[str, list[str]] = {}
    for row in rows:
        bases.setdefault(row["system"], []).append(row["base"])
        assert (row["depth"], row["value"], row["bounds"]) == (None, None, None)
    for model in ("NFM", "DeepFM", "DCN", "AFM", "xDeepFM", "AutoInt"):
        assert bases[f"{model}+DA"] == [model]
        assert bases[f"{model}+DA asked"] == bases[f"{model} Llama4Rec"] == [f"{model}+DA", model]
    assert bases["NFM tuned"] == bases["LLM alone"] == bases["NFM without DA"] == ["NFM"]


def test_rounds_are_measured_against_the_model_they_started_from() -> None:
    models: dict[str, Any] = {name: RANKING["models"][name] for name in ("MF", "MF+DA")}  # type: ignore[index]
    tuned = RANKER | {"instructions": {"listwise": 10}}
    models |= {"Ranker": tuned, "MF+DA": models["MF+DA"] | {"rounds": 2}}
    recipe = load_recipe(RANKING | {"models": models})
    split = make_split(recipe.data.load(), recipe.split)  # type: ignore[union-attr]
    frame = pl.DataFrame({"example": [0, 1], "user": [0, 1], "rank": [0.0, 1.0], "ndcg@10": [1.0, 0.5]})
    rows = rerankings(recipe, split, dict.fromkeys(recipe.models, frame))
    assert [(row["system"], row["base"]) for row in rows] == [
        ("MF+DA round 1", "MF"),
        ("MF+DA judge 2", "MF+DA round 1"),
        ("MF+DA judge 2", "MF"),
        ("MF+DA", "MF"),
        ("Ranker", "MF"),
    ]
