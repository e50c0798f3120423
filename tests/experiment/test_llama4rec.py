"""Whole runs of Llama4Rec's parts: hints of earlier models, a tuned ranker, another one that takes it, aggregation."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tandemrec.errors import InputError
from tandemrec.experiment.recipe import load_recipe
from tandemrec.experiment.run import Run, run
from tandemrec.experiment.store import StageEvent
from tests.report.test_html import Reader

BRIEF = {"epochs": 1, "learning_rate": 0.001, "patience": None}
INSTRUCTED: dict[str, Any] = {
    "lm": {"build": "nano", "millions": 0.05, "vocabulary": 400, "context": 256, "repeats": 1, "training": BRIEF},
    "prompt": {"template": "compact", "history": 3, "similar": 2},
    "finetune": {"tuning": "lora", "rank": 4, "batch_size": 16, "training": BRIEF | {"schedule": "cosine"}},
}
RANKER = INSTRUCTED | {
    "model": "ranker",
    "base": "MF",
    "style": "like",
    "candidates": 5,
    "checked": 4,
    "instructions": {"listwise": 0, "like": 40, "origins": 1, "source": "random", "valid": 16},
}
TOPK: dict[str, Any] = {
    "name": "llama4rec",
    "seed": 7,
    "data": {"format": "sample"},
    "split": {"protocol": "leave-one-out", "sample": {"train": 96, "valid": 40, "test": 40}},
    "models": {
        "MF": {"model": "mf", "dim": 8, "training": {"epochs": 5, "validate_every": 5}},
        "EASE": {"model": "ease"},
        "IFT": RANKER | {"prompt": RANKER["prompt"] | {"similar_user": False, "prediction": False}},
        "Ranker": RANKER,
        "Ranker of EASE": RANKER | {"base": "EASE", "similar": "MF", "tuned": "Ranker"},
        "MF+DA": {
            "model": "augmented",
            "backbone": {"model": "mf", "dim": 8, "training": {"epochs": 5, "validate_every": 5}},
            "by": "Ranker",
            "data": {"method": "pairs", "share": 0.1},
        },
        "Ranker of MF+DA": RANKER | {"base": "MF+DA", "tuned": "Ranker"},
        "Llama4Rec": {"model": "aggregate", "base": "MF+DA", "llm": ["Ranker of MF+DA", "IFT"], "candidates": 5},
        "Fusion": {
            "model": "aggregate",
            "base": "EASE",
            "llm": "Ranker of EASE",
            "candidates": 5,
            "fusion": "reciprocal",
            "weights": {"method": "uniform", "max_llm_weight": [0.5]},
        },
    },
    "evaluation": {"cutoffs": [3, 5, 10]},
}
RATING: dict[str, Any] = {
    "name": "llama4rec-rating",
    "seed": 7,
    "data": {"format": "sample"},
    "split": {"protocol": "leave-one-out", "sample": {"train": 96, "valid": 40, "test": 40}},
    "models": {
        "Biased MF": {"model": "biased-mf", "dim": 4},
        "FM": {"model": "fm", "dim": 2, "training": {"epochs": 1}},
        "Rater": INSTRUCTED
        | {"model": "rater", "base": "Biased MF", "instructions": {"rating": 40, "origins": 1, "valid": 16}},
        "FM+DA": {
            "model": "augmented-ratings",
            "by": "Rater",
            "backbone": {"model": "fm", "dim": 2, "features": {"items": ["maker"]}, "training": {"epochs": 1}},
            "data": {"columns": {"maker": {"examples": {"Alien": "Ridley Scott"}}}, "max_new_tokens": 4},
        },
        "Llama4Rec": {"model": "aggregate-ratings", "base": "Biased MF", "llm": "Rater"},
    },
}


def check_gains(finished: Run, pairs: set[tuple[str, str]]) -> None:
    """Every system's gain over its bases is that of the leaderboard, and the reports show it, weights and cost."""
    results, models = finished.results, finished.card["models"]
    metric = results["evaluation"]["headline"]
    value = {row["system"]: row["metrics"][metric]["mean"] for row in results["leaderboard"]}
    assert {(row["system"], row["base"]) for row in results["rerankings"]} == pairs
    for row in results["rerankings"]:
        gain = value[row["system"]] - value[row["base"]]
        assert row["gain"]["mean"] == pytest.approx(-gain if metric == "rmse" else gain)
        for groups in row["segments"].values():
            assert sum(group["n"] for group in groups) == results["evaluation"]["n"]
    for page in ("report.md", "report.html"):
        text = (finished.path / page).read_text(encoding="utf-8")
        for heading in (f"Gain in {metric} by user activity", "Weight by activity", "What asking costs"):
            assert heading in text
    assert Reader(text).open == []
    profile = models["Llama4Rec"]["notes"]["weight_by_activity"]
    assert all(a["interactions"] < b["interactions"] and a["weight"] >= b["weight"] for a, b in pairwise(profile))
    asked = [report["notes"]["answers"] for report in models.values() if "answers" in report["notes"]]
    assert asked and all(answers["tokens_per_user"] > 10 and answers["seconds_per_user"] > 0 for answers in asked)


