"""A run, from raw logs to a leaderboard. This file is the story; the stages are its chapters."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

from tandemrec.augmentation.augmented import ADDED
from tandemrec.augmentation.preferences import targets_among
from tandemrec.data.dataset import Dataset
from tandemrec.data.examples import Examples
from tandemrec.data.locations import store_root
from tandemrec.data.ratings import Pairs
from tandemrec.data.split import Split
from tandemrec.errors import InputError
from tandemrec.experiment.card import hardware, package_versions, peak_memory_mib
from tandemrec.experiment.choices import Choices
from tandemrec.experiment.costs import stage_cost, stage_id
from tandemrec.experiment.devices import here
from tandemrec.experiment.files import check_folder, write_whole
from tandemrec.experiment.models import System, load_recommender
from tandemrec.experiment.rating_models import check_attributes
from tandemrec.experiment.recipe import Recipe, load_recipe
from tandemrec.experiment.results import collect
from tandemrec.experiment.run_folder import CARD, LATEX, PER_USER, RECIPE, REPORT, RESULTS, artifact_of, read_part
from tandemrec.experiment.selection_facts import selection_facts
from tandemrec.experiment.stages import PER_EXAMPLE, Choice, Stages
from tandemrec.experiment.store import Artifact, StageEvent, Store
from tandemrec.experiment.texts import check_texts
from tandemrec.experiment.trained import trained_elsewhere
from tandemrec.recommender import NO_ITEM, Ranking, RatingPredictor
from tandemrec.report.comparison import comparison_latex
from tandemrec.report.html import run_page
from tandemrec.report.page import markdown_page
from tandemrec.training.processes import process_rank, wait_for_all


def run(
    recipe: Recipe,
    out: Path | None = None,
    *,
    dataset: Dataset | None = None,
    store: Path | None = None,
    listen: Callable[[StageEvent], None] = lambda event: None,
) -> Run:
    """Data, split, models, judgement, leaderboard. Stages that are already in the store are not made again.

    Args:
        recipe: what to do.
        out: where results go; default `runs/NAME`.
        dataset: replaces the recipe's data source (`Dataset.from_frames`).
        store: the artifact store; default `$TANDEMREC_STORE` or a folder in the user's cache directory.
        listen: told what happens to every stage.

    Raises:
        InputError: if something the recipe names is missing or malformed; checked before work starts where possible.
    """
    out = out or Path("runs") / recipe.name
    check(recipe, dataset)
    check_folder(out)
    stages = Stages(Store(store or store_root(), listen), recipe)

    found = walk(stages, dataset)
    results = collect(recipe, found.split, found.data, found.cut, found.judged)
    if process_rank() == 0:
        card = _card(stages, found)
        if found.choices is not None and found.chosen:
            card["selection"] = selection_facts(found.choices, found.chosen, found.split)
        _write(out, recipe, results, card, found.judged)
    wait_for_all()
    return Run.open(out)


@dataclass(frozen=True)
class Walk:
    """The stages of a run.

    Attributes:
        data: the cleaned data.
        split: what all systems are judged on.
        cut: its artifact.
        judged: every system's training and judgement.
        chosen: the examples that systems learn from, by name, where a selector chose them.
        choices: what makes them, where the recipe has selectors.
    """

    data: Artifact
    split: Split
    cut: Artifact
    judged: dict[str, tuple[Artifact, Artifact]]
    chosen: dict[str, Choice]
    choices: Choices | None


def walk(stages: Stages, dataset: Dataset | None = None) -> Walk:
    """Every stage of a recipe in its order: what `run` makes, and what a plan only asks for."""
    recipe = stages.recipe
    data, data_artifact = stages.data(dataset)
    check_attributes(recipe.models, data)
    check_texts(recipe.models, data)
    split, split_artifact = stages.split(data, data_artifact)
    stages.take_trained(split_artifact)
    judged: dict[str, tuple[Artifact, Artifact]] = {}
    known = split.untested()
    choices = None if recipe.selection is None else Choices(stages, recipe.selection, known, split_artifact)
    chosen: dict[str, Choice] = {}
    for name in recipe.training_order():
        selector = recipe.selector_of(name)
        if selector is not None and choices is not None:
            chosen[name] = choices.choose(selector)
        fitted = stages.fit(name, known, split_artifact, chosen.get(name))
        judged[name] = fitted, stages.evaluate(name, split, split_artifact)
    return Walk(data_artifact, split, split_artifact, judged, chosen, choices)


def prepare(
    recipe: Recipe,
    dataset: Dataset | None = None,
    *,
    store: Path | None = None,
    listen: Callable[[StageEvent], None] = lambda event: None,
) -> tuple[Split, list[dict[str, Any]]]:
    """The first two stages only: the split of the cleaned data, and the rows of the cleaning report."""
    check_data(recipe, dataset)
    stages = Stages(Store(store or store_root(), listen), recipe)
    data, artifact = stages.data(dataset)
    return stages.split(data, artifact)[0], artifact.manifest["summary"]["cleaning"]


def judge_again(
    run: Run,
    overrides: Sequence[str] = (),
    *,
    store: Path | None = None,
    listen: Callable[[StageEvent], None] = lambda event: None,
) -> dict[str, Any]:
    """Results of a finished run's systems under other evaluation settings; nothing is trained, nothing overwritten.

    Args:
        run: the finished run.
        overrides: `key=value` of the recipe's `evaluation` part, such as `cutoffs=[1,10,50]`.
        store: where evaluations are kept; default as for `run`.
        listen: told what happens to every stage.
    """
    recipe = load_recipe(run.path / RECIPE, [f"evaluation.{text}" for text in overrides])
    split, stages = run.split(), Stages(Store(store or store_root(), listen), recipe)
    data, cut = run.artifact("data"), run.artifact("split")
    stages.fitted = {name: run.artifact(f"fit:{name}") for name in recipe.models}
    judged = {name: (fitted, stages.evaluate(name, split, cut)) for name, fitted in stages.fitted.items()}
    return collect(recipe, split, data, cut, judged)


def write_report(run: Run, price: float | None = None) -> Path:
    """Write `report.html` (costs in money where a price is given) and `report.tex` of a finished run again.

    Args:
        run: the finished run.
        price: of an hour of the machine.

    Raises:
        InputError: if the run was made by a version whose results lack what the report shows.
    """
    if "examples" not in run.results or "systems" not in run.card:
        raise InputError(f"{run.path} is of an older version; `tandem run {run.path / RECIPE}` makes it anew")
    (run.path / REPORT).write_text(run_page(run.results, run.card, price), encoding="utf-8")
    (run.path / LATEX).write_text(comparison_latex(run.results), encoding="utf-8")
    return run.path / REPORT


def check_data(recipe: Recipe, dataset: Dataset | None = None) -> None:
    """Refuse a recipe whose data are not there."""
    if dataset is None:
        if recipe.data is None:
            raise InputError(f"recipe '{recipe.name}': key 'data' is missing and no dataset was passed")
        recipe.data.check()


def check(recipe: Recipe, dataset: Dataset | None = None) -> None:
    """Whatever can be refused before work starts: a missing data set, a folder that is no model or no run."""
    check_data(recipe, dataset)
    for name, config in recipe.models.items():
        if name in recipe.trained:
            trained_elsewhere(recipe, name)
        else:
            config.check()


@dataclass(frozen=True)
class Run:
    """A finished run: its results, and its models ready to recommend."""

    path: Path
    results: dict[str, Any]
    card: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> Run:
        """Read a run directory.

        Raises:
            InputError: if it is not one.
        """
        results, card = (read_part(path, name) for name in (RESULTS, CARD))
        return cls(path, results, card)

    @property
    def recipe(self) -> Recipe:
        """The resolved recipe."""
        return load_recipe(self.path / RECIPE)

    def dataset(self) -> Dataset:
        """The cleaned data."""
        return Dataset.load(self.artifact("data").path)

    def split(self) -> Split:
        """The split all systems were judged on."""
        return Split.load(self.artifact("split").path, self.dataset())

    def trainer(self, system: str) -> Run:
        """The run that trained a system: this one, or that which it was taken from."""
        other = self.recipe.trained.get(system)
        return self if other is None else Run.open(other).trainer(system)

    def lesson(self, system: str) -> Split:
        """The split with the training examples that a system learned from: all, or those that its selector chose."""
        trainer = self.trainer(system)
        if trainer is not self:
            return trainer.lesson(system)
        split = self.split()
        if self.recipe.selector_of(system) is None:
            return split
        return Choice(self.artifact(f"choice:{system}"), ()).lesson(split)

    def model(self, name: str | None = None) -> System:
        """A trained system by its name on the leaderboard; default: its first row."""
        name = name or self.results["leaderboard"][0]["system"]
        if name not in self.card["models"]:
            raise InputError(f"{self.path} has no system '{name}', it has: {', '.join(self.card['models'])}")
        return load_recommender(self.recipe.models[name], self.artifact(f"fit:{name}").path, self.model)

    def recommend(self, user: str, k: int = 10, system: str | None = None) -> tuple[list[str], pl.DataFrame]:
        """What a system recommends to a user after everything the user did; rating predictors: what they rate best.

        Returns:
            The titles of the user's history, oldest first, and a frame of rank, item_id, title, score.

        Raises:
            InputError: if the user is not in the data.
        """
        data = self.dataset()
        matches = data.users["user_id"].index_of(user)
        if matches is None:
            raise InputError(
                f"user '{user}' is not among the {data.n_users:,} users of this run (after cleaning), "
                f"such as '{data.users['user_id'][0]}'"
            )
        start, stop = data.user_offsets[matches : matches + 2]
        history = data.interactions["item"][int(start) : int(stop)].to_list()
        model = self.model(system)
        if isinstance(model, RatingPredictor):
            ranking = _best_rated(model, matches, history, data.n_items, k)
        else:
            ranking = model.rank(Examples.from_histories([history], [matches]), k)
        items = [int(item) for item in ranking.items[0] if item != NO_ITEM]
        frame = pl.DataFrame(
            {
                "rank": range(1, len(items) + 1),
                "item_id": data.items["item_id"].gather(items),
                "title": [data.titles[item] for item in items],
                "score": ranking.scores[0][: len(items)],
            }
        )
        return [data.titles[item] for item in history], frame

    def artifact(self, stage: str) -> Artifact:
        """A stage's artifact, such as `data`, `split` or `fit:NAME`.

        Raises:
            InputError: if it is gone or damaged.
        """
        return artifact_of(self.path, self.card, stage)


def _best_rated(model: RatingPredictor, user: int, history: list[int], n_items: int, k: int) -> Ranking:
    """The K new items of the highest predicted rating; of equal ones the lower id comes first."""
    items = np.setdiff1d(np.arange(n_items, dtype=np.int32), np.array(history, np.int32))
    predicted = model.predict(Pairs(np.full(len(items), user, np.int32), items))
    best = np.argsort(-predicted, kind="stable")[:k]
    return Ranking(items[None, best], predicted[None, best])


def _card(stages: Stages, found: Walk) -> dict[str, Any]:
    judged, chosen = found.judged, found.chosen
    artifacts = {"data": found.data, "split": found.cut}
    for fitted, evaluated in judged.values():
        artifacts |= {fitted.name: fitted, evaluated.name: evaluated}
    artifacts |= {f"choice:{student}": choice.artifact for student, choice in chosen.items()}
    prepared = stages.prepared
    for kind in ("distil", "instructions", "augmentation", "lists", "semantic_ids", "thoughts", "item_vectors"):
        artifacts |= {f"{kind}:{name}": artifact for name, artifact in prepared[kind].items()}
    device = here()
    costs = [stage_cost(artifact, device) for artifact in stages.made]
    taken = {stage["id"]: stage for found in stages.trained.values() for stage in found.stages}
    costs += [stage for name, stage in taken.items() if all(name != other["id"] for other in costs)]
    return {
        "packages": package_versions(),
        "hardware": hardware(),
        "peak_memory_mib": max([peak_memory_mib(), *(stage["peak_memory_mib"] or 0.0 for stage in costs)]),
        "stages": costs,
        "systems": {
            name: {
                "training": stages.needs[name],
                "judging": stage_id(evaluated),
            }
            for name, (_, evaluated) in judged.items()
        },
        "models": {name: fitted.manifest["summary"] for name, (fitted, _) in judged.items()},
        "trained": {name: found.facts() for name, found in stages.trained.items()},
        "distilled": {student: answers.manifest["summary"] for student, answers in prepared["distil"].items()},
        "taught": {
            student: roles | (prepared["lists"][student].manifest["summary"] if student in prepared["lists"] else {})
            for student, roles in stages.recipe.students().items()
        },
        "thoughts": {name: written.manifest["summary"] for name, written in prepared["thoughts"].items()},
        "augmented": {name: _added(artifact, found.split) for name, artifact in prepared["augmentation"].items()},
        "chosen": {
            student: {
                "selector": stages.recipe.selector_of(student),
                "examples": len(choice.rows),
                "seconds": round(choice.seconds, 3),
            }
            for student, choice in chosen.items()
        },
        "artifacts": {name: str(artifact.path.resolve()) for name, artifact in artifacts.items()},
    }


def _added(artifact: Artifact, split: Split) -> dict[str, Any]:
    """What a language model was asked and added; of items that it chose among, how often one was a test target, which
    is legal, but worth knowing.
    """
    frame, summary = pl.read_parquet(artifact.path / ADDED), dict(artifact.manifest["summary"])
    if "offered" in frame.columns:
        summary["offered_test_items"] = targets_among(frame, split.test, split.n_items)
    return summary


def _write(
    out: Path,
    recipe: Recipe,
    results: dict[str, Any],
    card: dict[str, Any],
    judged: dict[str, tuple[Artifact, Artifact]],
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / RESULTS).unlink(missing_ok=True)  # what says that a run is finished goes first and comes last
    tree = recipe.model_dump(mode="json")
    (out / RECIPE).write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), encoding="utf-8")
    frames = [
        pl.read_parquet(evaluated.path / PER_EXAMPLE).select(pl.lit(name).alias("system"), pl.all())
        for name, (_, evaluated) in judged.items()
    ]
    pl.concat(frames).write_parquet(out / PER_USER)
    (out / CARD).write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / "report.md").write_text(markdown_page(results, card), encoding="utf-8")
    (out / LATEX).write_text(comparison_latex(results), encoding="utf-8")
    (out / REPORT).write_text(run_page(results, card), encoding="utf-8")
    write_whole(out / RESULTS, results)
