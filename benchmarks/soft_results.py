"""SOFT and its rivals beside the published table, for `published.py`: repetitions of a recipe, tests and curves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tandemrec import load_recipe, run
from tandemrec.evaluation.significance import holm
from tandemrec.experiment.compare import compare
from tandemrec.experiment.run import Run
from tandemrec.report.comparison import pair_of
from tandemrec.report.leaderboard import table_of

SEEDS = (42, 43, 44)
METRICS = ("hr@5", "hr@20", "ndcg@5", "ndcg@20")
BACKBONES = ("BIGRec", "LLaRA")

WORDS = {
    "soft/ml-1m": "SOFT on MovieLens-1M, windows of ten films cut by time; `tandem run soft/ml-1m`",
    "soft/games": "SOFT on Amazon Video Games 2018, 5-core, leave-one-out; `tandem run soft/games`",
    "soft/toys": "SOFT on Amazon Toys and Games 2014, 5-core, leave-one-out; `tandem run soft/toys`",
}

PUBLISHED = {
    "soft/games": {
        "SASRec": ".0150 / .0340 / .0074 / .0112",
        "DROS": ".0160 / .0420 / .0091 / .0165",
        "BIGRec SFT": ".0130 / .0310 / .0078 / .0127",
        "BIGRec S-DPO": ".0150 / .0310 / .0090 / .0135",
        "BIGRec SOFT without SA": ".0170 / .0380 / .0107 / .0163",
        "BIGRec SOFT": ".0230 / .0470 / .0135 / .0200",
        "LLaRA SFT": ".0110 / .0360 / .0080 / .0152",
        "LLaRA S-DPO": ".0120 / .0360 / .0084 / .0153",
        "LLaRA SOFT without SA": ".0220 / .0490 / .0156 / .0228",
        "LLaRA SOFT": ".0230 / .0510 / .0150 / .0230",
    },
    "soft/ml-1m": {
        "SASRec": ".0120 / .0280 / .0082 / .0130",
        "DROS": ".0190 / .0390 / .0101 / .0154",
        "BIGRec SFT": ".0160 / .0200 / .0123 / .0134",
        "BIGRec S-DPO": ".0100 / .0150 / .0079 / .0094",
        "BIGRec SOFT without SA": ".0220 / .0250 / .0197 / .0205",
        "BIGRec SOFT": ".0220 / .0250 / .0192 / .0200",
        "LLaRA SFT": ".0170 / .0200 / .0135 / .0143",
        "LLaRA S-DPO": ".0170 / .0200 / .0135 / .0143",
        "LLaRA SOFT without SA": ".0170 / .0210 / .0136 / .0147",
        "LLaRA SOFT": ".0200 / .0210 / .0160 / .0163",
    },
}
"""HR@5 / HR@20 / NDCG@5 / NDCG@20 of SOFT's table (Game; Movie, of Amazon), a language model of 3 billion parameters:
other data, so the order of the systems is what compares."""


def asked(system: str) -> str | None:
    """The rival that a system is tested against: supervised fine-tuning, or SOFT without its adaptive schedule."""
    backbone, _, way = system.partition(" ")
    if backbone not in BACKBONES or way == "SFT" or " a=" in system:
        return None
    return f"{backbone} SOFT without SA" if way == "SOFT" else f"{backbone} SFT"


def measure(name: str, seeds: Sequence[int] = SEEDS, runs: Path = Path("runs")) -> dict[str, Any]:
    """Run the recipe once a training seed, or go on with what lies in `runs/NAME-SEED`, and compare."""
    paths = [runs / f"{name.replace('/', '-')}-{seed}" for seed in seeds]
    for path, seed in zip(paths, seeds, strict=True):
        if not (path / "results.json").exists():
            run(load_recipe(name, {"training_seed": seed}), path)
    found, finished = compare(paths, metric="ndcg@20"), [Run.open(path) for path in paths]
    questions = [
        (system, rival) for system in (row["system"] for row in found["leaderboard"]) if (rival := asked(system))
    ]
    questions += [(f"{backbone} SOFT", f"{backbone} SFT") for backbone in BACKBONES]
    pairs = [pair_of(found, *question) for question in questions]
    for pair, corrected in zip(pairs, holm(np.array([pair["p_value"] for pair in pairs])), strict=True):
        pair["p_holm"] = float(corrected)
    first, cards = finished[0].results, [one.card for one in finished]
    return {
        "rows": found["leaderboard"],
        "pairs": pairs,
        "resolvable": found["resolvable"]["one_test"],
        "users": found["users"],
        "seeds": list(seeds),
        "chosen": {
            backbone: [card["models"][f"{backbone} SOFT"]["notes"]["chosen"] for card in cards]
            for backbone in BACKBONES
        },
        "distilled": {
            backbone: [_distilled(card, f"{backbone} SOFT a=10") for card in cards] for backbone in BACKBONES
        },
        "tau": {
            system: [[round(row["tau"], 4) for row in card["models"][system]["curve"]] for card in cards]
            for system in cards[0]["models"]
            if " SOFT a=" in system
        },
        "language_model": {
            key: cards[0]["models"]["BIGRec SFT"]["notes"][key] for key in ("parameters", "examples", "tokens")
        },
        "data": first["data"],
        "protocol": f"{first['split']['protocol']}. {first['evaluation']['protocol']}",
        "seconds": {stage["stage"]: stage["seconds"] for stage in cards[0]["stages"]},
    }


def _distilled(card: Mapping[str, Any], student: str) -> dict[str, Any]:
    """Shares of exact titles and hits among the teacher's answers; the first epoch's loss on real and on own ones."""
    answers: dict[str, Any] = card["distilled"][student]
    losses = (card["models"][name]["curve"][0]["loss"] for name in (answers["teacher"], student))
    return answers | dict(zip(("loss_real", "loss_own"), losses, strict=True))


def sections(docs: Path) -> list[str]:
    """A section of docs/results.md for every measured recipe."""
    parts = []
    for name, words in WORDS.items():
        path = docs / "results" / f"{name.replace('/', '-')}.json"
        if path.exists():
            parts += _section(name, words, json.loads(path.read_text()))
    return parts


def _section(name: str, words: str, content: Mapping[str, Any]) -> list[str]:
    published = PUBLISHED.get(name, {})
    lines = []
    for row in content["rows"]:
        if " a=" in row["system"]:
            continue
        figures = [row["metrics"][metric] for metric in METRICS]
        cells = [f"{figure['mean']:.4f} ± {figure['standard_error']:.4f}" for figure in figures]
        lines.append([row["system"], *cells, *([published.get(row["system"], "")] if published else [])])
    header = ["system", *(metric.upper() for metric in METRICS)] + (["published, all four"] if published else [])
    tests = []
    for pair in content["pairs"]:
        interval = f"{pair['difference']:+.4f} [{pair['low']:+.4f}, {pair['high']:+.4f}]"
        tests.append([pair["system"], pair["other"], interval, f"{pair['p_value']:.3f}", f"{pair['p_holm']:.3f}"])
    won = [
        f"{pair['system']} {'above' if pair['difference'] > 0 else 'below'} {pair['other']}"
        for pair in content["pairs"]
        if pair["p_holm"] < 0.05
    ]
    own = []
    for backbone, several in content["distilled"].items():
        shares = {key: _mean(several, key) for key in ("exact_share", "hit_share", "hit_kind_share")}
        losses = _mean(several, "loss_real"), _mean(several, "loss_own")
        own.append(
            [backbone, *("" if share is None else f"{share:.1%}" for share in shares.values())]
            + ["" if loss is None else f"{loss:.3f}" for loss in losses]
        )
    chosen = "; ".join(f"{backbone}: {', '.join(names)}" for backbone, names in content["chosen"].items())
    model, machine = content["language_model"], content["hardware"]
    verdict = f"Certain after correction: {'; '.join(won)}." if won else "No difference is certain after correction."
    return [
        f"## {words}",
        table_of(header, lines),
        f"Mean of the training seeds {', '.join(map(str, content['seeds']))} over {content['users']:,} users; ± is the "
        f"standard error over users and seeds. A language model of {model['parameters']:,} parameters, built from the "
        f"catalogue, {model['examples']:,} training prompts. {content['protocol']}",
        f"The steepness α was chosen on validation ({chosen}).",
        table_of(["system", "against", "NDCG@20, 95 % interval", "p", "p, Holm"], tests),
        f"{verdict} One test finds a true difference of {content['resolvable']:.4f} in 80 % of cases.",
        "The teacher's own answers to its training prompts, and the first epoch's loss on real and on own answers:",
        table_of(["backbone", "exact titles", "hits", "hits of the kind", "loss, real", "loss, own"], own),
        f"Measured on {machine['processor']}, {machine['cores']} cores.",
    ]


def _mean(several: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [one[key] for one in several if one[key] is not None]
    return float(np.mean(values)) if values else None
