"""Figures beside published ones: trains on real data, selects on validation, writes docs/results/NAME.json.

python benchmarks/published.py ml-100k-likes ml-1m-likes ml-1m amazon-toys  # bundled recipes
python benchmarks/published.py tiger/toys  # also tiger/games, tiger/ml-1m; hours
python benchmarks/published.py ml-100k-direct ml-100k-als  # bundled recipes with three seeds
python benchmarks/published.py dllm2rec/ml-1m llm-cf/ml-1m  # also /games, /toys; hours
python benchmarks/published.py ml-100k-rating ml-1m-rating    # rating prediction, three seeds each (--seeds)
python benchmarks/published.py soft/figure-2 llama4rec/table-2-ml-100k-proper  # `tandem reproduce`, scaled, in --runs
python benchmarks/published.py sasrec-ml-1m --workspace W     # half an hour on four cores; continues from W
python benchmarks/published.py gru4rec-ml-1m bert4rec-ml-1m --workspace W --minutes 60   # what an hour reaches
python benchmarks/published.py --render                       # docs/results.md and docs/benchmarks.md
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import paper_results
import rating_results
import yaml

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
from tandemrec.report.cost import run_costs
from tandemrec.report.leaderboard import table_of
from tandemrec.report.students import STUDENTS_NOTE, student_rows
from tandemrec.training import TrainingConfig, watched

DOCS = Path(__file__).resolve().parents[1] / "docs"
DISTILLED = {
    "ml-1m": "MovieLens-1M, windows of ten films cut by time",
    "games": "Amazon Video Games 2018, 5-core, leave-one-out",
    "toys": "Amazon Toys and Games 2014, 5-core, leave-one-out",
}
"""Data of the recipes of DLLM2Rec and LLM-CF."""

RECIPES = (
    *("ml-100k-likes", "ml-1m-likes", "ml-1m", "amazon-toys", "ml-100k-sequential"),
    *("tiger/toys", "tiger/games", "tiger/ml-1m"),
    *(f"{method}/{data}" for method in ("dllm2rec", "llm-cf") for data in DISTILLED),
)
SEEDED = ("ml-100k-direct", "ml-100k-als")
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
SEEDS = (42, 43, 44)

PUBLISHED = {
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
"""Reference measurements of the likes-only protocol and of kNN on Toys; for SASRec the public runs with cross-entropy
on MovieLens (RecSys 2023, where BERT4Rec's is from too; GRU4Rec's is from HSTU's) and with sampled softmax on Toys (the
eSASRec study); TIGER's is a public reproduction's, which does not reach the paper's .0432 / .0712;
Caser's on Toys is of S3-Rec's table."""

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
        name: f"MovieLens-1M, 3,416 items, leave-one-out, maximum length 200; `python benchmarks/published.py {name}`"
        for name in LONG
    },
}


def recipe(name: str, seed: int = SEED, systems: Sequence[str] = ()) -> dict[str, Any]:
    """A bundled recipe, as it is, or some of its systems."""
    from tandemrec import load_recipe, run
    from tandemrec.experiment.bundled import read_recipe

    tree = yaml.safe_load(read_recipe(name)) | {"seed": seed}
    if systems:
        tree["models"] = {system: tree["models"][system] for system in systems}
    finished = run(load_recipe(tree))
    rows = [
        {"system": row["system"], "metrics": row["metrics"], "exact_share": (row["outputs"] or {}).get("exact_share")}
        for row in finished.results["leaderboard"]
    ]
    seconds = {stage["stage"]: stage["seconds"] for stage in finished.card["stages"]}
    facts = finished.results["evaluation"]
    protocol = f"{finished.results['split']['protocol']}. {facts['protocol']}"
    seed = finished.results["seed"]
    content = {"rows": rows, "n": facts["n"], "protocol": protocol, "seed": seed, "seconds": seconds}
    header, told = student_rows(finished.results, finished.card, run_costs(finished.results, finished.card))
    return content | ({"students": [header, *told]} if told else {})


def joined(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """What some systems of a recipe reached, beside the others that were measured before in the same way."""
    same = all(before[key] == now[key] for key in ("n", "protocol", "seed"))
    measured = {row["system"] for row in now["rows"]}
    kept = [row for row in before["rows"] if same and row["system"] not in measured]
    rows = sorted([*kept, *now["rows"]], key=lambda row: -row["metrics"]["ndcg@10"]["mean"])
    return now | {"rows": rows, "seconds": (before["seconds"] if same else {}) | now["seconds"]}


def seeds(name: str) -> dict[str, Any]:
    """A bundled recipe with several seeds: means over them, and the standard error over users of one of them."""
    runs = [recipe(name, seed) for seed in SEEDS]
    rows = []
    for row in runs[0]["rows"]:
        same = [next(r for r in run["rows"] if r["system"] == row["system"])["metrics"] for run in runs]
        metrics = {
            metric: {
                "mean": sum(one[metric]["mean"] for one in same) / len(same),
                "standard_error": value["standard_error"],
                "by_seed": [one[metric]["mean"] for one in same],
            }
            for metric, value in row["metrics"].items()
        }
        rows.append({"system": row["system"], "metrics": metrics})
    rows.sort(key=lambda row: -row["metrics"]["ndcg@10"]["mean"])
    return runs[0] | {"rows": rows, "seed": list(SEEDS)}


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


def render() -> str:
    """docs/results.md."""
    parts = [
        "# Results",
        "Written by `python benchmarks/published.py --render` from `docs/results/*.json`. Models and epochs are chosen "
        "on the validation part; the test part is looked at once. ± is the standard error over test users of one "
        "training run; columns marked *published* are reference figures under the same protocol.",
    ]
    for name, words in WORDS.items():
        path = DOCS / "results" / f"{name.replace('/', '-')}.json"
        if not path.exists():
            continue
        content = json.loads(path.read_text())
        lines = []
        for row in content["rows"]:
            known = PUBLISHED.get((name, row["system"]), {})
            cells = [row["system"]]
            for metric in ("hr@10", "ndcg@10"):
                value = row["metrics"][metric]
                cells += [
                    f"{value['mean']:.4f} ± {value['standard_error']:.4f}",
                    f"{known[metric]:.4f}" if metric in known else "",
                ]
            lines.append(cells)
        header = ["system", "HR@10", "published", "NDCG@10", "published"]
        exact = [
            f"{row['system']} {row['exact_share']:.1%}" for row in content["rows"] if row.get("exact_share") is not None
        ]
        machine = content["hardware"]
        several = isinstance(content["seed"], list)
        seed = f"mean of the seeds {', '.join(map(str, content['seed']))}" if several else f"seed {content['seed']}"
        parts += [
            f"## {words}",
            table_of(header, lines),
            f"{content['n']:,} test users, {seed}. {content['protocol']}",
        ]
        if "students" in content:
            parts += [STUDENTS_NOTE, table_of(content["students"][0], content["students"][1:])]
        if several:
            each = [
                f"{row['system']} {', '.join(f'{value:.4f}' for value in row['metrics']['ndcg@10']['by_seed'])}"
                for row in content["rows"]
            ]
            parts.append(f"NDCG@10 of each seed: {'; '.join(each)}.")
        if exact:
            parts.append(f"Share of generated titles that are exact catalogue titles: {', '.join(exact)}.")
        if "seconds" in content:
            slow = [f"{stage} {seconds:,.0f} s" for stage, seconds in content["seconds"].items() if seconds >= 10]
            parts += [f"Stages of ten seconds and more: {', '.join(slow)}."] if slow else []
        fit = content["rows"][0].get("fit")
        if fit:
            parts.append(
                f"Best of {fit['epochs']} epochs: {fit['best_epoch']} (validation NDCG@10 {fit['best_value']:.4f}); "
                f"training took {fit['seconds'] / 60:.0f} minutes."
            )
            parts.append(_learning(content["rows"][0]))
        parts.append(f"Measured on {machine['processor']}, {machine['cores']} cores.")
    parts += paper_results.sections(DOCS)
    parts += rating_results.sections(DOCS)
    return "\n\n".join(parts) + "\n"


def _learning(row: dict[str, Any]) -> str:
    """How a long training went: its learning rate and its validation curve."""
    training = TrainingConfig.model_validate(row["config"]["training"])
    curve, how = row["fit"]["curve"], f"constant at {training.learning_rate:g}"
    if training.schedule != "constant":
        part = f"the last {training.decay_share:.0%} of the steps" if training.decay_share < 1 else "all steps"
        how = f"{training.learning_rate:g}, {training.schedule} decay over {part}"
    shown = ", ".join(f"{one['epoch']:.0f}: {one['ndcg@10']:.4f}" for one in curve[:: max(1, len(curve) // 8)])
    ended = "Time ran out before it converged. " if row.get("out_of_time") else ""
    return f"{ended}Learning rate {how}. Validation NDCG@10 by epoch: {shown}."


def render_benchmarks() -> str:
    """docs/benchmarks.md."""
    parts = [
        "# Benchmarks",
        "Programs in `benchmarks/` run our way and the usual way side by side and print one line a claim, "
        "`claim=NAME ratio=X ours=S usual=S agree=MAXDIFF`; `make bench` runs them, `--quick` shrinks them. This "
        "page is written by `python benchmarks/published.py --render` from `benchmarks/results/*.json`.",
    ]
    sections = {
        "ingest": _ingest,
        "finetune": _finetune,
        "decode": _decode,
        "grounding": _grounding,
        "conventional": _conventional,
        "rating": _rating,
        "selection": _selection,
        "ranker": _ranker,
        "plan": _plan,
    }
    for name, section in sections.items():
        path = Path(__file__).parent / "results" / f"{name}.json"
        parts += section(json.loads(path.read_text())) if path.exists() else []
    return "\n\n".join(parts) + "\n"


def _ingest(content: dict[str, Any]) -> list[str]:
    ours, usual = content["ours"], content["usual"]
    rows = [
        [name, *(f"{side[name]:.1f} s" for side in (ours, usual))] for name in ("read", "clean", "split", "seconds")
    ] + [["peak memory", *(f"{side['peak_gib']:.2f} GiB" for side in (ours, usual))]]
    machine = content["hardware"]
    return [
        f"## ingest-10m: {content['events']:,} events of {content['users']:,} users",
        "Reading a CSV file, 5-core and leave-one-out; the usual way is pandas. `python benchmarks/ingest.py`",
        table_of(["", "ours", "usual"], rows),
        f"{content['differ']} of {content['test_users']:,} test users differ between the two. "
        f"{machine['cpu']}, {machine['cores']} cores.",
    ]


def _decode(content: dict[str, Any]) -> list[str]:
    one, other = content["distil"], content["constrained"]
    rows = [
        [name, str(row["prompts"]), *(f"{row[way]:.0f} s" for way in ("ours", "usual")), _ratio(row)]
        for name, row in (("distil", one), ("constrained", other))
    ]
    scaled = "" if one["compared"] == one["prompts"] else f" (distil's usual way on {one['compared']} prompts, scaled)"
    return [
        "## distil, constrained: beam search on MovieLens-1M prompts",
        f"{content['model']}, briefly fine-tuned to answer in titles; prompts of {content['prompt_tokens']:.0f} tokens "
        f"on average. *distil*: the best of {content['beams']} beams, the usual way is the library's `generate()`. "
        f"*constrained*: {content['places']} titles of {other['titles']:,} by as many beams, the usual way is "
        f"`generate()` with `prefix_allowed_tokens_fn`. Same batches, taking turns{scaled}. "
        "`python benchmarks/decode.py`",
        table_of(["", "prompts", "ours", "usual", "ratio"], rows),
        f"distil: {one['different_best']} of {one['compared']} best answers differ in a token, and scores by at most "
        f"{one['agree']:.1e}. constrained: {other['no_titles']} answers are no titles, scores differ by at most "
        f"{other['agree']:.1e} from the usual way's and by at most {other['off_teacher_forcing']:.1e} from teacher "
        f"forcing. {_machine(content)}",
    ]


def _ranker(content: dict[str, Any]) -> list[str]:
    claims = {
        "pointwise": "`compact`, the template for small models",
        "pointwise-alpaca": "`alpaca`",
        "pointwise-alpaca-2048": "`alpaca`, 50 titles, context of 2,048",
    }
    rows = [
        [
            f"{words}: prompts of {row['prompt_tokens']:,.0f} tokens, {row['tail_tokens']:.0f} for a candidate",
            f"{row['users']:.0f}",
            *(f"{row[side]:.1f} s" for side in ("ours", "usual")),
            _ratio(row),
            f"{row['agree']:.1e}",
        ]
        for claim, words in claims.items()
        for row in (content[claim],)
    ]
    return [
        f"## pointwise: {content['pointwise']['candidates']} candidates of a user over one prompt",
        "Probabilities of five ratings for all candidates of users of MovieLens-100K by stories3m, whose context is "
        "512 tokens where nothing else is said. The usual way runs a prompt for each candidate, a user's in one batch. "
        "The two sides take turns. `python benchmarks/ranker.py`",
        table_of(["template", "users", "ours", "usual", "ratio", "largest difference"], rows),
        _machine(content),
    ]


def _grounding(content: dict[str, Any]) -> list[str]:
    row = [f"{content['ours']:.0f} s", f"{content['usual']:.0f} s", _ratio(content)]
    return [
        f"## grounding: {content['outputs']:,} outputs, {content['titles']:,} titles, {content['size']:,} dimensions",
        "The rank of every output's target; the usual way is `torch.cdist` and a double argsort, timed on "
        f"{content['usual_timed_on']} outputs and scaled. `python benchmarks/grounding.py`",
        table_of(["ours", "usual", "ratio"], [row]),
        f"Of {content['checked']} outputs checked against differences in float64 our ranks are off by at most "
        f"{content['agree']:g}, the usual ones by at most {content['usual_off']:g}. {_machine(content)}",
    ]


def _ratio(row: dict[str, Any]) -> str:
    return f"{row['usual'] / row['ours']:.1f}"


def _machine(content: dict[str, Any]) -> str:
    machine = content["hardware"]
    return f"{machine['processor']}, {machine['cores']} cores; torch threads: {machine['torch_threads']}."


def _finetune(content: dict[str, Any]) -> list[str]:
    """The section of `benchmarks/finetune.py`."""
    rows = []
    for name, claim in content["claims"].items():
        unit = "MiB" if name == "step-memory" else "s"
        sides = (f"{claim[side]:,.2f} {unit}" for side in ("ours", "usual"))
        rows.append([name, *sides, f"{claim['usual'] / claim['ours']:.1f}×", f"{claim['agree']:.0e}"])
    return [
        "## Steps of fine-tuning",
        "An optimiser step at prompts of 150 and 250 tokens against one plain padded pass a completion through the "
        "same model; an epoch over MovieLens prompts in full rows against padded batches; the memory that a step "
        "with a vocabulary of 128,256 takes above what was held before, against Transformers' Trainer. The two sides "
        "take turns; medians. `python benchmarks/finetune.py`",
        table_of(["claim", "ours", "usual", "ratio", "largest difference"], rows),
        f"{content['hardware']['processor']}, {content['threads']} threads.",
    ]


def _conventional(claims: dict[str, Any]) -> list[str]:
    rows = []
    for name, claim in claims.items():
        scaled = claim["facts"].get("measured_steps", 0) < claim["facts"].get("epoch_steps", 0)
        sides = [f"{claim[side]:.2f} {claim['unit']}" for side in ("ours", "usual")]
        cpu = [claim["facts"].get(f"{side}_cpu_seconds") for side in ("ours", "usual")]
        asked = [
            f"{claim['ratio']:.1f}×",
            f"{cpu[1] / cpu[0]:.1f}×" if None not in cpu else "",
            f"{claim['target']:.2g}×",
        ]
        rows.append([name, *sides, *asked, f"{claim['agree']:.1g}", "yes" if scaled else ""])
    machines = {f"{claim['hardware']['processor']}, {claim['threads']} threads" for claim in claims.values()}
    words = [
        f"- {name}: {claim['words']} {claim['data'][0].upper()}{claim['data'][1:]}." for name, claim in claims.items()
    ]
    return [
        "## Conventional models: a training epoch, a full evaluation",
        "The usual way is RecBole 1.2.1 (rectools-sasrec: RecTools 0.19.0), in an environment of its own. `agree` is "
        "the largest difference between both sides' results, or what a claim says below; *scaled*: the usual way was "
        "timed on the first batches of its epoch. Where nothing else is said, the quickest of several runs counts (the "
        "usual way of LightGCN and SASRec: one run); processor time depends less on other work on the machine. "
        "`python benchmarks/conventional.py`",
        table_of(["claim", "ours", "usual", "ratio", "of processor time", "wanted", "agree", "scaled"], rows),
        "\n".join(words),
        f"{'; '.join(sorted(machines))}.",
    ]


def _rating(found: dict[str, Any]) -> list[str]:
    """The section of `benchmarks/rating.py`."""
    rows = [
        [
            name,
            *(f"{row[side]['seconds']:.1f} s" for side in ("ours", "usual")),
            f"{row['ratio']:.1f}",
            *(f"{row[side]['rmse']:.4f}" for side in ("ours", "usual")),
        ]
        for name, row in found["models"].items()
    ]
    machine = found["hardware"]
    return [
        f"## ctr-epoch: rating models on {found['rows']:,} training ratings of MovieLens-1M",
        f"One epoch against DeepCTR-Torch 0.3.0, batch {found['batch']}, vectors of {found['dim']}, "
        f"{len(found['fields'])} fields, {found['threads']} threads; RMSE on the validation part after that epoch. "
        f"The median ratio is {found['ratio']:.1f}. `python benchmarks/rating.py --deepctr E/bin/python`",
        table_of(["", "ours", "DeepCTR-Torch", "ratio", "RMSE ours", "RMSE DeepCTR-Torch"], rows),
        f"{machine['processor']}, {machine['cores']} cores.",
    ]


def _plan(content: dict[str, Any]) -> list[str]:
    """The section of `benchmarks/plan.py`."""
    rows, known = [], []
    for run, found in content["runs"].items():
        for row in found:
            sides = (row["measured"], row["cpu"])
            ratios = [row["predicted"] / side if row["predicted"] and side else None for side in sides]
            known.append(ratios)
            seconds = ["" if row[key] is None else f"{row[key]:,.0f} s" for key in ("predicted", "measured", "cpu")]
            rows.append([run, row["stage"], *seconds, *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios)])
    wall, processor = (sum(0.5 <= (pair[at] or 0) <= 2 for pair in known) for at in (0, 1))
    device = content["device"]
    return [
        "## tandem plan: predicted and measured",
        f"Every stage of more than {content['longer_than']:.0f} seconds; trainings by the epochs that they took. Of "
        f"{len(known)} stages {processor} are predicted within a factor of two of their processor time, {wall} of "
        "their wall time: most of these runs shared the machine with other work, which a plan cannot know. "
        "`tandem plan --calibrate`, then `python benchmarks/plan.py --keep RUN …`",
        table_of(["run", "stage", "predicted", "wall", "processor", "ratio to wall", "to processor"], rows),
        f"{device['title']}: {device['flops'] / 1e9:.0f} GFLOP/s, {device['bytes'] / 1e9:.1f} GB/s, "
        f"{device['call'] * 1e6:.0f} µs a call.",
    ]


def _selection(content: dict[str, Any]) -> list[str]:
    """The section of `benchmarks/selection.py`."""
    rows, costs = [], []
    claims = {name: claim for name, claim in content.items() if name != "hardware"}
    for name, claim in claims.items():
        sides = [f"{claim[side]:,.1f} s" for side in ("ours", "usual")]
        rows.append([name, *sides, f"{claim['usual'] / claim['ours']:.1f}", f"{claim['agree']:.0e}", claim["timed_on"]])
        costs += [
            [
                name + ("" if way == "sizes" else ", nothing kept"),
                f"{int(size):,}",
                f"{figures['seconds']:.1f} s",
                f"{figures['peak_gib']:.2f} GiB",
                f"{figures['data_gib']:.2f} GiB",
            ]
            for way in ("sizes", "streamed")
            for size, figures in claim.get(way, {}).items()
        ]
    influence = claims["influence"]
    solved = influence["sizes"][str(influence["users"])]
    texts = max(claim.get("texts", 0) for claim in claims.values())
    return [
        f"## influence and effort: the {influence['users']:,} users of the published Amazon Games split",
        "`python benchmarks/selection.py`. Influence on the risk of a SASRec (64 dimensions, two blocks; epochs of "
        f"training, not counted: {influence['epochs']}), usual way: mean gradient, 5,000 steps of the published "
        f"recursion, one backward pass a user. Effort of a fresh adapter's last value matrix on {texts:,} users, usual "
        "way: one forward and backward pass a user, gradients going to all adapters. The usual way is timed on the "
        "first users and scaled; the quickest of several attempts counts on either side. The machine was busy with "
        "other work.",
        table_of(["", "ours", "usual", "ratio", "largest difference", "usual way timed on"], rows),
        f"Conjugate gradients: {solved['iterations']} products, residual {solved['residual']:.0e} at damping "
        f"{solved['damping']:g}. Where nothing is kept, positions are computed again for every product. "
        f"{_machine(content)}",
        table_of(["ours", "users", "time", "peak memory", "of it before it began"], costs),
    ]


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
        elif name in LONG:
            content = long_training(name, arguments.workspace, arguments.minutes)
        else:
            content = seeds(name) if name in SEEDED else recipe(name, systems=arguments.systems)
            if arguments.systems and path.exists():
                content = joined(json.loads(path.read_text()), content)
        content |= {"hardware": hardware(), "packages": package_versions()}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        for row in content["systems" if name in paper_results.NAMES else "rows"]:
            print(name, row["system"], {key: round(value["mean"], 4) for key, value in row["metrics"].items()})
    if arguments.render:
        (DOCS / "results.md").write_text(render(), encoding="utf-8")
        (DOCS / "benchmarks.md").write_text(render_benchmarks(), encoding="utf-8")


if __name__ == "__main__":
    main()
