"""Systems of several runs: which are repetitions of one training, which only share a name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from tandemrec.errors import InputError
from tandemrec.experiment.recipe import Recipe
from tandemrec.experiment.run import Run
from tandemrec.experiment.run_folder import PER_USER


@dataclass
class Pooled:
    """A system with the runs that trained it, all with the same settings.

    Attributes:
        name: as in the runs' leaderboards.
        settings: its part of the recipe, flat: `training.epochs` → 3.
        runs: by the name of the repetition, which is the training seed.
        frames: one row an example, all in the same order, by the name of the repetition.
    """

    name: str
    settings: dict[str, Any]
    runs: dict[str, Run] = field(default_factory=dict)
    frames: dict[str, pl.DataFrame] = field(default_factory=dict)


def check_comparable(runs: Sequence[Run]) -> None:
    """Refuse runs that were not judged on the same questions in the same way.

    Raises:
        InputError: naming the two runs, what differs, and how.
    """
    first = runs[0]
    for run in runs[1:]:
        for what, ours, theirs in zip(_FACTS, _facts(first), _facts(run), strict=True):
            if ours != theirs:
                found = f"found {_unlike(ours, theirs)} and {_unlike(theirs, ours)}"
                raise InputError(f"{first.path} and {run.path} cannot be compared: their {what} differ, {found}")


def pool(runs: Sequence[Run]) -> dict[str, Pooled]:
    """Every system by its label: its name, and where runs mean different systems by it, the settings that differ.

    Raises:
        InputError: if runs judge different users, or one training has two results.
    """
    found: dict[str, Pooled] = {}
    several_seeds = len({run.results["seed"] for run in runs}) > 1
    asked: pl.DataFrame | None = None
    for run in runs:
        recipe = run.recipe
        for name, frame in _frames(run):
            seeds = _seeds(run, name)
            repeat = ".".join(map(str, seeds)) if several_seeds else str(seeds[1])
            questions = frame.select("example", "user")
            asked = questions if asked is None else asked
            if not questions.equals(asked):
                raise InputError(f"{runs[0].path} and {run.path} cannot be compared: they judge different users")
            settings = _flat(recipe.models[name].model_dump(mode="json") | _choice(recipe, name))
            system = found.setdefault(f"{name} {_identity(recipe, name)}", Pooled(name, settings))
            if repeat in system.frames and not system.frames[repeat].equals(frame):
                raise InputError(
                    f"{system.runs[repeat].path} and {run.path} cannot be compared: '{name}' has equal settings and "
                    f"seeds in both but other results, so they were made by different versions of the code"
                )
            system.runs.setdefault(repeat, run)
            system.frames.setdefault(repeat, frame)
    return _labelled(found.values())


def _seeds(run: Run, name: str) -> tuple[int, int]:
    """Seed and training seed of the run that trained a system."""
    facts = run.card.get("trained", {}).get(name, run.results)
    return facts["seed"], facts.get("training_seed", facts["seed"])


def _frames(run: Run) -> Iterable[tuple[str, pl.DataFrame]]:
    """Every system's rows of the run's `per_user.parquet`, sorted by example."""
    try:
        frame = pl.read_parquet(run.path / PER_USER)
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{run.path / PER_USER} cannot be read: {reason}; expected the table a run writes") from None
    for name in frame["system"].unique(maintain_order=True):
        yield name, frame.filter(pl.col("system") == name).drop("system").sort("example")


_FACTS = ("data", "splits", "seeds of drawn examples", "tasks", "protocols of evaluation")


def _facts(run: Run) -> tuple[object, ...]:
    """What must be equal, in the order of `_FACTS`."""
    results, split, judged = run.results, run.recipe.split, run.results["evaluation"]
    sampled = any(size is not None for size in split.sample.model_dump().values())
    return (
        f"{results['data']['name']} {results['data']['fingerprint'][:12]}",
        {"protocol in words": results["split"]["protocol"]} | split.model_dump(mode="json"),
        results["seed"] if sampled else None,
        judged.get("task", "ranking"),
        f"{judged['part']} part, {judged['n']:,} examples. {judged['protocol']}",
    )


def _unlike(fact: object, other: object) -> object:
    """A fact, or of several those that the other has otherwise."""
    if not isinstance(fact, dict) or not isinstance(other, dict):
        return fact
    return ", ".join(f"{key} '{value}'" for key, value in fact.items() if other.get(key) != value)


def _identity(recipe: Recipe, name: str) -> str:
    """Everything in the recipe that a system depends on: its settings, the choice that it learns from, and those of
    the systems that it and the choice build on.
    """
    config, selector = recipe.models[name], recipe.selector_of(name)
    judges = () if selector is None else recipe.judges(selector)
    partners = {partner: _identity(recipe, partner) for partner in (*config.partners(), *judges)}
    return json.dumps([config.model_dump(mode="json"), _choice(recipe, name), partners], sort_keys=True)


def _choice(recipe: Recipe, name: str) -> dict[str, Any]:
    """The settings of the selector whose choice a system learns from; empty for one that learns from everything."""
    selector, selection = recipe.selector_of(name), recipe.selection
    if selector is None or selection is None:
        return {}
    named = selection.language_model_of(selector)
    return {
        "selection": {
            "selector": selection.selectors[selector].model_dump(mode="json")
            | {"budget": selection.budget_of(selector)},
            "loss": selection.loss.model_dump(mode="json"),
            "effort": selection.effort.model_dump(mode="json"),
            "language_model": None if named is None else recipe.models[named].model_dump(mode="json"),
        }
    }


def _labelled(systems: Iterable[Pooled]) -> dict[str, Pooled]:
    named: dict[str, list[Pooled]] = {}
    for system in systems:
        named.setdefault(system.name, []).append(system)
    labelled = {}
    for name, variants in named.items():
        keys = {key for system in variants for key in system.settings}
        differing = [key for key in sorted(keys) if len({str(system.settings.get(key)) for system in variants}) > 1]
        for system in variants:
            told = ", ".join(f"{key}={system.settings.get(key)}" for key in differing)
            label = name if len(variants) == 1 else f"{name} ({told})"
            if label in labelled or (len(variants) > 1 and not told):  # what differs lies in what it builds on
                label = f"{name} ({next(iter(system.runs.values())).path})"
            labelled[label] = system
    return labelled


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