def test_a_ranking_run(tmp_path: Path) -> None:
    events: list[StageEvent] = []
    finished = run(load_recipe(TOPK), tmp_path / "run", store=tmp_path / "store", listen=events.append)
    made = [event.stage for event in events if event.what == "made"]
    assert made.count("language-model") == 1
    assert made.count("instructions:MF") == 1  # rankers that differ in the hints they show learn from the same ones
    assert made.index("origin:MF") < made.index("instructions:MF") < made.index("fit:Ranker")
    assert "origin:EASE" not in made
    card, rows = finished.card, {row["system"]: row["metrics"] for row in finished.results["leaderboard"]}
    assert card["models"]["Llama4Rec"]["notes"]["llm"] in {"Ranker of MF+DA", "IFT"}
    assert made.index("fit:Ranker") < made.index("augment:Ranker") < made.index("fit:MF+DA")
    assert card["models"]["Ranker"]["notes"]["instructions"] == {"like": 40}
    for system, base in (("Ranker", "MF"), ("Llama4Rec", "MF+DA"), ("Fusion", "EASE"), ("Ranker of EASE", "EASE")):
        assert rows[system]["hr@5"]["mean"] == rows[base]["hr@5"]["mean"]
        assert rows[system]["hr@10"]["mean"] == rows[base]["hr@10"]["mean"]
    frame = pl.read_parquet(finished.artifact("instructions:Ranker").path / "instructions.parquet")
    assert "similar: " in frame["prompt"][0]
    direct = {("IFT", "MF"), ("Ranker", "MF"), ("Ranker of EASE", "EASE"), ("Ranker of MF+DA", "MF+DA")}
    direct |= {("Llama4Rec", "MF+DA"), ("Fusion", "EASE")}
    over_plain = {("MF+DA", "MF"), ("Ranker of MF+DA", "MF"), ("Llama4Rec", "MF")}
    check_gains(finished, direct | over_plain)
    for row in finished.results["rerankings"]:
        bounds = row["bounds"]
        if (row["system"], row["base"]) in over_plain:
            assert (bounds, row["value"], row["depth"]) == (None, None, None)
            continue
        assert bounds["reach"] == pytest.approx(rows[row["base"]]["hr@5"]["mean"])
        assert bounds["base"] == pytest.approx(rows[row["base"]]["ndcg@10"]["mean"])
        assert row["value"] == pytest.approx(rows[row["system"]]["ndcg@10"]["mean"])
        assert bounds["shuffled"] <= bounds["ceiling"] and row["value"] <= bounds["ceiling"] + 1e-12
    assert finished.recommend(finished.dataset().users["user_id"][0], 3, "Llama4Rec")[1].height == 3
    again: list[StageEvent] = []
    run(load_recipe(TOPK), tmp_path / "run", store=tmp_path / "store", listen=again.append)
    assert {event.what for event in again} == {"found"}


