"""Llama4Rec beside its bases and the published tables, for `published.py`: repetitions, tests and bounds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from tandemrec import load_recipe, run
from tandemrec.evaluation.significance import holm
from tandemrec.experiment.bundled import recipe_names
from tandemrec.experiment.compare import compare
from tandemrec.experiment.run import Run
from tandemrec.report.comparison import pair_of
from tandemrec.report.leaderboard import table_of

SEEDS = (42, 43, 44)
FULL = " Llama4Rec"
HELPERS = ("listwise", "pointwise", "blind", "tuned", "asked", "judge", "round")
"""Words in the names of systems that others are made of, which the tables leave out."""

PROPER = {"split.test_history": "all", "evaluation.candidates": "all", "evaluation.unreachable": "miss"}
"""The protocol that the recipes of top-K recommendation have not: validation item in the test history, all items."""

AS_PUBLISHED = {"split.test_history": "train", "evaluation.exclude_seen": False}
"""The protocol that the recipes of sequences have not: how the published table seems to be judged."""

RECIPES = [name for name in recipe_names() if name.startswith("llama4rec/")]
OTHERWISE = {
    **{f"{name}-proper": (name, PROPER) for name in RECIPES if "sequential" not in name and "rating" not in name},
    **{f"{name}-as-published": (name, AS_PUBLISHED) for name in RECIPES if "sequential" in name},
}
"""Name → recipe and what is changed in it."""

NAMES = {**{name: (name, {}) for name in RECIPES}, **OTHERWISE}
"""What can be measured."""

PUBLISHED = {
    "llama4rec/ml-100k": {
        "MF": ".0455 / .0325 / .0690 / .0420",
        "MF IFT": ".0546 / .0388 / .0790 / .0488",
        "MF Llama4Rec": ".0645 / .0474 / .0919 / .0588",
    },
    "llama4rec/ml-100k-sequential-as-published": {
        "SASRec": ".0187 / .0125 / .0385 / .0205",
        "SASRec IFT": ".0204 / .0136 / .0379 / .0207",
        "SASRec Llama4Rec": ".0238 / .0155 / .0449 / .0240",
    },
    "llama4rec/ml-100k-rating": {
        "LLM alone": "1.2792 / .8940",
        "NFM": "1.0284 / .8005",
        "NFM Llama4Rec": "1.0189 / .7961",
    },
}
"""HR@3 / NDCG@3 / HR@5 / NDCG@5, or RMSE / MAE; a language model of 7 billion parameters."""


def asked(systems: Sequence[str]) -> list[tuple[str, str]]:
    """What is tested: the whole against its base, instruction tuning alone and what costs nothing; parts against it."""
    questions = []
    for system in systems:
        if system.endswith(FULL):
            base = system.removesuffix(FULL)
            rivals = (base, f"{base} IFT", "LLM alone", "EASE", "Biased MF")
            questions += [(system, rival) for rival in rivals if rival in systems]
            questions += [(other, system) for other in systems if other.startswith(f"{base} without ")]
    return questions


def measure(name: str, seeds: Sequence[int] = SEEDS, runs: Path = Path("runs")) -> dict[str, Any]:
    """Run the recipe once a training seed, or go on with what lies in `runs/NAME-SEED`, and compare."""
    recipe, changes = NAMES[name]
    paths = [runs / f"{name.replace('/', '-')}-{seed}" for seed in seeds]
    for path, seed in zip(paths, seeds, strict=True):
        if not (path / "results.json").exists():
            run(load_recipe(recipe, {**changes, "training_seed": seed}), path)
    rated = "rating" in name
    found, finished = compare(paths, metric="rmse" if rated else "ndcg@5"), [Run.open(path) for path in paths]
    pairs = [pair_of(found, *question) for question in asked([row["system"] for row in found["leaderboard"]])]
    for pair, corrected in zip(pairs, holm(np.array([pair["p_value"] for pair in pairs])), strict=True):
        pair["p_holm"] = float(corrected)
    first, notes = finished[0].results, [one.card["models"] for one in finished]
    return {
        "metrics": ["rmse", "mae"] if rated else ["hr@3", "ndcg@3", "hr@5", "ndcg@5"],
        "rows": found["leaderboard"],
        "pairs": pairs,
        "resolvable": found["resolvable"]["one_test"],
        "users": found["users"],
        "seeds": list(seeds),
        "rerankings": [_over_seeds(name, finished) for name in notes[0] if name.endswith(FULL)],
        "chosen": {
            system: [_weights(fit[system]["notes"]) for fit in notes] for system in notes[0] if system.endswith(FULL)
        },
        "data": first["data"],
        "protocol": f"{first['split']['protocol']}. {first['evaluation']['protocol']}",
        "seconds": {stage["stage"]: stage["seconds"] for stage in finished[0].card["stages"]},
    }


def _weights(notes: Mapping[str, Any]) -> str:
    weighting = notes["weighting"]
    return f"{notes['llm']} α₁ {weighting['max_llm_weight']:g} α₂ {weighting['weight_floor']:g}"


def _over_seeds(system: str, finished: Sequence[Run]) -> dict[str, Any]:
    """Bounds of its order, mean of the seeds; the gain by group of the first seed."""
    rows = [next(row for row in one.results["rerankings"] if row["system"] == system) for one in finished]
    bounds = None
    if rows[0]["bounds"]:
        bounds = {key: mean(row["bounds"][key] for row in rows) for key in rows[0]["bounds"]}
    return rows[0] | {"bounds": bounds, "gain": [row["gain"]["mean"] for row in rows]}


def sections(docs: Path) -> list[str]:
    """A section of docs/results.md for every measured recipe."""
    parts = []
    for name in NAMES:
        path = docs / "results" / f"{name.replace('/', '-')}.json"
        if path.exists():
            parts += _section(name, json.loads(path.read_text()))
    return parts


def _section(name: str, content: Mapping[str, Any]) -> list[str]:
    recipe, changes = NAMES[name]
    metrics, published = content["metrics"], PUBLISHED.get(name, {})
    lines = []
    for row in content["rows"]:
        if any(word in row["system"].split() for word in HELPERS):
            continue
        figures = [row["metrics"][metric] for metric in metrics]
        cells = [f"{figure['mean']:.4f} ± {figure['standard_error']:.4f}" for figure in figures]
        lines.append([row["system"], *cells, *([published.get(row["system"], "")] if published else [])])
    header = ["system", *map(str.upper, metrics), *(["published, all of them"] if published else [])]
    tests = [
        [
            *(pair["system"], pair["other"]),
            f"{pair['difference']:+.4f} [{pair['low']:+.4f}, {pair['high']:+.4f}]",
            *(f"{pair[key]:.3f}" for key in ("p_value", "p_holm")),
        ]
        for pair in content["pairs"]
    ]
    better = -1 if "rmse" in metrics else 1
    certain = [
        f"{pair['system']} {'better' if better * pair['difference'] > 0 else 'worse'} than {pair['other']}"
        for pair in content["pairs"]
        if pair["p_holm"] < 0.05
    ]
    verdict = f"Certain after correction: {'; '.join(certain)}." if certain else "No difference is certain."
    bounds = [
        f"{row['system']}: reach {row['bounds']['reach']:.4f}, shuffled {row['bounds']['shuffled']:.4f}, best order "
        f"{row['bounds']['ceiling']:.4f}"
        for row in content["rerankings"]
        if row["bounds"]
    ]
    chosen = "; ".join(f"{system}: {', '.join(several)}" for system, several in content["chosen"].items())
    changed = f" with {', '.join(f'`{key}={value}`' for key, value in changes.items())}" if changes else ""
    machine = content["hardware"]
    return [
        f"## Llama4Rec on {content['data']['name']}; `tandem run {recipe}`{changed}",
        table_of(header, lines),
        f"Mean of the training seeds {', '.join(map(str, content['seeds']))} over {content['users']:,} users; ± is the "
        f"standard error over users and seeds. {content['protocol']}",
        table_of(
            ["system", "against", f"{metrics[-1 if len(metrics) > 2 else 0].upper()}, 95 %", "p", "p, Holm"], tests
        ),
        f"{verdict} One test finds a true difference of {content['resolvable']:.4f} in 80 % of cases.",
        *([f"Of the headline metric: {'; '.join(bounds)}."] if bounds else []),
        f"Chosen on validation, seed by seed: {chosen}.",
        f"Measured on {machine['processor']}, {machine['cores']} cores, beside other work.",
    ]
