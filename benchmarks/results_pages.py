"""docs/results.md and the pages below docs/results, from the JSON files beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import paper_results
import rating_results
import yaml

from tandemrec.experiment.bundled import read_recipe, recipe_names
from tandemrec.report.leaderboard import cell, filled, table_of
from tandemrec.report.prepared import ids_grid, of_each_set
from tandemrec.report.students import STUDENTS_NOTE
from tandemrec.training import TrainingConfig

DISTILLED = {
    "ml-1m": "MovieLens-1M, windows of ten films cut by time",
    "games": "Amazon Video Games 2018, 5-core, leave-one-out",
    "toys": "Amazon Toys and Games 2014, 5-core, leave-one-out",
}
"""Data of the recipes of DLLM2Rec and LLM-CF."""


REFERENCE = {
    ("ml-100k-likes", "EASE"): {"ndcg@10": 0.0755, "hr@10": 0.1370},
    ("ml-100k-likes", "Popularity"): {"ndcg@10": 0.0408, "hr@10": 0.0820},
    ("ml-100k-likes", "ItemKNN"): {"ndcg@10": 0.0617, "hr@10": 0.1122},
    ("ml-100k-direct", "EASE"): {"ndcg@10": 0.0755, "hr@10": 0.1370},
    ("ml-100k-direct", "MF"): {"ndcg@10": 0.0630, "hr@10": 0.1305},
    ("ml-100k-direct", "LightGCN"): {"ndcg@10": 0.0648, "hr@10": 0.1338},
    ("ml-100k-sequential", "SASRec"): {"ndcg@10": 0.0904, "hr@10": 0.1660},
    ("ml-100k-sequential", "SASRec BCE"): {"ndcg@10": 0.0743, "hr@10": 0.1511},
    ("ml-1m-likes", "EASE"): {"ndcg@10": 0.0442, "hr@10": 0.0905},
    ("ml-1m-likes", "Popularity"): {"hr@10": 0.0405},
    ("amazon-toys", "Popularity"): {"ndcg@10": 0.0049, "hr@10": 0.0090},
    ("amazon-toys", "ItemKNN"): {"ndcg@10": 0.0428, "hr@10": 0.0725},
    ("amazon-toys", "ItemKNN recency"): {"ndcg@10": 0.0510, "hr@10": 0.0821},
    ("amazon-toys", "SASRec"): {"ndcg@10": 0.0580, "hr@10": 0.0970},
    ("amazon-toys", "Caser"): {"ndcg@10": 0.0141, "hr@10": 0.0270},
    ("tiger/toys", "ItemKNN recency"): {"ndcg@10": 0.0510, "hr@10": 0.0821},
    ("tiger/toys", "SASRec"): {"ndcg@10": 0.0580, "hr@10": 0.0970},
    ("tiger/toys", "TIGER"): {"ndcg@10": 0.0292, "hr@10": 0.0522},
    ("sasrec-ml-1m", "SASRec, full softmax"): {"ndcg@10": 0.1821, "hr@10": 0.3152},
    ("gru4rec-ml-1m", "GRU4Rec, full softmax"): {"ndcg@10": 0.1648, "hr@10": 0.2811},
    ("bert4rec-ml-1m", "BERT4Rec"): {"ndcg@10": 0.1537, "hr@10": 0.2843},
}
"""(Recipe or training, system) → the figures that ours are compared with."""

SOURCES = {
    "ml-100k-likes": "an independent implementation under the same protocol",
    "ml-100k-direct": "independent implementations under the same protocol, one seed",
    "ml-100k-sequential": "an independent implementation under the same protocol, 40 epochs, not converged",
    "ml-1m-likes": "an independent implementation under the same protocol",
    "amazon-toys": "Popularity and both ItemKNN: an independent implementation under the same protocol; SASRec: the "
    "eSASRec study's with sampled softmax; Caser: S3-Rec's table",
    "tiger/toys": "TIGER: a public reproduction; the TIGER paper has HR@10 .0712 and NDCG@10 .0432, which neither "
    "reaches. ItemKNN and SASRec: as in the table before",
    "sasrec-ml-1m": "cross-entropy on the same items and length (Klenitskiy and Vasilev, RecSys 2023)",
    "gru4rec-ml-1m": "cross-entropy, in the README of HSTU's code; its protocol was not checked",
    "bert4rec-ml-1m": "Klenitskiy and Vasilev, RecSys 2023",
}
"""Where those figures are from."""

WORDS = {
    "ml-100k-likes": "MovieLens-100K, likes only (rating ≥ 4), leave-one-out; `tandem run ml-100k-likes`",
    "ml-100k-direct": "MovieLens-100K, likes only, models of vectors a user and an item, settings tuned on validation; "
    "`tandem run ml-100k-direct`",
    "ml-100k-als": "MovieLens-100K, likes only, ALS of the library `implicit`; `tandem run ml-100k-als`",
    "ml-100k-sequential": "MovieLens-100K, likes only, models of the order of a history, leave-one-out; "
    "`tandem run ml-100k-sequential`",
    "ml-1m-likes": "MovieLens-1M, likes only (rating ≥ 4), leave-one-out; `tandem run ml-1m-likes`",
    "ml-1m": "MovieLens-1M, 3,416 items, leave-one-out, language models beside conventional ones; `tandem run ml-1m`",
    "amazon-toys": "Amazon Toys and Games 2014, 5-core, leave-one-out, all items; `tandem run amazon-toys`",
    "tiger/toys": "Amazon Toys and Games 2014, 5-core, TIGER of one layer each way; same split as the table before; "
    "`tandem run tiger/toys`",
    "tiger/games": "Amazon Video Games 2018, 5-core, TIGER, leave-one-out, 1,000 test users; `tandem run tiger/games`",
    "tiger/ml-1m": "MovieLens-1M, 3,416 items, TIGER, leave-one-out, 2,000 test users; `tandem run tiger/ml-1m`",
    **{
        f"dllm2rec/{name}": f"DLLM2Rec, its teacher and its plain students: {data}; `tandem run dllm2rec/{name}`"
        for name, data in DISTILLED.items()
    },
    **{
        f"llm-cf/{name}": f"LLM-CF beside plain SASRec: {data}; `tandem run llm-cf/{name}`"
        for name, data in DISTILLED.items()
    },
    **{
        f"{name}-ml-1m": "MovieLens-1M, 3,416 items, leave-one-out, maximum length 200; "
        f"`python benchmarks/published.py {name}-ml-1m`"
        for name in ("sasrec", "gru4rec", "bert4rec")
    },
}
"""Bundled recipe or training → what it is."""

METRICS = ("hr@10", "ndcg@10")


def results_pages(docs: Path) -> dict[Path, str]:
    """Every page of results and its text: the overview, and one a paper."""
    return {docs / "results.md": _overview(docs)} | paper_results.pages(docs)


def _overview(docs: Path) -> str:
    recommenders = [part for name in WORDS for part in _section(name, docs)]
    ratings = rating_results.sections(docs)
    parts = [
        "# Results",
        "Written by `python benchmarks/published.py --render` from the JSON files in `docs/results`; nothing is typed "
        "in by hand. Settings and epochs are chosen on the validation part. Of TIGER, BERT4Rec and, on MovieLens-100K, "
        "DCN, AFM, xDeepFM and AutoInt, settings were chosen again on validation after test figures of earlier ones "
        "had been seen; read those rows as somewhat optimistic.",
        "Unless a section says otherwise, ± is the standard error over test users of one training. *Reference* "
        "figures are what others measured; each section says who. A split that speaks of training histories means "
        "the examples that language models read; sequence models read up to their own maximum length.",
        "- [Claims of the papers](#claims-of-the-papers): what held, in words and figures\n"
        "- [Recommenders beside reference figures](#recommenders-beside-reference-figures)\n"
        "- [Rating prediction](#rating-prediction)\n"
        + "\n".join(f"- Tables and figures of [{title}]({link})" for title, link in paper_results.links(docs)),
        *paper_results.summary(docs),
        "## Recommenders beside reference figures",
        *recommenders,
        "## Rating prediction",
        *ratings,
    ]
    return "\n\n".join(parts) + "\n"


def _section(name: str, docs: Path) -> list[str]:
    """A recipe's or a training's table and what is to be known of it; empty where it was not measured."""
    path = docs / "results" / f"{name.replace('/', '-')}.json"
    if not path.exists():
        return []
    content = json.loads(path.read_text())
    rows, machine, seed = content["rows"], content["hardware"], content["seed"]
    several = isinstance(seed, list)
    seeds = (
        f"mean of the training seeds {', '.join(map(str, seed))}, ± over trainings and users"
        if several
        else f"seed {seed}"
    )
    n, users = content["n"], content.get("users", content["n"])  # without: every user has one example
    asked = f"{users:,} test users" if n == users else f"{n:,} test examples of {users:,} users"
    parts = [f"### {WORDS[name]}", _table(name, rows), f"{asked}, {seeds}. {content['protocol']}"]
    if name in SOURCES:
        parts.append(f"Reference: {SOURCES[name]}.")
    missing = _not_measured(name, {row["system"] for row in rows})
    if missing:
        parts.append(f"Systems of the recipe that were not measured: {', '.join(missing)}.")
    if "students" in content:
        parts += [STUDENTS_NOTE, table_of(content["students"][0], content["students"][1:])]
    if "semantic_ids" in content:
        grid = ids_grid(of_each_set(content["semantic_ids"]))
        parts += [f"{grid.title}: {grid.note}", table_of(grid.header, grid.rows)]
    if several:
        each = [
            f"{row['system']} {', '.join(f'{value:.4f}' for value in row['metrics']['ndcg@10']['by_seed'])}"
            for row in rows
        ]
        shared = " All trainings share the semantic ids." if "semantic_ids" in content else ""
        parts.append(f"NDCG@10 of each seed: {'; '.join(each)}.{shared}")
    exact = [f"{row['system']} {row['exact_share']:.1%}" for row in rows if row.get("exact_share") is not None]
    if exact:
        parts.append(f"Share of generated titles that are exact catalogue titles: {', '.join(exact)}.")
    slow = [f"{stage} {seconds:,.0f} s" for stage, seconds in content.get("seconds", {}).items() if seconds >= 10]
    if slow:
        parts.append(f"Stages of ten seconds and more: {', '.join(slow)}.")
    if "fit" in rows[0]:
        parts += _learning(rows[0])
    return [*parts, f"Measured on {machine['processor']}, {machine['cores']} cores."]


def _table(name: str, rows: list[dict[str, Any]]) -> str:
    """A row a system, each figure with its reference behind it; no column without any reference."""
    lines = []
    for row in rows:
        known = REFERENCE.get((name, row["system"]), {})
        figures = [
            (cell(row["metrics"][metric]), f"{known[metric]:.4f}" if metric in known else "") for metric in METRICS
        ]
        lines.append([row["system"], *(text for pair in figures for text in pair)])
    header = ["system", "HR@10", "reference", "NDCG@10", "reference"]
    return table_of(*filled(header, lines))


def _not_measured(name: str, measured: set[str]) -> list[str]:
    """Systems of a bundled recipe that its results lack."""
    if name not in recipe_names():
        return []
    return [system for system in yaml.safe_load(read_recipe(name))["models"] if system not in measured]


def _learning(row: dict[str, Any]) -> list[str]:
    """How a long training went: its best epoch, its learning rate and its validation curve."""
    fit, training = row["fit"], TrainingConfig.model_validate(row["config"]["training"])
    how = f"constant at {training.learning_rate:g}"
    if training.schedule != "constant":
        part = f"the last {training.decay_share:.0%} of the steps" if training.decay_share < 1 else "all steps"
        how = f"{training.learning_rate:g}, {training.schedule} decay over {part}"
    curve = fit["curve"]
    shown = ", ".join(f"{one['epoch']:.0f}: {one['ndcg@10']:.4f}" for one in curve[:: max(1, len(curve) // 8)])
    ended = "Time ran out before it converged. " if row.get("out_of_time") else ""
    return [
        f"Best of {fit['epochs']} epochs: {fit['best_epoch']} (validation NDCG@10 {fit['best_value']:.4f}); "
        f"training took {fit['seconds'] / 60:.0f} minutes.",
        f"{ended}Learning rate {how}. Validation NDCG@10 by epoch: {shown}.",
    ]
