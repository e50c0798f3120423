"""`tandem compare`: finished runs side by side, repetitions of a training pooled, every pair of systems tested."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tandemrec.errors import InputError
from tandemrec.evaluation.comparison import ComparisonConfig, Repeats, compare_systems, mean_and_errors, user_values
from tandemrec.evaluation.cost import system_cost
from tandemrec.experiment.card import machine_words
from tandemrec.experiment.files import check_folder, write_whole
from tandemrec.experiment.pooling import Pooled, check_comparable, pool
from tandemrec.experiment.run import Run
from tandemrec.report.comparison import comparison_latex, comparison_markdown
from tandemrec.report.cost import Cost, mean_cost
from tandemrec.report.html import comparison_page
from tandemrec.report.leaderboard import headline_metrics

COMPARISON = "compare.json"


def compare(
    paths: Sequence[Path],
    out: Path | None = None,
    *,
    metric: str | None = None,
    price: float | None = None,
    config: ComparisonConfig | None = None,
) -> dict[str, Any]:
    """Compare the systems of finished runs and write `compare.json`, `.html`, `.md` and `.tex`.

    Runs that differ in their training seed only are repetitions: their systems are pooled.

    Args:
        paths: folders of runs, at least one.
        out: where the files go; None writes nothing.
        metric: what pairs are tested on; default: the headline of the first run.
        price: of an hour of the machine, for the costs.
        config: level, resamples, power, seed.

    Returns:
        JSON-able: `runs`, `data`, `split`, `evaluation`, `settings`, `leaderboard` (best first), `pairs`, `resolvable`,
        and `costs` of the systems whose runs tell them.

    Raises:
        InputError: if runs were not judged on the same questions in the same way, or lack the metric.
    """
    config = config or ComparisonConfig()
    if out is not None:
        check_folder(out)
    runs = [Run.open(path) for path in paths]
    if not runs:
        raise InputError("there is no run to compare, expected the folders of finished runs")
    check_comparable(runs)
    facts = runs[0].results["evaluation"]
    metric = metric or facts["headline"]
    measured = [headline_metrics(run.results) for run in runs]
    metrics = [name for name in measured[0] if all(name in others for others in measured)]
    if metric not in metrics:
        raise InputError(f"metric '{metric}' was not measured by all runs, they share: {', '.join(metrics)}")
    results = {
        "runs": [_run_facts(run) for run in runs],
        "data": runs[0].results["data"],
        "split": runs[0].results["split"],
        "evaluation": {"task": "ranking"} | facts | {"headline": metric},
        "settings": config.model_dump(mode="json"),
        "price": price,
    }
    pooled = pool(runs)
    results |= _judged(pooled, metric, metrics, lower_is_better=facts.get("task") == "rating", config=config)
    _add_segments(results["leaderboard"], pooled, metric)
    costs = _costs(pooled, results["users"], price)
    results["costs"] = {row["system"]: costs[row["system"]] for row in results["leaderboard"] if row["system"] in costs}
    if out is not None:
        _write(out, results, runs[0])
    return results


def _judged(
    pooled: dict[str, Pooled], metric: str, metrics: Sequence[str], *, lower_is_better: bool, config: ComparisonConfig
) -> dict[str, Any]:
    values = {name: _values(pooled, name) for name in metrics}
    judged = compare_systems(values[metric], config)
    rows: list[dict[str, Any]] = [
        {"system": system}
        | {key: found[key] for key in ("repetitions", "low", "high")}
        | {"metrics": {name: mean_and_errors(values[name][system]) for name in metrics}}
        for system, found in judged["systems"].items()
    ]
    rows.sort(key=lambda row: row["metrics"][metric]["mean"], reverse=not lower_is_better)
    users = len(next(iter(values[metric][rows[0]["system"]].values())))
    return {"users": users, "leaderboard": rows, "pairs": judged["pairs"], "resolvable": judged["resolvable"]}


def _add_segments(rows: list[dict[str, Any]], pooled: dict[str, Pooled], metric: str) -> None:
    """The metric by user activity and item popularity, mean of a system's repetitions; only where all runs cut the same
    groups of this metric.
    """
    found = {label: [_segments(run, system.name) for run in system.runs.values()] for label, system in pooled.items()}
    shapes = {json.dumps(_groups(segments)) for several in found.values() for segments in several}
    measured = all(
        metric in group for several in found.values() for s in several for groups in s.values() for group in groups
    )
    if len(shapes) > 1 or not measured:
        return
    for row in rows:
        several = found[row["system"]]
        row["segments"] = {
            name: [
                group | {metric: _mean_of([segments[name][place][metric] for segments in several])}
                for place, group in enumerate(groups)
            ]
            for name, groups in several[0].items()
        }


def _segments(run: Run, system: str) -> dict[str, list[dict[str, Any]]]:
    row = next(row for row in run.results["leaderboard"] if row["system"] == system)
    return dict(row.get("segments") or {})


def _groups(segments: dict[str, list[dict[str, Any]]]) -> dict[str, list[list[int]]]:
    return {
        name: [[group[key] for key in ("from", "to", "n")] for group in groups] for name, groups in segments.items()
    }


def _mean_of(figures: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of repetitions, with their mean standard error over users."""
    return {key: sum(figure[key] for figure in figures) / len(figures) for key in figures[0]}


def _costs(pooled: dict[str, Pooled], users: int, price: float | None) -> dict[str, Cost]:
    """Mean cost of every system over its repetitions, where all their run cards say what it took."""
    costs = {}
    for label, system in pooled.items():
        found = [system_cost(run.card, system.name, users=users, price=price) for run in system.runs.values()]
        known = [cost for cost in found if cost is not None]
        if len(known) == len(found):
            costs[label] = mean_cost(known)
    return costs


def _values(pooled: dict[str, Pooled], metric: str) -> dict[str, Repeats]:
    return {
        label: {repeat: user_values(frame, metric) for repeat, frame in system.frames.items()}
        for label, system in pooled.items()
    }


def _run_facts(run: Run) -> dict[str, Any]:
    seed = run.results["seed"]
    return {
        "path": str(run.path),
        "name": run.results["name"],
        "seed": seed,
        "training_seed": run.results.get("training_seed", seed),
        "machine": machine_words(run.card["hardware"]),
    }


def _write(out: Path, results: dict[str, Any], first: Run) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "compare.md").write_text(comparison_markdown(results), encoding="utf-8")
    (out / "compare.html").write_text(comparison_page(results, (first.results, first.card)), encoding="utf-8")
    (out / "compare.tex").write_text(comparison_latex(results), encoding="utf-8")
    write_whole(out / COMPARISON, results)
