"""Figures beside published ones: trains on real data, selects on validation, writes docs/results/NAME.json.

python benchmarks/published.py ml-100k-likes ml-1m-likes ml-1m amazon-toys  # bundled recipes
python benchmarks/published.py tiger/games tiger/ml-1m  # hours
python benchmarks/published.py ml-100k-direct ml-100k-als tiger/toys  # three trainings each (--seeds); hours
python benchmarks/published.py dllm2rec/ml-1m llm-cf/ml-1m  # also /games, /toys; hours
python benchmarks/published.py ml-100k-rating ml-1m-rating    # rating prediction, three seeds each (--seeds)
python benchmarks/published.py soft/figure-2 llama4rec/table-2-ml-100k-proper  # `tandem reproduce`, scaled, in --runs
python benchmarks/published.py sasrec-ml-1m --workspace W     # half an hour on four cores; continues from W
python benchmarks/published.py gru4rec-ml-1m bert4rec-ml-1m --workspace W --minutes 60   # what an hour reaches
python benchmarks/published.py --render                       # docs/results.md, its pages and docs/benchmarks.md
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import paper_results
import rating_results
import yaml
from benchmarks_page import benchmarks_page
from results_pages import DISTILLED, results_pages

from tandemrec.conventional.sequential.bert4rec import BERT4Rec, BERT4RecConfig
from tandemrec.conventional.sequential.gru4rec import GRU4Rec, GRU4RecConfig
from tandemrec.conventional.sequential.model import SequenceModel
from tandemrec.conventional.sequential.sasrec import SASRec, SASRecConfig
from tandemrec.data.filter import CleaningConfig, clean
from tandemrec.data.protocols import LeaveOneOut
from tandemrec.data.sources import MovieLens
from tandemrec.data.split import make_split
from tandemrec.evaluation.evaluate import EvaluationConfig, evaluate
from tandemrec.experiment.card import hardware, package_versions
from tandemrec.experiment.run import Run
from tandemrec.report.cost import run_costs
from tandemrec.report.prepared import id_figures
from tandemrec.report.students import student_rows
from tandemrec.training import TrainingConfig, watched

DOCS = Path(__file__).resolve().parents[1] / "docs"
RECIPES = (
    *("ml-100k-likes", "ml-1m-likes", "ml-1m", "amazon-toys", "ml-100k-sequential"),
    *("tiger/games", "tiger/ml-1m"),
    *(f"{method}/{data}" for method in ("dllm2rec", "llm-cf") for data in DISTILLED),
)
SEEDED = ("ml-100k-direct", "ml-100k-als", "tiger/toys")
LONG: dict[str, tuple[str, SequenceModel[Any, Any], int | None]] = {
    "sasrec-ml-1m": (
        "SASRec, full softmax",
        SASRec(SASRecConfig(training=TrainingConfig(patience=10, clip_norm=None))),
        50,
    ),
    "gru4rec-ml-1m": (
        "GRU4Rec, full softmax",
        GRU4Rec(
            GRU4RecConfig(
                dropout=0.2, batch_size=32, training=TrainingConfig(learning_rate=2e-3, patience=10, clip_norm=None)
            )
        ),
        None,
    ),
    "bert4rec-ml-1m": (
        "BERT4Rec",
        BERT4Rec(
            BERT4RecConfig(
                batch_size=64,
                training=TrainingConfig(
                    epochs=180,
                    learning_rate=1e-3,
                    weight_decay=0.01,
                    warmup_steps=100,
                    schedule="linear",
                    decay_share=1 / 6,
                    patience=20,
                    validate_every=2,
                ),
            )
        ),
        None,
    ),
}
"""Name → system, model, and most epochs (None: as configured) of trainings on all of MovieLens-1M."""

NAMES = (*RECIPES, *SEEDED, *LONG, *rating_results.WORDS, *paper_results.NAMES)
SEED = 42


def recipe(name: str, systems: Sequence[str] = ()) -> dict[str, Any]:
    """A bundled recipe, as it is, or some of its systems."""
    from tandemrec import load_recipe, run
    from tandemrec.experiment.bundled import read_recipe

    tree = yaml.safe_load(read_recipe(name)) | {"seed": SEED}
    if systems:
        tree["models"] = {system: tree["models"][system] for system in systems}
    return kept_of(run(load_recipe(tree)))


def kept_of(finished: Run) -> dict[str, Any]:
    """What is kept of a finished run of a bundled recipe."""
    rows = [
        {"system": row["system"], "metrics": row["metrics"], "exact_share": (row["outputs"] or {}).get("exact_share")}
        for row in finished.results["leaderboard"]
    ]
    facts = finished.results["evaluation"]
    content = {
        "rows": rows,
        "n": facts["n"],
        "users": finished.results["users"],
        "protocol": f"{finished.results['split']['protocol']}. {facts['protocol']}",
        "seed": finished.results["seed"],
        "seconds": {stage["stage"]: stage["seconds"] for stage in finished.card["stages"]},
    }
    header, students = student_rows(finished.results, finished.card, run_costs(finished.results, finished.card))
    ids = id_figures(finished.card)
    return content | ({"students": [header, *students]} if students else {}) | ({"semantic_ids": ids} if ids else {})


def joined(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """What some systems of a recipe reached, beside the others that were measured before in the same way."""
    same = all(before[key] == now[key] for key in ("n", "protocol", "seed"))
    measured = {row["system"] for row in now["rows"]}
    kept = [row for row in before["rows"] if same and row["system"] not in measured]
    rows = sorted([*kept, *now["rows"]], key=lambda row: -row["metrics"]["ndcg@10"]["mean"])
    ids = (before.get("semantic_ids", {}) if same else {}) | now.get("semantic_ids", {})
    seconds = (before["seconds"] if same else {}) | now["seconds"]
    return now | {"rows": rows, "seconds": seconds} | ({"semantic_ids": ids} if ids else {})


def trainings(name: str, seeds: Sequence[int]) -> dict[str, Any]:
    """A bundled recipe, trained with several seeds on one split: means, with errors over trainings and users.

    How long stages took is told of the first training.
    """
    from tandemrec import load_recipe, run
    from tandemrec.experiment.compare import compare

    with tempfile.TemporaryDirectory() as folder:
        finished = [run(load_recipe(name, [f"training_seed={seed}"]), Path(folder) / str(seed)) for seed in seeds]
        pooled = compare([one.path for one in finished])["leaderboard"]
    boards = [{row["system"]: row["metrics"] for row in one.results["leaderboard"]} for one in finished]
    rows = [
        {
            "system": row["system"],
            "metrics": {
                metric: errors | {"by_seed": [board[row["system"]][metric]["mean"] for board in boards]}
                for metric, errors in row["metrics"].items()
            },
        }
        for row in pooled
    ]
    return kept_of(finished[0]) | {"rows": rows, "seed": list(seeds)}


def long_training(name: str, workspace: Path | None, minutes: float | None) -> dict[str, Any]:
    """A model of `LONG`; the epoch is chosen by NDCG@10 of all 6,040 validation items. With `minutes`, training stops
    after the epoch in which they are over.
    """
    data, _ = clean(MovieLens(edition="ml-1m").load(), CleaningConfig(min_item_count=5))
    split = make_split(data, LeaveOneOut())
    system, model, epochs = LONG[name]
    if epochs is not None:
        training = model.config.training.model_copy(update={"epochs": epochs})
        model.config = model.config.model_copy(update={"training": training})
    end = time.monotonic() + 60 * (minutes or float("inf"))
    with watched(lambda curve: time.monotonic() > end):
        report = model.fit(split, seed=SEED, workspace=workspace and workspace / name)
    judged = evaluate(model, split, EvaluationConfig())
    row = {
        "system": system,
        "metrics": judged.metrics,
        "config": model.config.model_dump(mode="json"),
        "fit": report.model_dump(mode="json"),
        "out_of_time": time.monotonic() > end,
    }
    summary = judged.summary()
    return {"rows": [row], "n": summary["n"], "protocol": f"{split.protocol}. {summary['protocol']}", "seed": SEED}


def signed(content: dict[str, Any]) -> dict[str, Any]:
    """With the packages and the machine; finished runs of an experiment tell their own, which may be another one."""
    return content | {"hardware": content.get("hardware") or hardware(), "packages": package_versions()}


def pages() -> dict[Path, str]:
    """Every page that is written here, and its text."""
    return results_pages(DOCS) | {DOCS / "benchmarks.md": benchmarks_page()}


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--seeds", type=int, nargs="+", default=rating_results.SEEDS, help="of recipes with several")
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="where the runs of the papers' experiments lie, or go"
    )
    parser.add_argument("--systems", nargs="+", default=(), help="these alone, of a recipe with one seed")
    parser.add_argument("--workspace", type=Path, help=f"checkpoints of {', '.join(LONG)}")
    parser.add_argument("--minutes", type=float, help="longest training of one of them")
    parser.add_argument("--render", action="store_true")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(NAMES)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(NAMES)}")
    for name in arguments.names:
        path = DOCS / "results" / f"{name.replace('/', '-')}.json"
        if name in paper_results.NAMES:
            path = DOCS / "results" / paper_results.file_of(name)
            content = paper_results.measure(name, tuple(arguments.seeds), arguments.runs)
        elif name in rating_results.WORDS:
            content = rating_results.measure(name, tuple(arguments.seeds))
        elif name in SEEDED:
            content = trainings(name, arguments.seeds)
        elif name in LONG:
            content = long_training(name, arguments.workspace, arguments.minutes)
        else:
            content = recipe(name, arguments.systems)
            if arguments.systems and path.exists():
                content = joined(json.loads(path.read_text()), content)
        content = signed(content)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        for row in content["systems" if name in paper_results.NAMES else "rows"]:
            print(name, row["system"], {key: round(value["mean"], 4) for key, value in row["metrics"].items()})
    if arguments.render:
        for page, text in pages().items():
            page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
