"""The trials of a search: drawn by Optuna, trained or found in the artifact store, and told to Optuna again.

A trial draws from a seed of its own and from what came of the trials before it, so every replay has the same trials.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.experiment.code_version import code_version
from tandemrec.experiment.models import Materials, code_rooms, make_recommender
from tandemrec.experiment.search_space import Dimension, Setting, TuningConfig, ends, setting, with_settings
from tandemrec.experiment.seeds import derive_seed
from tandemrec.experiment.stages import Stages, judge, training_content
from tandemrec.experiment.store import Artifact
from tandemrec.training import watched
from tandemrec.training.watch import Curve

if TYPE_CHECKING:
    import optuna

TRIAL = "trial.json"
"""What came of a trial."""

BEFORE_FIGURES = ("epoch", "loss")
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


@dataclass
class Search:
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
        artifact = self.stages.get(f"tune:{self.config.model}", *self._stage(watcher, settings))
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
            "split": training_content(self.cut),
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
            figure = next(value for key, value in row.items() if key not in BEFORE_FIGURES)
            self.asked.report(figure, int(row["epoch"]))
        self.reported = len(curve)
