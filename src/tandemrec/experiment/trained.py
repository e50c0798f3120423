"""Systems that another run trained: taken as they are, after a look at whether they learned from the same data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tandemrec.errors import InputError
from tandemrec.experiment.recipe import Recipe, load_recipe
from tandemrec.experiment.run_folder import CARD, RECIPE, RESULTS, artifact_of, read_part
from tandemrec.experiment.store import Artifact


@dataclass(frozen=True)
class Trained:
    """What another run says of a system that it trained.

    Attributes:
        run: its folder.
        card: its `run_card.json`.
        name: of the system.
        seeds: `seed` and `training_seed` of that run.
    """

    run: Path
    card: Mapping[str, Any]
    name: str
    seeds: tuple[int, int]

    @property
    def stages(self) -> list[dict[str, Any]]:
        """Every stage that training it took, as that run's card has them."""
        needed = self.card["systems"][self.name]["training"]
        return [stage for stage in self.card["stages"] if stage["id"] in needed]

    def fitted(self) -> Artifact:
        """The trained system.

        Raises:
            InputError: if it is gone or damaged.
        """
        return artifact_of(self.run, self.card, f"fit:{self.name}")

    def split(self) -> Artifact:
        """What it learned from; raises likewise."""
        return artifact_of(self.run, self.card, "split")

    def facts(self) -> dict[str, Any]:
        """For the card of the run that takes it."""
        return {"run": str(self.run), "seed": self.seeds[0], "training_seed": self.seeds[1]}


def trained_elsewhere(recipe: Recipe, name: str) -> Trained:
    """A system of `recipe.trained`.

    Raises:
        InputError: if there is no such run, it has no such system, or trained it with other settings.
    """
    folder = recipe.trained[name]
    card, results = (read_part(folder, part) for part in (CARD, RESULTS))
    theirs = load_recipe(folder / RECIPE)
    if theirs.models.get(name) != recipe.models[name]:
        what = "has no system" if name not in theirs.models else "has other settings of"
        raise InputError(f"key 'trained.{name}': {folder} {what} '{name}'; leave it out of 'models' to have those")
    if "systems" not in card:
        raise InputError(f"{folder} is of an older version; `tandem run {folder / RECIPE}` makes it anew")
    return Trained(folder, card, name, _seeds_of(card, name) or (results["seed"], results["training_seed"]))


def _seeds_of(card: Mapping[str, Any], name: str) -> tuple[int, int] | None:
    """Seeds of the run that trained a system which this one took from there."""
    facts = card.get("trained", {}).get(name)
    return None if facts is None else (facts["seed"], facts["training_seed"])
