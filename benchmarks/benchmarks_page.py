"""docs/benchmarks.md, from what the programs of this folder left in `results/`."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from tandemrec.report.leaderboard import table_of


def benchmarks_page() -> str:
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
        "plan_as_run": _plan_as_run,
    }
    for name, section in sections.items():
        path = Path(__file__).parent / "results" / f"{name}.json"
        parts += section(json.loads(path.read_text())) if path.exists() else []
    return "\n\n".join(parts) + "\n"


def _ingest(content: dict[str, Any]) -> list[str]:
    ours, usual = content["ours"], content["usual"]
    steps = {"read": "read", "clean": "clean", "split": "split", "seconds": "in all"}
    rows = [[words, *(f"{side[step]:.1f} s" for side in (ours, usual))] for step, words in steps.items()] + [
        ["peak memory", *(f"{side['peak_gib']:.2f} GiB" for side in (ours, usual))]
    ]
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
        f"{content['hardware']['processor']}, {_threads(content['threads'])}.",
    ]


def _conventional(claims: dict[str, Any]) -> list[str]:
    rows = []
    for name, claim in claims.items():
        scaled = claim["facts"].get("measured_steps", 0) < claim["facts"].get("epoch_steps", 0)
        sides = [f"{claim[side]:.2f} {claim['unit']}" for side in ("ours", "usual")]
        cpu = [claim["facts"].get(f"{side}_cpu_seconds") for side in ("ours", "usual")]
        ratios = [f"{claim['ratio']:.1f}×", f"{cpu[1] / cpu[0]:.1f}×" if None not in cpu else ""]
        rows.append([name, *sides, *ratios, f"{claim['agree']:.1g}", "yes" if scaled else ""])
    machines = {f"{claim['hardware']['processor']}, {_threads(claim['threads'])}" for claim in claims.values()}
    words = [
        f"- {name}: {claim['words']} {claim['data'][0].upper()}{claim['data'][1:]}.{_quality(claim['facts'])}"
        for name, claim in claims.items()
    ]
    return [
        "## Conventional models: a training epoch, a full evaluation",
        "The usual way is RecBole 1.2.1 (rectools-sasrec: RecTools 0.19.0), in an environment of its own. `agree` is "
        "the largest difference between both sides' results, or what a claim says below; *scaled*: the usual way was "
        "timed on the first batches of its epoch. Where nothing else is said, the quickest of several runs counts (the "
        "usual way of LightGCN and SASRec: one run); processor time depends less on other work on the machine. "
        "`python benchmarks/conventional.py`",
        table_of(["claim", "ours", "usual", "ratio", "of processor time", "agree", "scaled"], rows),
        "\n".join(words),
        f"{'; '.join(sorted(machines))}.",
    ]


def _quality(facts: dict[str, Any]) -> str:
    """What both sides reach after the epochs that were timed, where that was measured."""
    if "usual_ndcg@10" not in facts:
        return ""
    ours, usual = facts["ours_ndcg@10"], facts["usual_ndcg@10"]
    return f" After {facts['epochs']} epochs NDCG@10 was {ours:.3f} (ours) and {usual:.3f}: an epoch is not the same."


def _threads(count: int) -> str:
    return f"{count} thread{'s' * (count > 1)}"


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
        f"{len(found['fields'])} fields, {_threads(found['threads'])}; RMSE on the validation part after that epoch. "
        f"The median ratio is {found['ratio']:.1f}. `python benchmarks/rating.py --deepctr E/bin/python`",
        table_of(["", "ours", "DeepCTR-Torch", "ratio", "RMSE ours", "RMSE DeepCTR-Torch"], rows),
        f"{machine['processor']}, {machine['cores']} cores.",
    ]


def _plan(content: dict[str, Any]) -> list[str]:
    """The section of `benchmarks/plan.py`."""
    rows, known, outside = [], [], []
    for run, found in content["runs"].items():
        for row in found:
            sides = (row["measured"], row["cpu"])
            ratios = [row["predicted"] / side if row["predicted"] and side else None for side in sides]
            known.append(ratios)
            if ratios[0] is None or not 0.5 <= ratios[0] <= 2:
                outside.append(f"{row['stage']} of {run.partition(',')[0]}")
            seconds = ["" if row[key] is None else f"{row[key]:,.0f} s" for key in ("predicted", "measured", "cpu")]
            rows.append([run, row["stage"], *seconds, *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios)])
    others = f" The others by wall time: {', '.join(outside)}." if outside else ""
    wall, processor = (sum(0.5 <= (pair[at] or 0) <= 2 for pair in known) for at in (0, 1))
    device = content["device"]
    return [
        "## tandem plan: predicted and measured",
        f"Every stage of more than {content['longer_than']:.0f} seconds; trainings by the epochs that they took. Of "
        f"{len(known)} stages {wall} are predicted within a factor of two of their wall time, {processor} of their "
        f"processor time.{others} `tandem plan --calibrate`, then `python benchmarks/plan.py --keep RUN …`",
        table_of(["run", "stage", "predicted", "wall", "processor", "ratio to wall", "to processor"], rows),
        f"{device['title']}: {device['flops'] / 1e9:.0f} GFLOP/s, {device['bytes'] / 1e9:.1f} GB/s, "
        f"{device['call'] * 1e6:.0f} µs a call.",
    ]


def _plan_as_run(content: dict[str, Any]) -> list[str]:
    """The section of `benchmarks/plan.py --as-run`."""
    rows, outside, known = [], [], 0
    for run, found in content["runs"].items():
        ratios = {row["stage"]: row["predicted"] / row["cpu"] for row in found if row["predicted"] and row["cpu"]}
        if not ratios:
            continue
        far = {stage: ratio for stage, ratio in ratios.items() if not 0.5 <= ratio <= 2}
        known += len(ratios)
        outside += [f"{stage} of {run.partition(',')[0]} ({ratio:.2f})" for stage, ratio in far.items()]
        middle = f"{statistics.median(ratios.values()):.2f}"
        spread = f"{min(ratios.values()):.2f} to {max(ratios.values()):.2f}"
        rows.append([run, str(len(ratios)), str(len(ratios) - len(far)), middle, spread])
    far_off = f" The others: {', '.join(outside)}." if outside else ""
    return [
        "## tandem plan: what runs foretold themselves",
        f"Predictions that runs made before every stage, by the rates that `tandem plan --calibrate` had measured, for "
        f"the epochs that were taken, beside processor time: other work ran on the machine. Of {known} stages of more "
        f"than {content['longer_than']:.0f} seconds {known - len(outside)} are predicted within a factor of two."
        f"{far_off} Where a stage was killed and continued, runs of that time measured its last attempt alone. "
        "`python benchmarks/plan.py --as-run --keep RUN …`",
        table_of(["run", "stages", "within a factor of two", "median ratio", "least to largest"], rows),
        f"{content['device']['title']}.",
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
        "first users and scaled; the quickest of several attempts counts on either side. It was timed on a "
        "shared machine.",
        table_of(["", "ours", "usual", "ratio", "largest difference", "usual way timed on"], rows),
        f"Conjugate gradients: {solved['iterations']} products, residual {solved['residual']:.0e} at damping "
        f"{solved['damping']:g}. Where nothing is kept, positions are computed again for every product. "
        f"{_machine(content)}",
        table_of(["ours", "users", "time", "peak memory", "of it before it began"], costs),
    ]