def test_whoever_asks_a_taken_model_is_judged_again_when_it_is_tuned_again(tmp_path: Path) -> None:
    taker = RANKER | {"tuned": "Ranker", "prompt": RANKER["prompt"] | {"history": 2}}
    fusion = TOPK["models"]["Fusion"] | {"base": "MF", "llm": "Taker"}
    models = {name: TOPK["models"][name] for name in ("MF", "Ranker")} | {"Taker": taker, "Fusion": fusion}
    made = []
    for rate in (0.001, 0.002):
        events: list[StageEvent] = []
        tree = json.loads(json.dumps(TOPK | {"models": models}))  # nothing is shared between the systems
        recipe = load_recipe(tree, {"models.Ranker.finetune.training.learning_rate": rate})
        run(recipe, tmp_path / "run", store=tmp_path / "store", listen=events.append)
        made.append({event.stage for event in events if event.what == "made"})
    systems = ("Ranker", "Taker", "Fusion")
    assert made[1] == {f"{what}:{name}" for name in systems for what in ("fit", "evaluate")}


def test_two_rounds_tune_the_judge_anew_with_the_hints_of_the_first(tmp_path: Path) -> None:
    twice = TOPK["models"]["MF+DA"] | {"rounds": 2, "data": {"method": "pairs"}}
    asked = RANKER | {"base": "MF+DA", "tuned": "MF+DA judge 2"}
    models = {name: TOPK["models"][name] for name in ("MF", "Ranker")} | {"MF+DA": twice, "Asked": asked}
    events: list[StageEvent] = []
    recipe = load_recipe(TOPK | {"models": models})
    finished = run(recipe, tmp_path / "run", store=tmp_path / "store", listen=events.append)
    made = [event.stage for event in events if event.what == "made"]
    way = ["fit:Ranker", "augment:Ranker", "fit:MF+DA round 1", "origin:MF+DA round 1", "instructions:MF+DA round 1"]
    way += ["fit:MF+DA judge 2", "augment:MF+DA judge 2", "fit:MF+DA", "fit:Asked"]
    assert [stage for stage in made if stage in way] == way
    assert made.count("augment:Ranker") == 1  # what the first judge added is taken as it is for the earlier parts

    def added(system: str) -> pl.DataFrame:
        return pl.read_parquet(finished.artifact(f"fit:{system}").path / "augmentation.parquet")

    first, second = added("MF+DA round 1"), added("MF+DA")
    questions = (frame.select("user", pl.col("offered").list.sort()) for frame in (first, second))
    assert next(questions).equals(next(questions))  # the same questions, answered by another judge
    assert not first["chosen"].equals(second["chosen"])
    assert load_recipe(finished.path / "recipe.yaml") == recipe


def test_what_training_on_earlier_parts_takes_is_part_of_the_cost(tmp_path: Path) -> None:
    recipe = load_recipe(TOPK | {"models": {name: TOPK["models"][name] for name in ("MF", "Ranker")}})
    card = run(recipe, tmp_path / "run", store=tmp_path / "store").card
    assert any(stage.startswith("origin:MF ") for stage in card["systems"]["Ranker"]["training"])
    assert not any(stage.startswith("origin:") for stage in card["systems"]["MF"]["training"])


def test_hints_come_from_a_model_that_has_not_seen_the_answers(tmp_path: Path) -> None:
    recipe = load_recipe(TOPK | {"models": {name: TOPK["models"][name] for name in ("MF", "Ranker")}})
    finished = run(recipe, tmp_path / "run", store=tmp_path / "store")
    frame = pl.read_parquet(finished.artifact("instructions:Ranker").path / "instructions.parquet")
    split = finished.split()
    for row in frame.iter_rows(named=True):
        items = split.sequences[row["user"]].tolist()
        begin = max(at for at in range(len(items)) if items[max(0, at - 3) : at] == row["history"]) if items else 0
        assert (row["item"] in items[begin:]) == (row["answer"] == "Yes")
        assert row["item"] not in items[:begin]


