"""What is known of kinds of systems before any is trained, against trained ones."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import pytest

from tandemrec.experiment.models import (
    SYSTEMS,
    ModelConfig,
    has_item_vectors,
    has_user_vectors,
    judges_candidates,
    predicts_ratings,
    scores_catalogue,
)
from tandemrec.experiment.recipe import load_recipe
from tandemrec.experiment.run import run
from tandemrec.recommender import RatingPredictor, Reranker, Scorer

KINDS = set(get_args(get_args(ModelConfig)[0]))
BRIEF = {"epochs": 1, "patience": None}
LM = {"build": "nano", "millions": 0.05, "vocabulary": 400, "context": 256, "repeats": 1, "training": BRIEF}
ASKED: dict[str, Any] = {"lm": LM, "prompt": {"template": "compact", "history": 2}, "finetune": None, "checked": 0}
WRITER: dict[str, Any] = {
    "lm": LM,
    "prompt": {"template": "compact", "history": 2},
    "finetune": {"tuning": "lora", "rank": 2, "training": BRIEF},
    "generation": {"beams": 1, "max_new_tokens": 4, "batch_size": 64},
}
DIRECT = {"dim": 4, "training": BRIEF}
SEQUENTIAL = {"dim": 4, "max_length": 5, "training": BRIEF}
SASREC = SEQUENTIAL | {"model": "sasrec", "blocks": 1}
INSERTIONS = {"method": "insertions", "offered": 2, "share": 0.1}
NETWORK = {"dim": 8, "encoder_layers": 1, "decoder_layers": 1, "heads": 2, "head_dim": 4, "feed_forward": 8}
RANKING: dict[str, dict[str, Any]] = {
    "Popularity": {"model": "popularity"},
    "ItemKNN": {"model": "itemknn"},
    "EASE": {"model": "ease"},
    "ALS": {"model": "als", "dim": 4, "iterations": 1},
    "MF": DIRECT | {"model": "mf"},
    "LightGCN": DIRECT | {"model": "lightgcn"},
    "MixGCF": DIRECT | {"model": "mixgcf"},
    "SGL": DIRECT | {"model": "sgl"},
    "SASRec": SASREC,
    "GRU4Rec": SEQUENTIAL | {"model": "gru4rec", "hidden": 4},
    "Caser": SEQUENTIAL | {"model": "caser"},
    "Caser without users": SEQUENTIAL | {"model": "caser", "users": False},
    "BERT4Rec": SEQUENTIAL | {"model": "bert4rec"},
    "CL4SRec": SEQUENTIAL | {"model": "cl4srec"},
    "DROS": {"model": "dros", "backbone": SASREC},
    "DCRec": SEQUENTIAL | {"model": "dcrec"},
    "BIGRec": WRITER | {"model": "bigrec"},
    "LLaRA": WRITER | {"model": "llara", "vectors": "SASRec"},
    "TIGER": {
        "model": "tiger",
        "ids": {"quantiser": {"method": "residual-kmeans", "levels": 2, "codes": 8}},
        "network": NETWORK,
        "learning": {"samples": "examples", "training": BRIEF},
    },
    "Injection": {"model": "injection", "base": "EASE", "prior": "Popularity", "strengths": [0.0, 1.0]},
    "Best": {"model": "best", "among": ["MF", "SASRec"]},
    "MF+DA": {"model": "augmented", "backbone": DIRECT | {"model": "mf"}, "by": "EASE", "data": INSERTIONS},
    "SASRec+DA": {"model": "augmented", "backbone": SASREC, "by": "EASE", "data": INSERTIONS},
    "Student": {"model": "dllm2rec", "student": SASREC, "teacher": "EASE", "embedding_weight": 0},
    "LLM-CF": {
        "model": "llm-cf",
        "lm": LM,
        "backbone": SASREC,
        "thoughts": {"questions": 40, "samples": 1, "max_new_tokens": 8},
        "examples": 2,
    },
    "Ranker": ASKED | {"model": "ranker", "base": "MF", "style": "like", "candidates": 2},
    "Aggregate": {"model": "aggregate", "base": "MF", "llm": "EASE", "candidates": 5},
}
INTERACTION = {"dim": 2, "training": {"epochs": 1}}
RATING: dict[str, dict[str, Any]] = {
    "Biases": {"model": "biases"},
    "Biased MF": {"model": "biased-mf", "dim": 2},
    **{name: INTERACTION | {"model": name} for name in ("fm", "deepfm", "nfm", "dcn", "afm", "xdeepfm", "autoint")},
    "Rater": ASKED | {"model": "rater", "base": "Biased MF"},
    "FM+DA": {
        "model": "augmented-ratings",
        "by": "Rater",
        "backbone": INTERACTION | {"model": "fm", "features": {"items": ["maker"]}},
        "data": {"columns": {"maker": {"examples": {"Alien": "Ridley Scott"}}}, "max_new_tokens": 2},
    },
    "Aggregate": {"model": "aggregate-ratings", "base": "Biased MF", "llm": "Biases"},
}


@pytest.mark.parametrize("models", [RANKING, RATING], ids=["ranking", "rating"])
def test_kinds_have_what_trained_systems_have(models: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    if find_spec("implicit") is None:
        models = {name: model for name, model in models.items() if name != "ALS"}
    tree = {
        "name": "kinds",
        "data": {"format": "sample"},
        "split": {"protocol": "leave-one-out", "sample": {"train": 96, "valid": 16, "test": 16}},
        "models": models,
    }
    recipe = load_recipe(tree)
    done = run(recipe, tmp_path / "run", store=tmp_path / "store")
    for name, config in recipe.models.items():
        system = done.model(name)
        told = {
            "class": type(system) is SYSTEMS[type(config)],
            "ratings": predicts_ratings(config) == isinstance(system, RatingPredictor),
            "catalogue": scores_catalogue(config) == isinstance(system, Scorer),
            "candidates": judges_candidates(config) == isinstance(system, Scorer | Reranker),
            "items": has_item_vectors(config) == (getattr(system, "item_vectors", None) is not None),
            "users": has_user_vectors(config) == (getattr(system, "user_vectors", None) is not None),
        }
        assert all(told.values()), (name, told)


def test_every_kind_is_among_them() -> None:
    trees = (
        {"name": "kinds", "split": {"protocol": "leave-one-out"}, "models": models} for models in (RANKING, RATING)
    )
    assert {type(config) for tree in trees for config in load_recipe(tree).models.values()} == KINDS == set(SYSTEMS)
