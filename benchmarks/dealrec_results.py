"""DEALRec and its rivals beside the published table, for `published.py`: repetitions of a recipe, tests and costs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from tandemrec import load_recipe, run
from tandemrec.evaluation.significance import holm
from tandemrec.experiment.compare import compare
from tandemrec.experiment.run import Run
from tandemrec.report.comparison import pair_of
from tandemrec.report.leaderboard import table_of

SEEDS = (42, 43, 44)
RANDOM = "Random"
HEADLINE = "recall@20"

WORDS = {
    "dealrec/games": "DEALRec on its split of Amazon Video Games; `tandem run dealrec/games`",
    "dealrec/games-ratios": "DEALRec on Games: surrogates and shares of samples; `tandem run dealrec/games-ratios`",
    "dealrec/microlens": "DEALRec on its split of MicroLens-50K; `tandem run dealrec/microlens`",
}
METRICS = {
    "dealrec/games": ("recall@10", "recall@20", "ndcg@10", "ndcg@20"),
    "dealrec/games-ratios": ("recall@10", "recall@20", "ndcg@10", "ndcg@20"),
    "dealrec/microlens": ("recall@20", "recall@50", "ndcg@20", "ndcg@50"),
}
PUBLISHED = {
    "dealrec/games": {
        "TF-DCon": ".0102 / .0157 / .0062 / .0078",
        "RecRanker": ".0112 / .0166 / .0074 / .0090",
        "CCS": ".0164 / .0246 / .0097 / .0122",
        "GraNd": ".0158 / .0250 / .0098 / .0125",
        "EL2N": ".0154 / .0256 / .0098 / .0128",
        "Random": ".0163 / .0241 / .0100 / .0122",
        "DEALRec": ".0181 / .0276 / .0115 / .0142",
    },
    "dealrec/games-ratios": {
        "DEALRec": ".0181 / .0276 / .0115 / .0142",
        "DEALRec BERT4Rec": ".0175 / .0258 / .0103 / .0128",
        "DEALRec DCRec": ".0211 / .0283 / .0117 / .0137",
    },
    "dealrec/microlens": {
        "TF-DCon": ".0066 / .0099 / .0027 / .0034",
        "RecRanker": ".0024 / .0042 / .0011 / .0014",
        "CCS": ".0096 / .0131 / .0041 / .0049",
        "GraNd": ".0014 / .0032 / .0006 / .0010",
        "Random": ".0108 / .0151 / .0044 / .0054",
        "DEALRec": ".0124 / .0160 / .0055 / .0064",
    },
}
"""Tables 2 and 4 of the paper: 1,024 samples, a language model of 7 billion parameters, all test users. EL2N on
MicroLens is left out: two of its published cells repeat another row's."""


def measure(name: str, seeds: Sequence[int] = SEEDS, runs: Path = Path("runs")) -> dict[str, Any]:
    """Run the recipe once a training seed, or go on with what lies in `runs/NAME-SEED`, and compare with Random."""
    paths = [runs / f"{name.replace('/', '-')}-{seed}" for seed in seeds]
    for path, seed in zip(paths, seeds, strict=True):
        if not (path / "results.json").exists():
            run(load_recipe(name, {"training_seed": seed}), path)
    found, finished = compare(paths, metric=HEADLINE), [Run.open(path) for path in paths]
    rows, first, cards = found["leaderboard"], finished[0].results, [one.card for one in finished]
    pairs = [
        pair_of(found, system, RANDOM)
        for system in (row["system"] for row in rows)
        if system in cards[0]["chosen"] and system != RANDOM
    ]
    for pair, corrected in zip(pairs, holm(np.array([pair["p_value"] for pair in pairs])), strict=True):
        pair["p_holm"] = float(corrected)
    fits = [card["models"] for card in cards]
    return {
        "rows": [row | _costs(row["system"], cards) for row in rows],
        "pairs": pairs,
        "resolvable": found["resolvable"]["one_test"],
        "users": found["users"],
        "seeds": list(seeds),
        "chosen": [fit["DEALRec"]["notes"]["chosen"] for fit in fits if "chosen" in fit["DEALRec"]["notes"]],
        "parameters": fits[0][RANDOM]["notes"]["parameters"],
        "train": first["split"]["train"],
        "data": first["data"],
        "protocol": f"{first['split']['protocol']}. {first['evaluation']['protocol']}",
    }


def _costs(system: str, cards: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Examples and mean seconds of selection and of training."""
    choices = [card["chosen"][system] for card in cards if system in card["chosen"]]
    return {
        "examples": choices[0]["examples"] if choices else None,
        "selection_seconds": mean(choice["seconds"] for choice in choices) if choices else None,
        "training_seconds": mean(card["models"][system]["seconds"] for card in cards),
    }


def sections(docs: Path) -> list[str]:
    """A section of docs/results.md for every measured recipe."""
    parts = []
    for name, words in WORDS.items():
        path = docs / "results" / f"{name.replace('/', '-')}.json"
        if path.exists():
            parts += _section(name, words, json.loads(path.read_text()))
    return parts


def _section(name: str, words: str, content: Mapping[str, Any]) -> list[str]:
    published, metrics = PUBLISHED[name], METRICS[name]
    lines = []
    for row in content["rows"]:
        figures = [row["metrics"][metric] for metric in metrics]
        cells = [f"{figure['mean']:.4f} ± {figure['standard_error']:.4f}" for figure in figures]
        seconds = [row["selection_seconds"], row["training_seconds"]]
        costs = ["" if value is None else f"{value:,.0f}" for value in (row["examples"], *seconds)]
        lines.append([row["system"], *cells, *costs, published.get(row["system"], "")])
    header = ["system", *(metric.upper() for metric in metrics), "examples", "s of selection", "s of training"]
    tests = [
        [
            pair["system"],
            f"{pair['difference']:+.4f} [{pair['low']:+.4f}, {pair['high']:+.4f}]",
            f"{pair['p_value']:.3f}",
            f"{pair['p_holm']:.3f}",
        ]
        for pair in content["pairs"]
    ]
    certain = [
        f"{pair['system']} {'above' if pair['difference'] > 0 else 'below'} Random"
        for pair in content["pairs"]
        if pair["p_holm"] < 0.05
    ]
    verdict = f"Certain after correction: {'; '.join(certain)}." if certain else "No difference from Random is certain."
    chosen = f" The weight of effort was chosen on validation: {', '.join(content['chosen'])}." * bool(
        content["chosen"]
    )
    machine = content["hardware"]
    return [
        f"## {words}",
        table_of([*header, "published, all four"], lines),
        f"Mean of the training seeds {', '.join(map(str, content['seeds']))} over {content['users']:,} users; ± is the "
        f"standard error over users and seeds. A language model of {content['parameters']:,} parameters, built from "
        f"the catalogue; selectors chose among {content['train']:,} samples. Seconds of selection count the training "
        f"of the surrogate; those of training include generation on the validation part where it is asked.{chosen} "
        f"{content['protocol']}",
        table_of(["system", f"{HEADLINE.upper()} against Random, 95 % interval", "p", "p, Holm"], tests),
        f"{verdict} One test finds a true difference of {content['resolvable']:.4f} in 80 % of cases.",
        f"Measured on {machine['processor']}, {machine['cores']} cores, beside other work.",
    ]
