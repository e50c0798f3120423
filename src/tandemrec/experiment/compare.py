"""`tandem compare`: finished runs side by side, repetitions of a training pooled, every pair of systems tested."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tandemrec.errors import InputError
from tandemrec.evaluation.comparison import ComparisonConfig, Repeats, compare_systems, mean_and_errors, user_values
from tandemrec.experiment.pooling import Pooled, check_comparable, pool
from tandemrec.experiment.run import Run
from tandemrec.experiment.store import write_whole
from tandemrec.report.comparison import comparison_latex, comparison_markdown
from tandemrec.report.leaderboard import headline_metrics

COMPARISON = "compare.json"


def compare(
    paths: Sequence[Path],
    out: Path | None = None,
    *,
    metric: str | None = None,
    config: ComparisonConfig | None = None,
) -> dict[str, Any]:
    """Compare the systems of finished runs and write `compare.json`, `compare.md` and `compare.tex`.

    Runs that differ in their training seed only are repetitions: their systems are pooled.

    Args:
        paths: folders of runs, at least one.
        out: where the files go; None writes nothing.
        metric: what pairs are tested on; default: the headline of the first run.
        config: level, resamples, power, seed.

    Returns:
        JSON-able: `runs`, `data`, `split`, `evaluation`, `settings`, `leaderboard` (best first), `pairs`, `resolvable`.

    Raises:
        InputError: if runs were not judged on the same questions in the same way, or lack the metric.
    """
    config = config or ComparisonConfig()
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
    } | _judged(pool(runs), metric, metrics, lower_is_better=facts.get("task") == "rating", config=config)
    if out is not None:
        _write(out, results)
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
    }


def _write(out: Path, results: dict[str, Any]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "compare.md").write_text(comparison_markdown(results), encoding="utf-8")
    (out / "compare.tex").write_text(comparison_latex(results), encoding="utf-8")
    write_whole(out / COMPARISON, results)
