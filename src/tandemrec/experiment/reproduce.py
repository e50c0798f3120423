"""`tandem reproduce`: a table or figure of a paper again, its figures beside ours, and what became of its claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from tandemrec.errors import InputError
from tandemrec.evaluation.cost import tuning_seconds
from tandemrec.experiment.claims import judge_claims
from tandemrec.experiment.compare import compare
from tandemrec.experiment.files import check_folder, write_whole
from tandemrec.experiment.fine_tunings import effort
from tandemrec.experiment.papers import Experiment, Scale, elsewhere, experiment_recipe, find_experiment, papers
from tandemrec.experiment.recipe import Recipe
from tandemrec.experiment.reranked import over_seeds
from tandemrec.experiment.run import Run, run
from tandemrec.experiment.selection_facts import coverage_over_seeds
from tandemrec.experiment.store import StageEvent
from tandemrec.report.prepared import id_figures
from tandemrec.report.reproduction import reproduction_markdown, reproduction_page
from tandemrec.report.students import over_trainings
from tandemrec.report.validated import chosen_over_runs
from tandemrec.training.processes import process_rank, wait_for_all

REPRODUCTION = "reproduction.json"
RECIPE = "recipe.yaml"


def reproduce(
    name: str,
    scale: Scale = "scaled",
    *,
    seeds: Sequence[int] | None = None,
    out: Path | None = None,
    store: Path | None = None,
    listen: Callable[[StageEvent], None] = lambda event: None,
) -> dict[str, Any]:
    """Run an experiment once a training seed, compare, and judge the paper's claims.

    Killed, the same call goes on: finished runs are kept, and unfinished ones find their stages in the store.

    Args:
        name: of the experiment, such as `soft/table-2-game`.
        scale: the paper's size, one for a laptop, or one for a test.
        seeds: training seeds; default: the experiment's.
        out: where results go, a folder a seed beside them; default `reproductions/NAME-SCALE`.
        store: the artifact store.
        listen: told what happens to every stage.

    Returns:
        What `reproduction.json` holds.

    Raises:
        InputError: if there is no such experiment, or its data or language model are not there.
    """
    experiment = find_experiment(name)
    seeds = tuple(experiment.size(scale).seeds if seeds is None else seeds)
    if len(set(seeds)) < len(seeds) or not seeds:
        raise InputError(f"seeds must be different and at least one, found {', '.join(map(str, seeds)) or 'none'}")
    out = out or default_out(name, scale)
    paths = []
    for seed in seeds:
        recipe, path = experiment_recipe(name, scale, seed), out / f"seed-{seed}"
        if not holds(path, recipe):
            run(recipe, path, store=store, listen=listen)
        paths.append(path)
    runs = [Run.open(path) for path in paths]
    results: dict[str, Any] = {}
    if process_rank() == 0:
        compared = compare(paths, out, metric=experiment.judged_by)
        results = _results(name, scale, experiment, compared, runs)
        (out / "reproduction.md").write_text(reproduction_markdown(results), encoding="utf-8")
        page = reproduction_page(results, compared, (runs[0].results, runs[0].card))
        (out / "reproduction.html").write_text(page, encoding="utf-8")
        write_whole(out / REPRODUCTION, results)
    wait_for_all()
    return results


def default_out(name: str, scale: str) -> Path:
    """`reproductions/NAME-SCALE`."""
    return Path("reproductions") / f"{name.replace('/', '-')}-{scale}"


def write_recipe(name: str, scale: Scale, out: Path) -> Path:
    """Write the recipe of an experiment at a size, to be read, planned or changed; nothing is run.

    Raises:
        InputError: if there is no such experiment.
    """
    check_folder(out)
    tree = experiment_recipe(name, scale).model_dump(mode="json")
    out.mkdir(parents=True, exist_ok=True)
    (out / RECIPE).write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return out / RECIPE


def holds(path: Path, recipe: Recipe) -> bool:
    """Whether a folder holds a finished run that answers a recipe: data, split, seeds, selection and judgement are the
    same, and so are the settings of all its systems; there may be others beside them.
    """
    try:
        found = Run.open(path).recipe
    except InputError:
        return False
    same = ("seed", "training_seed", "data", "cleaning", "split", "evaluation")
    if any(getattr(found, key) != getattr(recipe, key) for key in same):
        return False
    if any(found.models.get(name) != config for name, config in recipe.models.items()):
        return False
    return recipe.selection is None or _selects(found, recipe)


def _selects(found: Recipe, recipe: Recipe) -> bool:
    mine, theirs = recipe.selection, found.selection
    if mine is None or theirs is None:
        return mine is None
    every = all(theirs.selectors.get(name) == config for name, config in mine.selectors.items())
    return every and mine == theirs.model_copy(update={"selectors": mine.selectors})


def _results(
    name: str, scale: Scale, experiment: Experiment, compared: Mapping[str, Any], runs: Sequence[Run]
) -> dict[str, Any]:
    recipe, paper = experiment_recipe(name, scale), papers()[name.partition("/")[0]]
    shown = [one for one in recipe.models if not any(fnmatchcase(one, part) for part in experiment.parts)]
    board = [row for row in compared["leaderboard"] if row["system"] in shown]
    metrics = [metric for metric in experiment.metrics if all(metric in row["metrics"] for row in board)]
    systems = [
        {
            "system": row["system"],
            "metrics": {metric: row["metrics"][metric] for metric in metrics},
            "published": _published(experiment, row["system"], metrics),
            "seconds": _mean_seconds(runs, row["system"]),
            "seconds_per_1000": compared["costs"].get(row["system"], {}).get("seconds_per_1000"),
        }
        for row in board
    ]
    return {
        "experiment": name,
        "scale": scale,
        "paper": paper.title,
        "shows": experiment.shows,
        "asks": experiment.asks,
        "recipe": experiment.recipe,
        "effort": effort(recipe),
        "differs": experiment.size(scale).differs,
        "note": experiment.note,
        "names": paper.meaning(row["system"] for row in systems),
        "data": compared["data"],
        "split": compared["split"]["protocol"],
        "protocol": compared["evaluation"]["protocol"],
        "users": compared["users"],
        "seeds": [run["training_seed"] for run in compared["runs"]],
        "level": compared["settings"]["level"],
        "power": compared["settings"]["power"],
        "resolvable": compared["resolvable"].get("one_test"),
        "metrics": metrics,
        "judged_by": experiment.judged_by,
        "lower_is_better": compared["evaluation"].get("task") == "rating",
        "systems": systems,
        "absent": {
            system: _published(experiment, system, metrics)
            for system in experiment.published
            if system not in recipe.models
        },
        "elsewhere": elsewhere(name, scale),
        "claims": judge_claims(experiment, compared, runs),
        "rivals": judge_claims(experiment, compared, runs, experiment.against_rivals),
        "chosen_on_validation": chosen_over_runs([run.card for run in runs]),
        "choices": coverage_over_seeds([run.card for run in runs], [row["system"] for row in systems]),
        "semantic_ids": {name: about for name, about in id_figures(runs[0].card).items() if name in shown},
        "rerankings": over_seeds([(run.results, run.card) for run in runs], shown),
        "students": over_trainings([(run.results, run.card) for run in runs]),
        "hardware": runs[0].card["hardware"],
        "machines": list(dict.fromkeys(run["machine"] for run in compared["runs"])),
    }


def _mean_seconds(runs: Sequence[Run], system: str) -> float | None:
    """Training time, a language model as given, over the runs that tell it."""
    told = [seconds for run in runs if (seconds := tuning_seconds(run.card, system)) is not None]
    return sum(told) / len(told) if told else None


def _published(experiment: Experiment, system: str, metrics: Sequence[str]) -> dict[str, float | None]:
    figures = dict(zip(experiment.metrics, experiment.published.get(system, ()), strict=False))
    return {metric: figures.get(metric) for metric in metrics}
