"""What a run found: leaderboard, tests of every pair, examples. Equal recipes give equal results."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl

from tandemrec.data.split import Split
from tandemrec.evaluation.by_user import user_numbers
from tandemrec.evaluation.comparison import ComparisonConfig, compare_systems, user_values
from tandemrec.evaluation.ratings import RatingEvaluationConfig
from tandemrec.evaluation.significance import paired_test
from tandemrec.experiment.agreement import agreements
from tandemrec.experiment.recipe import Recipe
from tandemrec.experiment.reranked import rerankings
from tandemrec.experiment.stages import LISTS, MEASURED, OUTPUTS, PER_EXAMPLE
from tandemrec.experiment.store import Artifact
from tandemrec.recommender import NO_ITEM

Judged = dict[str, tuple[Artifact, Artifact]]
"""System → its fit and its evaluation."""

SHOWN_EXAMPLES, SHOWN_HISTORY, SHOWN_TITLES = 10, 5, 3
"""Users in the results, the latest titles of each, the first titles that each system recommends."""


def collect(recipe: Recipe, split: Split, data: Artifact, cut: Artifact, judged: Judged) -> dict[str, Any]:
    """Everything that must be equal when the run is repeated: no times, no paths."""
    judge, comparison = recipe.evaluation, ComparisonConfig()
    frames = {name: pl.read_parquet(evaluated.path / PER_EXAMPLE) for name, (_, evaluated) in judged.items()}
    compared = compare_systems({n: {"": user_values(frame, judge.headline)} for n, frame in frames.items()}, comparison)
    rows: list[dict[str, Any]] = []
    facts: dict[str, Any] = {}
    for name, (_, evaluated) in judged.items():
        summary = json.loads((evaluated.path / MEASURED).read_text())
        facts = {key: summary[key] for key in ("part", "n", "protocol")}
        outputs = evaluated.manifest["summary"]["outputs"]
        interval = {key: compared["systems"][name][key] for key in ("repetitions", "low", "high")}
        rows.append({"system": name, "metrics": summary["metrics"], "outputs": outputs} | interval)
        rows[-1] |= {key: summary[key] for key in ("segments", "beyond") if key in summary}
    facts |= {"headline": judge.headline, "task": judge.task}
    if isinstance(judge, RatingEvaluationConfig):
        facts["reference"] = judge.reference or next(iter(recipe.models))
        _test_against(facts["reference"], rows, frames)
    rows.sort(key=lambda row: row["metrics"][judge.headline]["mean"], reverse=not judge.lower_is_better)
    dataset = split.dataset
    return {
        "name": recipe.name,
        "description": recipe.description,
        "seed": recipe.seed,
        "training_seed": recipe.seed if recipe.training_seed is None else recipe.training_seed,
        "data": {
            "name": dataset.name,
            "users": dataset.n_users,
            "items": dataset.n_items,
            "interactions": dataset.interactions.height,
            "fingerprint": data.manifest["summary"]["fingerprint"],
        },
        "cleaning": data.manifest["summary"]["cleaning"],
        "split": cut.manifest["summary"],
        "evaluation": facts,
        "settings": comparison.model_dump(mode="json"),
        "users": next(iter(frames.values()))["user"].n_unique(),
        "leaderboard": rows,
        "pairs": compared["pairs"],
        "resolvable": compared["resolvable"],
        "rerankings": rerankings(recipe, split, frames),
        "students": agreements(recipe, {name: evaluated for name, (_, evaluated) in judged.items()}),
        "examples": _examples(split, judge.part, judged, frames),
    }


def _test_against(reference: str, rows: list[dict[str, Any]], frames: dict[str, pl.DataFrame]) -> None:
    """Add paired tests of a rating run's errors against the reference's to its rows."""
    theirs = frames[reference]
    user = user_numbers(theirs["user"].to_numpy())
    for row in rows:
        mine = frames[row["system"]]
        row["against_reference"] = {
            name: paired_test(mine[column].to_numpy(), theirs[column].to_numpy(), user)
            for name, column in (("rmse", "squared_error"), ("mae", "absolute_error"))
        }


def _examples(split: Split, part: str, judged: Judged, frames: dict[str, pl.DataFrame]) -> list[dict[str, Any]]:
    """A few judged examples, evenly spaced: user, latest titles, targets, and what every system said."""
    titles, examples = split.dataset.titles, getattr(split, part)
    first = next(iter(frames.values()))
    places = np.linspace(0, first.height - 1, min(SHOWN_EXAMPLES, first.height)).astype(int).tolist()
    said = {name: _said(evaluated, frames[name], places, titles) for name, (_, evaluated) in judged.items()}
    rated = "rating" in first.columns
    known = dict(zip(split.dataset.items["item_id"], titles, strict=True)) if rated else {}
    shown = []
    for at, place in enumerate(places):
        example = int(first["example"][place])
        history = examples.history[example]
        target = [known[first["item"][place]]] if rated else [titles[item] for item in examples.target[example]]
        shown.append(
            {
                "user": first["user"][place],
                "met": len(history),
                "history": [titles[item] for item in history[-SHOWN_HISTORY:]],
                "target": target,
                "rating": first["rating"][place] if rated else None,
                "said": {name: answers[at] for name, answers in said.items()},
            }
        )
    return shown


def _said(evaluated: Artifact, frame: pl.DataFrame, places: list[int], titles: list[str]) -> list[dict[str, Any]]:
    """What one system said to the chosen rows: its predicted rating, or its first titles, the target's place (from 1,
    null where it was not ranked) and the words it wrote.
    """
    if "predicted" in frame.columns:
        return [{"predicted": round(frame["predicted"][place], 2)} for place in places]
    lists = pl.read_parquet(evaluated.path / LISTS)["items"]
    wrote = evaluated.path / OUTPUTS
    words = pl.read_parquet(wrote)["generated"] if wrote.exists() else None
    answers = []
    for place in places:
        rank = frame["rank"][place]
        answers.append(
            {
                "titles": [titles[item] for item in lists[place][:SHOWN_TITLES] if item != NO_ITEM],
                "place": rank + 1 if np.isfinite(rank) else None,
                "wrote": None if words is None else words[int(frame["example"][place])],
            }
        )
    return answers
