"""Rating prediction beside published figures, for `published.py`: several seeds of a recipe, and their tables."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from tandemrec import load_recipe, run
from tandemrec.evaluation.significance import holm
from tandemrec.report.leaderboard import table_of

SEEDS = (42, 43, 44)

WORDS = {
    "ml-100k-rating": "MovieLens-100K, all ratings, leave-one-out; `tandem run ml-100k-rating`",
    "ml-1m-rating": "MovieLens-1M, all ratings, leave-one-out; `tandem run ml-1m-rating`",
    "book-crossing-rating": "Book-Crossing, explicit ratings, 5-core, leave-one-out in an arbitrary order; "
    "`tandem run book-crossing-rating`",
}

PUBLISHED = {
    "ml-100k-rating": {
        "DeepFM": ("1.0487 / .8082", "1.0306 / .7987"),
        "NFM": ("1.0284 / .8005", "1.0189 / .7961"),
        "DCN": ("1.0478 / .8063", "1.0367 / .8033"),
        "AFM": ("1.0471 / .8035", "1.0340 / .7996"),
        "xDeepFM": ("1.1472 / .8836", "1.0947 / .8483"),
        "AutoInt": ("1.0500 / .8120", "1.0369 / .8059"),
    },
    "ml-1m-rating": {
        "DeepFM": (".9455 / .7409", ".9360 / .7321"),
        "NFM": (".9438 / .7364", ".9369 / .7303"),
        "DCN": (".9426 / .7342", ".9345 / .7272"),
        "AFM": (".9508 / .7464", ".9426 / .7394"),
        "xDeepFM": (".9519 / .7428", ".9401 / .7336"),
        "AutoInt": (".9471 / .7404", ".9382 / .7326"),
    },
    "book-crossing-rating": {
        "DeepFM": ("1.7738 / 1.3554", "1.6958 / 1.2843"),
        "NFM": ("2.1210 / 1.5984", "1.9253 / 1.4473"),
        "DCN": ("2.0216 / 1.4622", "1.8518 / 1.3566"),
        "AFM": ("1.6516 / 1.2614", "1.6244 / 1.2259"),
        "xDeepFM": ("2.1756 / 1.6461", "1.9610 / 1.4833"),
        "AutoInt": ("1.9148 / 1.4501", "1.7917 / 1.3492"),
    },
}
"""RMSE / MAE of Llama4Rec's rating table: the model alone, and with the language model."""


def measure(name: str, seeds: tuple[int, ...] = SEEDS) -> dict[str, Any]:
    """The recipe once a training seed, data and split shared; one row a system with its means, in the order of RMSE."""
    with tempfile.TemporaryDirectory() as folder:
        finished = [run(load_recipe(name, [f"training_seed={seed}"]), Path(folder) / str(seed)) for seed in seeds]
    boards = [{row["system"]: row for row in one.results["leaderboard"]} for one in finished]
    fits = [one.card["models"] for one in finished]
    rows = [
        {
            "system": system,
            "metrics": {metric: _over_seeds([board[system]["metrics"][metric] for board in boards]) for metric in row},
            "valid_rmse": [-fit[system]["best_value"] for fit in fits] if fits[0][system]["best_value"] else None,
            "epochs": [fit[system]["best_epoch"] for fit in fits],
            "p_value": [board[system]["against_reference"]["rmse"]["p_value"] for board in boards],
            "segments": boards[0][system]["segments"],
        }
        for system, row in ((system, board["metrics"]) for system, board in boards[0].items())
    ]
    rows.sort(key=lambda row: row["metrics"]["rmse"]["mean"])
    first = finished[0].results
    facts = {"n": first["evaluation"]["n"], "reference": first["evaluation"]["reference"], "seeds": list(seeds)}
    protocol = f"{first['split']['protocol']}. {first['evaluation']['protocol']}"
    seconds = {stage["stage"]: stage["seconds"] for stage in finished[0].card["stages"]}
    return {"rows": rows, **facts, "protocol": protocol, "data": first["data"], "seconds": seconds}


def sections(docs: Path) -> list[str]:
    """A section of docs/results.md for every measured recipe."""
    parts = []
    for name, words in WORDS.items():
        path = docs / "results" / f"{name}.json"
        if not path.exists():
            continue
        content = json.loads(path.read_text())
        lines, p_values = [], _corrected(content)
        for row in content["rows"]:
            alone, with_model = PUBLISHED[name].get(row["system"], ("", ""))
            errors = [row["metrics"][metric] for metric in ("rmse", "mae")]
            cells = [f"{error['mean']:.4f} ± {error['standard_error']:.4f}" for error in errors]
            worst = _beside(row, content, p_values)
            lines.append([row["system"], cells[0], f"{errors[0]['seeds_sd']:.4f}", cells[1], worst, alone, with_model])
        header = ["system", "RMSE", "sd of seeds", "MAE", f"against {content['reference']}"]
        header += ["Llama4Rec's paper, RMSE / MAE", "… with a language model"]
        machine, data = content["hardware"], content["data"]
        parts += [
            f"### {words}",
            table_of(header, lines),
            f"{content['n']:,} test ratings of {data['users']:,} users and {data['items']:,} items; means of seeds "
            f"{', '.join(map(str, content['seeds']))}, ± the mean standard error over users, p the largest of the "
            f"seeds', of paired t-tests over users, corrected for the systems of the table (Holm). "
            f"{content['protocol']}",
            f"Measured on {machine['processor']}, {machine['cores']} cores.",
        ]
    return parts


def _corrected(content: dict[str, Any]) -> dict[str, float]:
    """The largest p of the seeds of every system that is tested, corrected by Holm."""
    largest = {row["system"]: max(row["p_value"]) for row in content["rows"] if row["system"] != content["reference"]}
    return dict(zip(largest, holm(np.array(list(largest.values()))).tolist(), strict=True))


def _beside(row: dict[str, Any], content: dict[str, Any], p_values: dict[str, float]) -> str:
    """Whether its RMSE is better than that of the system all are tested against, and its corrected p."""
    if row["system"] == content["reference"]:
        return ""
    theirs = next(one for one in content["rows"] if one["system"] == content["reference"])["metrics"]["rmse"]["mean"]
    p_value = p_values[row["system"]]
    side = "better" if row["metrics"]["rmse"]["mean"] < theirs else "worse"
    side = side if p_value < 0.05 else "not told apart"
    return f"{side}, p = {p_value:.3f}" if p_value >= 0.001 else f"{side}, p < 0.001"


def _over_seeds(figures: list[dict[str, float]]) -> dict[str, Any]:
    values = [figure["mean"] for figure in figures]
    spread = stdev(values) if len(values) > 1 else 0.0
    error = mean(figure["standard_error"] for figure in figures)
    return {"mean": mean(values), "standard_error": error, "seeds_sd": spread, "seeds": values}
