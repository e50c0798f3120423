"""`tandem tune`: search one model's settings on the validation part.

Every trial is a stage of the artifact store, and the search is replayed from them: one that was killed goes on with the
same trials, the broken-off training from its last checkpoint. No trial is handed the test part.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from tandemrec.data.dataset import Dataset
from tandemrec.data.locations import store_root
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.experiment.files import check_folder
from tandemrec.experiment.models import CONVENTIONAL
from tandemrec.experiment.rating_models import RATING
from tandemrec.experiment.recipe import Recipe, load_recipe
from tandemrec.experiment.run import check
from tandemrec.experiment.search import Search, Trial
from tandemrec.experiment.search_space import Dimension, Setting, TuningConfig, search_space, with_settings
from tandemrec.experiment.stages import Stages
from tandemrec.experiment.store import StageEvent, Store
from tandemrec.report.tuning import tuning_page, tuning_plot
from tandemrec.training import process_rank, wait_for_all

TRIALS, PAGE, PLOT, BEST, RESULTS = "trials.parquet", "trials.md", "trials.svg", "best.yaml", "tuning.json"


@dataclass(frozen=True)
class Tuning:
    """A finished search: its trials, the best of them, and where the files are."""

    path: Path
    results: dict[str, Any]
    trials: list[Trial]


def tune(
    recipe: Recipe,
    out: Path | None = None,
    *,
    dataset: Dataset | None = None,
    store: Path | None = None,
    listen: Callable[[StageEvent], None] = lambda event: None,
    tell: Callable[[Trial, TuningConfig], None] = lambda trial, config: None,
) -> Tuning:
    """Search the space of the recipe's `tune` part.

    Writes `trials.parquet` (a row a trial), `trials.md`, `trials.svg`, `tuning.json` and `best.yaml`, the recipe with
    the best setting, which `tandem run` takes.

    Args:
        recipe: with a `tune` part.
        out: where the files go; default `tunings/NAME`.
        dataset: replaces the recipe's data source.
        store: the artifact store.
        listen: told what happens to every stage.
        tell: told every trial when it is finished or found.

    Raises:
        InputError: if the recipe tunes nothing, the model cannot be tuned, a key of the space does not exist, or all
            trials failed.
    """
    config = recipe.tune
    if config is None:
        raise InputError(f"recipe '{recipe.name}': key 'tune' is missing, such as tune: {{model: NAME}}")
    space = _checked(recipe, config, dataset)
    path = out or Path("tunings") / recipe.name
    check_folder(path)
    stages = Stages(Store(store or store_root(), listen), recipe)
    data, data_artifact = stages.data(dataset)
    split, cut = stages.split(data, data_artifact)
    search = Search(stages, config, space, split.untested(), cut)
    trials = []
    for number in range(1, config.trials + 1):
        trials.append(search.trial(number))
        tell(trials[-1], config)
    results = _results(recipe, config, space, split, trials)
    if process_rank() == 0:
        _write(path, recipe, config, space, results, trials)
    wait_for_all()
    return Tuning(path, results, trials)


def _checked(recipe: Recipe, config: TuningConfig, dataset: Dataset | None) -> dict[str, Dimension]:
    """The space, after refusing whatever can be refused before work starts."""
    for package in ("optuna", "matplotlib"):
        if find_spec(package) is None:
            raise InputError(
                f"`tandem tune` needs the library '{package}', which is not installed: pip install 'tandemrec[tune]'"
            )
    model = recipe.models[config.model]
    if type(model) not in CONVENTIONAL | RATING:
        raise InputError(
            f"key 'tune.model': '{config.model}' writes titles or builds on other models, expected a conventional one"
        )
    check(recipe.model_copy(update={"models": {config.model: model}}), dataset)
    return search_space(model, config.space)


def _results(
    recipe: Recipe, config: TuningConfig, space: Mapping[str, Dimension], split: Split, trials: list[Trial]
) -> dict[str, Any]:
    """No times and no paths: equal searches give equal results."""
    judged = recipe.evaluation
    complete = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    if not complete:
        raise InputError(f"all {len(trials)} trials failed, the last one because {trials[-1].reason}")
    choose = min if judged.lower_is_better else max
    best = choose(complete, key=lambda trial: trial.value or 0.0)
    return {
        "name": recipe.name,
        "model": config.model,
        "seed": recipe.seed,
        "headline": judged.headline,
        "lower_is_better": judged.lower_is_better,
        "part": "valid",
        "protocol": f"{split.protocol}. {judged.protocol()}",
        "space": {key: dimension.model_dump(mode="json", exclude_defaults=True) for key, dimension in space.items()},
        "states": {state: sum(trial.state == state for trial in trials) for state in ("complete", "pruned", "failed")},
        "best": {"trial": best.number, "value": best.value, "settings": best.settings},
    }


def tuned_recipe(recipe: Recipe, settings: Mapping[str, Setting]) -> Recipe:
    """The recipe with these settings of the tuned model and nothing left to tune."""
    assert recipe.tune is not None
    name = recipe.tune.model
    models = recipe.models | {name: with_settings(recipe.models[name], settings)}
    tree = recipe.model_copy(update={"models": models, "tune": None}).model_dump(mode="json")
    return load_recipe(tree)


def _write(
    out: Path,
    recipe: Recipe,
    config: TuningConfig,
    space: Mapping[str, Dimension],
    results: dict[str, Any],
    trials: list[Trial],
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "trial": trial.number,
            "state": trial.state,
            results["headline"]: trial.value,
            "epochs": trial.epochs,
            "best_epoch": trial.best_epoch,
            "seconds": trial.seconds,
            "reason": trial.reason,
        }
        | {key: _cell(value) for key, value in trial.settings.items()}
        for trial in trials
    ]
    pl.DataFrame(rows, infer_schema_length=None, strict=False).write_parquet(out / TRIALS)
    (out / PAGE).write_text(tuning_page(results, rows), encoding="utf-8")
    tuning_plot(results, rows, out / PLOT)
    best = tuned_recipe(recipe, results["best"]["settings"]).model_dump(mode="json")
    head = (
        f"# Best of {len(trials)} trials of {config.model} by {results['headline']} on the validation part, "
        f"{results['best']['value']:.4f}; searched: {', '.join(space)}\n"
    )
    text = head + yaml.safe_dump(best, sort_keys=False, allow_unicode=True)
    (out / BEST).write_text(text, encoding="utf-8")
    draft = out / f"{RESULTS}.draft"
    draft.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(out / RESULTS)


def _cell(value: Setting) -> Any:
    """Lists and missing values as text, so that a column has one type."""
    return value if isinstance(value, bool | int | float | str) else json.dumps(value)
