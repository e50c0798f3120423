"""`tandem tune`: search one model's settings on the validation part.

Every trial is a stage of the artifact store, and the search is replayed from them: a trial draws from a seed of its own
and from the trials before it, so a search that was killed goes on with the same trials, the broken-off training from
its last checkpoint. No trial is handed the test part.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import yaml

from tandemrec.data.dataset import Dataset
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.experiment.code_version import code_version
from tandemrec.experiment.models import CONVENTIONAL, Materials, code_rooms, make_recommender
from tandemrec.experiment.rating_models import RATING
from tandemrec.experiment.recipe import Recipe, load_recipe
from tandemrec.experiment.run import check
from tandemrec.experiment.search_space import (
    Dimension,
    Setting,
    TuningConfig,
    ends,
    search_space,
    setting,
    with_settings,
)
from tandemrec.experiment.seeds import derive_seed
from tandemrec.experiment.stages import Stages, judge
from tandemrec.experiment.store import Artifact, StageEvent, Store, default_root
from tandemrec.report.tuning import tuning_page, tuning_plot
from tandemrec.training import process_rank, wait_for_all, watched
from tandemrec.training.watch import Curve

if TYPE_CHECKING:
    import optuna

TRIAL = "trial.json"
TRIALS, PAGE, PLOT, BEST, RESULTS = "trials.parquet", "trials.md", "trials.svg", "best.yaml", "tuning.json"
FIGURES_AFTER = ("epoch", "loss")
"""Columns of a curve that stand before the validation figures."""


@dataclass(frozen=True)
class Trial:
    """One setting and what came of it.

    Attributes:
        number: from 1.
        settings: the values of the searched keys.
        state: `complete`, `pruned` (ended early), or `failed` (the model refused the setting or diverged).
        value: the headline metric on the validation part; None where it failed.
        epochs: how many were trained, and which one was kept; None for models without epochs.
        reason: why it failed.
        curve: validated epochs.
    """

    number: int
    settings: dict[str, Setting]
    state: str
    value: float | None
    epochs: int
    best_epoch: int | None
    reason: str
    curve: list[dict[str, float]]
    seconds: float


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
    stages = Stages(Store(store or default_root(), listen), recipe)
    data, data_artifact = stages.data(dataset)
    split, cut = stages.split(data, data_artifact)
    search = _Search(stages, config, space, replace(split, test=split.test.take(slice(0, 0))), cut)
    trials = []
    for number in range(1, config.trials + 1):
        trials.append(search.trial(number))
        tell(trials[-1], config)
    path = out or Path("tunings") / recipe.name
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


@dataclass
class _Search:
    """The trials of one search over one split without a test part."""

    stages: Stages
    config: TuningConfig
    space: Mapping[str, Dimension]
    split: Split
    cut: Artifact

    def __post_init__(self) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.model = self.stages.recipe.models[self.config.model]
        self.evaluation = self.stages.recipe.evaluation.model_copy(update={"part": "valid"})
        self.sign = -1.0 if self.evaluation.lower_is_better else 1.0
        pruning = self.config.pruning
        self.study = optuna.create_study(
            direction="maximize",
            pruner=optuna.pruners.NopPruner()
            if pruning is None
            else optuna.pruners.PercentilePruner(
                pruning.percentile, n_startup_trials=pruning.startup_trials, n_warmup_steps=pruning.warmup_epochs
            ),
        )
        self.study.enqueue_trial(self._own_settings())
        self.before: list[str] = []

    def trial(self, number: int) -> Trial:
        """The next trial: drawn, trained or found in the store, and told to the study."""
        import optuna

        seed = derive_seed(self.config.seed, f"trial:{number}")
        startup = self.config.startup_trials
        self.study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup)
        asked = self.study.ask()
        settings = {key: self._draw(asked, key) for key in self.space}
        watcher = _Watcher(asked, self.config)
        artifact = self.stages.extra(f"tune:{self.config.model}", *self._stage(watcher, settings))
        record = json.loads((artifact.path / TRIAL).read_text())
        self.before.append(artifact.content)
        watcher.catch_up(record["curve"])
        states = optuna.trial.TrialState
        if record["state"] == "complete":
            self.study.tell(asked, self.sign * record["value"])
        else:
            self.study.tell(asked, state=states.PRUNED if record["state"] == "pruned" else states.FAIL)
        return Trial(number, settings, seconds=artifact.seconds, **record)

    def _stage(
        self, watcher: _Watcher, settings: Mapping[str, Setting]
    ) -> tuple[dict[str, Any], Callable[[Path, Path], None]]:
        """What a trial depends on, and how it is made."""
        recipe, name = self.stages.recipe, self.config.model
        seed = recipe.fit_seed(name)

        def make(draft: Path, work: Path) -> None:
            try:
                record = self._trained(settings, seed, work, watcher)
            except (InputError, ValueError) as error:  # a refused combination, scores that are not numbers
                record = {"state": "failed", "value": None, "epochs": 0, "best_epoch": None, "reason": str(error)}
                record["curve"] = []
            (draft / TRIAL).write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")

        depends = {
            "split": self.cut.content,
            "base": self.model.model_dump(mode="json"),
            "settings": dict(settings),
            "evaluation": self.evaluation.model_dump(mode="json"),
            "pruning": self.config.pruning and self.config.pruning.model_dump(mode="json"),
            # Which trials end early depends on those before them.
            "before": self.before[:] if self.config.pruning else [],
            "seed": seed,
            "code": code_version(*code_rooms(self.model), "evaluation"),
        }
        return depends, make

    def _trained(self, settings: Mapping[str, Setting], seed: int, work: Path, watcher: _Watcher) -> dict[str, Any]:
        config = with_settings(self.model, settings)
        system = make_recommender(config, Materials(None, None, {}, self.stages.load))
        with watched(watcher):
            report = system.fit(self.split, seed=seed, workspace=work)
        value = judge(system, self.split, self.evaluation).metrics[self.evaluation.headline]["mean"]
        if not math.isfinite(value):
            raise ValueError(f"{self.evaluation.headline} is {value}")
        return {
            "state": "pruned" if watcher.pruned else "complete",
            "value": value,
            "epochs": report.epochs,
            "best_epoch": report.best_epoch,
            "reason": "",
            "curve": [{key: value for key, value in row.items() if key != "seconds"} for row in report.curve],
        }

    def _draw(self, asked: optuna.Trial, key: str) -> Setting:
        dimension = self.space[key]
        if dimension.choices is not None:
            place: int = asked.suggest_categorical(key, range(len(dimension.choices)))
            return dimension.choices[place]
        low, high = ends(self.model, key, dimension)
        drawn: float
        if isinstance(low, int) and isinstance(high, int):
            drawn = asked.suggest_int(key, low, high, log=dimension.log)
        else:
            drawn = asked.suggest_float(key, low, high, log=dimension.log)
        return drawn

    def _own_settings(self) -> dict[str, Any]:
        """The recipe's own values that the space contains, as Optuna writes them."""
        found: dict[str, Any] = {}
        for key, dimension in self.space.items():
            value = setting(self.model, key)
            if dimension.choices is not None:
                if value in dimension.choices:
                    found[key] = dimension.choices.index(value)
            elif isinstance(value, int | float) and (dimension.low or 0.0) <= value <= (dimension.high or 0.0):
                found[key] = value
        return found


class _Watcher:
    """Reports validated epochs to the study, once each, and asks whether the trial should end."""

    def __init__(self, asked: optuna.Trial, config: TuningConfig) -> None:
        self.asked, self.prunes = asked, config.pruning is not None
        self.reported, self.pruned = 0, False

    def __call__(self, curve: Curve) -> bool:
        """Whether training should stop."""
        self.catch_up(curve)
        self.pruned = self.prunes and self.asked.should_prune()
        return self.pruned

    def catch_up(self, curve: Curve) -> None:
        """Report the rows that are new; of their figures the first one, which training maximises."""
        for row in curve[self.reported :]:
            figure = next(value for key, value in row.items() if key not in FIGURES_AFTER)
            self.asked.report(figure, int(row["epoch"]))
        self.reported = len(curve)


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