def test_a_rating_run(tmp_path: Path) -> None:
    recipe = load_recipe(RATING, {"models.FM+DA.rounds": 2})
    finished = run(recipe, tmp_path / "run", store=tmp_path / "store")
    rows = {row["system"]: row["metrics"]["rmse"]["mean"] for row in finished.results["leaderboard"]}
    assert set(rows) == {"Biased MF", "FM", "Rater", "FM+DA round 1", "FM+DA judge 2", "FM+DA", "Llama4Rec"}
    assert np.isfinite(list(rows.values())).all()
    weights = json.loads((finished.artifact("fit:Llama4Rec").path / "choice.json").read_text())["weighting"]
    assert weights["method"] == "adaptive"
    pairs = {("Rater", "Biased MF"), ("Llama4Rec", "Biased MF"), ("FM+DA judge 2", "FM+DA round 1")}
    check_gains(finished, pairs | {(name, "FM") for name in ("FM+DA round 1", "FM+DA judge 2", "FM+DA")})


def test_three_rounds_of_attributes() -> None:
    recipe = load_recipe(RATING, {"models.FM+DA.rounds": 3})
    steps = {name: config for name, config in recipe.models.items() if name.startswith("FM+DA")}
    assert list(steps) == ["FM+DA round 1", "FM+DA judge 2", "FM+DA round 2", "FM+DA judge 3", "FM+DA"]
    assert [getattr(config, "by", None) or getattr(config, "base", None) for config in steps.values()] == [
        "Rater", "FM+DA round 1", "FM+DA judge 2", "FM+DA round 2", "FM+DA judge 3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        (TOPK["models"]["MF+DA"] | {"by": "EASE", "rounds": 2}, "'EASE', which adds its data, is tuned on no hints"),
        (TOPK["models"]["MF+DA"] | {"by": "Ranker of EASE", "rounds": 2}, "'Ranker of EASE', which adds"),
        (TOPK["models"]["MF+DA"] | {"by": "Rankre", "rounds": 2}, "'Rankre', which is no model.*did you mean 'Ranker'"),
        (RANKER | {"base": "Llama4Rec"}, "'Llama4Rec' builds on other systems or a language model"),
        (RANKER | {"base": "MX"}, "builds on 'MX', which is no model of the recipe"),
        (RANKER | {"style": "rating"}, "style 'rating' needs instructions of that task"),
    ],
)
def test_recipes_that_cannot_work_are_refused_before_work(model: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        load_recipe(TOPK | {"models": TOPK["models"] | {"New": model}})


DIRECT = ("MF", "LightGCN", "MixGCF", "SGL")
SEQUENTIAL = ("SASRec", "BERT4Rec", "CL4SRec")
RATED = ("NFM", "DeepFM", "DCN", "AFM", "xDeepFM", "AutoInt")
PARTS = ("without DA", "without PA", "without AA")


@pytest.mark.parametrize("data", ["ml-100k", "ml-1m", "book-crossing"])
@pytest.mark.parametrize(
    ("task", "backbones", "alone", "baseline", "ablated"),
    [
        ("", DIRECT, "{} IFT", "EASE", "LightGCN"),
        ("-sequential", SEQUENTIAL, "{} IFT", "EASE", "SASRec"),
        ("-rating", RATED, "LLM alone", "Biased MF", "NFM"),
    ],
)
def test_the_recipes_have_every_row_of_the_tables(
    data: str, task: str, backbones: tuple[str, ...], alone: str, baseline: str, ablated: str
) -> None:
    names = [f"llama4rec/{data}{task}"]
    if data == "ml-100k":
        names.append(f"{names[0]}-backbones")
    recipes = [load_recipe(name) for name in names]
    models = {name: config for recipe in recipes for name, config in recipe.models.items()}
    rows = [row for name in backbones for row in (name, alone.format(name), f"{name} Llama4Rec")]
    assert set(rows) | {baseline} | {f"{ablated} {part}" for part in PARTS} <= set(models)
    for name in backbones:
        whole, base = models[f"{name} Llama4Rec"], models[name]
        augmented = models[getattr(whole, "base")]  # noqa: B009
        backbone = getattr(augmented, "backbone", augmented)
        assert backbone.model == base.model
    assert len({recipe.split for recipe in recipes}) == len({recipe.data for recipe in recipes}) == 1
